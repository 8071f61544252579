"""Learning rate, averaging, eps and tolerance over the steps of a run: stages, restarts, the last stage's averaging."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from ramda_theory.arrays import integers, real
from ramda_theory.methods.state import Settings
from ramda_theory.problems.checks import integer
from ramda_theory.subproblem.tolerance import ConstantTolerance, GeometricTolerance, PolynomialTolerance

Sequence = float | Callable[[int], float]


@dataclass(frozen=True)
class Schedule:
    """The settings of step t = 1, 2, ... and where stages begin (Appendix A.1 of arXiv:2403.14398).

    Parameters
    ----------
    lr : float or callable
        eta_t >= 0 of the first stage, a number or a function of t.
    averaging : float or callable
        c_t in [0, 1].
    eps : float
        Of dual averaging's metric, > 0, in the first stage.
    milestones : sequence of int
        Steps after which a new stage begins: increasing, positive.
    gamma : float
        lr and eps are multiplied by it at each milestone, > 0.
    memory : int
        Steps' worth of gradient averages that the first restart keeps, >= 0; 0 forgets all, as published.
    grow_averaging : bool
        In the last stage c_i = min(c sqrt(i), 1), with i the steps taken in that stage, so that W reaches the manifold.
    tolerance : tolerance sequence or callable, optional
        eps_t of (7) for inexact solvers; None leaves it to the solver's default.
    memory_growth : float
        Each further restart keeps this many times as much as the one before, > 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.
    """

    lr: Sequence
    averaging: Sequence = 1.0
    eps: float = 1e-6
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    memory: int = 0
    grow_averaging: bool = False
    tolerance: PolynomialTolerance | GeometricTolerance | ConstantTolerance | Callable[[int], float] | None = None
    memory_growth: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.lr):
            real("lr", self.lr, minimum=0.0)
        if not callable(self.averaging) and real("averaging", self.averaging, minimum=0.0) > 1:
            raise ValueError(f"averaging must be in [0, 1], got {self.averaging!r}")
        real("eps", self.eps, minimum=0.0, strict=True)
        real("gamma", self.gamma, minimum=0.0, strict=True)
        if self.tolerance is not None and not callable(self.tolerance):
            raise TypeError(f"tolerance must be a function of t such as PolynomialTolerance, got {self.tolerance!r}")
        milestones = integers("milestones", self.milestones)
        if any(b <= a for a, b in zip((0, *milestones), milestones, strict=False)):
            raise ValueError(f"milestones must be positive and increasing, got {self.milestones!r}")
        object.__setattr__(self, "milestones", milestones)
        object.__setattr__(self, "memory", integer("memory", self.memory, 0))
        real("memory_growth", self.memory_growth, minimum=0.0, strict=True)

    def memory_at(self, t: int) -> int:
        """The memory of the last restart up to step t: ``memory`` times ``memory_growth`` per restart before it.

        Parameters
        ----------
        t : int
            A step, 1, 2, ...; one of a later stage than the first.

        Returns
        -------
        int
            At most 10^9 steps.
        """
        stage = max(bisect_left(self.milestones, t), 1)
        return round(min(self.memory * self.memory_growth ** (stage - 1), 1e9))

    def starts_stage(self, t: int) -> bool:
        """Whether step t is the first of a new stage.

        Parameters
        ----------
        t : int
            A step, 1, 2, ...

        Returns
        -------
        bool
        """
        return t - 1 in self.milestones

    def at(self, t: int) -> Settings:
        """The settings of step t (a function's value out of range is a ValueError).

        Parameters
        ----------
        t : int
            A step, 1, 2, ...

        Returns
        -------
        Settings
            lr and eps times gamma per milestone passed.

        Raises
        ------
        ValueError
            If lr, averaging or tolerance comes out of its range.
        """
        stage = bisect_left(self.milestones, t)
        decay = self.gamma**stage
        lr = self.lr(t) if callable(self.lr) else self.lr
        averaging = self.averaging(t) if callable(self.averaging) else self.averaging
        if self.grow_averaging and stage == len(self.milestones):
            taken = t - (self.milestones[-1] if self.milestones else 0)
            averaging = min(averaging * math.sqrt(taken), 1.0)
        tolerance = None if self.tolerance is None else float(self.tolerance(t))
        return Settings(float(lr * decay), float(averaging), self.eps * decay, tolerance)
