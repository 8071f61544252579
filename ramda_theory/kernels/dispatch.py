"""Which engine steps which parameter, and why no faster one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels import triton
from ramda_theory.kernels.cpu import support
from ramda_theory.kernels.cpu.tables import Table, all_finite, step_all
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.rules import Layout
from ramda_theory.kernels.sharding import local
from ramda_theory.kernels.work import Work, device_scalars
from ramda_theory.tables import aligned


@dataclass(frozen=True)
class StepExplanation:
    """Which engine steps each parameter; its ``str`` is a table.

    Parameters
    ----------
    rows : tuple of (str, str, str)
        Name of the parameter, engine, and why no faster one ("" where there is none).
    """

    rows: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        return aligned([("parameter", "engine", "why no faster one"), *self.rows])


def explain(groups: Sequence[dict[str, Any]], recording: bool) -> StepExplanation:
    """`StepExplanation` of the parameters of an optimizer; one without a gradient is taken to get one like itself."""
    forbidden = forbidding(recording)
    rows = []
    for index, group in enumerate(groups):
        for i, parameter in enumerate(group["params"]):
            name = group["param_names"][i] if "param_names" in group else f"{i} of group {index}"
            gradient = parameter.detach() if parameter.grad is None else parameter.grad
            engine = engine_for(parameter)
            reason = forbidden or SUPPORT[engine].reason_against(group, parameter, gradient)
            rows.append((name, "eager" if reason else engine, reason or ""))
    return StepExplanation(tuple(rows))


ENGINES = ("eager", "cpu", "triton")
SUPPORT: dict[str, Any] = {"cpu": support, "triton": triton.support}
"""Which parameters an engine takes, and why not the others."""
_forced: ContextVar[str | None] = ContextVar("forced engine", default=None)


@contextmanager
def using(engine: str) -> Iterator[None]:
    """Force an engine for all steps inside the ``with`` block, on this thread.

    Parameters
    ----------
    engine : {"eager", "cpu", "triton"}
        "eager" takes every tensor; the others refuse a step, before anything has changed, of which they cannot take
        every tensor.

    Yields
    ------
    None

    Raises
    ------
    ValueError
        If there is no engine of this name.
    RuntimeError
        If the engine is not to be had here.

    Examples
    --------
    >>> from ramda_theory import kernels
    >>> with kernels.using("eager"):
    ...     pass
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine != "eager" and (reason := SUPPORT[engine].missing()):
        raise RuntimeError(f"the {engine} engine is not to be had: {reason}")
    before = _forced.set(engine)
    try:
        yield
    finally:
        _forced.reset(before)


def forced_engine() -> str | None:
    """The engine of the innermost `using` block of this thread."""
    return _forced.get()


def engine_for(parameter: Tensor) -> str:
    """The engine that is asked first whether it steps a parameter."""
    forced = forced_engine()
    if forced in SUPPORT:
        return forced
    return "triton" if parameter.is_cuda else "cpu"


def numbers_on_device(options: dict[str, Any], parameter: Tensor) -> bool:
    """Whether the numbers of a parameter's state are to be where it is: kernels there work with them."""
    found = triton.support
    return device_scalars(options) or (
        parameter.is_cuda and (found.group_reason(options) or found.tensor_reason(parameter)) is None
    )


Key = tuple[Any, Any]
"""Of a table: rule and dtype, or "triton" and a device."""


def left_to_step(gradients: Sequence[Tensor]) -> bool:
    """Whether a step with these gradients unscales them: they are on one device, where kernels step."""
    devices = {gradient.device for gradient in gradients}
    return len(devices) == 1 and engine_for(gradients[0]) == "triton" and triton.support.runs_on(devices.pop())


