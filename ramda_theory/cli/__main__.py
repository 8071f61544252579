"""``python -m ramda_theory.cli``, as ``python -m ramda_theory``."""

import sys

from ramda_theory.cli import main

sys.exit(main())
