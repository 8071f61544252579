"""What_t of one parameter: the subproblem (4) solved exactly where that is possible, else by iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels.sharding import apply, full_tensor, is_sharded, local_shard
from ramda_theory.regularizers import Regularizer
from ramda_theory.subproblem import Exact, Subproblem
from ramda_theory.subproblem.solve import choose, judge

Scalar = Tensor | float


@dataclass(frozen=True)
class Inexactness:
    """How well the subproblem of one parameter was solved in a step.

    Attributes
    ----------
    residual : float
        Left side of (7), min ||s|| over s in dQ_t(What_t), evaluated afresh.
    tolerance : float
        eps_t, its right side.
    iterations : int
        Of the solver (0 for a closed form).
    status : str
        As in `Solution`: "solved", "max_iter" or "no_descent".
    """

    residual: float
    tolerance: float
    iterations: int
    status: str


def is_exact(psi: Regularizer | None, solver: Any) -> bool:
    """Whether What has a closed form, whatever the metric."""
    if psi is None:
        return True
    if solver is None:
        return psi.exact_in_every_metric
    return solver == "exact" or isinstance(solver, Exact)


def minimizer(
    base: Tensor,
    linear: Tensor,
    diag: Tensor | float,
    scale: Scalar,
    *,
    proximal: bool,
    parameter: Tensor,
    start: Tensor,
    t: Scalar,
    options: dict[str, Any],
    record: dict[Tensor, Inexactness] | None = None,
) -> Tensor:
    """argmin_x <linear, x> + 1/2 <x - base, diag (x - base)> + scale psi(x): this process's piece, like ``start``.

    Parameters
    ----------
    base, linear : Tensor
        This process's pieces.
    diag : Tensor or float
        The metric.
    scale : float or Tensor
    proximal : bool
        Whether ``diag`` is one number (a float, or a tensor without axes), so that this is a proximal map.
    parameter : Tensor
        Says how pieces make up the whole.
    start : Tensor
        This process's piece of W_{t-1}, where iterations begin.
    t : float or Tensor
        Step, for the tolerance sequence of an inexact solver.
    options : dict
        The parameter group: ``regularizer``, ``solver``, ``tolerance``, ``max_iter``.
    record : dict, optional
        Where to leave how well a regularized parameter's point meets (7): that gathers it and waits for the device.
    """
    psi: Any = options["regularizer"]
    if psi is None or not parameter.numel() or proximal:
        z = base - linear / (diag.to(base.dtype) if isinstance(diag, Tensor) else diag)
        if psi is None or not parameter.numel():
            return z
        return apply(lambda whole: psi.prox(whole, scale / diag), psi, parameter, z)
    assert isinstance(diag, Tensor)
    if record is not None:
        return _recorded(base, linear, diag, scale, parameter, start, t, options, record)

    def exact(linear: Tensor, diag: Tensor) -> Tensor:
        found: Tensor = psi.metric_prox(linear, diag, scale)
        return found

    def iterate(base: Tensor, linear: Tensor, diag: Tensor, start: Tensor) -> Tensor:
        if not finite(base, linear, diag, start):
            return torch.full_like(base, torch.nan)  # what on_nonfinite="ignore" let through stays visible
        problem = Subproblem(base, linear, diag, float(scale), psi)
        solver = choose(problem, options["solver"])
        found: Tensor = solver(problem, start, eps_t(problem, t, options), options["max_iter"]).point
        return found

    if is_exact(psi, options["solver"]):
        # The linear term in float64: what cancels in it decides which groups are zero.
        wide = diag.double()
        combined = linear.double() - wide * base.double()
        return apply(exact, psi, parameter, combined, wide).to(start.dtype)
    if torch.compiler.is_compiling():
        raise RuntimeError(f"{psi!r} is solved by iterations that look at their residual: such a step cannot compile")
    gather = is_sharded(parameter)
    return apply(iterate, psi, parameter, base, linear, diag, start, gather=gather).to(start.dtype)


def _recorded(
    base: Tensor,
    linear: Tensor,
    diag: Tensor,
    scale: Scalar,
    parameter: Tensor,
    start: Tensor,
    t: Scalar,
    options: dict[str, Any],
    record: dict[Tensor, Inexactness],
) -> Tensor:
    """`minimizer` of the gathered problem, judged by (7)."""
    base, linear, diag, begin = (full_tensor(piece, parameter) for piece in (base, linear, diag, start))
    if not finite(base, linear, diag, begin):
        record[parameter] = Inexactness(math.nan, math.nan, 0, "max_iter")
        return torch.full_like(start, torch.nan)
    problem = Subproblem(base, linear, diag, float(scale), options["regularizer"])
    tolerance = eps_t(problem, t, options)
    candidate = choose(problem, options["solver"])(problem, begin, tolerance, options["max_iter"])
    solution = judge(problem, candidate, tolerance, begin)
    record[parameter] = Inexactness(solution.residual, tolerance, solution.iterations, solution.status)
    return local_shard(solution.point, parameter)


def finite(*tensors: Tensor) -> bool:
    """Whether all entries of all tensors are (waits for a device)."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def eps_t(problem: Subproblem, t: Scalar, options: dict[str, Any]) -> float:
    """The tolerance of step t."""
    sequence = options["tolerance"]
    return problem.default_tolerance() if sequence is None else sequence(int(t))
