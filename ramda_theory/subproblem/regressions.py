"""What alternating least squares computes for the nuclear norm's subproblem, on the factors of its point."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ramda_theory.arrays import Array, to_float64
from ramda_theory.regularizers.singular_values import eigh
from ramda_theory.regularizers.threshold_sequence import LEEWAY, positive_definite
from ramda_theory.structure import Rank
from ramda_theory.subproblem.admm import SINGLE
from ramda_theory.subproblem.anderson import Anderson
from ramda_theory.subproblem.problem import Candidate, Subproblem

SMALL = 32768
"""Entries of a matrix that is worked on in float64."""
TINY = 2048
"""Entries of a matrix that may have full rank: ADMM is no faster there (at 64 x 64 it is, several times)."""
COLUMNS = 128
"""Of the factors of larger matrices, at most, and at most half of the shorter side."""
CHEAP, ROOM = 2**17, 2**22
"""Numbers in the equations of all rows: up to the first they are set up at once, above the second never."""
NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are taken for 0 at the start."""
ROUNDS, MEMORY = (40, 12), 5
"""Of steps on both factors in a sweep, with equations that are cheap or not; and how many are extrapolated from."""
LEADING = 0.5
"""Of the excess over tau of N's largest singular value: others that exceed it by less may vanish once it is added."""
WORSE = 2.0
"""Times the least slope so far: then the equations no longer fit."""
SHARE, MOST = 0.1, 0.02
"""Of the tolerance, but at most of tau: what singular values of N may exceed tau by without being added."""
NOISE = 0.03
"""Of what rounding does to a matrix, the spectral norm of that."""


