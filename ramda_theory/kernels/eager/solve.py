"""What_t of one parameter: the subproblem (4) solved exactly where that is possible, else by iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ramda_theory.arrays import is_host
from ramda_theory.kernels.eager.warm_start import WarmStart
from ramda_theory.kernels.sharding import apply, full_tensor, local_shard
from ramda_theory.regularizers import Regularizer
from ramda_theory.subproblem import ADMM, ALS, Exact, Subproblem
from ramda_theory.subproblem.problem import Candidate
from ramda_theory.subproblem.solve import choose, judge

Scalar = Tensor | float
SMALL = 32768
"""Entries of a matrix whose operations take no longer than torch takes to begin them."""


@dataclass(frozen=True)
class StepInexactness:
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


class Pending:
    """`StepInexactness` of an exact solution on a device: its numbers stay there until somebody asks.

    Parameters
    ----------
    problem : Subproblem
        Unchecked; whole tensors.
    point, start : Tensor
        What and W_{t-1}.
    t : float or Tensor
    options : dict
        The parameter group, for the tolerance.
    """

    def __init__(self, problem: Subproblem, point: Tensor, start: Tensor, t: Scalar, options: dict[str, Any]) -> None:
        numbers = problem.residual(point), problem.increase_there(point, start), problem.magnitude_there()
        step = t.reshape(()).to(torch.float64) if isinstance(t, Tensor) else torch.full_like(numbers[0], t)
        self._numbers = torch.stack([*numbers, step])
        self._default, self._sequence = problem.tolerance_at(1.0), options["tolerance"]

    def read(self) -> StepInexactness:
        """The numbers, waited for."""
        residual, increase, magnitude, t = self._numbers.tolist()
        tolerance = self._default * magnitude if self._sequence is None else self._sequence(int(t))
        descends = "solved" if increase <= 0 else "no_descent"
        return StepInexactness(residual, tolerance, 0, descends if residual <= tolerance else "max_iter")


Records = dict[Tensor, "StepInexactness | Pending"]


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
    record: Records | None = None,
    warm: WarmStart | None = None,
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
        Where to leave how well a regularized parameter's point meets (7): that gathers it, and waits for the device if
        the point is found by iterations.
    warm : WarmStart, optional
        Where ADMM or ALS begins, and leaves where it ended.
    """
    psi: Any = options["regularizer"]
    if psi is None or not parameter.numel() or proximal:
        z = base - linear / (diag.to(base.dtype) if isinstance(diag, Tensor) else diag)
        if psi is None or not parameter.numel():
            return z
        if warm is not None and warm.remembers(psi, parameter, z):
            return warm.prox(psi, z, float(scale / diag))
        return apply(lambda whole: psi.prox(whole, scale / diag), psi, parameter, z)
    assert isinstance(diag, Tensor)
    known = is_exact(psi, options["solver"])
    on_device = isinstance(scale, Tensor) or not is_host(linear)
    if not known or (record is not None and not on_device):
        if torch.compiler.is_compiling():
            raise RuntimeError(
                f"{psi!r} is solved by iterations that look at their residual: such a step cannot compile"
            )
        return _iterated(base, linear, diag, scale, parameter, start, t, options, record, warm)

    def exact(linear: Tensor, diag: Tensor) -> Tensor:
        found: Tensor = psi.metric_prox(linear, diag, scale)
        return found

    # The linear term in float64: what cancels in it decides which groups are zero.
    wide = diag.double()
    combined = linear.double() - wide * base.double()
    point = apply(exact, psi, parameter, combined, wide).to(start.dtype)
    if record is not None:
        tensors = (full_tensor(piece, parameter) for piece in (base, linear, diag, point, start))
        anchor, grad_sum, metric, whole, begin = tensors
        problem = Subproblem.unchecked(anchor, grad_sum, metric, scale, psi)
        record[parameter] = Pending(problem, whole, begin, t, options)
    return point


def _iterated(
    base: Tensor,
    linear: Tensor,
    diag: Tensor,
    scale: Scalar,
    parameter: Tensor,
    start: Tensor,
    t: Scalar,
    options: dict[str, Any],
    record: Records | None,
    warm: WarmStart | None,
) -> Tensor:
    """`minimizer` of the gathered problem, judged by (7) if that is to be recorded."""
    base, linear, diag, begin = (full_tensor(piece, parameter) for piece in (base, linear, diag, start))
    if not finite(base, linear, diag, begin):
        if record is not None:
            record[parameter] = StepInexactness(math.nan, math.nan, 0, "max_iter")
        return torch.full_like(start, torch.nan)  # what on_nonfinite="ignore" let through stays visible
    problem = Subproblem(base, linear, diag, float(scale), options["regularizer"])
    tolerance = eps_t(problem, t, options)
    solver = choose(problem, options["solver"])
    if isinstance(solver, (ADMM, ALS)):
        known = {} if warm is None else warm.read(parameter)
        candidate = by_numpy(solver, problem, begin, tolerance, options["max_iter"], known)
        if warm is not None and finite(candidate.point):  # else the next step would begin there
            warm.write(candidate, parameter, start)
    else:
        candidate = solver(problem, begin, tolerance, options["max_iter"])
    point: Tensor = candidate.point.to(start.dtype)
    if candidate.iterations >= options["max_iter"] and not problem.increase(point, begin) <= 0:
        candidate, point = candidate._replace(structure=None), begin  # what raises Q is no step
    if record is not None:
        solution = judge(problem, candidate._replace(point=point), tolerance, begin)
        record[parameter] = StepInexactness(solution.residual, tolerance, solution.iterations, solution.status)
    return local_shard(point, parameter)


def by_numpy(
    solver: ADMM | ALS, problem: Subproblem, start: Tensor, tolerance: float, max_iter: int, known: dict[str, Tensor]
) -> Candidate:
    """``solver(problem, ...)``, of small matrices on the CPU by NumPy, whose every operation begins sooner."""
    if not start.is_cpu or start.numel() > SMALL:
        return solver(problem, start, tolerance, max_iter, **known)
    anchor, grad_sum, metric = (a.detach().numpy() for a in (problem.anchor, problem.grad_sum, problem.metric))
    same = Subproblem(anchor, grad_sum, metric, problem.weight_sum, problem.regularizer)
    begin = {key: tensor.numpy() for key, tensor in known.items()}
    found = solver(same, start.detach().numpy(), tolerance, max_iter, **begin)
    point, dual, basis = (None if a is None else torch.from_numpy(a) for a in (found.point, found.dual, found.basis))
    assert point is not None
    return found._replace(point=point, dual=dual, basis=basis)


def finite(*tensors: Tensor) -> bool:
    """Whether all entries of all tensors are (waits for a device)."""
    return all(bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all()) for tensor in tensors)


def eps_t(problem: Subproblem, t: Scalar, options: dict[str, Any]) -> float:
    """The tolerance of step t."""
    sequence = options["tolerance"]
    return problem.default_tolerance() if sequence is None else sequence(int(t))
