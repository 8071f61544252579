"""What alternating least squares computes for the nuclear norm's subproblem, on the factors of its point."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ramda_theory.arrays import Array, to_float64
from ramda_theory.regularizers.threshold_sequence import positive_definite
from ramda_theory.structure import Rank
from ramda_theory.subproblem.admm import SINGLE
from ramda_theory.subproblem.anderson import Anderson
from ramda_theory.subproblem.problem import Candidate, Subproblem

SMALL = 32768
"""Entries of a matrix that is worked on in float64, whatever its rank."""
COLUMNS = 128
"""Of the factors of larger matrices, at most: the work grows with their square."""
NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are taken for 0 at the start."""
ROUNDS, MEMORY = 12, 5
"""Of regressions with the same matrices, and how many are extrapolated from."""
LEADING = 0.5
"""Of the excess over tau of N's largest singular value: others that exceed it by less may vanish once it is added."""
WORSE = 2.0
"""Times the least slope so far: then the matrices no longer fit."""
LEEWAY, SHARE, MOST = 1e-5, 0.1, 0.02
"""Of tau, by how much singular values of N must exceed it to count: a share of the tolerance, but at least the first
and at most the last."""


class Factors(NamedTuple):
    """Z = U diag(s) V^T with orthonormal columns: U (rows, r), s (r,) and V (columns, r)."""

    u: Array
    s: Array
    v: Array

    @property
    def rank(self) -> int:
        return int(self.s.shape[0])

    @property
    def product(self) -> Array:
        return (self.u * self.s) @ self.v.T

    def pick(self, which: Array) -> Factors:
        return Factors(self.u[:, which], self.s[which], self.v[:, which])


