"""Which groups of a network are settled: a statement during training, from gradients at the structured point itself.

A network has no minimiser to prove anything of: the statement is on the end of the run, and it is a statistic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ramda_theory.arrays import real
from ramda_theory.model.layers import points
from ramda_theory.problems.checks import integer
from ramda_theory.regularizers import Regularizer
from ramda_theory.tables import aligned

WINDOW = 3
"""Checks that a piece must look the same in."""
NOISE = 3.0
"""Standard errors that a zero group's gradient must stay below its bound."""
SAFETY = 3.0
"""Times what the rest of the run would move a group's norm at the fastest pace of the window."""


@dataclass(frozen=True)
class SettledLayer:
    """What is stated of one weight.

    Parameters
    ----------
    name : str
    states : array of str
        "zero", "nonzero" or "undecided" for every group (or entry), flat.
    """

    name: str
    states: np.ndarray

    @property
    def counts(self) -> tuple[int, int, int]:
        """Groups that are zero for good, nonzero for good, and undecided."""
        zero, nonzero = (int(np.count_nonzero(self.states == state)) for state in ("zero", "nonzero"))
        return zero, nonzero, self.states.size - zero - nonzero


@dataclass(frozen=True)
class Settled:
    """A statement on all weights; ``str`` is a table.

    Parameters
    ----------
    layers : tuple of SettledLayer
        One per regularized weight whose psi has a bound per piece (group LASSO, and psi of single entries).
    batches : int
        What it cost: forward and backward passes.
    unstated : tuple of str
        Regularized weights of which nothing can be stated, for lack of such a bound or as they take no gradient.
    """

    layers: tuple[SettledLayer, ...]
    batches: int
    unstated: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Settled groups over all groups stated on."""
        counts = np.array([layer.counts for layer in self.layers])
        return float(counts[:, :2].sum() / counts.sum())

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("weight", "zero", "nonzero", "undecided")]
        rows += [(layer.name, *map(str, layer.counts)) for layer in self.layers]
        rows += [(name, "-", "-", "-") for name in self.unstated]
        return f"{aligned(rows)}\n{self.share:.1%} settled; {self.batches} batches"


@dataclass(frozen=True)
class Check:
    """Norms of a weight's pieces, ratios of the mean gradient to their bounds, and standard errors of these."""

    sizes: np.ndarray
    ratios: np.ndarray
    errors: np.ndarray


