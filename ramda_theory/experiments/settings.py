"""Which methods a command runs, with which settings, read from text such as ``RAMDA:lr=1e-2,averaging=0.1``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramda_theory.methods import FISTA, MADGRAD, MDA, NSGD, RAMDA, RDA, RMDA, Method, ProxGen, ProxSGD, Schedule
from ramda_theory.problems import PROBLEMS, Problem

METHODS = ("RAMDA", "RMDA", "RDA", "NSGD", "ProxSGD", "ProxAdamW", "MADGRAD", "MDA", "PG", "FISTA")

DEFAULT_LR = {
    "RAMDA": 1e-2,
    "MADGRAD": 1e-2,
    "RMDA": 1.0,
    "MDA": 1.0,
    "RDA": 30.0,
    "NSGD": 6.0,
    "ProxSGD": 1.0,
    "ProxAdamW": 1e-3,
}
"""Learning rates that suit the digits problem."""

IN_UNITS_OF_STEP = ("RMDA", "MDA", "RDA", "NSGD", "ProxSGD")
DETERMINISTIC = ("PG", "FISTA")


@dataclass(frozen=True)
class Setting:
    """A method and its schedule, with milestones in epochs.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    lr : float
        Learning rate; PG and FISTA always take 1/L.
    averaging : float
        c; for ProxSGD that of its momentum.
    milestones : tuple of int
        In epochs.  Dual averaging restarts there, the others only decay their learning rate.
    gamma, memory, grow
        As in `Schedule` (``grow`` is ``grow_averaging``).
    growth : float
        `Schedule`'s ``memory_growth``.
    prox : float
        NSGD's tau.
    """

    method: str
    lr: float
    averaging: float = 1.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    memory: int = 0
    grow: bool = False
    growth: float = 1.0
    prox: float = 300.0

    @property
    def label(self) -> str:
        """The settings in words."""
        return self._words(f" {','.join(map(str, self.milestones))}")

    @property
    def short_label(self) -> str:
        """`label` without the milestones' epochs."""
        return self._words("")

    def _words(self, epochs: str) -> str:
        if self.method in DETERMINISTIC:
            return "step 1/L"
        words = [f"lr {self.lr:g}"]
        if self.method == "NSGD":
            words.append(f"tau {self.prox:g}")
        elif self.method != "ProxAdamW":
            words.append(f"averaging {self.averaging:g}" + (" -> 1" if self.grow else ""))
        if self.milestones:
            dual = self.method in ("RAMDA", "RMDA", "RDA", "MADGRAD", "MDA")
            words.append(("stages" if dual else "decay") + epochs)
            if self.gamma != 0.1:
                words.append(f"gamma {self.gamma:g}")
        if self.memory:
            words.append(f"memory {self.memory}" + (f" x {self.growth:g}" if self.growth != 1 else ""))
        return ", ".join(words)

    def scaled(self, factor: float) -> Setting:
        """With milestones in proportion to a run ``factor`` times as long."""
        return replace(self, milestones=tuple(max(1, round(factor * epoch)) for epoch in self.milestones))

    def on(self, problem: Problem) -> Setting:
        """A setting chosen on the digits, carried to another problem.

        There the learning rate of a method without a preconditioner, 1 on the digits, becomes 1/L.
        """
        if problem.name == "digits" or self.method not in IN_UNITS_OF_STEP or problem.lipschitz is None:
            return self
        lr, prox = (float(f"{value / problem.lipschitz:.2g}") for value in (self.lr, self.prox))
        return replace(self, lr=lr, prox=prox) if self.method == "NSGD" else replace(self, lr=lr)

    def build(self, problem: Problem, steps_per_epoch: int) -> tuple[Method, Schedule]:
        """The method and the schedule, in steps, on a problem."""
        psi = problem.regularizer
        methods: dict[str, Any] = {
            "RAMDA": lambda: RAMDA(psi),
            "RMDA": lambda: RMDA(psi),
            "RDA": lambda: RDA(psi),
            "NSGD": lambda: NSGD(psi, self.prox),
            "ProxSGD": lambda: ProxSGD(psi),
            "ProxAdamW": lambda: ProxGen(psi),
            "MADGRAD": MADGRAD,
            "MDA": MDA,
            "PG": lambda: FISTA(psi, accelerate=False),
            "FISTA": lambda: FISTA(psi),
        }
        if self.method in DETERMINISTIC:
            if problem.lipschitz is None:
                raise ValueError(f"{self.method} needs a problem with a Lipschitz constant, {problem.name} has none")
            return methods[self.method](), Schedule(1.0 / problem.lipschitz)
        return methods[self.method](), Schedule(
            self.lr,
            self.averaging,
            milestones=tuple(steps_per_epoch * epoch for epoch in self.milestones),
            gamma=self.gamma,
            memory=self.memory,
            grow_averaging=self.grow,
            memory_growth=self.growth,
        )


