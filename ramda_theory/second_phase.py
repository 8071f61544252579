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
from ramda_theory.regularizers import Regularizer

Kind = Literal["frozen", "saga", "averaged"]

FEWEST = 20
"""Averaged steps before the first look at their mean: standard errors of fewer say little."""
REPAIRS = 3
"""Times that Newton-SAGA may correct its support before it is given up."""


@dataclass(frozen=True)
class SecondPhase:
    """How a run goes on once `OnlineCertificate` holds.

    Parameters
    ----------
    kind : {"frozen", "saga", "averaged"}
        "frozen", for finite sums: W stays to the end of the epoch while its batches (and the samples that the shuffle
        drops, or that were drawn before) add up to the full gradient, then one proximal Newton step is taken; the
        structure may change in it.  "saga", for finite sums too: the same first epoch fills a table of every sample's
        gradient, then W <- W - ``saga_step`` H^-1 G on the support every step, G the batch's gradient corrected by the
        table (SAGA, arXiv:1407.0202).  "averaged", for streams too: W <- W - a_k H^-1 G on the support, H the Hessian
        at the start, a_k = ``gain`` / (k + ``delay``)^(2/3), What the mean of the W since; the support stays.
        After n independent batches of covariance S its gap is about tr(H^-1 S) / (2 n) (Polyak and Juditsky, SIAM J.
        Control Optim. 30, 1992); after shuffled ones it is less.
    window, threshold
        Of the `OnlineCertificate`.
    gain : float
        Of "averaged", > 0.
    delay : int
        Of "averaged", >= 0.
    saga_step : float
        Of "saga", in (0, 1].
    proof : bool
        Of the `OnlineCertificate`.  A proof ends at a point that Newton steps can hardly better.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Notes
    -----
    It does not pay where passes over all samples are affordable: proximal Newton from zero solves the digits in eight
    passes (`certify`), and a proof beside the run has the solution by the time the phase may begin.
    """

    kind: Kind = "frozen"
    window: int = 5
    threshold: float = 4.0
    gain: float = 1.0
    delay: int = 1000
    saga_step: float = 0.2
    proof: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("frozen", "saga", "averaged"):
            raise ValueError(f"kind must be 'frozen', 'saga' or 'averaged', got {self.kind!r}")
        if real("saga_step", self.saga_step, minimum=0.0, strict=True) > 1:
            raise ValueError(f"saga_step must be in (0, 1], got {self.saga_step!r}")
        real("gain", self.gain, minimum=0.0, strict=True)
        integer("delay", self.delay, 0)
        if self.gain >= 2 * (1 + self.delay) ** (2 / 3):
            raise ValueError(
                f"gain must be below 2 (1 + delay)^(2/3) = {2 * (1 + self.delay) ** (2 / 3):.3g}, or the first step "
                f"overshoots, got {self.gain!r}"
            )

    def begin(self, problem: Problem, w: np.ndarray, gradients: object) -> Phase:
        """The state at the start, at a point with the structure that was stated.

        Parameters
        ----------
        problem : Problem
        w : float64 array
        gradients : gradient oracle
            The run's.

        Returns
        -------
        Frozen, Saga or Averaged

        Raises
        ------
        TypeError
            If "frozen" or "saga" is asked of gradients that are no shuffled batches.
        ValueError
            If ``w`` has another shape than the problem's point, or is not finite.
        """
        w = np.asarray(w, dtype=np.float64)
        if w.shape != problem.initial.shape or not np.all(np.isfinite(w)):
            raise ValueError(f"w must be finite and have shape {problem.initial.shape}, got {w!r}")
        if self.kind == "averaged":
            return Averaged(problem, w, self.gain, self.delay)
        if not isinstance(gradients, SampledGradient):
            raise TypeError(f"second_phase {self.kind!r} needs a SampledGradient, got {gradients!r}")
        return Saga(problem, w, gradients, self.saga_step) if self.kind == "saga" else Frozen(problem, w, gradients)


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
        self._sum, self._left = np.zeros_like(self.w), np.ones(self.problem.samples or 0, dtype=bool)

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
        if t % self.gradients.steps_per_epoch(self.problem):
            return  # a phase may begin in the middle of an epoch: what came before is among the rest
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


