"""What the methods have in common: the settings of a step, the contract of a method, the door gradients come by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from ramda_theory.arrays import Array, namespace
from ramda_theory.regularizers import L1, Regularizer
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.subproblem import Solution


@dataclass(frozen=True)
class Settings:
    """Numbers of one step.

    Attributes
    ----------
    lr : float
        eta_t >= 0.
    averaging : float
        c_t in [0, 1].
    eps : float
        Of dual averaging's metric (3), > 0.
    tolerance : float or None
        eps_t of (7), >= 0; used by inexact solvers only.  None leaves it to `solve`.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    lr: float
    averaging: float = 1.0
    eps: float = 1e-6
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.lr < math.inf:
            raise ValueError(f"lr must be finite and >= 0, got {self.lr!r}")
        if not 0.0 <= self.averaging <= 1.0:
            raise ValueError(f"averaging must be in [0, 1], got {self.averaging!r}")
        if not 0.0 < self.eps < math.inf:
            raise ValueError(f"eps must be finite and > 0, got {self.eps!r}")
        if self.tolerance is not None and not 0.0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance must be finite and >= 0, got {self.tolerance!r}")


class State(Protocol):
    """What a run reads from any method's state."""

    w: Array
    """The averaged iterate W_t."""
    w_hat: Array
    """The point whose structure theory speaks of (W_t itself for methods that do not average)."""

    @property
    def query(self) -> Array:
        """Where the next gradient is taken."""

    @property
    def gradient_estimate(self) -> Array | None:
        """What the method takes for grad f(W), where that is more than its last gradient."""


class Method(Protocol):
    """A pure step on a typed state: nothing is changed in place, the same arguments give the same state.

    Attributes
    ----------
    regularizer : Regularizer
        psi.
    """

    regularizer: Regularizer

    def init(self, w: Array) -> Any:
        """State before the first step, at ``w``.

        Parameters
        ----------
        w : array
            Where the run starts; floating point, copied.

        Returns
        -------
        state
            Of the method's own kind, with w_hat = w and sums of zero.
        """

    def step(self, state: Any, gradient: Array, settings: Settings) -> tuple[Any, Solution | None]:
        """State after a step with ``gradient`` at ``state.query``; the judged subproblem solution if it was inexact.

        Parameters
        ----------
        state : state
            After the step before, from `init`, `step` or `restart`.
        gradient : array
            G_t at ``state.query``, of the shape and dtype of w, finite.
        settings : Settings
            Of this step.

        Returns
        -------
        state : state
            A new one.
        solution : Solution or None
            None where the subproblem was solved in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """

    def restart(self, state: Any, settings: Settings, memory: int = 0) -> Any:
        """State at the start of a new stage, whose settings are given.

        Parameters
        ----------
        state : state
            At the end of a stage.
        settings : Settings
            Of the first step of the new stage.
        memory : int
            Steps' worth of gradient averages that dual averaging keeps; 0 forgets all, as published.

        Returns
        -------
        state
            A new one.
        """


def zero_if_none(regularizer: Regularizer | None) -> Regularizer:
    """psi = 0 for None."""
    if regularizer is None:
        return L1(0.0)
    if not isinstance(regularizer, Regularizer):
        raise TypeError(f"regularizer must be a Regularizer or None, got {regularizer!r}")
    return regularizer


def checked_gradient(gradient: Array, like: Array) -> ModuleType:
    """The array namespace, after checking that ``gradient`` fits ``like`` and is finite."""
    xp = namespace(gradient=gradient, w=like)
    same_shape(gradient=gradient, w=like)
    if not bool(xp.all(xp.isfinite(gradient))):
        raise ValueError("gradient must be finite, it holds NaN or Inf")
    return xp


def average(w: Array, w_hat: Array, c: float) -> Array:
    """(5): (1 - c) w + c w_hat, exactly w_hat for c = 1 and exactly w where the two agree."""
    if c == 1.0:
        return w_hat
    return w + c * (w_hat - w) if c < 0.5 else w_hat - (1.0 - c) * (w_hat - w)