class SettledPieces:
    """The checks of the last calls, and what follows from them; see `StructureTracker.settled`."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._checks: deque[tuple[int, list[Check]]] = deque(maxlen=WINDOW)
        self._names: list[str] = []

    def state(
        self,
        loss: Callable[[Any], Tensor],
        batches: Iterable[Any],
        now: int,
        remaining: int,
        noise: float,
        safety: float,
    ) -> Settled:
        """Check the point as it is at call ``now``, and say what is settled for ``remaining`` more calls."""
        integer("remaining", remaining, 0)
        real("noise", noise, minimum=0.0)
        real("safety", safety, minimum=0.0)
        if not callable(loss):
            raise TypeError(f"loss must be a function of a batch, got {type(loss).__name__}")
        if getattr(self._optimizer, "stage_is_fresh", False):
            raise RuntimeError(
                "w_hat has no structure of its own before the first step of a stage: call `settled` before the "
                "schedule's step"
            )
        weights = list(stated_weights(self._optimizer.param_groups))
        known = [each for each in weights if each[2].weight > 0 and _bounded(each) and _trained(each)]
        if not known:
            raise ValueError(
                "nothing can be stated: no weight that takes gradients has a bound per piece and a lambda above 0"
            )
        with list(points(self._optimizer).values())[-1]:
            checks, count = measured(known, loss, batches)
        names_now = [name for name, _, _ in known]
        if names_now != self._names:  # a weight lambda has become zero, or more than zero
            self._checks.clear()
            self._names = names_now
        if self._checks and self._checks[-1][0] == now:
            self._checks.pop()
        self._checks.append((now, checks))
        layers = tuple(
            SettledLayer(name, self._states(index, remaining, noise, safety))
            for index, (name, _, _) in enumerate(known)
        )
        names = {name for name, _, _ in known}
        return Settled(layers, count, tuple(name for name, _, _ in weights if name not in names))

    def _states(self, index: int, remaining: int, noise: float, safety: float) -> np.ndarray:
        calls = np.array([call for call, _ in self._checks], dtype=np.float64)
        window = [checks[index] for _, checks in self._checks]
        sizes = np.array([check.sizes for check in window])
        states = np.full(sizes.shape[1], "undecided")
        if len(window) < WINDOW:
            return states
        held = np.array([check.ratios + noise * check.errors for check in window]).max(axis=0) < 1.0
        pace = np.max(np.abs(np.diff(sizes, axis=0)) / np.diff(calls)[:, None], axis=0)
        states[np.all(sizes == 0, axis=0) & held] = "zero"
        states[np.all(sizes > 0, axis=0) & (sizes[-1] > safety * pace * remaining)] = "nonzero"
        return states


Weight = tuple[str, list[Tensor], Regularizer]


def stated_weights(groups: Iterable[dict[str, Any]]) -> Iterable[Weight]:
    """Name, parameters (several where psi takes them together) and regularizer of every regularized weight."""
    for i, group in enumerate(groups):
        psi = group.get("regularizer")
        if psi is None:
            continue
        if any(hasattr(parameter, "full_tensor") for parameter in group["params"]):
            raise ValueError("settled takes parameters that are whole on this process, not DTensors")
        names = group.get("param_names") or [f"group {i}, parameter {j}" for j in range(len(group["params"]))]
        if psi.joint_shapes is not None:
            yield " + ".join(names[:2]) + f" + {len(names) - 2} more" * (len(names) > 2), list(group["params"]), psi
        else:
            yield from ((name, [each], psi) for name, each in zip(names, group["params"], strict=True))


def _as_one(arrays: Sequence[Tensor], psi: Regularizer) -> Tensor:
    if psi.joint_shapes is None:
        return arrays[0].detach()
    return torch.cat([each.detach().reshape(-1) for each in arrays])


def _bounded(weight: Weight) -> bool:
    _, parameters, psi = weight
    w = _as_one(parameters, psi)
    return psi.piece_sizes(w, torch.zeros_like(w)) is not None


def _trained(weight: Weight) -> bool:
    return all(parameter.requires_grad for parameter in weight[1])


def measured(
    weights: Sequence[Weight], loss: Callable[[Any], Tensor], batches: Iterable[Any]
) -> tuple[list[Check], int]:
    r"""Mean gradient of the batches at the present point beside its standard error, piece by piece.

    The error of a piece is the root of :math:`\sum_b \|g_b - \bar g\|^2 / (B (B - 1))`, over its bound.
    """
    parameters = [each for _, own, _ in weights for each in own]
    means = [torch.zeros_like(_as_one(own, psi), dtype=torch.float64) for _, own, psi in weights]
    squares: list[Any] = [0.0] * len(weights)
    count = 0
    devices = sorted({each.device.index or 0 for each in parameters if each.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        for batch in batches:
            value = loss(batch)
            if not isinstance(value, Tensor):
                raise TypeError(f"loss must return a tensor, got {type(value).__name__}")
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            if all(g is None for g in found):
                raise ValueError("loss does not depend on any regularized weight of the optimizer")
            whole = iter(torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True))
            for i, (name, own, psi) in enumerate(weights):
                g = _as_one([next(whole) for _ in own], psi).to(torch.float64)
                if not torch.isfinite(g).all():
                    raise RuntimeError(f"the gradient of {name} is not finite in batch {count}")
                means[i] += g
                squares[i] = squares[i] + _sizes(psi, g, g)[1] ** 2
            count += 1
    if count < 2:
        raise ValueError(f"batches must hold at least two, for a standard error, got {count}")
    checks = []
    for (_, own, psi), total, square in zip(weights, means, squares, strict=True):
        sizes, ratios = _sizes(psi, _as_one(own, psi), total / count)
        errors = np.sqrt(np.maximum(square - count * ratios**2, 0.0) / (count * (count - 1)))
        checks.append(Check(sizes, ratios, errors))
    return checks, count


def _sizes(psi: Regularizer, w: Tensor, g: Tensor) -> tuple[np.ndarray, np.ndarray]:
    found = psi.piece_sizes(w.to(torch.float64), g)
    assert found is not None
    sizes, ratios = (each.cpu().numpy() for each in found)
    return sizes, ratios
