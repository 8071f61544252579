"""The subproblem handed to CVXPY: a reference that shares no mathematics with the rest of the package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ramda_theory.arrays import Array, to_host
from ramda_theory.extras import needs
from ramda_theory.subproblem.problem import Candidate, Subproblem


@dataclass(frozen=True)
class Cvxpy:
    """Solve with CVXPY and Clarabel.  Zeros come out as small numbers.

    Parameters
    ----------
    accuracy : float
        Clarabel's absolute and relative gap and its feasibility tolerance.  They hold for the objective as it stands:
        with the default of 1e-8, Clarabel's own, solutions of size 1e-2 are off by 1e-3, those of size 1 by 1e-5.
    """

    accuracy: float = 1e-8

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        with needs("experiments"):
            import cvxpy as cp

        anchor, grad_sum, metric = (
            to_host(a).astype(float) for a in (problem.anchor, problem.grad_sum, problem.metric)
        )
        x = cp.Variable(anchor.size)
        scaled = cp.multiply(np.sqrt(metric.ravel()), x - anchor.ravel())
        smooth = grad_sum.ravel() @ x + 0.5 * cp.sum_squares(scaled)
        objective = cp.Minimize(smooth + problem.weight_sum * problem.regularizer.cvxpy_expression(x, anchor.shape))
        program = cp.Problem(objective)
        accuracy = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), self.accuracy)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # its residual will tell
            program.solve(solver="CLARABEL", **accuracy)
        if x.value is None:
            raise RuntimeError(f"CVXPY (Clarabel) found no solution: status {program.status}")
        xp = problem.xp
        point = xp.asarray(np.reshape(x.value, anchor.shape), dtype=problem.anchor.dtype, device=problem.anchor.device)
        return Candidate(point, int(program.solver_stats.num_iters or 0))
