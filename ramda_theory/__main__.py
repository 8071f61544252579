"""``python -m ramda_theory``, for ``torchrun -m``: the command ``ramda-theory``."""

import sys

from ramda_theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
