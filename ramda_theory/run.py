"""The loop: gradient, step, record; stops, saves and resumes to the same numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.diagnostics.convergence import measure
from ramda_theory.diagnostics.record import Record
from ramda_theory.files import write_atomically
from ramda_theory.methods.gradients import FullGradient, GradientOracle
from ramda_theory.methods.schedule import Schedule
from ramda_theory.methods.state import Method
from ramda_theory.regularizers import Regularizer
from ramda_theory.regularizers.grouped import integers
from ramda_theory.subproblem.problem import Solution

if TYPE_CHECKING:
    from ramda_theory.problems import Problem


class Diverged(ArithmeticError):
    """A run left the range of float64; ``record`` holds what it recorded before."""

    def __init__(self, step: int, record: Record) -> None:
        super().__init__(f"the run left the range of float64 at step {step}: its learning rate is too large")
        self.record = record


@dataclass
class Run:
    """A finished run: its last state and its record."""

    state: Any
    record: Record


def run(
    problem: Problem,
    method: Method,
    schedule: Schedule,
    steps: int,
    *,
    gradients: GradientOracle | None = None,
    measure_every: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 5000,
    progress: str | bool = False,
) -> Run:
    """Run a method on a problem.

    Parameters
    ----------
    problem : Problem
        The run starts at ``problem.initial``.
    method : Method
    schedule : Schedule
    steps : int
        Steps in all, those of a resumed run included.
    gradients : gradient oracle, optional
        The full gradient by default.
    measure_every : int
        Steps between measurements (`ramda_theory.diagnostics.measure`); the last step is always measured.  0: never.
    checkpoint : path, optional
        File to save to every ``checkpoint_every`` steps, when the run ends and when it is interrupted.  If it exists,
        the run goes on from it, to the same numbers as without the interruption.
    checkpoint_every : int
    progress : bool or str
        Show a progress bar (with this label).

    Returns
    -------
    Run

    Raises
    ------
    Diverged
        If a number overflows; the last good state is in the checkpoint.
    ValueError
        If a gradient is not finite (likewise), or a checkpoint is of another run.
    """
    at_least("steps", steps, 0)
    at_least("measure_every", measure_every, 0)
    at_least("checkpoint_every", checkpoint_every, 1)
    gradients = FullGradient() if gradients is None else gradients
    config = describe(problem, method, schedule, gradients)
    state, done, seconds = method.init(problem.initial), 0, 0.0
    record = Record(config=config, steps_per_epoch=gradients.steps_per_epoch(problem))
    if checkpoint is not None and Path(checkpoint).exists():
        state, done, seconds, record = load_checkpoint(checkpoint, state, config)

    bar = progress_bar(progress, steps, done)
    t = done
    before = np.seterr(over="raise")
    try:
        while t < steps:
            settings = schedule.at(t + 1)
            clock = time.perf_counter()
            if schedule.starts_stage(t + 1):
                state = method.restart(state, settings, schedule.memory)
            gradient = gradients(problem, state.query, t + 1)
            state, solution = method.step(state, gradient, settings)
            seconds += time.perf_counter() - clock
            t += 1
            observe(record, problem.regularizer, state, solution, settings.tolerance)
            if measure_every and (t % measure_every == 0 or t == steps):
                record.metrics.append(step=t, seconds=seconds, **measure(problem, method, state))
            if checkpoint is not None and t % checkpoint_every == 0 and t < steps:
                save_checkpoint(checkpoint, state, t, seconds, record)
            if bar is not None:
                bar.update()
    except FloatingPointError as error:
        raise Diverged(t, record) from error
    finally:
        np.seterr(**before)
        if bar is not None:
            bar.close()
        if checkpoint is not None and t > done:
            save_checkpoint(checkpoint, state, t, seconds, record)
    return Run(state, record)


def at_least(name: str, value: int, least: int) -> None:
    """Refuse anything but an integer of at least ``least``."""
    if integers(name, value)[0] < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def observe(record: Record, regularizer: Regularizer, state: Any, solution: Solution | None, tolerance: float) -> None:
    """Add one step to the record: structures, and the inner solution if there is one."""
    hat = regularizer.structure(state.w_hat) if solution is None else solution.structure
    record.structures_hat.append(hat)
    record.structures_w.append(hat if state.w is state.w_hat else regularizer.structure(state.w))
    if solution is not None:
        record.inner.append(
            tolerance=tolerance,
            residual=solution.residual,
            iterations=solution.iterations,
            descent=solution.status != "no_descent",
        )


def describe(problem: Problem, method: Method, schedule: Schedule, gradients: GradientOracle) -> dict[str, str]:
    """What a run is, as plain text; two runs with equal descriptions give equal numbers."""

    def text(thing: object) -> str:
        return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))

    start = np.ascontiguousarray(problem.initial)
    return {
        "problem": f"{problem.name} {text(problem.regularizer)} start {float(start.sum())!r} {start.shape}",
        "method": f"{type(method).__name__} {text(method)}",
        "schedule": text(schedule),
        "gradients": text(gradients),
    }


def progress_bar(progress: str | bool, steps: int, done: int):
    """A bar on standard error, or None."""
    if not progress:
        return None
    from tqdm import tqdm

    label = progress if isinstance(progress, str) else None
    return tqdm(total=steps, initial=done, desc=label, unit="step", leave=False, mininterval=0.5)


def save_checkpoint(path: str | Path, state: Any, t: int, seconds: float, record: Record) -> None:
    """Write a run's state and record to one file, atomically."""
    arrays: dict[str, Any] = {f"record.{key}": array for key, array in record.to_arrays().items()}
    scalars: dict[str, float | int] = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, np.ndarray):
            arrays[f"state.{field.name}"] = value
        elif value is not None:
            scalars[field.name] = value
    arrays["head"] = np.asarray(json.dumps({"t": t, "seconds": seconds, "state": scalars}))
    write_atomically(path, lambda file: np.savez(file, **arrays))


def load_checkpoint(path: str | Path, state: Any, config: dict[str, str]) -> tuple[Any, int, float, Record]:
    """State, steps done, seconds and record from a file; ``state`` gives the type, ``config`` what it must be of."""
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    head = json.loads(str(arrays["head"]))
    record = Record.from_arrays(
        {key.removeprefix("record."): array for key, array in arrays.items() if key.startswith("record.")}
    )
    for key, value in config.items():
        if record.config.get(key) != value:
            raise ValueError(
                f"checkpoint {path} is of another run: its {key} is {record.config.get(key)!r}, not {value!r}"
            )
    values = {field.name: None for field in dataclasses.fields(state)} | head["state"]
    values |= {key.removeprefix("state."): array for key, array in arrays.items() if key.startswith("state.")}
    if "w_hat" in values and np.array_equal(values["w"], values["w_hat"]):
        values["w_hat"] = values["w"]  # one array again, so that its structure is read once
    return type(state)(**values), int(head["t"]), float(head["seconds"]), record
