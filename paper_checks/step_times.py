"""One parameter set, every method that steps it, their times, and how well they solve the subproblem."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paper_checks.opponents import MADGRAD, Algorithm2, Weight
from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import GroupLasso

LR, MOMENTUM, EPS = 1e-2, 0.9, 1e-6
POOL, WARM_UP = 4, 20


class Problem:
    """Parameters, a pool of gradients, and a weight lambda that makes half the groups zero after ``middle`` steps.

    Gradients are normal, times log-normal(0.5) per group, times log-normal(1) per entry.
    """

    def __init__(self, weights: Sequence[Weight], middle: int, device: str = "cpu") -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        def gradient(weight: Weight) -> Tensor:
            per_group = [1 if axis in (weight.dims or ()) else n for axis, n in enumerate(weight.shape)]
            return normal(*weight.shape).mul_((0.5 * normal(*per_group)).exp_()).mul_(normal(*weight.shape).exp_())

        self.weights = weights
        self.start = [normal(*weight.shape) / math.sqrt(math.prod(weight.shape[1:])) for weight in weights]
        self.pool = [[gradient(weight) for weight in weights] for _ in range(POOL)]
        self.weight = self._balanced([LR * math.sqrt(t) for t in range(middle + 1)])

    def _balanced(self, s: Sequence[float]) -> float:
        shares = [sum(s[k::POOL]) for k in range(POOL)]
        ratios = []
        for i, weight in enumerate(self.weights):
            if weight.dims is not None:
                v, u = torch.zeros_like(self.start[i]), torch.zeros_like(self.start[i])
                for share, gradients in zip(shares, self.pool, strict=True):
                    v.add_(gradients[i], alpha=share)
                    u.addcmul_(gradients[i], gradients[i], value=share)
                b = (u ** (1 / 3) + EPS) * self.start[i] - v
                psi = GroupLasso(1.0, dims=weight.dims)
                ratios.append((psi.group_norms(b) / psi.group_weights(b)).flatten())
        return float(torch.cat(ratios).median()) / sum(s)

    def copy(self) -> list[Tensor]:
        """Fresh parameters."""
        return [torch.nn.Parameter(tensor.clone()) for tensor in self.start]

    def psi(self, weight: Weight) -> GroupLasso | None:
        """The regularizer of a parameter."""
        return None if weight.dims is None else GroupLasso(self.weight, dims=weight.dims)

    def groups(self, params: Sequence[Tensor]) -> list[dict[str, Any]]:
        """``params`` as parameter groups, one per regularizer."""
        groups: dict[Any, list[Tensor]] = {}
        for parameter, weight in zip(params, self.weights, strict=True):
            groups.setdefault(self.psi(weight), []).append(parameter)
        return [{"params": members, "regularizer": psi} for psi, members in groups.items()]

    def set_gradients(self, params: Sequence[Tensor], t: int) -> None:
        """Those of step t."""
        for parameter, gradient in zip(params, self.pool[t % POOL], strict=True):
            parameter.grad = gradient


class Method:
    """Something to time: an optimizer of a copy of a problem's parameters.

    Parameters
    ----------
    problem : Problem
    params : list of Tensor
    optimizer : object
        With a method ``step``.
    steps : int
        How many a repeat takes.
    t : int
        Steps made.
    """

    def __init__(self, problem: Problem, params: list[Tensor], optimizer: Any, steps: int, t: int = 0) -> None:
        self.problem, self.params, self.optimizer, self.steps, self.t = problem, params, optimizer, steps, t

    def step(self) -> float:
        """One step with the next gradients; its milliseconds."""
        self.t += 1
        self.problem.set_gradients(self.params, self.t)
        synchronize(self.params)
        clock = time.perf_counter()
        self.optimizer.step()
        synchronize(self.params)
        return 1e3 * (time.perf_counter() - clock)


def synchronize(params: Sequence[Tensor]) -> None:
    """Wait for an accelerator."""
    if params[0].is_cuda:
        torch.cuda.synchronize()


def methods(problem: Problem, steps: int) -> dict[str, Method]:
    """All methods after their warm-up; that of Algorithm 2 are exact steps."""
    makers: dict[str, Callable[[list[Tensor]], Any]] = {
        "AdamW fused": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
        "AdamW foreach": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
        "MADGRAD": lambda params: MADGRAD(params, LR, MOMENTUM, EPS),
        "RAMDA plain": lambda params: RAMDA(problem.groups(params), LR, MOMENTUM, EPS, fused=False),
        "RAMDA": lambda params: RAMDA(problem.groups(params), LR, MOMENTUM, EPS),
    }
    result = {}
    for name, make in makers.items():
        params = problem.copy()
        result[name] = Method(problem, params, make(params), 2 if name == "RAMDA plain" else steps)
        for _ in range(WARM_UP):
            result[name].step()
    warm = result["RAMDA"]
    params = [torch.nn.Parameter(parameter.detach().clone()) for parameter in warm.params]
    optimizer = Algorithm2(params, LR, MOMENTUM, EPS, problem.weight, [weight.dims for weight in problem.weights])
    states = [warm.optimizer.state[parameter] for parameter in warm.params]
    optimizer.anchors = problem.start
    optimizer.grad_sums = [state["grad_sum"].clone() for state in states]
    optimizer.grad_sq_sums = [state["grad_sq_sum"].clone() for state in states]
    optimizer.t, optimizer.weight_sum = WARM_UP, float(states[0]["weight_sum"])
    result["Algorithm 2"] = Method(problem, params, optimizer, 1, WARM_UP)
    return result


def times(methods: dict[str, Method], repeats: int) -> dict[str, list[float]]:
    """Median milliseconds per step of every method in every repeat; they take turns, another one first each time."""
    names = list(methods)
    result: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            result[name].append(statistics.median(methods[name].step() for _ in range(methods[name].steps)))
    return result


class Quality(NamedTuple):
    """The largest residual of (7) over the groups, in weight_sum lam_g; iterations; the share of zero groups."""

    residual: float
    iterations: str
    zero: float


class Part(NamedTuple):
    """What, V, U, W^0 and alpha of one parameter."""

    point: Tensor
    grad_sum: Tensor
    grad_sq_sum: Tensor
    anchor: Tensor
    weight_sum: float


def quality(name: str, method: Method) -> Quality | None:
    """Of the last step; for the compiled loops, which write only W, of one more on copies.  None without psi."""
    problem, optimizer = method.problem, method.optimizer
    if name == "Algorithm 2":
        parts = [
            Part(*tensors, optimizer.weight_sum)
            for tensors in zip(
                optimizer.points, optimizer.grad_sums, optimizer.grad_sq_sums, optimizer.anchors, strict=True
            )
        ]
        iterations = f"{statistics.mean(optimizer.iterations):.0f}, at most {max(optimizer.iterations)}"
    elif name == "RAMDA" and not method.params[0].is_cuda:
        parts = next_step(method)
        iterations = "one pass and what is open"
    elif name.startswith("RAMDA"):
        with optimizer.structured_point():
            points = [parameter.detach().clone() for parameter in method.params]
        parts = [part(point, optimizer.state[p]) for point, p in zip(points, method.params, strict=True)]
        iterations = "to float64 accuracy"
    else:
        return None
    residuals, norms = [], []
    for each, weight in zip(parts, problem.weights, strict=True):
        psi = problem.psi(weight)
        if psi is not None:
            x, metric = each.point.double(), each.grad_sq_sum.double() ** (1 / 3) + EPS
            s = psi.subdifferential_residual(x, each.grad_sum + metric * (x - each.anchor), each.weight_sum)
            residuals.append((psi.group_norms(s) / (each.weight_sum * psi.group_weights(x))).flatten())
            norms.append(psi.group_norms(x).flatten())
    return Quality(float(torch.cat(residuals).max()), iterations, float((torch.cat(norms) == 0).double().mean()))


def part(point: Tensor, state: dict[str, Tensor]) -> Part:
    """A point and the sums in ``state``."""
    return Part(point, state["grad_sum"], state["grad_sq_sum"], state["anchor"], float(state["weight_sum"]))


def next_step(method: Method) -> list[Part]:
    """Another step of the compiled loops, without averaging, on copies."""
    problem, params = method.problem, [torch.nn.Parameter(p.detach().clone()) for p in method.params]
    optimizer = RAMDA(problem.groups(params), LR, 0.0, EPS)
    for parameter, own in zip(params, method.params, strict=True):
        optimizer.state[parameter] = {key: tensor.clone() for key, tensor in method.optimizer.state[own].items()}
    problem.set_gradients(params, method.t + 1)
    optimizer.step()
    return [part(parameter.detach(), optimizer.state[parameter]) for parameter in params]
