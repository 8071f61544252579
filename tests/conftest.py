"""What all tests share: property-based tests that draw the same examples in every run."""

import os

# One thread each for the processes of pytest-xdist, which otherwise wait for one another; before NumPy is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=15, database=None)
settings.load_profile("reproducible")
