"""The subproblem handed to CVXPY: a reference that shares no mathematics with the rest of the package."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ramda_theory.arrays import Array, to_host
from ramda_theory.extras import needs
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, NuclearNorm, Regularizer, SparseGroupLasso
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
        regularizer = problem.regularizer
        x = cp.Variable(anchor.size)
        scaled = cp.multiply(np.sqrt(metric.ravel()), x - anchor.ravel())
        smooth = grad_sum.ravel() @ x + 0.5 * cp.sum_squares(scaled)
        objective = cp.Minimize(smooth + problem.weight_sum * penalty(cp, regularizer, x, anchor.shape))
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


def penalty(cp, regularizer: Regularizer, x, shape: tuple[int, ...]):
    """psi of the flat variable ``x`` (C order of ``shape``) as a CVXPY expression, from psi's published formula."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    weight = regularizer.weight
    if isinstance(regularizer, L1):
        return weight * cp.norm1(x)
    if isinstance(regularizer, ElasticNet):
        return weight * cp.norm1(x) + 0.5 * regularizer.l2 * cp.sum_squares(x)
    if isinstance(regularizer, NuclearNorm):
        order = [axis % len(shape) for axis in regularizer.row_dims + regularizer.column_dims]
        rows = int(np.prod([shape[axis] for axis in order[: len(regularizer.row_dims)]]))
        entries = index.transpose(order).reshape(rows, -1)
        return weight * cp.normNuc(cp.reshape(x[entries.ravel()], entries.shape, order="C"))
    if isinstance(regularizer, (GroupLasso, SparseGroupLasso)):
        labels = getattr(regularizer, "labels", None)
        if labels is not None:
            groups = [np.flatnonzero(np.asarray(labels) == label) for label in sorted(set(labels))]
        else:
            axes = sorted({axis % len(shape) for axis in regularizer.dims})
            last = np.moveaxis(index, axes, range(-len(axes), 0)) if axes else index[..., None]
            groups = list(last.reshape(-1, int(np.prod([shape[axis] for axis in axes]))))
        roots = [np.sqrt(len(group)) if regularizer.size_scaled else 1.0 for group in groups]
        norms = sum(root * cp.norm2(x[group]) for root, group in zip(roots, groups, strict=True))
        if isinstance(regularizer, GroupLasso):
            return weight * norms
        return weight * (regularizer.l1_ratio * cp.norm1(x) + (1 - regularizer.l1_ratio) * norms)
    raise ValueError(f"cvxpy solves convex subproblems only, got {regularizer!r}")
