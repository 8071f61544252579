"""Alternating least squares on the factors of a matrix of low rank: the nuclear norm's subproblem in any metric."""

from __future__ import annotations

from dataclasses import dataclass

from ramda_theory.arrays import Array, is_host
from ramda_theory.subproblem.admm import ADMM, descends, detached
from ramda_theory.subproblem.problem import Candidate, Subproblem
from ramda_theory.subproblem.regressions import Regressions

OTHERWISE = ADMM()
"""Where regressions do not serve, or not any longer."""


@dataclass(frozen=True)
class ALS:
    """Alternating ridge regressions on Z = A B^T, with ranks that rise and fall; ADMM where the rank is not low.

    Since ||Z||_* = min {(||A||^2 + ||B||^2) / 2 : A B^T = Z}, argmin_Z 1/2 <Z, P Z> - <b, Z> + tau ||Z||_* with
    b = P W^0 - V and tau = alpha lambda is, for given B, a ridge regression for each row of A,

        (B^T P_i B + tau I) a_i = B^T b_i,

    and for given A one for each row of B.  These see the metric as it is, where steps of first order take the longer
    the more it varies.  A product of row and column means in place of P makes them all one eigenvalue problem; where
    that is too far off, they are set up one by one, and then never raise Q.  With Z = U S V^T and N the part of
    P Z - b that is normal to U and V

    - a component whose own minimiser is zero, <u, (b - P Z + s P u v^T) v> <= tau, is dropped;
    - singular vectors of -N above tau are added, each as far as its own minimiser, divided by their number;
    - if there are none, which a Cholesky factorization of tau^2 I - N N^T tells, tangent part + tau U V^T is in dQ(Z).

    The factorization into A and B is that of softImpute-ALS (arXiv:1410.2596), with weights.

    Parameters
    ----------
    sweeps : int
        >= 1: after so many over rows and columns ADMM goes on.  It also solves problems of which no point of low rank
        is known yet, and those on accelerators.

    Raises
    ------
    ValueError
        If ``sweeps`` is out of its range.
    """

    sweeps: int = 50

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
        if not (alpha * psi.weight > 0 and is_host(problem.anchor)):
            return OTHERWISE(problem, start, tolerance, max_iter, dual, point, basis)
        arrays = problem.anchor, problem.grad_sum, problem.metric
        if any(getattr(array, "requires_grad", False) for array in (start, *arrays)):
            anchor, grad_sum, metric = map(detached, arrays)
            problem, start = Subproblem(anchor, grad_sum, metric, alpha, problem.regularizer), detached(start)
        work, candidate = Regressions(problem, psi, tolerance), None
        found = work.begin(start if point is None else point, basis)
        for sweep in range(1, min(self.sweeps, max_iter) + 1):
            if found is None:
                break
            known = work.dropped(work.swept(found))
            found, tangent, normal, off = work.completed(known)
            candidate = work.candidate(known if found is None else found, normal, sweep)
            if off is None:
                continue
            if descends(problem, candidate.point, work.back(tangent), off, start):
                return candidate
            if sweep > 1:  # rounding decides
                candidate = Candidate(start, sweep)
                break
        if candidate is None:
            return OTHERWISE(problem, start, tolerance, max_iter, dual, point, basis)
        return self._goes_on(problem, start, tolerance, max_iter, candidate)

    def _goes_on(
        self, problem: Subproblem, start: Array, tolerance: float, max_iter: int, before: Candidate
    ) -> Candidate:
        """ADMM from where the regressions ended, unless it runs out of iterations above that."""
        rest = max_iter - before.iterations
        if not rest:
            return before
        more = OTHERWISE(problem, start, tolerance, rest, before.dual, before.point, before.basis)
        if more.iterations == rest and not problem.increase(more.point, before.point) <= 0:
            return before._replace(iterations=max_iter)
        return more._replace(iterations=before.iterations + more.iterations)
