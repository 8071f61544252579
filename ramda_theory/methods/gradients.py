"""Where gradients come from: all samples, shuffled batches, or the full gradient with noise added.

An oracle is a pure function of the point and the step, so a run resumed at step t sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.problems.checks import integer

if TYPE_CHECKING:
    from ramda_theory.problems import Problem


@dataclass(frozen=True)
class FullGradient:
    """grad f(w)."""

    def __call__(self, problem: Problem, w: np.ndarray, t: int) -> np.ndarray:
        return problem.gradient(w)

    def steps_per_epoch(self, problem: Problem) -> int:
        """1.

        Parameters
        ----------
        problem : Problem
            Any.

        Returns
        -------
        int
            1: every step sees all samples.
        """
        return 1


@dataclass(frozen=True)
class SampledGradient:
    """Mean gradient of a batch; the samples are shuffled every epoch and the last partial batch is dropped.

    Parameters
    ----------
    batch_size : int
        >= 1; at most the number of samples.
    seed : int
        Of the shuffles.
    """

    batch_size: int
    seed: int = 0
    _shuffle: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        integer("batch_size", self.batch_size, 1)
        integer("seed", self.seed, 0)

    def __call__(self, problem: Problem, w: np.ndarray, t: int) -> np.ndarray:
        return problem.batch_gradient(w, self.batch(problem, t))

    def batch(self, problem: Problem, t: int) -> np.ndarray:
        """Sample indices of step t = 1, 2, ...

        Parameters
        ----------
        problem : Problem
            One that is a mean over samples.
        t : int
            Step, 1, 2, ...

        Returns
        -------
        array of int
            ``batch_size`` indices below ``problem.samples``, the same for the same seed and t.

        Raises
        ------
        ValueError
            If the problem has fewer samples than a batch.
        """
        epoch, index = divmod(t - 1, self.steps_per_epoch(problem))
        if self._shuffle.get("key") != (problem.samples, epoch):
            order = np.random.default_rng((self.seed, epoch)).permutation(problem.samples or 0)
            self._shuffle.update(key=(problem.samples, epoch), order=order)
        batch: np.ndarray = self._shuffle["order"][index * self.batch_size : (index + 1) * self.batch_size]
        return batch

    def steps_per_epoch(self, problem: Problem) -> int:
        """Full batches in the samples.

        Parameters
        ----------
        problem : Problem
            One that is a mean over samples.

        Returns
        -------
        int
            Samples divided by ``batch_size``, rounded down.

        Raises
        ------
        ValueError
            If the problem has fewer samples than a batch, or is no mean over samples.
        """
        if problem.samples is None or problem.samples < self.batch_size:
            raise ValueError(
                f"batch_size must be at most the number of samples, {problem.samples}, got {self.batch_size}"
            )
        return problem.samples // self.batch_size


@dataclass(frozen=True)
class NoisyGradient:
    """grad f(w) plus independent normal noise of standard deviation ``sigma`` in every entry.

    Parameters
    ----------
    sigma : float
        >= 0, in the units of the gradient.
    seed : int
        Of the noise.
    """

    sigma: float
    seed: int = 0

    def __post_init__(self) -> None:
        real("sigma", self.sigma, minimum=0.0)
        integer("seed", self.seed, 0)

    def __call__(self, problem: Problem, w: np.ndarray, t: int) -> np.ndarray:
        noise = np.random.default_rng((self.seed, t)).standard_normal(w.shape)
        return problem.gradient(w) + self.sigma * noise

    def steps_per_epoch(self, problem: Problem) -> int:
        """1.

        Parameters
        ----------
        problem : Problem
            Any.

        Returns
        -------
        int
            1: every step sees all samples.
        """
        return 1


GradientOracle = FullGradient | SampledGradient | NoisyGradient
