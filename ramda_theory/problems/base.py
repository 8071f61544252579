"""The contract of a problem F = f + psi."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ramda_theory.problems.reference import find_reference, reference_at
from ramda_theory.problems.solution import Reference
from ramda_theory.regularizers import Regularizer


class Problem(ABC):
    """minimise F(w) = f(w) + psi(w) with f = mean_i f_i smooth, over NumPy float64 arrays of one shape.

    Attributes
    ----------
    name : str
        Short name.
    regularizer : Regularizer
        psi.
    initial : float64 array
        Where runs start, read-only (a run takes a copy).
    samples : int or None
        Number of terms of the finite sum.
    convex : bool
        Whether f is convex.
    lipschitz : float or None
        A Lipschitz constant of grad f, None where there is none.
    known_point : float64 array or None
        A solution known by construction.

    Notes
    -----
    Methods do not validate their arguments: they are called in the innermost loop of every run.
    """

    known_point: np.ndarray | None = None

    def __init__(
        self,
        name: str,
        regularizer: Regularizer,
        initial: np.ndarray,
        samples: int | None,
        convex: bool,
        lipschitz: float | None,
    ) -> None:
        if not isinstance(regularizer, Regularizer):
            raise TypeError(f"regularizer must be a Regularizer, got {regularizer!r}")
        regularizer.structure(initial)  # refuses groups that do not fit the shape
        self.name = name
        self.regularizer = regularizer
        self.initial = np.array(initial, dtype=np.float64)
        self.initial.flags.writeable = False
        self.samples = samples
        self.convex = convex
        self.lipschitz = lipschitz

    def with_weight(self, weight: float) -> Problem:
        """The same data with another lambda.

        Parameters
        ----------
        weight : float
            Of the regularizer, >= 0.

        Returns
        -------
        Problem
            Sharing the data; without a solution known by construction.

        Raises
        ------
        TypeError, ValueError
            If ``weight`` is no nonnegative finite number.
        """
        regularizer: Any = self.regularizer  # a dataclass, as every regularizer that can be made
        other = copy.copy(self)
        other.regularizer, other.known_point = replace(regularizer, weight=weight), None
        other.__dict__.pop("_solution", None)
        return other

    # -- the smooth part --------------------------------------------------------------------------------------------

    @abstractmethod
    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """f(w) and grad f(w), exact.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        value : float
            f(w).
        gradient : float64 array of the shape of ``w``
            grad f(w).
        """

    @abstractmethod
    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Mean of grad f_i(w) over a batch of samples: the stochastic gradient G of every method here.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.
        batch : integer array, shape (size,)
            Sample indices from 0 to ``samples`` - 1; repeated ones count again.

        Returns
        -------
        float64 array of the shape of ``w``
        """

    def value(self, w: np.ndarray) -> float:
        """f(w).

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float
        """
        return self.value_and_gradient(w)[0]

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """grad f(w).

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float64 array of the shape of ``w``
        """
        return self.value_and_gradient(w)[1]

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The map d -> (Hessian of f at w) d; here a central difference of `gradient`, good to about 1e-9.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        callable
            Takes a float64 array d of the shape of ``w`` and gives one.
        """
        reach = np.cbrt(np.finfo(np.float64).eps) * (1.0 + float(np.linalg.norm(w)))

        def product(d: np.ndarray) -> np.ndarray:
            length = float(np.linalg.norm(d))
            if length == 0:
                return np.zeros_like(w)
            h = reach / length
            difference: np.ndarray = (self.gradient(w + h * d) - self.gradient(w - h * d)) / (2.0 * h)
            return difference

        return product

    # -- what proofs of structure ask (docs/certificate.md); a problem may leave all of it out ----------------------

    def hessian_matrix(self, w: np.ndarray) -> np.ndarray:
        """The Hessian of f at w as a matrix over the flat entries; by default a product per entry.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float64 array, shape (w.size, w.size)
        """
        product, size = self.hessian(w), w.size
        columns = [product(unit.reshape(w.shape)).ravel() for unit in np.eye(size)]
        matrix = np.array(columns).reshape(size, size)
        symmetric: np.ndarray = 0.5 * (matrix + matrix.T)
        return symmetric

    def dual_value(self, w: np.ndarray, scale: float) -> float | None:
        """A lower bound on -f*(scale grad f(w)), f* the conjugate: with psi's conjugate it bounds min F from below.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.
        scale : float
            In [0, 1].

        Returns
        -------
        float or None
            None where no bound is known.
        """
        return None

    def block_lipschitz(self, entries: np.ndarray) -> float | None:
        """A constant L with ||(grad f(w + d) - grad f(w))_B|| <= L ||d|| for moves d of the entries B alone.

        Parameters
        ----------
        entries : integer array
            Flat indices B.

        Returns
        -------
        float or None
            None where there is none.
        """
        return self.lipschitz

    def self_concordance(self, entries: np.ndarray) -> float | None:
        """R with d^2/dt^2 f(w + t u) >= exp(-R t ||u||) <u, Hessian(w) u> for t >= 0 and moves u of these entries.

        Parameters
        ----------
        entries : integer array
            Flat indices.

        Returns
        -------
        float or None
            0 for a quadratic; None where no R is known.
        """
        return None

    def centred(self, w: np.ndarray) -> np.ndarray:
        """The orthogonal projection of w along directions that never change f; w itself if there are none.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float64 array of the shape of ``w``
            With the same f.
        """
        return w

    # -- the sum ----------------------------------------------------------------------------------------------------

    def objective(self, w: np.ndarray) -> float:
        """F(w) = f(w) + psi(w).

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float
        """
        return self.value(w) + float(self.regularizer.value(w))

    def stationarity(self, w: np.ndarray) -> float:
        """dist(0, dF(w)) = min over s in d psi(w) of ||grad f(w) + s||, exact; what Theorem 2 bounds.

        Parameters
        ----------
        w : float64 array
            Of the shape of ``initial``.

        Returns
        -------
        float
            0 at the stationary points of F.
        """
        return float(self.regularizer.subdifferential_distance(w, self.gradient(w)))

    def solution(self) -> Reference:
        """The reference solution: planted, or computed at the first call and kept (seconds).

        Returns
        -------
        Reference
            A stationary point to 1e-10 where it is ``certified``; a minimiser if F is convex.
        """
        return self._solution

    @cached_property
    def _solution(self) -> Reference:
        if self.known_point is not None:
            return reference_at(self, self.known_point, "planted: the data were built around it")
        return find_reference(self)

    def __repr__(self) -> str:
        return f"<problem {self.name!r}: w of shape {self.initial.shape}, {self.samples} samples, {self.regularizer!r}>"
