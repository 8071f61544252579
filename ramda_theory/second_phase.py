"""What follows identification: Newton steps from minibatches, begun by a statement on the structure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.newton import model_at
from ramda_theory.methods import SampledGradient
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.problems.reference import find_reference

Kind = Literal["frozen", "averaged"]


@dataclass(frozen=True)
class SecondPhase:
    """How a run goes on once `OnlineCertificate` holds.

    Parameters
    ----------
    kind : {"frozen", "averaged"}
        "frozen", for finite sums: W stays for an epoch while its batches (and the samples that the shuffle drops) add
        up to the full gradient, then one proximal Newton step is taken; the structure may change in it.  "averaged",
        for streams too: W <- W - a_k H^-1 G on the support, H the Hessian at the start, a_k = ``gain`` / (k +
        ``delay``)^(2/3), What the mean of the W since; the support stays.
    window, threshold
        Of the `OnlineCertificate`.
    gain : float
        Of "averaged", > 0.
    delay : int
        Of "averaged", >= 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.
    """

    kind: Kind = "frozen"
    window: int = 5
    threshold: float = 4.0
    gain: float = 1.0
    delay: int = 10

    def __post_init__(self) -> None:
        if self.kind not in ("frozen", "averaged"):
            raise ValueError(f"kind must be 'frozen' or 'averaged', got {self.kind!r}")
        real("gain", self.gain, minimum=0.0, strict=True)
        integer("delay", self.delay, 0)

    def begin(self, problem: Problem, w: np.ndarray, gradients: object) -> Frozen | Averaged:
        """The state at the start, at a point with the structure that was stated.

        Parameters
        ----------
        problem : Problem
        w : float64 array
        gradients : gradient oracle
            The run's.

        Returns
        -------
        Frozen or Averaged

        Raises
        ------
        TypeError
            If "frozen" is asked of gradients that are no shuffled batches.
        """
        if self.kind == "averaged":
            return Averaged(problem, w, self.gain, self.delay)
        if not isinstance(gradients, SampledGradient):
            raise TypeError(f"second_phase 'frozen' needs a SampledGradient, got {gradients!r}")
        return Frozen(problem, w, gradients)


@dataclass
class Frozen:
    """Proximal Newton steps whose gradients are an epoch's batches at one point.

    A step after which dist(0, dF) has not fallen is halved, towards where it began; two in a row end the phase.

    Attributes
    ----------
    w : float64 array
        The point, which is What too.
    sound : bool
        Whether the phase may go on.
    """

    problem: Problem
    w: np.ndarray
    gradients: SampledGradient
    sound: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._best, self._least, self._failed = self.w, np.inf, 0
        self._clear()

    def _clear(self) -> None:
        self._sum, self._left, self._steps = np.zeros_like(self.w), np.ones(self.problem.samples or 0, dtype=bool), 0

    @property
    def w_hat(self) -> np.ndarray:
        """W itself."""
        return self.w

    def step(self, gradient: np.ndarray, t: int) -> None:
        """Add a batch's gradient at W; at the end of an epoch move W.

        Parameters
        ----------
        gradient : float64 array
            At W, of the batch of step t.
        t : int
        """
        batch = self.gradients.batch(self.problem, t)
        self._sum += len(batch) * gradient
        self._left[batch] = False
        self._steps += 1
        if self._steps < self.gradients.steps_per_epoch(self.problem):
            return
        rest, samples = np.flatnonzero(self._left), len(self._left)
        if len(rest):
            self._sum += len(rest) * self.problem.batch_gradient(self.w, rest)
        full = self._sum / samples
        self._clear()
        self._move(full)

    def _move(self, gradient: np.ndarray) -> None:
        psi = self.problem.regularizer
        size = float(psi.subdifferential_distance(self.w, gradient))
        if size >= self._least:
            self._failed += 1
            self.sound = self._failed < 2 or size <= 1e-12
            self.w = self._best if size <= 1e-12 else 0.5 * (self.w + self._best)
            return
        self._best, self._least, self._failed = self.w, size, 0
        model = model_at(self.problem, self.w, gradient)
        self.w = find_reference(model, max(1e-2 * min(1e-1, size) * size, 1e-14), 4000).point


@dataclass
class Averaged:
    """Averaged stochastic Newton steps on a fixed support, from independent gradients, without a table.

    Attributes
    ----------
    w, w_hat : float64 array
        The last point, where the next gradient is taken, and the mean of all.
    sound : bool
        False once a piece of w has changed sides (for groups: <w_g, start_g> <= 0).
    """

    problem: Problem
    start: np.ndarray
    gain: float
    delay: int
    sound: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.w = self.w_hat = np.array(self.start)
        self._active, self._count = np.flatnonzero(self.start), 0
        hessian = self.problem.hessian_matrix(self.w)[np.ix_(self._active, self._active)]
        bend = self.problem.regularizer.manifold_hessian(self.w)
        units = np.eye(self.w.size)[self._active].reshape(len(self._active), *self.w.shape)
        hessian = hessian + np.array([bend(unit).ravel()[self._active] for unit in units]).reshape(hessian.shape)
        self._inverse = np.linalg.pinv(hessian, hermitian=True)

    def step(self, gradient: np.ndarray, t: int) -> None:
        """W <- W - a_k H^-1 (G + grad psi) on the support, and the mean.

        Parameters
        ----------
        gradient : float64 array
            At W.
        t : int
            Not used.
        """
        psi = self.problem.regularizer
        residual = np.asarray(psi.subdifferential_residual(self.w, gradient)).ravel()[self._active]
        a = self.gain / (self._count + 1 + self.delay) ** (2 / 3)
        move = np.zeros(self.w.size)
        move[self._active] = -a * (self._inverse @ residual)
        moved = self.w + move.reshape(self.w.shape)
        self.sound = bool(np.vdot(moved, self.start) > 0) and psi.structure(moved) == psi.structure(self.start)
        if not self.sound:
            return
        self.w = moved
        self._count += 1
        self.w_hat = self.w_hat + (self.w - self.w_hat) / self._count