def parse_setting(text: str) -> Setting:
    """Read ``METHOD[:key=value,...]``.

    The keys are lr, averaging, gamma, memory, grow, growth, prox and milestones (epochs, joined by /).

    Raises
    ------
    ValueError
        Naming the unknown method or key, the key given twice, or the value that is no number.
    """
    method, _, rest = text.partition(":")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    values: dict[str, Any] = {"lr": DEFAULT_LR.get(method, 1.0)}
    if method == "ProxSGD":
        values["averaging"] = 0.1
    readers: dict[str, Callable[[str], Any]] = {
        "lr": float,
        "averaging": float,
        "gamma": float,
        "memory": int,
        "growth": float,
        "prox": float,
        "grow": lambda value: {"true": True, "false": False}[value.lower()],
        "milestones": lambda value: tuple(int(epoch) for epoch in value.split("/")),
    }
    given: set[str] = set()
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in readers:
            raise ValueError(f"unknown setting {key!r} of {method}; choose from {', '.join(readers)}")
        if key in given:
            raise ValueError(f"{key} of {method} is given twice in {text!r}")
        given.add(key)
        try:
            values[key] = readers[key](value)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{key} of {method} cannot be read from {value!r}") from error
    setting = Setting(method, **values)
    if not (math.isfinite(setting.lr) and setting.lr > 0):
        raise ValueError(f"lr of {method} must be positive, got {setting.lr!r}")
    NSGD(None, setting.prox)
    Schedule(
        setting.lr,
        setting.averaging,
        milestones=setting.milestones,
        gamma=setting.gamma,
        memory=setting.memory,
        memory_growth=setting.growth,
    )
    return setting


def problem_named(name: str, weight: float | None) -> Problem:
    """The problem of a name, with clear errors."""
    if name not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r}; choose from {', '.join(PROBLEMS)}")
    return PROBLEMS[name](weight=weight)


def checkpoint_path(out: str | Path, description: dict[str, str], steps: int) -> Path:
    """Where a command keeps a run, by what the run is: the same command finds it again, another does not."""
    text = json.dumps([description, steps], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(out) / "runs" / f"{description['method'].partition('(')[0]}-{key}.npz"


def select(settings: Sequence[Setting], methods: Sequence[str] | None, problem: Problem) -> list[Setting]:
    """The settings of the given methods on a problem; an item with its own (``RAMDA:lr=1e-2``) stands for itself."""
    if methods is None:
        return [setting.on(problem) for setting in settings]
    if not methods:
        raise ValueError("methods must name at least one method, got none")
    chosen: list[Setting] = []
    for text in methods:
        parsed = parse_setting(text)
        listed = [setting.on(problem) for setting in settings if setting.method == text]
        chosen += listed or [parsed.on(problem) if text == parsed.method else parsed]
    for setting in chosen:
        setting.build(problem, 1)  # refuses a method that does not fit the problem before anything runs
    return chosen