class Regressions:
    """What `ALS` computes for one problem, on matrices of no more rows than columns.

    Parameters
    ----------
    problem : Subproblem
    psi : NuclearNorm
    tolerance : float
    """

    def __init__(self, problem: Subproblem, psi: Any, tolerance: float) -> None:
        self.xp, self._psi, self._like, self._alpha = problem.xp, psi, problem.anchor, problem.weight_sum
        xp = self.xp
        small = math.prod(problem.anchor.shape) <= SMALL
        single = problem.anchor.dtype == xp.float32 and not small and tolerance >= SINGLE * problem.magnitude
        self._dtype = xp.float32 if single else xp.float64
        # What rounding does to the residual.
        self.rounding = 8.0 * float(xp.finfo(xp.float32).eps) * problem.magnitude if single else 0.0
        self._tolerance, self._tau = tolerance, problem.weight_sum * psi.weight
        rows, columns = psi.matrix(problem.anchor).shape
        self._shape, self._flip = (rows, columns), rows > columns
        self._limit = min(rows, columns) if small else min(COLUMNS, min(rows, columns) // 2)
        self._metric = self._short(problem.metric)
        self._b = self._metric * self._short(problem.anchor) - self._short(problem.grad_sum)

    def _short(self, array: Array) -> Array:
        matrix = self.xp.astype(self._psi.matrix(array), self._dtype)
        return matrix.T if self._flip else matrix

    def back(self, matrix: Array) -> Array:
        """In the shape of the problem."""
        return self._psi.array(matrix.T if self._flip else matrix, self._like)

    def begin(self, point: Array, basis: Array | None) -> Factors | None:
        """Factors of a point, or of its part in a basis of left singular vectors; None if there are too many."""
        xp, matrix = self.xp, to_float64(self.xp, self._short(point))
        if basis is None:
            u, s, vh = xp.linalg.svd(matrix, full_matrices=False)
        else:
            if basis.shape[0] != matrix.shape[0] or basis.shape[1] > self._limit:
                return None
            q, _ = xp.linalg.qr(to_float64(xp, basis))
            u, s, vh = xp.linalg.svd(q.T @ matrix, full_matrices=False)
            u = q @ u
        rank = int(xp.count_nonzero(s > NEGLIGIBLE * float(s[0]))) if s.shape[0] and float(s[0]) > 0 else 0
        return self._factors(u[:, :rank], s[:rank], vh[:rank].T) if rank <= self._limit else None

    def _factors(self, *arrays: Array) -> Factors:
        return Factors(*(self.xp.astype(array, self._dtype) for array in arrays))

    def _gradient(self, z: Array) -> Array:
        """P Z - b."""
        gradient = self._metric * z
        gradient -= self._b
        return gradient

    def swept(self, found: Factors) -> Factors:
        """Rows of A = U diag(s)^(1/2) regressed on B = V diag(s)^(1/2) and the other way round.

        The first round never raises Q.  Further rounds use the matrices of the first, are extrapolated, and count as
        long as the slopes fall, (P Z - b) B + tau A and its like for B with unit columns of the other factor.
        """
        if not found.rank:
            return found
        xp, rows = self.xp, self._metric.shape[0]
        x = best = begin = xp.concat((found.u, found.v), axis=0) * xp.sqrt(found.s)
        least = math.inf
        extrapolation = Anderson(xp, MEMORY)
        solve_rows = solve_columns = None
        for _ in range(ROUNDS):
            change, image = extrapolation.room(x)
            a, b = x[:rows], x[rows:]
            solve_rows = solve_rows or self._regressions(self._metric, b)
            slope = self._gradient(a @ b.T) @ b + self._tau * a
            square = relative(xp, slope, b)
            change[:rows] = solve_rows(slope)
            image[:rows] = a = a + change[:rows]
            solve_columns = solve_columns or self._regressions(self._metric.T, a)
            slope = self._gradient(a @ b.T).T @ a + self._tau * b
            square += relative(xp, slope, a)
            change[rows:] = solve_columns(slope)
            image[rows:] = b + change[rows:]
            off = square**0.5
            if (best is begin or off < least) and bool(xp.all(xp.isfinite(image))):
                best, least = xp.asarray(image, copy=True), off
            if off <= self._tolerance or not off <= WORSE * least:
                break
            x = extrapolation(float(xp.linalg.vector_norm(change)))
        extrapolation.close()
        return self._balanced(best[:rows], best[rows:])

    def _regressions(self, metric: Array, given: Array) -> Callable[[Array], Array]:
        """Right sides -> - (B^T P_i B + tau I)^-1 times them, a row each.

        In float64; they are residuals and not the rows themselves, so that what rounding did to the matrices slows down
        but leaves no error.  As much is added to their diagonal, which keeps them positive.
        """
        xp, r = self.xp, given.shape[1]
        first, second, place = lower_triangle(r)
        packed = metric @ (given[:, first] * given[:, second])
        matrices = xp.reshape(to_float64(xp, packed[:, place]), (-1, r, r))
        diagonal = np.arange(r)
        noise = 4.0 * float(xp.finfo(metric.dtype).eps) * xp.sum(matrices[:, diagonal, diagonal], axis=1)
        matrices[:, diagonal, diagonal] += noise[:, None] + self._tau
        if xp is np:
            inverses = np.linalg.inv(matrices)
            return lambda right: -(inverses @ right[:, :, None])[:, :, 0]
        import torch

        factors = torch.linalg.lu_factor(matrices)
        return lambda right: -torch.linalg.lu_solve(*factors, right.double()[:, :, None])[:, :, 0].to(right.dtype)

    def _balanced(self, a: Array, b: Array) -> Factors:
        """Factors of A B^T."""
        xp = self.xp
        (left, upper), (right, other) = (xp.linalg.qr(to_float64(xp, each)) for each in (a, b))
        u, s, vh = xp.linalg.svd(upper @ other.T)
        rank = int(xp.count_nonzero(s > 0))
        return self._factors((left @ u)[:, :rank], s[:rank], (right @ vh.T)[:, :rank])

    def dropped(self, found: Factors) -> Factors:
        """Without components whose own minimiser is 0, as many of the smallest as lowers Q."""
        xp, gradient = self.xp, self._gradient(found.product)
        curvature = self._curvature(found.u, found.v)
        slope = xp.sum(found.u * (gradient @ found.v), axis=0)
        out = found.s * curvature - slope <= self._tau
        count = int(xp.count_nonzero(out))
        while count:
            which = xp.nonzero(out)[0][-count:]
            gone = found.pick(which).product
            moved = self._metric * gone
            # Q(Z - gone) - Q(Z)
            change = 0.5 * xp.sum(gone * moved) - xp.sum(gradient * gone) - self._tau * xp.sum(found.s[which])
            if float(change) <= 0:
                keep = np.setdiff1d(np.arange(found.rank), np.asarray(which))
                return found.pick(keep)
            count //= 2
        return found

    def _curvature(self, u: Array, v: Array) -> Array:
        """<u v^T, P u v^T> of each pair of columns."""
        return self.xp.sum(u**2 * (self._metric @ v**2), axis=0)

    def split(self, found: Factors) -> tuple[Array, Array]:
        """The part of P Z - b that is tangent at Z to the matrices of its rank, plus tau U V^T; and the normal part."""
        u, v, gradient = found.u, found.v, self._gradient(found.product)
        rows, columns = u.T @ gradient, gradient @ v
        # U U^T G + (I - U U^T) G V V^T
        tangent = u @ rows + (columns - u @ (u.T @ columns)) @ v.T
        normal = gradient - tangent
        tangent += (self._tau * u) @ v.T
        return tangent, normal

    def completed(self, found: Factors) -> tuple[Factors | None, Array, Array, bool]:
        """With leading singular vectors of -N above tau if the tangent part is within the tolerance without them.

        Returns
        -------
        found : Factors or None
            None if there are too many.
        tangent, normal : arrays
            `split` of the last factors that were not too many.
        meets : bool
            Whether the tangent part is within the tolerance, and in dQ(Z) since N is at most tau.
        """
        tangent, normal = self.split(found)
        if not self._within(tangent):
            return found, tangent, normal, False
        above = self._above(normal)
        if above is None:
            return found, tangent, normal, True
        if found.rank + above.rank > self._limit:
            return None, tangent, normal, False
        # Divided by their number: Q is convex, so that their mean lies no higher than they do one by one.
        s = (above.s - self._tau) / (above.rank * self._curvature(above.u, above.v))
        u, s, v = (self.xp.concat(pair, axis=-1) for pair in zip(found, above._replace(s=s), strict=True))
        root = self.xp.sqrt(s)
        found = self._balanced(u * root, v * root)
        tangent, normal = self.split(found)
        return found, tangent, normal, self._within(tangent) and self._above(normal) is None

    def _within(self, tangent: Array) -> bool:
        return float(self.xp.linalg.vector_norm(tangent)) + self.rounding <= self._tolerance

    def _above(self, normal: Array) -> Factors | None:
        """The leading singular vectors and values of -N above tau; None if Cholesky says there are none."""
        xp, scaled = self.xp, normal * (-1.0 / self._tau)
        gram = scaled @ scaled.T
        leeway = max(LEEWAY, min(MOST, SHARE * self._tolerance / self._tau))
        level = (1.0 + leeway) ** 2
        if positive_definite(xp, level * xp.eye(gram.shape[0], dtype=gram.dtype) - gram):
            return None
        values, vectors = xp.linalg.eigh(gram)
        size = xp.sqrt(xp.clip(values, min=0.0))
        if not float(size[-1]) ** 2 > level:
            return None
        count = int(xp.count_nonzero(size - 1.0 > LEADING * (size[-1] - 1.0)))
        size, u = size[-count:], vectors[:, -count:]
        return Factors(u, self._tau * size, (scaled.T @ u) / size)

    def candidate(self, found: Factors, normal: Array, sweeps: int) -> Candidate:
        """The point, with tau U V^T - N as its dual."""
        dual = (self._tau * found.u) @ found.v.T - normal
        rank = Rank(found.rank, *self._shape)
        return Candidate(self.back(found.product), sweeps, rank, self.back(dual / self._alpha), found.u)


def relative(xp: ModuleType, slope: Array, other: Array) -> float:
    """Sum of the squares of the columns of a slope over those of the other factor."""
    lengths = xp.clip(xp.linalg.vector_norm(other, axis=0), min=float(xp.finfo(other.dtype).tiny))
    return float(xp.linalg.vector_norm(slope / lengths)) ** 2


@lru_cache(maxsize=256)
def lower_triangle(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the entries on and below the diagonal, and where among them each entry of a matrix is."""
    rows, columns = np.tril_indices(size)
    place = np.empty((size, size), dtype=np.int64)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return rows, columns, place.ravel()
