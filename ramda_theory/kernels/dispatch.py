"""Which engine steps which parameter, and why no faster one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor

from ramda_theory.kernels.cpu import support
from ramda_theory.kernels.cpu.tables import Row, Table, all_finite, step_all
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.work import Work
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
            reason = forbidden or support.reason_against(group, parameter, gradient)
            rows.append((name, "eager" if reason else "cpu", reason or ""))
    return StepExplanation(tuple(rows))


ENGINES = ("eager", "cpu", "triton")
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
    if engine == "triton":
        raise RuntimeError("the triton engine is not to be had: this version has no kernels for it")
    if engine == "cpu" and (reason := support.missing()):
        raise RuntimeError(f"the cpu engine is not to be had: {reason}")
    before = _forced.set(engine)
    try:
        yield
    finally:
        _forced.reset(before)


def forced_engine() -> str | None:
    """The engine of the innermost `using` block of this thread."""
    return _forced.get()


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
    """

    def __init__(self, recurrence: Recurrence, work: Sequence[Work], recording: bool) -> None:
        self._recurrence = recurrence
        self._conditions = [conditions(each.options, recording) for each in work]
        self._tensors = [tensor for each in work for tensor in each.tensors()]
        self._pointers = [tensor.data_ptr() for tensor in self._tensors]
        self._options: list[Any] = [None] * len(work)
        self._remaining: list[tuple[int, list[int]]] = []
        rows: dict[tuple[int, int], list[Row]] = {}
        members: dict[tuple[int, int], list[tuple[int, int, list[int]]]] = {}
        seen: set[int] = set()
        forbidden = forbidding(recording)
        self._layouts: list[tuple[Any, ...]] = []
        for index, each in enumerate(work):
            remaining: list[int] = []
            positions: dict[tuple[int, int], list[int]] = {}
            for i in range(len(each.params)):
                found = forbidden or support.row(recurrence, each, i)
                pointer = each.weights[i].data_ptr()
                if not isinstance(found, str) and pointer in seen:
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
        self.tables = [Table(recurrence, *key, own) for key, own in rows.items()]
        self._members = [(table, members[key]) for table, key in zip(self.tables, rows, strict=True)]
        self._like = [
            [(index, i, support.layout(work[index].params[i])) for index, _, own in mine for i in own]
            for _, mine in self._members
        ]
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
            and [tensor.data_ptr() for tensor in tensors] == self._pointers
            and [conditions(each.options, recording) for each in work] == self._conditions
            and all(norms is None or state.get("norms") is norms for state, norms in self._norms)
        ):
            return False
        for (table, _), like in zip(self._members, self._like, strict=True):
            addresses = []
            for index, i, layout in like:
                gradient = work[index].grads[i]
                if not support.alike(gradient, *layout) or support.layout(work[index].params[i]) != layout:
                    return False
                addresses.append(gradient.data_ptr())
            table.gradients[:] = addresses
        return True

    def begin(self, work: Sequence[Work]) -> None:
        """Tell the tables the options of this step."""
        for index, each in enumerate(work):
            group = each.options
            c = 1.0 - float(group["momentum"]) if self._recurrence.averages else 1.0
            sign = -1.0 if group["maximize"] else 1.0
            options = (sign, c, *map(float, self._recurrence.options(group)))
            if options != self._options[index]:
                self._options[index] = options
                for table, mine in self._members:
                    for own, first, chosen in mine:
                        if own == index:
                            table.set_options(first, first + len(chosen), sign, c, options[2:])

    def all_finite(self) -> bool:
        """Whether the gradients that the compiled functions take are."""
        return all_finite(self.tables)

    def step(self) -> None:
        """Step what the compiled functions take."""
        if self.tables:
            step_all(self.tables)

    def remaining(self, work: Sequence[Work]) -> list[Work]:
        """What is left to the eager engine."""
        return [work[index].select(positions) for index, positions in self._remaining]


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
    if forced_engine() == "cpu":
        raise RuntimeError(f"the cpu engine cannot step a parameter of shape {shape}: {reason}")
    if work.options.get("fused"):
        raise RuntimeError(f"fused=True cannot step a parameter of shape {shape} ({reason}); fused=None can")
