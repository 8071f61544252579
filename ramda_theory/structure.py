"""What "the same structure" means: the active manifold of a point, as something to compare, order and count.

A structure is read from exact zeros and lives on the host.  It knows whether it equals another (the same manifold),
whether it lies below another (``<=``: it differs only in pieces that are zero, or has lower rank), its dimension as a
manifold, and how many pieces differ (``distance``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """A small integer per piece: 0 where the piece is zero, else the sign or the branch of psi it is on.

    Parameters
    ----------
    pattern : int8 array
        One number per piece (entry or group).
    sizes : int or int array broadcastable to ``pattern``
        Number of entries in each piece.
    """

    pattern: np.ndarray
    sizes: int | np.ndarray = 1

    @property
    def mask(self) -> np.ndarray:
        """True where a piece is nonzero."""
        nonzero: np.ndarray = self.pattern != 0
        return nonzero

    @property
    def dimension(self) -> int:
        """Dimension of the manifold: the number of entries in nonzero pieces."""
        return int(np.sum(np.broadcast_to(self.sizes, self.pattern.shape)[self.mask]))

    @property
    def count(self) -> int:
        """Number of nonzero pieces."""
        return int(np.count_nonzero(self.pattern))

    def distance(self, other: Pattern) -> int:
        """Number of pieces on which the two patterns differ."""
        return int(np.count_nonzero(self.pattern != self._peer(other).pattern))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(np.array_equal(self.pattern, other.pattern))

    def __hash__(self) -> int:
        return hash((type(self), self.pattern.shape, self.pattern.tobytes()))

    def __le__(self, other: Pattern) -> bool:
        pattern = self._peer(other).pattern
        return bool(np.all((self.pattern == 0) | (self.pattern == pattern)))

    def _peer(self, other: Pattern) -> Pattern:
        if type(other) is not type(self) or other.pattern.shape != self.pattern.shape:
            raise TypeError(f"cannot compare {self!r} with {other!r}: not structures of one kind and shape")
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count} of {self.pattern.size} nonzero, dimension {self.dimension})"


class SignPattern(Pattern):
    """Sign of every entry, times the branch of psi it is on (MCP, SCAD: 1 next to zero, counting outwards)."""


class GroupSupport(Pattern):
    """Which groups are nonzero (GroupMCP: times the branch their norm is on)."""


@dataclass(frozen=True)
class Rank:
    """Rank of a matrix: the manifold of all ``rows x columns`` matrices of rank ``rank``."""

    rank: int
    rows: int
    columns: int

    @property
    def dimension(self) -> int:
        """Dimension of the fixed-rank manifold, r (m + n - r)."""
        return self.rank * (self.rows + self.columns - self.rank)

    @property
    def count(self) -> int:
        """Number of nonzero singular values."""
        return self.rank

    def distance(self, other: Rank) -> int:
        """Difference of the ranks."""
        return abs(self.rank - self._peer(other).rank)

    def __le__(self, other: Rank) -> bool:
        return self.rank <= self._peer(other).rank

    def _peer(self, other: Rank) -> Rank:
        if not isinstance(other, Rank) or (self.rows, self.columns) != (other.rows, other.columns):
            raise TypeError(f"cannot compare {self!r} with {other!r}: not structures of one kind and shape")
        return other


Structure = Pattern | Rank


def numerical_rank(singular_values: np.ndarray, shape: tuple[int, int], epsilon: float) -> int:
    """Number of float64 singular values that rounding cannot have made.

    Rounding every entry of a matrix W to precision ``epsilon`` moves its singular values by less than epsilon ||W||,
    and the float64 SVD errs by max(shape) 2^-52 times the largest.  All count where one of them is not finite.
    """
    level = epsilon * float(np.linalg.norm(singular_values))
    level += max(shape) * 2.0**-52 * float(np.max(singular_values, initial=0.0))
    return int(np.count_nonzero(~(singular_values <= level))) if math.isfinite(level) else len(singular_values)
