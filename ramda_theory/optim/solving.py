"""What_t of one parameter: the subproblem (4) solved exactly where that is possible, else by iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ramda_theory.kernels.sharding import apply, is_sharded, piece_of, whole
from ramda_theory.regularizers import Regularizer
from ramda_theory.subproblem import Exact, Subproblem
from ramda_theory.subproblem.solve import choose, judge

Scalar = Tensor | float


class Pieces(NamedTuple):
    """The data of (4) as this process holds it: W^0, V, the diagonal of P, alpha."""

    anchor: Tensor
    grad_sum: Tensor
    metric: Tensor
    weight_sum: Scalar


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


def minimizer(pieces: Pieces, parameter: Tensor, start: Tensor, t: Scalar, options: dict[str, Any]) -> Tensor:
    """argmin_x alpha psi(x) + <V, x> + 1/2 <x - W^0, P (x - W^0)>: this process's piece, in the dtype of ``start``.

    Parameters
    ----------
    pieces : Pieces
    parameter : Tensor
        Says how pieces make up the whole.
    start : Tensor
        This process's piece of W_{t-1}, where iterations begin.
    t : int
        Step, for the tolerance sequence of an inexact solver.
    options : dict
        The parameter group: ``regularizer``, ``solver``, ``tolerance``, ``max_iter``.
    """
    anchor, grad_sum, metric, weight_sum = pieces
    psi: Any = options["regularizer"]
    if psi is None or not parameter.numel():
        return anchor - grad_sum / metric

    def exact(linear: Tensor, metric: Tensor) -> Tensor:
        return psi.metric_prox(linear, metric, weight_sum)

    def iterate(anchor: Tensor, grad_sum: Tensor, metric: Tensor, start: Tensor) -> Tensor:
        if not finite(anchor, grad_sum, metric, start):
            return torch.full_like(anchor, torch.nan)  # what on_nonfinite="ignore" let through stays visible
        problem = Subproblem(anchor, grad_sum, metric, float(weight_sum), psi)
        solver = choose(problem, options["solver"])
        return solver(problem, start, eps_t(problem, t, options), options["max_iter"]).point

    if is_exact(psi, options["solver"]):
        # The linear term V - P W^0 in float64: what cancels in it decides which groups are zero.
        metric = metric.double()
        linear = grad_sum.double() - metric * anchor.double()
        return apply(exact, psi, parameter, linear, metric).to(start.dtype)
    if torch.compiler.is_compiling():
        raise RuntimeError(f"{psi!r} is solved by iterations that look at their residual: such a step cannot compile")
    gather = is_sharded(parameter)
    return apply(iterate, psi, parameter, anchor, grad_sum, metric, start, gather=gather).to(start.dtype)


def solved(
    pieces: Pieces,
    parameter: Tensor,
    start: Tensor,
    t: Scalar,
    options: dict[str, Any],
    record: dict[Tensor, Inexactness] | None,
) -> Tensor:
    """`minimizer`; with a ``record``, how well a regularized parameter's point meets (7) is left there.

    Recording gathers the parameter and waits for the device.
    """
    if record is None or options["regularizer"] is None or not parameter.numel():
        return minimizer(pieces, parameter, start, t, options)
    anchor, grad_sum, metric, begin = (whole(piece, parameter) for piece in (*pieces[:3], start))
    if not finite(anchor, grad_sum, metric, begin):
        record[parameter] = Inexactness(math.nan, math.nan, 0, "max_iter")
        return torch.full_like(start, torch.nan)
    problem = Subproblem(anchor, grad_sum, metric, float(pieces.weight_sum), options["regularizer"])
    tolerance = eps_t(problem, t, options)
    candidate = choose(problem, options["solver"])(problem, begin, tolerance, options["max_iter"])
    solution = judge(problem, candidate, tolerance, begin)
    record[parameter] = Inexactness(solution.residual, tolerance, solution.iterations, solution.status)
    return piece_of(solution.point, parameter)


def finite(*tensors: Tensor) -> bool:
    """Whether all entries of all tensors are (waits for a device)."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def eps_t(problem: Subproblem, t: Scalar, options: dict[str, Any]) -> float:
    """The tolerance of step t."""
    sequence = options["tolerance"]
    return problem.default_tolerance() if sequence is None else sequence(int(t))
