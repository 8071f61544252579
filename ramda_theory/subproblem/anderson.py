"""Anderson's extrapolation of fixed-point iterations, with a fresh start where it goes astray."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, to_host
from ramda_theory.subproblem.workspace import Workspace

RISE = 4.0
"""A residual above this many times the least so far makes the extrapolation start afresh, after some plain steps: one
at first, twice as many each time."""


class Anderson:
    """Type-II Anderson extrapolation of x <- x + change(x).

    Over the last steps, with differences dF of the changes and dG of x + change,

        x <- x + change - dG gamma,   gamma = argmin ||change - dF gamma||.

    What is kept are the changes and images themselves and the inner products of the changes; differences are only taken
    of these few numbers, so that a step reads each array once and writes one.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    memory : int
        Differences that are kept; 0 does not extrapolate.
    """

    def __init__(self, xp: ModuleType, memory: int) -> None:
        self._xp, self._memory = xp, memory
        self._slots = max(memory, 1) + 1
        self._workspace: Workspace | None = None
        self._changes: Any = None  # F, shape (slots, entries)
        self._images: Any = None  # G
        self._results: Any = None  # the x of every other step
        self._products = np.zeros((self._slots, self._slots))  # F F^T
        self._count = 0
        self._taken: list[int] = []  # slots that count, the oldest first
        self._least = np.inf  # residual so far
        self._plain, self._next = 0, 1  # plain steps that are left, and how many the next time

    def room(self, x: Array) -> tuple[Array, Array]:
        """Two arrays like ``x``, for the change and for x + change; what they hold is not kept for ever.

        Parameters
        ----------
        x : array

        Returns
        -------
        change, image : arrays
        """
        if self._workspace is None:
            self._workspace = Workspace(self._xp, x, 2 * self._slots + 2)
            arrays, n = self._workspace.arrays, self._slots
            self._changes, self._images, self._results = arrays[:n], arrays[n : 2 * n], arrays[2 * n :]
        slot = self._count % self._slots
        return self._changes[slot, ...], self._images[slot, ...]

    def __call__(self, residual: float) -> Array:
        """The next x.

        Parameters
        ----------
        residual : float
            Of the step whose change and image `room` holds: what tells progress from going astray.

        Returns
        -------
        array
            Good until two calls later.
        """
        xp, slot = self._xp, self._count % self._slots
        self._count += 1
        if residual > RISE * self._least and self._plain <= 0:
            self._plain, self._next = self._next, 2 * self._next
        else:
            self._plain -= 1
        self._least = min(self._least, residual)
        if not self._memory:
            return self._images[slot, ...]
        self._taken = [slot] if self._plain > 0 else [*self._taken[-self._memory :], slot]
        known = min(self._count, self._slots)
        changes, images = (xp.reshape(a[:known], (known, -1)) for a in (self._changes, self._images))
        self._products[slot, :known] = self._products[:known, slot] = to_host(changes @ changes[slot])
        if len(self._taken) == 1:
            return self._images[slot, ...]
        weights = xp.asarray(self._weights(known, float(xp.finfo(changes.dtype).eps)), device=changes.device)
        result = self._results[self._count % 2, ...]
        xp.matmul(xp.astype(weights, changes.dtype)[None, :], images, out=xp.reshape(result, (1, -1)))
        return result

    def close(self) -> None:
        """No array that came from here is needed any longer."""
        if self._workspace is not None:
            self._workspace.give_back()

    def _weights(self, known: int, epsilon: float) -> np.ndarray:
        """What the next x is made of, for each slot."""
        products = self._products[np.ix_(self._taken, self._taken)]
        gram = np.diff(np.diff(products, axis=0), axis=1)
        # Unit columns, so that one relative amount of rounding fits all; what did not change has none.
        size = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
        scale = np.where(size > 0, 1.0 / np.where(size > 0, size, 1.0), 0.0)
        matrix = gram * scale[:, None] * scale + np.diag(10.0 * epsilon + (scale == 0))
        gamma = scale * np.linalg.solve(matrix, scale * np.diff(products[:, -1]))
        weights = np.zeros(known)
        weights[self._taken] = np.diff(gamma, prepend=0.0, append=0.0)
        weights[self._taken[-1]] += 1.0
        return weights
