"""Anderson's extrapolation of fixed-point iterations, with a fresh start where it goes astray."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, to_host

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
        self._gram: Any = None  # dF dF^T
        self._spare: Any = None  # room for the next x + change
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
        sizes = to_host(residual)
        f, before = xp.reshape(change, (count, -1)), xp.reshape(x, (count, -1))
        if self._last is None:
            self._changes = xp.zeros((count, self._memory, f.shape[1]), dtype=f.dtype, device=x.device)
            self._images = xp.zeros_like(self._changes)
            self._gram = np.zeros((count, self._memory, self._memory))
            self._least, self._plain, self._next = sizes, np.zeros_like(sizes), np.ones_like(sizes)
            self._last = xp.asarray(f, copy=True), before + f
            self._spare = xp.empty_like(f)
            return xp.reshape(xp.asarray(self._last[1], copy=True), x.shape)
        astray = (sizes > RISE * self._least) & (self._plain <= 0)
        self._plain = np.where(astray, self._next, self._plain - 1.0)
        self._next = np.where(astray, 2.0 * self._next, self._next)
        self._least = np.minimum(self._least, sizes)
        kept = self._plain <= 0
        slot = self._count % self._memory
        self._count += 1
        last_f, last_g = self._last
        g, self._spare = self._spare, last_g
        xp.add(before, f, out=g)
        xp.subtract(f, last_f, out=self._changes[:, slot])
        xp.subtract(g, last_g, out=self._images[:, slot])
        last_f[...] = f
        self._last = last_f, g
        if not kept.all():
            forgotten = xp.asarray(np.flatnonzero(~kept), dtype=xp.int64, device=x.device)
            self._changes[forgotten], self._images[forgotten], self._gram[~kept] = 0.0, 0.0, 0.0
        known = min(self._count, self._memory)
        dF, dG = self._changes[:, :known], self._images[:, :known]
        products = to_host(dF @ self._changes[:, slot][:, :, None])[:, :, 0]
        self._gram[:, slot, :known] = self._gram[:, :known, slot] = products
        gram = self._gram[:, :known, :known]
        # Unit columns, so that one relative amount of rounding fits all; what was forgotten has none.
        size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
        scale = np.where(size > 0, 1.0 / np.where(size > 0, size, 1.0), 0.0)
        rounding = 10.0 * float(xp.finfo(f.dtype).eps)
        matrix = gram * scale[:, :, None] * scale[:, None, :] + np.eye(known) * (rounding + (scale == 0)[:, :, None])
        gamma = scale[:, :, None] * np.linalg.solve(matrix, scale[:, :, None] * to_host(dF @ f[:, :, None]))
        gamma = xp.asarray(gamma, dtype=f.dtype, device=x.device)
        back = (xp.matrix_transpose(gamma) @ dG)[:, 0]
        return xp.reshape(xp.subtract(g, back, out=back), x.shape)
