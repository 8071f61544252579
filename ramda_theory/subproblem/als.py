"""Alternating least squares on the factors of a matrix of low rank: the nuclear norm's subproblem in any metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ramda_theory.arrays import Array, is_host, to_float64
from ramda_theory.regularizers.threshold_sequence import positive_definite
from ramda_theory.structure import Rank
from ramda_theory.subproblem.admm import ADMM, SINGLE, descends, detached
from ramda_theory.subproblem.anderson import Anderson
from ramda_theory.subproblem.problem import Candidate, Subproblem

STIFF = 400.0
"""Where the terms of P Z - b are this many times alpha lambda, ADMM takes longer."""
SMALL = 32768
"""Entries of a matrix that is worked on in float64, and whose singular vectors are found anew."""
COLUMNS = 128
"""Of the factors of larger matrices, at most: the work grows with their square."""
LEEWAY = 1e-5
"""Relative: singular values this little above the threshold are not looked for."""
ROUNDS, MEMORY = 12, 5
"""Of regressions with the same matrices, and how many are extrapolated from."""
WORSE = 2.0
"""Times the least slope so far: then the matrices no longer fit."""
MARGIN = 0.02
NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are taken for 0 at the start."""


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


@dataclass(frozen=True)
class ALS:
    """Alternating ridge regressions on Z = A B^T, with ranks that rise and fall; ADMM where the rank is not low.

    Since ||Z||_* = min {(||A||^2 + ||B||^2) / 2 : A B^T = Z}, argmin_Z 1/2 <Z, P Z> - <b, Z> + tau ||Z||_* with
    b = P W^0 - V and tau = alpha lambda is, for given B, a ridge regression for each row of A,

        (B^T P_i B + tau I) a_i = B^T b_i,

    and for given A one for each row of B.  These see the metric as it is, where steps of first order take the longer
    the more it varies.  One after the other, with balanced factors in between, they never raise Q.  Then with
    Z = U S V^T and N the part of P Z - b that is normal to U and V

    - a component whose own minimiser is zero, <u, (b - P Z + s P u v^T) v> <= tau, is dropped;
    - singular vectors of -N above tau are added, each as far as its own minimiser, divided by their number;
    - if there are none, which a Cholesky factorization of tau^2 I - N N^T tells, tangent part + tau U V^T is in dQ(Z).

    The factorization into A and B is that of softImpute-ALS (arXiv:1410.2596), with weights.

    Parameters
    ----------
    sweeps : int
        >= 1: after so many over rows and columns ADMM goes on.
    otherwise : ADMM
        Solves problems of which no point of low rank is known yet, and those on accelerators.

    Raises
    ------
    ValueError
        If ``sweeps`` is out of its range.
    """

    sweeps: int = 10
    otherwise: ADMM = field(default_factory=ADMM)

    def __post_init__(self) -> None:
        if isinstance(self.sweeps, bool) or not isinstance(self.sweeps, int) or self.sweeps < 1:
            raise ValueError(f"sweeps must be an integer >= 1, got {self.sweeps!r}")

    def __call__(
        self,
        problem: Subproblem,
        start: Array,
        tolerance: float,
        max_iter: int,
        dual: Array | None = None,
        point: Array | None = None,
        basis: Array | None = None,
    ) -> Candidate:
        """Iterate from ``point`` (else from ``start``, above whose objective the end may not be)."""
        psi, alpha = problem.regularizer.as_matrices, problem.weight_sum
        if psi is None:
            raise ValueError(f"als needs a nuclear norm, got {problem.regularizer!r}")
        if not (problem.magnitude > STIFF * alpha * psi.weight > 0 and is_host(problem.anchor)):
            return self.otherwise(problem, start, tolerance, max_iter, dual, point, basis)
        arrays = problem.anchor, problem.grad_sum, problem.metric
        if any(getattr(array, "requires_grad", False) for array in (start, *arrays)):
            problem, start = Subproblem(*map(detached, arrays), alpha, problem.regularizer), detached(start)
        work = Regressions(problem, psi, tolerance)
        limit = min(self.sweeps, max_iter)
        found, candidate = work.begin(start if point is None else point, basis), None
        sweep = 0
        while found is not None:
            tangent, normal = work.split(found)
            candidate = work.candidate(found, normal, sweep)
            if sweep and float(work.xp.linalg.vector_norm(tangent)) + work.rounding <= tolerance:
                risen = work.risen(found, normal)
                if risen is not found:
                    found = risen
                    continue
                if descends(problem, candidate.point, work.back(tangent), work.rounding, start):
                    return candidate
            if sweep == limit:
                break
            sweep += 1
            found = work.dropped(work.swept(found))
        if candidate is None:
            return self.otherwise(problem, start, tolerance, max_iter, dual, point, basis)
        if candidate.iterations == max_iter:
            return candidate
        rest = max_iter - candidate.iterations
        more = self.otherwise(problem, start, tolerance, rest, candidate.dual, candidate.point, candidate.basis)
        if more.iterations == rest and problem.increase(more.point, candidate.point) > 0:
            return candidate._replace(iterations=max_iter)
        return more._replace(iterations=candidate.iterations + more.iterations)


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
        self._small = math.prod(problem.anchor.shape) <= SMALL
        single = problem.anchor.dtype == xp.float32 and not self._small and tolerance >= SINGLE * problem.magnitude
        self._dtype = xp.float32 if single else xp.float64
        # What rounding does to the residual.
        self.rounding = 8.0 * float(xp.finfo(xp.float32).eps) * problem.magnitude if single else 0.0
        self._tolerance, self._tau = tolerance, problem.weight_sum * psi.weight
        rows, columns = psi.matrix(problem.anchor).shape
        self._shape, self._flip = (rows, columns), rows > columns
        self._limit = min(rows, columns) if self._small else min(COLUMNS, min(rows, columns) // 2)
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
            if not self._small:
                return None
            u, s, vh = xp.linalg.svd(matrix, full_matrices=False)
        else:
            if basis.shape[0] != matrix.shape[0] or basis.shape[1] > self._limit:
                return None
            q, _ = xp.linalg.qr(to_float64(xp, basis))
            u, s, vh = xp.linalg.svd(q.T @ matrix, full_matrices=False)
            u = q @ u
        rank = int(xp.count_nonzero(s > NEGLIGIBLE * float(s[0]))) if s.shape[0] and float(s[0]) > 0 else 0
        return self._factors(u[:, :rank], s[:rank], vh[:rank].T)

    def _factors(self, *arrays: Array) -> Factors:
        return Factors(*(self.xp.astype(array, self._dtype) for array in arrays))

    def _gradient(self, z: Array) -> Array:
        """P Z - b."""
        gradient = self._metric * z
        gradient -= self._b
        return gradient

    def swept(self, found: Factors) -> Factors:
        """Rows of A = U diag(s)^(1/2) regressed on B = V diag(s)^(1/2) and the other way round, until little changes.

        Further rounds use the matrices of the first, and are extrapolated.
        """
        if not found.rank:
            return found
        xp, rows = self.xp, min(self._shape)
        x = xp.concat((found.u, found.v), axis=0) * xp.sqrt(found.s)
        extrapolation = Anderson(xp, MEMORY)
        solve_rows = solve_columns = None
        best, least = x, math.inf
        for _ in range(ROUNDS):
            change, image = extrapolation.room(x)
            a, b = x[:rows], x[rows:]
            if solve_rows is None:
                solve_rows = self._regressions(self._metric, b)
            slope = self._gradient(a @ b.T) @ b + self._tau * a
            square = xp.sum(slope**2, axis=0) / xp.sum(b**2, axis=0)
            change[:rows] = solve_rows(slope)
            image[:rows] = a = a + change[:rows]
            if solve_columns is None:
                solve_columns = self._regressions(self._metric.T, a)
            slope = self._gradient(a @ b.T).T @ a + self._tau * b
            square += xp.sum(slope**2, axis=0) / xp.sum(a**2, axis=0)
            change[rows:] = solve_columns(slope)
            image[rows:] = b + change[rows:]
            off = float(xp.sum(square)) ** 0.5
            if off < least:  # the first round at any rate, which lowers Q
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

    def risen(self, found: Factors, normal: Array) -> Factors | None:
        """``found`` itself if N has no singular value above tau, else with what they add; None if that is too much."""
        xp, scaled = self.xp, normal * (1.0 / self._tau)
        gram = scaled @ scaled.T
        level = (1.0 + max(LEEWAY, min(MARGIN, 0.1 * self._tolerance / self._tau))) ** 2
        if positive_definite(xp, level * xp.eye(len(gram), dtype=gram.dtype) - gram):
            return found
        values, vectors = xp.linalg.eigh(gram)
        count = int(xp.count_nonzero(values > level))
        if not count:
            return found
        if found.rank + count > self._limit:
            return None
        size = xp.sqrt(values[-count:])
        u = vectors[:, -count:]
        v = -(scaled.T @ u) / size
        s = self._tau * (size - 1.0) / (count * self._curvature(u, v))
        parts = zip(found, (u, s, v), strict=True)
        joined = [xp.concat(pair, axis=-1) for pair in parts]
        root = xp.sqrt(joined[1])
        return self._balanced(joined[0] * root, joined[2] * root)

    def candidate(self, found: Factors, normal: Array, sweeps: int) -> Candidate:
        """The point, with tau U V^T - N as its dual."""
        dual = (self._tau * found.u) @ found.v.T - normal
        rank = Rank(found.rank, *self._shape)
        return Candidate(self.back(found.product), sweeps, rank, self.back(dual / self._alpha), found.u)


@lru_cache(maxsize=256)
def lower_triangle(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the entries on and below the diagonal; and for all entries of a matrix which of them it is."""
    rows, columns = np.tril_indices(size)
    place = np.empty((size, size), dtype=np.int64)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return rows, columns, place.ravel()
