"""Stopping and going on: what a run is, its state and record in one file, and Ctrl-C between steps only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.diagnostics.record import Record
from ramda_theory.files import write_atomically
from ramda_theory.methods.gradients import GradientOracle
from ramda_theory.methods.schedule import Schedule
from ramda_theory.methods.state import Method

if TYPE_CHECKING:
    from ramda_theory.problems import Problem


def describe(problem: Problem, method: Method, schedule: Schedule, gradients: GradientOracle) -> dict[str, str]:
    """What a run is, as plain text; runs of equal descriptions give equal numbers.

    Data count by f and the length of grad f at one point, to nine digits; arrays among the arguments by a hash;
    functions by their name only (a checkpoint also knows the settings of its last step).
    """
    start = np.asarray(problem.initial)
    probe = start + 0.1 * np.cos(np.arange(start.size)).reshape(start.shape)
    with np.errstate(all="ignore"):
        value, gradient = problem.value_and_gradient(probe)
    return {
        "problem": f"{problem.name} {text(problem.regularizer)} of {problem.samples} samples, start {digest(start)}, "
        f"f {value:.9g}, grad f {np.linalg.norm(gradient):.9g}",
        "method": text(method),
        "schedule": text(schedule),
        "gradients": text(gradients),
    }


def text(thing: Any) -> str:
    """``repr`` without addresses, with arrays in full by their hash."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        shown = (field.name for field in dataclasses.fields(thing) if field.repr)
        return f"{type(thing).__name__}({', '.join(f'{name}={text(getattr(thing, name))}' for name in shown)})"
    return digest(thing) if isinstance(thing, np.ndarray) else re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def digest(array: np.ndarray) -> str:
    """Shape, dtype and a hash of the entries."""
    return f"{array.dtype}{list(array.shape)}:{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def save_checkpoint(path: str | Path, state: Any, t: int, seconds: float, record: Record, schedule: Schedule) -> None:
    """Write a run's state after step ``t`` and its record to one file, atomically."""
    arrays: dict[str, Any] = {f"record.{key}": array for key, array in record.to_arrays().items()}
    scalars: dict[str, float | int] = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, np.ndarray):
            arrays[f"state.{field.name}"] = value
        elif value is not None:
            scalars[field.name] = value
    head = {"t": t, "seconds": seconds, "state": scalars, "settings": text(schedule.at(t))}
    arrays["head"] = np.asarray(json.dumps(head))
    write_atomically(path, lambda file: np.savez(file, **arrays))


def load_checkpoint(
    path: str | Path, state: Any, config: dict[str, str], schedule: Schedule
) -> tuple[Any, int, float, Record]:
    """State, steps done, seconds and record from a file.

    Parameters
    ----------
    path : path
    state : state
        Gives the type.
    config, schedule
        `describe` of the run it must be of, and its schedule.

    Returns
    -------
    tuple

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is no checkpoint, is damaged or of another version, is one of another run, or its parts disagree;
        the message names what does.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as data:
                arrays = dict(data)
            head = json.loads(str(arrays["head"]))
            t, seconds, scalars, settings = (
                int(head["t"]),
                float(head["seconds"]),
                dict(head["state"]),
                head["settings"],
            )
            record = Record.from_arrays(
                {key.removeprefix("record."): array for key, array in arrays.items() if key.startswith("record.")}
            )
            values = scalars | {
                key.removeprefix("state."): array for key, array in arrays.items() if key.startswith("state.")
            }
        except KeyError as error:
            raise ValueError(
                f"{path} is not a checkpoint of this version: it lacks {error.args[0]!r}; remove it to begin anew"
            ) from error
        except Exception as error:  # what is cut off or damaged fails anywhere, and with anything
            raise ValueError(
                f"{path} is not a checkpoint, or is damaged ({type(error).__name__}: {error}); remove it to begin anew"
            ) from error
    compared = [(key, record.config.get(key), config[key]) for key in config]
    compared.append((f"settings of step {t}", settings, text(schedule.at(t)) if t > 0 else settings))
    for name, found, wanted in compared:
        if found != wanted:
            raise ValueError(f"checkpoint {path} is of another run: its {name} is {found!r}, not {wanted!r}")
    for reason in disagreements(t, seconds, values, record, state):
        raise ValueError(f"the parts of checkpoint {path} disagree: {reason}; remove it to begin anew")
    fields = [field.name for field in dataclasses.fields(state)]
    return type(state)(**dict.fromkeys(fields) | values), t, seconds, record


def disagreements(t: int, seconds: float, values: dict[str, Any], record: Record, state: Any) -> Iterator[str]:
    """What does not go together in a checkpoint after ``t`` steps of a run that began at ``state``."""
    if t < 0:
        yield f"it holds {t} steps"
    if not 0 <= seconds < math.inf:
        yield f"they took {seconds} seconds"
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    if unknown := sorted(values.keys() - fields.keys()):
        yield f"its state has {', '.join(unknown)}, a {type(state).__name__} has {', '.join(fields)}"
    for name, initial in fields.items():
        value = values.get(name)
        if value is None:
            if initial is not None:
                yield f"its state lacks {name}"
        elif isinstance(value, np.ndarray):
            like = state.w if initial is None else initial
            if not isinstance(like, np.ndarray):
                yield f"{name} of its state is an array, not a number"
            elif (value.shape, value.dtype) != (like.shape, like.dtype):
                yield f"{name} of its state is {described(value)}, the run's is {described(like)}"
            elif not np.isfinite(value).all():
                yield f"{name} of its state holds NaN or Inf"
        elif isinstance(initial, np.ndarray):
            yield f"{name} of its state is {value!r}, not an array"
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield f"{name} of its state is {value!r}"
    for name, trace in (("w_hat", record.structures_hat), ("w", record.structures_w)):
        if len(trace) != t:
            yield f"it holds {t} steps, but the structures of {len(trace)} points {name}"
    for name, table in (("measurements", record.metrics), ("inner solutions", record.inner)):
        steps = table["step"] if len(table) else np.zeros(0)
        if len(steps) and not (steps[0] >= 1 and steps[-1] <= t and (np.diff(steps) > 0).all()):
            yield f"it holds {t} steps, but {name} of the steps from {steps[0]:g} to {steps[-1]:g}, or out of order"


def described(array: np.ndarray) -> str:
    """Dtype and shape."""
    return f"{array.dtype}{list(array.shape)}"


@contextmanager
def held_interrupt(held: bool) -> Iterator[list[int]]:
    """While the block runs, Ctrl-C only adds to the list that it gets; it is raised when the block is done.

    Threads other than the main one never see Ctrl-C, and a handler that somebody else installed stays in charge.
    """
    pending: list[int] = []
    held = held and threading.current_thread() is threading.main_thread()
    if not held or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pending
        return
    signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield pending
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if pending:
            raise KeyboardInterrupt
