"""Anderson's extrapolation of fixed-point iterations, with a fresh start where it goes astray."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ramda_theory.arrays import Array

RISE = 4.0
"""A residual above this many times the least so far makes the extrapolation start afresh, after some plain steps: one
at first, twice as many each time."""


class Anderson:
    """Type-II Anderson extrapolation of x <- x + change(x), for one iteration or several side by side.

    Over the last steps, with differences dF of the changes and dG of x + change,

        x <- x + change - dG gamma,   gamma = argmin ||change - dF gamma||.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    memory : int
        Differences that are kept; 0 does not extrapolate.
    """

    def __init__(self, xp: ModuleType, memory: int) -> None:
        self._xp, self._memory, self._count = xp, memory, 0
        self._changes: Any = None  # dF, shape (iterations, memory, entries)
        self._images: Any = None  # dG
        self._last: Any = None  # change and x + change of the last step
        self._least: Any = None  # least residual of each iteration so far
        self._plain: Any = None  # plain steps that are left of each, and how many the next time
        self._next: Any = None

    def __call__(self, x: Array, change: Array, residual: Array) -> Array:
        """The next x.

        Parameters
        ----------
        x, change : arrays, shape (iterations, ...)
        residual : array, shape (iterations,)
            What tells progress from going astray.

        Returns
        -------
        array of the shape of ``x``
        """
        if not self._memory:
            return x + change
        xp, count = self._xp, x.shape[0]
        f = xp.reshape(change, (count, -1))
        g = xp.reshape(x + change, (count, -1))
        if self._last is None:
            self._changes = xp.zeros((count, self._memory, f.shape[1]), dtype=f.dtype, device=x.device)
            self._images = xp.zeros_like(self._changes)
            self._least, self._plain, self._next = residual, xp.zeros_like(residual), xp.ones_like(residual)
            self._last = f, g
            return xp.reshape(g, x.shape)
        astray = (residual > RISE * self._least) & (self._plain <= 0)
        self._plain = xp.where(astray, self._next, self._plain - 1.0)
        self._next = xp.where(astray, 2.0 * self._next, self._next)
        self._least = xp.minimum(self._least, residual)
        kept = xp.astype(self._plain <= 0, f.dtype)[:, None]
        if not bool(xp.all(kept > 0)):
            self._changes *= kept[:, None]
            self._images *= kept[:, None]
        slot = self._count % self._memory
        self._count += 1
        self._changes[:, slot] = kept * (f - self._last[0])
        self._images[:, slot] = kept * (g - self._last[1])
        self._last = f, g
        known = min(self._count, self._memory)
        dF, dG = self._changes[:, :known], self._images[:, :known]
        gram = dF @ xp.matrix_transpose(dF)
        # Unit columns, so that one relative amount of rounding fits all; what was forgotten has none.
        diagonal = xp.linalg.diagonal(gram)
        size = xp.sqrt(diagonal)
        scale = xp.where(size > 0, 1.0 / xp.where(size > 0, size, xp.ones_like(size)), xp.zeros_like(size))
        rounding = 10.0 * float(xp.finfo(f.dtype).eps)
        identity = xp.eye(known, dtype=f.dtype, device=x.device)
        matrix = gram * scale[:, :, None] * scale[:, None, :] + identity * (rounding + (scale == 0)[:, :, None])
        right = scale[:, :, None] * (dF @ f[:, :, None])
        gamma = scale[:, :, None] * xp.linalg.solve(matrix, right)
        return xp.reshape(g - (xp.matrix_transpose(gamma) @ dG)[:, 0], x.shape)