Equations: TypeAlias = Callable[[bool, Array], Callable[[Array], Array]]


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
        self._limit = min(rows, columns)
        if rows * columns > TINY:
            self._limit = min(COLUMNS, self._limit // 2)
        self._metric = self._short(problem.metric)
        self._means = xp.mean(self._metric, axis=1), xp.mean(self._metric, axis=0)
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
            # Squares: what they lose is below what counts here.
            values, u = eigh(xp, matrix @ matrix.T)
            s, u = xp.sqrt(xp.clip(xp.flip(values, axis=0), min=0.0)), xp.flip(u, axis=1)
        else:
            if basis.shape[0] != matrix.shape[0] or basis.shape[1] > self._limit:
                return None
            q, _ = xp.linalg.qr(to_float64(xp, basis))
            u, s, _ = xp.linalg.svd(q.T @ matrix, full_matrices=False)
            u = q @ u
        rank = int(xp.count_nonzero(s > NEGLIGIBLE * float(s[0]))) if s.shape[0] and float(s[0]) > 0 else 0
        if rank > self._limit:
            return None
        return self._factors(u[:, :rank], s[:rank], (matrix.T @ u[:, :rank]) / s[:rank])

    def _factors(self, *arrays: Array) -> Factors:
        return Factors(*(self.xp.astype(array, self._dtype) for array in arrays))

    def _gradient(self, z: Array) -> Array:
        """P Z - b."""
        gradient = self._metric * z
        gradient -= self._b
        return gradient

    def swept(self, found: Factors) -> Factors:
        """Rows of A = U diag(s)^(1/2) regressed on B = V diag(s)^(1/2) and the other way round.

        By `_regressions`, whose first round never raises Q, but not as long as `_separable`, which is cheaper, will do.
        """
        if not found.rank:
            return found
        x = self.xp.concat((found.u, found.v), axis=0) * self.xp.sqrt(found.s)
        rows, columns = self._metric.shape
        numbers, off = columns * found.rank**2, math.inf
        if numbers > CHEAP:
            x, off = self._rounds(x, self._separable, renewed=True)
        if numbers <= CHEAP or (numbers <= ROOM and not off <= self._tolerance):
            x, _ = self._rounds(x, self._regressions, renewed=False)
        return self._balanced(x[:rows], x[rows:])

    def _rounds(self, x: Array, equations: Equations, *, renewed: bool) -> tuple[Array, float]:
        """Rounds of steps on A and B, extrapolated, as long as their slopes fall.

        Parameters
        ----------
        x : array, shape (rows + columns, r)
            A above B.
        equations : callable
            (whether for A, the other factor) -> what solves them.
        renewed : bool
            Whether every round needs new ones.

        Returns
        -------
        x : array
            That with the least slopes, (P Z - b) B + tau A and its like for B with unit columns of the other factor.
        off : float
            Their norm before its last step.
        """
        xp, rows = self.xp, self._metric.shape[0]
        best, begin, least = x, x, math.inf
        extrapolation = Anderson(xp, MEMORY)
        solve_rows = solve_columns = None
        for _ in range(ROUNDS[0] if renewed else ROUNDS[1]):
            change, image = extrapolation.room(x)
            a, b = x[:rows], x[rows:]
            if renewed or solve_rows is None:
                solve_rows = equations(True, b)
            slope = self._gradient(a @ b.T) @ b + self._tau * a
            square = relative(xp, slope, b)
            change[:rows] = solve_rows(slope)
            image[:rows] = a = a + change[:rows]
            if renewed or solve_columns is None:
                solve_columns = equations(False, a)
            slope = self._gradient(a @ b.T).T @ a + self._tau * b
            off = (square + relative(xp, slope, a)) ** 0.5
            change[rows:] = solve_columns(slope)
            image[rows:] = b + change[rows:]
            if (best is begin or off < least) and bool(xp.all(xp.isfinite(image))):
                best, least = xp.asarray(image, copy=True), off
            if off <= self._tolerance or not off <= WORSE * least:
                break
            x = extrapolation(float(xp.linalg.vector_norm(change)))
        extrapolation.close()
        return best, least

    def _separable(self, for_rows: bool, given: Array) -> Callable[[Array], Array]:
        """As `_regressions`, with twice the product of the means of the metric's rows and columns in its place.

        All rows then have the eigenvectors of B^T Q B, Q the means of the columns.  Adam's second moments are near to
        such products (Adafactor, arXiv:1804.04235); twice as much is above most entries, so that steps are short.
        """
        xp = self.xp
        p, q = self._means if for_rows else self._means[::-1]
        inner = to_float64(xp, (given.T * (q / xp.mean(q))) @ given)
        values, vectors = eigh(xp, inner)
        sizes = 2.0 * to_float64(xp, p)[:, None] * xp.clip(values, min=0.0) + self._tau
        vectors, shares = xp.astype(vectors, given.dtype), xp.astype(1.0 / sizes, given.dtype)
        return lambda right: -((right @ vectors) * shares) @ vectors.T

    def _regressions(self, for_rows: bool, given: Array) -> Callable[[Array], Array]:
        """Right sides -> - (B^T P_i B + tau I)^-1 times them, a row each.

        In float64; they are residuals and not the rows themselves, so that what rounding did to the matrices slows down
        but leaves no error.  As much is added to their diagonal, which keeps them positive.
        """
        xp, r, metric = self.xp, given.shape[1], self._metric if for_rows else self._metric.T
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

    def completed(self, found: Factors) -> tuple[Factors | None, Array, Array, float | None]:
        """With leading singular vectors of -N above tau if the tangent part is within the tolerance without them.

        Returns
        -------
        found : Factors or None
            None if there are too many.
        tangent, normal : arrays
            `split` of the last factors that were not too many.
        off : float or None
            How far the tangent part may be from an element of dQ(Z), if all of that is within the tolerance.
        """
        tangent, normal = self.split(found)
        off, above = self._above(tangent, normal)
        if above is None:
            return found, tangent, normal, off
        if found.rank + above.rank > self._limit:
            return None, tangent, normal, None
        # Divided by their number: Q is convex, so that their mean lies no higher than they do one by one.
        s = (above.s - self._tau) / (above.rank * self._curvature(above.u, above.v))
        u, s, v = (self.xp.concat(pair, axis=-1) for pair in zip(found, above._replace(s=s), strict=True))
        root = self.xp.sqrt(s)
        found = self._balanced(u * root, v * root)
        tangent, normal = self.split(found)
        off, above = self._above(tangent, normal)
        return found, tangent, normal, off if above is None else None

    def _above(self, tangent: Array, normal: Array) -> tuple[float | None, Factors | None]:
        """`completed`'s ``off``, and the leading singular vectors and values of -N above tau, if there are any.

        A Cholesky factorization tells most often that there are none.  Those that exceed tau by little, or by no more
        than rounding does, are left as they are, and count as residual, if the tolerance allows.
        """
        xp, tau = self.xp, self._tau
        length = float(xp.linalg.vector_norm(tangent))
        if not length + self.rounding <= self._tolerance:
            return None, None
        scale = max(tau, 1e-6 * float(xp.linalg.vector_norm(normal)))
        scaled = normal * (-1.0 / scale)
        gram = scaled @ scaled.T
        level = ((1.0 + LEEWAY) * tau / scale) ** 2
        if positive_definite(xp, level * xp.eye(gram.shape[0], dtype=gram.dtype) - gram):
            return self.rounding, None
        values, vectors = eigh(xp, gram)
        size = scale * xp.sqrt(xp.clip(values, min=0.0))
        most, small = float(size[-1]), tau * (1.0 + min(MOST, SHARE * self._tolerance / tau)) + NOISE * self.rounding
        excess = float(xp.linalg.vector_norm(xp.clip(size - tau, min=0.0)))
        if most <= max(small, (1.0 + LEEWAY) * tau) and math.hypot(length, excess) + self.rounding <= self._tolerance:
            return self.rounding + excess, None
        if most <= (1.0 + LEEWAY) * tau:
            return None, None
        count = int(xp.count_nonzero(size - tau > LEADING * (most - tau)))
        size, u = size[-count:], vectors[:, -count:]
        return None, Factors(u, size, scale * (scaled.T @ u) / size)

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
