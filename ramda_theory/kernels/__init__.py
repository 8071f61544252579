"""The steps of the methods in place on lists of torch tensors, one engine per package.

``using("eager")`` or ``using("cpu")`` forces an engine inside a ``with`` block.
"""

from ramda_theory.kernels.dispatch import using

__all__ = ["using"]
