"""A statement on the structure while a run goes on: which pieces are settled, from gradients at the point itself.

A margin against the noise of V/alpha says little: that average is of old points, and its bias, not its noise, decides.
Two statements are made here: by a statistic of the run's own means, which errs seldom, and by proof, which does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.newton import NewtonPoint, model_at, proximal_newton
from ramda_theory.diagnostics.screening import centred, screened
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.problems.reference import find_reference
from ramda_theory.structure import Structure

ZERO, NONZERO, UNDECIDED = "zero", "nonzero", "undecided"
FLOOR = 1e-12
"""Deviations count as at least this."""
SHORTEST = 3
"""Epochs of the shortest window that may settle a piece."""
MOST_PASSES = 1000
"""Passes of a proof at most."""


@dataclass
class OnlineCertificate:
    """Watches a run, and says which pieces of the structure are settled.

    By statistic: every epoch it takes the means of the points and of the gradients taken at them, and minimises the
    second-order model of F there, which gives w+ and for each piece the ratio of the model's gradient to its bound.
    Over the last k epochs a piece is "zero" if w+ never had it and z = (1 - mean ratio) / deviation is large, "nonzero"
    if w+ always had it and z = mean ||w+_g|| / deviation is, else "undecided".  Large is ``threshold`` for k =
    ``window`` and ``threshold`` (window / k)^2 for shorter windows, of at least 3 epochs: a deviation of few numbers
    is uncertain, but a wide margin need not wait.

    An error that outlasts the window is what a statistic cannot see.  So with ``confirm`` it states a structure only if
    the model at w+ itself, with the gradient of all samples there, has it too: one more pass per structure that is
    about to be stated.

    By proof (``proof=True``): every epoch one step of `proximal_newton`, begun at the first epoch's mean, and what
    `screen` proves at its point, until all is proved; the run's gradients do not matter.  Never wrong but for rounding.

    It fires at the first step at which all pieces are settled and What of the run has that structure.

    Parameters
    ----------
    problem : Problem
        With a psi that is a sum over entries or a group LASSO; for a proof with convex f and psi.
    steps_per_epoch : int
        Steps whose means are taken.
    window : int
        Epochs >= 2, of the longest window.
    threshold : float
        Deviations, > 0.
    proof : bool
        Whether to prove instead.
    confirm : bool
        Whether a statement by statistic needs the model of all samples at w+; a proof needs none.

    Attributes
    ----------
    fired_at : int or None
        The step at which it fired first.
    holds : bool
        Whether the statement holds now: it is withdrawn where the structure of What or of w+ changes.
    state : array of str
        "zero", "nonzero" or "undecided" for every piece, of the last epoch.
    proposal : float64 array or None
        w+ of the last epoch, or the last point of the proof.
    passes : int
        Hessians over all samples so far, one per epoch, and confirmations; with a proof evaluations of f, its gradient
        and its Hessian, none once it is complete: what the statement costs.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, psi has no ratio per piece, or a proof is asked of a nonconvex F.
    """

    problem: Problem
    steps_per_epoch: int
    window: int = 5
    threshold: float = 4.0
    proof: bool = False
    confirm: bool = True
    fired_at: int | None = field(default=None, init=False)
    holds: bool = field(default=False, init=False)
    proposal: np.ndarray | None = field(default=None, init=False)
    passes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        integer("steps_per_epoch", self.steps_per_epoch, 1)
        integer("window", self.window, 2)
        real("threshold", self.threshold, minimum=0.0, strict=True)
        start = self.problem.initial
        found = self.problem.regularizer.piece_sizes(start, np.zeros_like(start))
        if found is None:
            raise ValueError(f"problem must have a psi with a ratio per piece, {self.problem.regularizer!r} has none")
        if self.proof and not (self.problem.convex and self.problem.regularizer.convex):
            raise ValueError("proof must be False where f or psi is not convex")
        self.state = np.full(len(found[0]), UNDECIDED)
        self._stated: Structure | None = None
        self._search: Iterator[NewtonPoint] | None = None
        self._proved = False
        self._confirmed: Structure | None = None
        self._history: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.window)
        self._forget()

    def _forget(self) -> None:
        self._sum_w, self._sum_g = np.zeros_like(self.problem.initial), np.zeros_like(self.problem.initial)
        self._count = 0

    def withdraw(self) -> None:
        """Take the statement back, and begin anew: what followed from it went wrong."""
        self.holds, self._stated, self._confirmed = False, None, None
        self.state = np.full(len(self.state), UNDECIDED)
        self._history.clear()
        self._forget()

    def observe(self, step: int, query: np.ndarray, gradient: np.ndarray, w_hat: np.ndarray) -> bool:
        """Take note of a step.

        Parameters
        ----------
        step : int
            t.
        query, gradient : float64 array
            Where the gradient was taken, and the gradient.
        w_hat : float64 array
            What after the step.

        Returns
        -------
        bool
            Whether the statement holds now.

        Raises
        ------
        ValueError
            If an array has another shape than the problem's point, or is not finite; nothing has changed then.
        """
        for name, array in (("query", query), ("gradient", gradient), ("w_hat", w_hat)):
            if np.shape(array) != self.problem.initial.shape:
                raise ValueError(f"{name} must have shape {self.problem.initial.shape}, got {np.shape(array)}")
            if not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be finite, it holds NaN or Inf in step {step}")
        if not self._proved:
            self._sum_w += query
            self._sum_g += gradient
            self._count += 1
            if self._count == self.steps_per_epoch:
                mean_w, mean_g = self._sum_w / self._count, self._sum_g / self._count
                self._forget()
                if self.proof:
                    self._prove(mean_w)
                else:
                    self._state_by_model(mean_w, mean_g)
        self.holds = self._stated is not None and self.problem.regularizer.structure(w_hat) == self._stated
        if self.holds and self.fired_at is None:
            self.fired_at = step
        return self.holds

    def _state_by_model(self, mean_w: np.ndarray, mean_g: np.ndarray) -> None:
        psi = self.problem.regularizer
        model = model_at(self.problem, mean_w, mean_g, self.proposal)
        self.passes += 1
        accuracy = 1e-6 * float(np.linalg.norm(mean_g)) + 1e-12
        self.proposal = find_reference(model, accuracy, 1000).point
        found = psi.piece_sizes(self.proposal, model.gradient(self.proposal))
        assert found is not None
        self._history.append(found)
        decided = self.statistic() >= self.threshold
        if self.confirm and np.all(decided):
            decided &= self._agreeing(self.proposal, found[0] > 0)
        self.state = np.where(decided, np.where(found[0] > 0, NONZERO, ZERO), UNDECIDED)
        self._stated = psi.structure(self.proposal) if np.all(decided) else None

    def _agreeing(self, proposal: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Pieces that the minimiser of the model at the proposal, with its own gradient, leaves as they are."""
        psi = self.problem.regularizer
        structure = psi.structure(proposal)
        if self._confirmed == structure:
            return np.ones_like(active)
        gradient = self.problem.gradient(proposal)
        model = model_at(self.problem, proposal, gradient, proposal)
        self.passes += 1
        point = find_reference(model, 1e-9 * float(np.linalg.norm(gradient)) + 1e-12, 1000).point
        found = psi.piece_sizes(point, gradient)
        assert found is not None
        agrees: np.ndarray = (found[0] > 0) == active
        if np.all(agrees) and psi.structure(point) != structure:  # the same pieces, but not as they were
            agrees = ~active
        self._confirmed = structure if np.all(agrees) else None
        return agrees

    def _prove(self, start: np.ndarray) -> None:
        """One more point of the proximal Newton method, and what it proves."""
        if self._search is None:
            self._search = proximal_newton(self.problem, centred(self.problem, start), MOST_PASSES)
        at = next(self._search, None)
        if at is None:  # F cannot be reduced, and not everything is proved: it will not be
            return
        self.passes, self.proposal = at.passes, at.point
        found = screened(self.problem, at.point, at.value, at.gradient)
        zero, nonzero = (self._pieces(each) for each in (found.zero, found.nonzero))
        self.state = np.where(nonzero, NONZERO, np.where(zero, ZERO, UNDECIDED))
        self._stated, self._proved = found.structure, found.structure is not None

    def _pieces(self, entries: np.ndarray) -> np.ndarray:
        """Pieces of which all entries are marked."""
        rest = self.problem.regularizer.piece_sizes((~entries).astype(np.float64), np.zeros(entries.shape))
        assert rest is not None
        marked: np.ndarray = rest[0] == 0
        return marked

    def statistic(self) -> np.ndarray:
        """z of every piece, in units of the longest window: the largest over the windows, each over (window / k)^2.

        Returns
        -------
        float64 array
            A number per piece; 0 where it has come or gone, or epochs lack.
        """
        best = np.zeros(len(self.state))
        for k in range(min(SHORTEST, self.window), len(self._history) + 1):
            sizes, ratios = (np.array(each) for each in zip(*list(self._history)[-k:], strict=True))
            active, never = np.all(sizes > 0, axis=0), np.all(sizes == 0, axis=0)
            on = sizes.mean(axis=0) / np.maximum(sizes.std(axis=0, ddof=1), FLOOR)
            off = (1.0 - ratios.mean(axis=0)) / np.maximum(ratios.std(axis=0, ddof=1), FLOOR)
            z = np.where(active, on, np.where(never, off, 0.0))
            best = np.maximum(best, z * (k / self.window) ** 2)
        return best
