"""ADMM on the subproblem: an elementwise solve in the metric and a proximal map of psi by turns, with its dual kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ramda_theory.arrays import Array, inner, is_host, real, to_float64, total
from ramda_theory.regularizers import Regularizer
from ramda_theory.structure import Structure
from ramda_theory.subproblem.anderson import Anderson
from ramda_theory.subproblem.idle import idle_start
from ramda_theory.subproblem.problem import Candidate, Subproblem

SHARE = 0.7
"""Of a large entry of the metric, what rho is: found by trying."""
BLOCK = 32768
"""Entries of arrays that are worked on together."""
SINGLE = 3e-6
"""Tolerances of float32 data above this share of their magnitude are reached in float32."""


@dataclass(frozen=True)
class ADMM:
    """Over-relaxed ADMM for convex psi, extrapolated, from a point and a dual that earlier solutions may give.

    With b = P W^0 - V and the splitting W = Z of argmin 1/2 <W, P W> - <b, W> + alpha psi(Z), ADMM is the iteration

        Z = prox_{alpha psi / rho}(X),   S = P Z - b + rho (X - Z),   X <- X - relaxation S / (P + rho)

    of one matrix X.  Its dual Y = rho (X - Z) is in alpha d psi(Z) by the optimality of the proximal map, so S is in
    dQ(Z), and ||S|| bounds the left side of (7) without further work.  Steps of X are extrapolated by Anderson's method
    (type II) over the last ``memory`` of them, which starts afresh where the residual rises.

    Parameters
    ----------
    relaxation : float
        In (0, 2); 1 is ADMM without over-relaxation.
    memory : int
        >= 0; 0 does not extrapolate.
    penalty : float, optional
        rho > 0.  Default: 0.7 times the largest entry of P in each piece that psi separates into; where it does not
        separate, 0.5 to some times the mean that `mean_of` gives (`share_of`).

    Raises
    ------
    ValueError
        If one of them is out of its range.
    """

    relaxation: float = 1.6
    memory: int = 5
    penalty: float | None = None

    def __post_init__(self) -> None:
        real("relaxation", self.relaxation, minimum=0.0, strict=True)
        if self.relaxation >= 2:
            raise ValueError(f"relaxation must be in (0, 2), got {self.relaxation!r}")
        if isinstance(self.memory, bool) or not isinstance(self.memory, int) or self.memory < 0:
            raise ValueError(f"memory must be an integer >= 0, got {self.memory!r}")
        if self.penalty is not None:
            real("penalty", self.penalty, minimum=0.0, strict=True)

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
        """Iterate from ``point`` (else from ``start``, above whose objective the end may not be) and ``dual``."""
        psi, alpha = problem.regularizer, problem.weight_sum
        if not psi.convex:
            raise ValueError(f"admm needs a convex regularizer, got {psi!r}")
        data = problem.anchor, problem.grad_sum, problem.metric
        if any(getattr(array, "requires_grad", False) for array in (start, *data)):
            anchor, grad_sum, given_metric = map(detached, data)
            problem, start = Subproblem(anchor, grad_sum, given_metric, alpha, psi), detached(start)
        xp, (dtype, rounding) = problem.xp, self._precision(problem, tolerance)
        metric = xp.astype(problem.metric, dtype)
        if dtype == xp.float32:
            b = xp.astype(metric * problem.anchor - problem.grad_sum, dtype)
        else:
            b = -problem.linear
        if not alpha:  # psi plays no part
            return Candidate(b / metric, 0, None, xp.zeros_like(b), basis)
        point = start if point is None else point

        def without_idle(part: Subproblem) -> tuple[Array, Array]:
            found = self(part, part.anchor, tolerance, max_iter)
            assert found.dual is not None
            return found.point, found.dual

        start_of_all = None if dual is None else (point, dual)
        if (begin := idle_start(problem, start_of_all, without_idle, basis)) is not None:
            point, dual = begin
        z = mapped = xp.astype(point, dtype)
        pieces, rho = self._penalties(xp, psi, metric, share_of(point, dual, basis))
        largest = float(xp.max(rho)) if psi.separable else rho
        # Without a dual, that of one gradient step.
        x = z + ((b - metric * z) if dual is None else alpha * xp.astype(dual, dtype)) / rho
        gain, excess = -self.relaxation / (metric + rho), metric - rho
        prox, extrapolation = psi.prox_sequence(basis), Anderson(xp, self.memory)
        structure: Structure | None = None
        iteration, residual = 0, math.inf
        parts, rows_of_rho = rows_in_cache(z), xp.broadcast_to(rho, z.shape) if psi.separable else None
        products = xp.empty_like(z[parts[0]])
        while iteration < max_iter:
            iteration += 1
            slack = 0.2 * max(tolerance, min(residual, 1e3 * tolerance)) / largest
            z, structure, error = prox(x, alpha / pieces, slack)
            # In arrays that stay, asking for memory would take longer than the arithmetic, and by rows: each is read
            # from memory once.
            change, image = extrapolation.room(x)
            square = 0.0
            for part in parts:
                s, own = change[part], x[part]
                # P Z - b + rho (X - Z)
                xp.multiply(own, rho if rows_of_rho is None else rows_of_rho[part], out=s)
                s -= b[part]
                s += xp.multiply(excess[part], z[part], out=products if part is ... else products[: len(s)])
                square += float(xp.linalg.vector_norm(s)) ** 2
                s *= gain[part]
                xp.add(own, s, out=image[part])
            off = largest * error + rounding
            residual = math.sqrt(square) + off
            if residual <= tolerance and descends(problem, z, change / gain, off, start) and prox.confirmed():
                break
            mapped, x = x, extrapolation(math.sqrt(square))
        else:  # the dual is that of the last point, not of where it would go on
            x = mapped
        # Copies, since a proximal map may hand on what it was given.
        candidate = Candidate(xp.asarray(z, copy=True), iteration, structure, (x - z) * (rho / alpha), prox.basis)
        extrapolation.close()
        return candidate

    @staticmethod
    def _precision(problem: Subproblem, tolerance: float) -> tuple[Any, float]:
        """float64, but for float32 data whose rounding is far below the tolerance; and what that rounding does to S."""
        xp = problem.xp
        if problem.anchor.dtype == xp.float32 and tolerance >= SINGLE * (magnitude := problem.magnitude):
            return xp.float32, 8.0 * float(xp.finfo(xp.float32).eps) * magnitude  # of S, which is judged in float64
        return xp.float64, 0.0

    def _penalties(self, xp: ModuleType, psi: Regularizer, metric: Array, share: float) -> tuple[Any, Any]:
        """rho as `prox` needs it, a number or one per piece, and laid out over the entries."""
        if self.penalty is not None:
            pieces = xp.ones_like(psi.group_max(metric)) * self.penalty if psi.separable else self.penalty
        else:
            pieces = SHARE * psi.group_max(metric) if psi.separable else share * mean_of(xp, metric)
        return pieces, psi.spread(pieces, metric) if psi.separable else pieces


def rows_in_cache(array: Array) -> list[Any]:
    """Indices that together make up an array, each of so many rows as stay in a cache while some are worked on."""
    if not is_host(array) or array.ndim < 2 or math.prod(array.shape) <= BLOCK:
        return [...]
    rows = max(1, BLOCK * array.shape[0] // math.prod(array.shape))
    return [slice(first, first + rows) for first in range(0, array.shape[0], rows)]


def detached(array: Array) -> Array:
    """The same numbers without a record of how they came about (torch), which would have to be kept."""
    return array.detach() if hasattr(array, "detach") else array


def mean_of(xp: ModuleType, metric: Array) -> float:
    """sum P^2 / sum P: the mean of the metric weighted by itself, which small entries do not move."""
    return float(total(xp, metric**2) / total(xp, metric))


def share_of(point: Array, dual: Array | None, basis: Array | None) -> float:
    """rho as a share of the mean metric: the lower the rank, the more of Z is 0, where a large rho is right."""
    if dual is None:
        return SHARE
    return 0.5 if basis is None or not basis.shape[1] else 0.5 * math.sqrt(min(point.shape) / basis.shape[1])


def descends(problem: Subproblem, z: Array, s: Array, off: float, start: Array) -> bool:
    """Whether Q(z) <= Q(start), from s within ``off`` of dQ(z).

    For s in dQ(z), Q(start) - Q(z) >= <s, start - z> + 1/2 ||start - z||_P^2.  Only where this bound does not tell, the
    two values are computed.
    """
    xp = problem.xp
    step = xp.astype(start, z.dtype) - z
    length = float(xp.linalg.vector_norm(step))
    quadratic = 0.5 * float(xp.sum(problem.metric * step**2))
    if 0.99 * quadratic >= 1.01 * (float(xp.linalg.vector_norm(s)) + off) * length:
        return True
    step = to_float64(xp, start) - to_float64(xp, z)
    bound = inner(xp, s, step) + 0.5 * inner(xp, step, problem.metric * step)
    if float(bound - off * xp.linalg.vector_norm(step)) >= 0:
        return True
    return problem.increase(z, start) <= 0
