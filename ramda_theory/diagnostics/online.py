"""A statement on the structure while a run goes on: which pieces are settled, from gradients at the point itself.

A margin against the noise of V/alpha says little: that average is of old points, and its bias, not its noise, decides.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.newton import model_at
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.problems.reference import find_reference

ZERO, NONZERO, UNDECIDED = "zero", "nonzero", "undecided"
FLOOR = 1e-12
"""Deviations count as at least this."""


@dataclass
class OnlineCertificate:
    """Watches a run, and says which pieces of the structure are settled: the model statistic.

    Every epoch it takes the means of the points and of the gradients taken at them, and minimises the second-order
    model of F there, which gives w+ and for each piece the ratio of the model's gradient to its bound.  Over the last
    ``window`` epochs a piece is "zero" if w+ never had it and (1 - mean ratio) / deviation >= ``threshold``, "nonzero"
    if w+ always had it and mean ||w+_g|| / deviation is, else "undecided".  It fires once all pieces are decided and
    What of the run has the structure of w+.

    Parameters
    ----------
    problem : Problem
        With a psi that is a sum over entries or a group LASSO.
    steps_per_epoch : int
        Steps whose means are taken.
    window : int
        Epochs >= 2.
    threshold : float
        Deviations, > 0.

    Attributes
    ----------
    fired_at : int or None
        The step at which it fired first.
    holds : bool
        Whether the statement holds at the last epoch: it is withdrawn where the structure changes.
    state : array of str
        "zero", "nonzero" or "undecided" for every piece, of the last epoch.
    proposal : float64 array or None
        w+ of the last epoch.
    passes : int
        Hessians over all samples so far, one per epoch: what the statement costs.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, or psi has no ratio per piece.
    """

    problem: Problem
    steps_per_epoch: int
    window: int = 5
    threshold: float = 4.0
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
        self.state = np.full(len(found[0]), UNDECIDED)
        self._history: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.window)
        self._forget()

    def _forget(self) -> None:
        self._sum_w, self._sum_g = np.zeros_like(self.problem.initial), np.zeros_like(self.problem.initial)
        self._count = 0

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
            Whether the statement holds now; it can change at the end of an epoch only.
        """
        self._sum_w += query
        self._sum_g += gradient
        self._count += 1
        if self._count == self.steps_per_epoch:
            self._end_epoch(step, w_hat)
        return self.holds

    def _end_epoch(self, step: int, w_hat: np.ndarray) -> None:
        psi = self.problem.regularizer
        mean_w, mean_g = self._sum_w / self._count, self._sum_g / self._count
        self._forget()
        model = model_at(self.problem, mean_w, mean_g, self.proposal)
        self.passes += 1
        accuracy = 1e-6 * float(np.linalg.norm(mean_g)) + 1e-12
        self.proposal = find_reference(model, accuracy, 1000).point
        found = psi.piece_sizes(self.proposal, model.gradient(self.proposal))
        assert found is not None
        self._history.append(found)
        self.state = self._states()
        settled = not np.any(self.state == UNDECIDED)
        self.holds = bool(settled and psi.structure(w_hat) == psi.structure(self.proposal))
        if self.holds and self.fired_at is None:
            self.fired_at = step

    def statistic(self) -> np.ndarray:
        """Deviations by which every piece is settled over the window; 0 where it has come or gone, or epochs lack.

        Returns
        -------
        float64 array
            A number per piece.
        """
        if len(self._history) < self.window:
            return np.zeros(len(self.state))
        sizes, ratios = (np.array(each) for each in zip(*self._history, strict=True))
        active, never = np.all(sizes > 0, axis=0), np.all(sizes == 0, axis=0)
        on = sizes.mean(axis=0) / np.maximum(sizes.std(axis=0, ddof=1), FLOOR)
        off = (1.0 - ratios.mean(axis=0)) / np.maximum(ratios.std(axis=0, ddof=1), FLOOR)
        return np.where(active, on, np.where(never, off, 0.0))

    def _states(self) -> np.ndarray:
        decided = self.statistic() >= self.threshold
        return np.where(decided, np.where(self._history[-1][0] > 0, NONZERO, ZERO), UNDECIDED)
