"""Triton's kernels are interpreted in these tests where there is no GPU."""

import interpreted  # noqa: F401
