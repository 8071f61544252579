"""The loop: gradient, step, record; stops, saves and resumes to the same numbers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.checkpoint import describe, held_interrupt, load_checkpoint, save_checkpoint
from ramda_theory.diagnostics.convergence import measure
from ramda_theory.diagnostics.online import OnlineCertificate
from ramda_theory.diagnostics.record import Record
from ramda_theory.methods.gradients import FullGradient, GradientOracle
from ramda_theory.methods.schedule import Schedule
from ramda_theory.methods.state import Method
from ramda_theory.problems.base import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.second_phase import Phase, SecondPhase

MOST_STEPS = 10**9


class Diverged(ArithmeticError):
    """A step gave NaN or Inf; ``record`` holds the steps before it."""

    def __init__(self, step: int, record: Record) -> None:
        super().__init__(f"step {step} gave NaN or Inf: the learning rate is too large, or the gradient is wrong")
        self.record = record


@dataclass
class Run:
    """A finished run: its last state and its record.

    Attributes
    ----------
    state : state
        The method's last state.
    record : Record
        What was measured on the way.
    """

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
    online: OnlineCertificate | None = None,
    second_phase: SecondPhase | None = None,
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
        File to save to every ``checkpoint_every`` steps, when the run ends and when an exception or Ctrl-C (which then
        waits for the step under way) ends it.  If it exists, the run goes on from it, to the same numbers as without
        the interruption.
    checkpoint_every : int
    progress : bool or str
        Show a progress bar (with this label).
    online : OnlineCertificate, optional
        Told of every step.  A resumed run tells it of the steps after the checkpoint only.
    second_phase : SecondPhase, optional
        How to go on from the model's minimiser once ``online`` (one is made if there is none) holds.  Where the phase
        finds itself in doubt, the method goes on from its point, with sums of zero.  Not with a checkpoint.

    Returns
    -------
    Run

    Raises
    ------
    Diverged
        If a gradient or an iterate is not finite; the last good state is in the checkpoint.
    TypeError
        If problem, method, schedule, gradients, online or second_phase are something else, such as a class in the place
        of an instance.
    ValueError
        If an argument is out of range, online is of another problem, or the checkpoint is damaged, of another version,
        of another or of a longer run, or its parts disagree; it names what does.
    """
    check_parts(problem, method, schedule, gradients)
    integer("steps", steps, 0, MOST_STEPS, "every step is recorded")
    integer("measure_every", measure_every, 0)
    integer("checkpoint_every", checkpoint_every, 1)
    gradients = FullGradient() if gradients is None else gradients
    for name, part, kind in (("online", online, OnlineCertificate), ("second_phase", second_phase, SecondPhase)):
        if part is not None and not isinstance(part, kind):
            raise TypeError(f"{name} must be of type {kind.__name__}, got {part!r}")
    if online is not None and online.problem is not problem:
        raise ValueError(f"online must watch the problem of the run, it watches {online.problem!r}")
    if second_phase is not None:
        if checkpoint is not None:
            raise ValueError("checkpoint must be left out with a second_phase, whose state is not saved")
        per_epoch, own = gradients.steps_per_epoch(problem), second_phase
        online = online or OnlineCertificate(problem, per_epoch, own.window, own.threshold, own.proof)
    phase: Phase | None = None
    config = describe(problem, method, schedule, gradients)
    state, t, seconds = method.init(problem.initial), 0, 0.0
    record = Record(config=config, steps_per_epoch=gradients.steps_per_epoch(problem))
    if checkpoint is not None:
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
    if checkpoint is not None and Path(checkpoint).exists():
        per_epoch = record.steps_per_epoch
        state, t, seconds, record = load_checkpoint(checkpoint, state, config, schedule)
        if record.steps_per_epoch != per_epoch:
            raise ValueError(
                f"the parts of checkpoint {checkpoint} disagree: its record has {record.steps_per_epoch} steps per "
                f"epoch, its gradients {per_epoch}; remove it to begin anew"
            )
        if t > steps:
            raise ValueError(f"steps must be at least the {t} steps that checkpoint {checkpoint} holds, got {steps}")

    psi, same_psi = problem.regularizer, method.regularizer == problem.regularizer
    bar, saved = progress_bar(progress, steps, t), t
    # Overflow ends in Diverged, not in warnings.
    with held_interrupt(checkpoint is not None) as interrupted, np.errstate(over="ignore", invalid="ignore"):
        try:
            while t < steps and not interrupted:
                clock = time.perf_counter()
                settings, begun = schedule.at(t + 1), state
                if schedule.starts_stage(t + 1):
                    begun = method.restart(state, settings, schedule.memory_at(t + 1))
                gradient = gradients(problem, begun.query if phase is None else phase.w, t + 1)
                if not math.isfinite(gradient.sum()):  # an overflowing sum is of no use either
                    raise Diverged(t + 1, record)
                if phase is None:
                    after, solution = method.step(begun, gradient, settings)
                else:
                    phase.step(gradient, t + 1)
                    after, solution = method.init(phase.w_hat), None
                if not math.isfinite(after.w.sum()):
                    raise Diverged(t + 1, record)
                elapsed = seconds + time.perf_counter() - clock
                # A run without psi of its own is held against the problem's.
                hat = solution.structure if solution is not None and same_psi else psi.structure(after.w_hat)
                averaged = hat if after.w is after.w_hat else psi.structure(after.w)
                due = measure_every and ((t + 1) % measure_every == 0 or t + 1 == steps)
                measured = measure(problem, method, after) if due else None
                if measured is not None and not math.isfinite(measured["objective"]):
                    raise Diverged(t + 1, record)

                # Nothing below fails: a step is recorded whole or not at all.
                state, t, seconds = after, t + 1, elapsed
                record.structures_hat.append(hat)
                record.structures_w.append(averaged)
                if phase is not None:
                    if not phase.sound:
                        phase = None
                        assert online is not None
                        online.withdraw()
                elif online is not None:
                    holds = online.observe(t, begun.query, gradient, after.w_hat)
                    if holds and second_phase is not None and online.proposal is not None:
                        phase = second_phase.begin(problem, online.proposal, gradients)
                if solution is not None:
                    record.append_inner(t, solution)
                if measured is not None:
                    record.metrics.append(step=t, seconds=seconds, **measured)
                if checkpoint is not None and t % checkpoint_every == 0 and t < steps:
                    save_checkpoint(checkpoint, state, t, seconds, record, schedule)
                    saved = t
                if bar is not None:
                    bar.update()
        finally:
            if bar is not None:
                bar.close()
            if checkpoint is not None and t > saved:
                save_checkpoint(checkpoint, state, t, seconds, record, schedule)
    return Run(state, record)


