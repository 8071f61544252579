"""A reference solution of F = f + psi, and what finding one asks of a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ramda_theory.regularizers import Regularizer
from ramda_theory.structure import Structure

CERTIFIED = 1e-10
"""A reference solution is certified when its dist(0, dF) is at most this."""


@dataclass(frozen=True)
class Reference:
    """A (nearly) stationary point of F and what was measured there.

    Attributes
    ----------
    point : float64 array
        The point itself, read-only.
    objective : float
        F(point).
    stationarity : float
        dist(0, dF(point)), evaluated afresh.
    structure : Structure
        Active manifold of psi at the point.
    margin : float
        Nondegeneracy margin of psi for -grad f(point); see `Regularizer.nondegeneracy_margin`.
    certified : bool
        Whether ``stationarity`` <= 1e-10.
    origin : str
        How the point was obtained.
    """

    point: np.ndarray
    objective: float
    stationarity: float
    structure: Structure
    margin: float
    certified: bool
    origin: str


class Composite(Protocol):
    """The part of `Problem` that a search for a stationary point uses; see there."""

    regularizer: Regularizer
    initial: np.ndarray
    convex: bool
    lipschitz: float | None

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """f(w) and grad f(w)."""

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """grad f(w)."""

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The map d -> (Hessian of f at w) d."""

    def stationarity(self, w: np.ndarray) -> float:
        """dist(0, dF(w))."""