def newton_inverse(problem: Problem, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flat indices of the entries that are not zero, and the inverse Hessian of F among them."""
    active = np.flatnonzero(w)
    hessian = problem.hessian_matrix(w)[np.ix_(active, active)]
    bend = problem.regularizer.manifold_hessian(w)
    units = np.eye(w.size)[active].reshape(len(active), *w.shape)
    hessian = hessian + np.array([bend(unit).ravel()[active] for unit in units]).reshape(hessian.shape)
    return active, np.linalg.pinv(hessian, hermitian=True)


def near(problem: Problem, moved: np.ndarray, start: np.ndarray) -> bool:
    """Whether every nonzero piece of ``start`` has moved by less than its norm: none has vanished or turned round."""
    psi, zero = problem.regularizer, np.zeros_like(start)
    (own, _), (way, _) = sizes(psi, start, zero), sizes(psi, moved - start, zero)
    return bool(np.all(way[own > 0] < own[own > 0]))


def sizes(psi: Regularizer, w: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms of the pieces of w, and those of the gradient as shares of their bounds."""
    found = psi.piece_sizes(w, gradient)
    assert found is not None
    return np.asarray(found[0]), np.asarray(found[1])


@dataclass
class Saga:
    """Newton steps on the support whose gradients are corrected by a table of every sample's last one.

    The first epoch stays at the start to fill the table.  The safeguard: where a piece has moved by its own norm, or
    at the end of an epoch the table's mean says that a zero piece should not be zero, the support is corrected by one
    proximal Newton step with that mean; after three corrections the phase ends.

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
    step_size: float
    sound: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._table = np.zeros((self.problem.samples or 0, *self.w.shape))
        self._mean, self._missing = np.zeros_like(self.w), np.ones(len(self._table), dtype=bool)
        self._filled, self._count, self._repairs = False, 0, 0

    @property
    def w_hat(self) -> np.ndarray:
        """W itself."""
        return self.w

    def _each(self, batch: np.ndarray) -> np.ndarray:
        each = [self.problem.batch_gradient(self.w, batch[i : i + 1]) for i in range(len(batch))]
        return np.array(each).reshape(len(batch), *self.w.shape)

    def step(self, gradient: np.ndarray, t: int) -> None:
        """Look the batch's samples up in the table, move W, and put the new gradients there.

        Parameters
        ----------
        gradient : float64 array
            Not used: the gradients of the single samples are taken.
        t : int
            Whose batch it is.
        """
        batch = self.gradients.batch(self.problem, t)
        new = self._each(batch)
        if self._filled:
            change = new - self._table[batch]
            estimate = self._mean + change.mean(axis=0)
            self._mean = self._mean + change.sum(axis=0) / len(self._table)
        self._table[batch] = new
        self._missing[batch] = False
        self._count += 1
        ended = self._count % self.gradients.steps_per_epoch(self.problem) == 0
        if self._filled:
            self._move(estimate, ended)
        elif ended:
            rest = np.flatnonzero(self._missing)
            self._table[rest] = self._each(rest)
            self._mean, self._filled = self._table.mean(axis=0), True
            self._correct()

    def _move(self, estimate: np.ndarray, ended: bool) -> None:
        psi = self.problem.regularizer
        residual = np.asarray(psi.subdifferential_residual(self.w, estimate)).ravel()[self._active]
        move = np.zeros(self.w.size)
        move[self._active] = -self.step_size * (self._inverse @ residual)
        moved = self.w + move.reshape(self.w.shape)
        if near(self.problem, moved, self._start) and not (ended and psi.nondegeneracy_margin(moved, self._mean) <= 0):
            self.w = moved
            if ended and self._count <= 4 * self.gradients.steps_per_epoch(self.problem):
                self._renew()
            return
        self._repairs += 1
        self.sound = self._repairs <= REPAIRS
        self._correct()

    def _correct(self) -> None:
        """A proximal Newton step with the table's mean."""
        model = model_at(self.problem, self.w, self._mean)
        size = float(self.problem.regularizer.subdifferential_distance(self.w, self._mean))
        self.w = find_reference(model, max(1e-2 * min(1e-1, size) * size, 1e-14), 4000).point
        self._renew()

    def _renew(self) -> None:
        self._start = self.w
        self._active, self._inverse = newton_inverse(self.problem, self.w)


@dataclass
class Averaged:
    """Averaged stochastic Newton steps on a fixed support, from independent gradients, without a table.

    What a batch's noise moves a small piece by, times H^-1, can exceed its norm, so psi is taken by its Taylor
    expansion at an anchor, where every piece is on its side: W may cross zero, its mean does not in the long run.
    After ``delay``, 2 ``delay``, 4 ``delay``, ... steps the mean becomes the anchor, and the safeguard looks at it.

    Attributes
    ----------
    w, w_hat : float64 array
        The last point, where the next gradient is taken, and the mean of all.
    sound : bool
        False once a piece of the mean has moved by its own norm, or the mean gradient of a zero piece is above its
        bound, either by more than three standard errors.
    """

    problem: Problem
    start: np.ndarray
    gain: float
    delay: int
    sound: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.w = self.w_hat = np.array(self.start)
        self._active, self._inverse = newton_inverse(self.problem, self.w)
        self._count, self._look = 0, max(self.delay, FEWEST)
        self._gradient, self._gradient_sq, self._move_sq = (np.zeros_like(self.w) for _ in range(3))
        self._anchor_at(self.w)

    def _anchor_at(self, w: np.ndarray) -> None:
        self._anchor, self._bend = w, self.problem.regularizer.manifold_hessian(w)

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
        bent = gradient + self._bend(self.w - self._anchor)
        residual = np.asarray(psi.subdifferential_residual(self._anchor, bent)).ravel()[self._active]
        move = np.zeros_like(self.w)
        move.flat[self._active] = self._inverse @ residual
        self._count += 1
        self.w = self.w - self.gain / (self._count + self.delay) ** (2 / 3) * move
        for mean, new in (
            (self._gradient, gradient), (self._gradient_sq, gradient**2), (self._move_sq, move**2),
        ):  # fmt: skip
            mean += (new - mean) / self._count
        self.w_hat = self.w_hat + (self.w - self.w_hat) / self._count
        if self._count == self._look:
            self._look *= 2
            self._check()

    def _check(self) -> None:
        """Whether the mean still says what the start said; then it is the anchor."""
        psi, zero = self.problem.regularizer, np.zeros_like(self.w)
        noise = np.sqrt(self._move_sq / self._count)
        noise_of_gradient = np.sqrt(np.maximum(self._gradient_sq - self._gradient**2, 0.0) / self._count)
        own, pull = sizes(psi, self._anchor, self._gradient)
        moved, unsure_pull = sizes(psi, self.w_hat - self._anchor, noise_of_gradient)
        unsure, _ = sizes(psi, noise, zero)
        off = np.where(own > 0, moved - own, pull - 1.0)
        # Errors above the norm itself say that the steps are too long, not that all may be well.
        slack = 3.0 * np.where(own > 0, np.minimum(unsure, own), unsure_pull)
        self.sound = bool(np.isfinite(self.w_hat).all() and np.all(off < slack))
        if np.all(moved[own > 0] < own[own > 0]):
            self._anchor_at(self.w_hat)


Phase = Frozen | Saga | Averaged