def check_parts(problem: Any, method: Any, schedule: Any, gradients: Any) -> None:
    """Refuse what is not a problem, a method, a schedule or a gradient oracle, saying what is wanted."""

    def offers(thing: Any, *names: str) -> bool:
        return not isinstance(thing, type) and all(callable(getattr(thing, name, None)) for name in names)

    for name, thing, right, wanted in (
        ("problem", problem, isinstance(problem, Problem), "a Problem such as lasso()"),
        ("method", method, offers(method, "init", "step", "restart"), "a method such as RAMDA(problem.regularizer)"),
        ("schedule", schedule, isinstance(schedule, Schedule), "a Schedule such as Schedule(lr=0.1)"),
        (
            "gradients",
            gradients,
            gradients is None or offers(gradients, "__call__", "steps_per_epoch"),
            "a gradient oracle such as FullGradient() or SampledGradient(64)",
        ),
    ):
        if not right:
            raise TypeError(f"{name} must be {wanted}, got {thing!r}")


def progress_bar(progress: str | bool, steps: int, done: int) -> Any:
    """A bar on standard error, or None."""
    if not progress:
        return None
    from tqdm import tqdm

    label = progress if isinstance(progress, str) else None
    return tqdm(total=steps, initial=done, desc=label, unit="step", leave=False, mininterval=0.5)