class Plan:
    """How the parameters of a step are divided among the engines; kept while nothing of it changes.

    Parameters
    ----------
    recurrence : Recurrence
    work : sequence of Work
    recording : bool
        Whether the step is to say how well it solves its subproblems, which compiled loops cannot.

    Raises
    ------
    RuntimeError
        If an engine is forced, by `using` or by ``fused=True``, that cannot take all.

    Attributes
    ----------
    tables : list of Table
        What the compiled functions are told.
    captured : bool
        Whether a step was recorded in a graph, which reads the tables whenever it is replayed.
    """

    def __init__(self, recurrence: Recurrence, work: Sequence[Work], recording: bool) -> None:
        self._recurrence = recurrence
        self._conditions = [conditions(each.options, recording) for each in work]
        self._tensors = [tensor for each in work for tensor in each.tensors()]
        self._pointers = [local(tensor).data_ptr() for tensor in self._tensors]
        self._options: list[Any] = [None] * len(work)
        self._remaining: list[tuple[int, list[int]]] = []
        rows: dict[Key, list[Any]] = {}
        members: dict[Key, list[tuple[int, int, list[int]]]] = {}
        seen: set[int] = set()
        forbidden = forbidding(recording)
        self._layouts: list[tuple[Any, ...]] = []
        for index, each in enumerate(work):
            remaining: list[int] = []
            positions: dict[Key, list[int]] = {}
            for i in range(len(each.params)):
                found = forbidden or SUPPORT[engine_for(each.params[i])].row(recurrence, each, i)
                pointer = local(each.weights[i]).data_ptr()
                if not isinstance(found, str) and pointer and pointer in seen:
                    found = "it shares the memory of another"  # threads must not meet there
                if isinstance(found, str):
                    refuse_eager(each, i, found)
                    remaining.append(i)
                    continue
                seen.add(pointer)
                key, row = found
                rows.setdefault(key, []).append(row)
                positions.setdefault(key, []).append(i)
            for key, own in positions.items():
                first = len(rows[key]) - len(own)
                members.setdefault(key, []).append((index, first, own))
            if remaining:
                self._remaining.append((index, remaining))
        self._cpu, self._triton = [], []
        self._members: list[tuple[Any, list[tuple[int, int, list[int]]]]] = []
        self._like: list[list[tuple[int, int, Layout, Any]]] = []
        for key, found_rows in rows.items():
            if key[0] == "triton":
                self._triton.append(table := triton.make_table(recurrence, key, found_rows))
            else:
                self._cpu.append(table := Table(recurrence, *key, found_rows))
            self._members.append((table, members[key]))
            places = [(index, i) for index, _, chosen in members[key] for i in chosen]
            self._like.append(
                [
                    (index, i, support.layout(local(work[index].params[i])), getattr(row, "alike", support.alike))
                    for (index, i), row in zip(places, found_rows, strict=True)
                ]
            )
        self.tables = [*self._cpu, *self._triton]
        self.captured = False
        self._norms = [
            (work[index].states[i], rows[key][first + k].norms)
            for key, mine in members.items()
            for index, first, chosen in mine
            for k, i in enumerate(chosen)
        ]

    def still_holds(self, work: Sequence[Work], recording: bool) -> bool:
        """Whether it divides this work too; if so, the tables have the addresses of its gradients."""
        if len(work) != len(self._conditions):
            return False
        tensors = [tensor for each in work for tensor in each.tensors()]
        if not (
            len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            # Who gives a tensor other memory, as `module.half()` does, may have changed anything about it.
            and [local(tensor).data_ptr() for tensor in tensors] == self._pointers
            and [conditions(each.options, recording) for each in work] == self._conditions
            and all(norms is None or state.get("norms") is norms for state, norms in self._norms)
        ):
            return False
        for (table, _), like in zip(self._members, self._like, strict=True):
            addresses = []
            for index, i, layout, alike in like:
                gradient = local(work[index].grads[i])
                if not alike(gradient, *layout) or support.layout(local(work[index].params[i])) != layout:
                    return False
                addresses.append(gradient.data_ptr())
            table.set_gradients(addresses)
        return True

    def begin(self, work: Sequence[Work]) -> None:
        """Tell the tables the options of this step."""
        for index, each in enumerate(work):
            group = each.options
            momentum = plain(group["momentum"]) if self._recurrence.averages else 0.0
            sign = -1.0 if group["maximize"] else 1.0
            options = (sign, momentum, *map(plain, self._recurrence.options(group)))
            if not same(options, self._options[index]):
                self._options[index] = options
                for table, mine in self._members:
                    for own, first, chosen in mine:
                        if own == index:
                            table.set_options(first, first + len(chosen), sign, momentum, options[2:])

    def nonfinite(self) -> Tensor | bool:
        """Whether a gradient that the compiled functions take is not finite; kernels leave a flag on their device."""
        flags = [table.nonfinite() for table in self._triton]
        found: Tensor | bool = not all_finite(self._cpu)
        for flag in flags:
            found = flag | (found.to(flag.device) if isinstance(found, Tensor) else found)
        return found

    def step(self, found: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
        """Step what the compiled functions take, unless ``found``; kernels divide gradients by ``grad_scale``."""
        if self._cpu and not (found is not None and bool(found)):
            step_all(self._cpu)
        if self._triton:
            triton.step_tables(self._triton, found, grad_scale)
            self.captured |= torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()

    def remaining(self, work: Sequence[Work]) -> list[Work]:
        """What is left to the eager engine."""
        return [work[index].select(positions) for index, positions in self._remaining]


def plain(option: Any) -> Any:
    """A number; one in a tensor on another device, which would have to be waited for, stays there."""
    return option if isinstance(option, Tensor) and not option.is_cpu else float(option)


def same(options: Sequence[Any], others: Sequence[Any] | None) -> bool:
    """Whether nothing has to be told anew: numbers are equal, tensors are the same."""
    if others is None:
        return False
    return all(
        a is b or (isinstance(a, float) and isinstance(b, float) and a == b)
        for a, b in zip(options, others, strict=True)
    )


def conditions(options: dict[str, Any], recording: bool) -> tuple[Any, ...]:
    """What decides about the engine of a parameter group beside its tensors."""
    lr = options["lr"]
    return (
        forced_engine(),
        recording,
        options["regularizer"],
        options["capturable"],
        options["on_nonfinite"],
        options.get("fused"),
        options.get("solver"),
        lr.device if isinstance(lr, Tensor) and not lr.is_cpu else float(lr) > 0,
    )


def forbidding(recording: bool) -> str | None:
    """Why no faster engine than the eager one may take anything; None if one may."""
    if forced_engine() == "eager":
        return "the eager engine is forced"
    return "its inexactness is recorded" if recording else None


def refuse_eager(work: Work, position: int, reason: str) -> None:
    """Raise a RuntimeError where the eager engine may not step in."""
    if reason == support.LR_IS_ZERO:
        return
    shape = tuple(work.params[position].shape)
    if (engine := forced_engine()) in SUPPORT:
        raise RuntimeError(f"the {engine} engine cannot step a parameter of shape {shape}: {reason}")
    if work.options.get("fused"):
        raise RuntimeError(f"fused=True cannot step a parameter of shape {shape} ({reason}); fused=None can")
