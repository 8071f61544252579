"""Tolerance sequences eps_t for the inexact subproblem: (8), sum eps_t^2 < infinity, by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ramda_theory.arrays import real
from ramda_theory.extras import needs


@dataclass(frozen=True)
class PolynomialTolerance:
    """eps_t = initial * t^-power, t = 1, 2, ..., with power > 1/2.

    Parameters
    ----------
    initial : float
        eps_1 > 0, in the units of the residual of the unscaled Q.
    power : float
        > 1/2, which makes the squares summable.

    Raises
    ------
    ValueError
        If either is out of its range.
    """

    initial: float
    power: float = 1.0

    def __post_init__(self) -> None:
        real("initial", self.initial, minimum=0.0, strict=True)
        real("power", self.power, minimum=0.5, strict=True)

    def __call__(self, t: int) -> float:
        """eps_t."""
        return float(self.initial * t**-self.power)

    @property
    def sum_of_squares(self) -> float:
        """eps_bar of (8): initial^2 zeta(2 power)."""
        with needs("experiments"):
            from scipy.special import zeta

        return self.initial**2 * float(zeta(2 * self.power))


@dataclass(frozen=True)
class GeometricTolerance:
    """eps_t = initial * ratio^(t - 1), t = 1, 2, ..., with 0 < ratio < 1.

    Parameters
    ----------
    initial : float
        eps_1 > 0, in the units of the residual of the unscaled Q.
    ratio : float
        In (0, 1): eps_bar of (8) is initial^2 / (1 - ratio^2).

    Raises
    ------
    ValueError
        If either is out of its range.
    """

    initial: float
    ratio: float

    def __post_init__(self) -> None:
        real("initial", self.initial, minimum=0.0, strict=True)
        if real("ratio", self.ratio, minimum=0.0, strict=True) >= 1:
            raise ValueError(f"ratio must be in (0, 1), got {self.ratio!r}")

    def __call__(self, t: int) -> float:
        """eps_t."""
        return self.initial * self.ratio ** (t - 1)

    @property
    def sum_of_squares(self) -> float:
        """eps_bar of (8)."""
        return self.initial**2 / (1.0 - self.ratio**2)


@dataclass(frozen=True)
class ConstantTolerance:
    """eps_t = value: *violates* (8) unless 0; to study what the violation costs.

    Parameters
    ----------
    value : float
        eps_t >= 0, in the units of the residual of the unscaled Q.

    Raises
    ------
    ValueError
        If it is negative or not finite.
    """

    value: float

    def __post_init__(self) -> None:
        real("value", self.value, minimum=0.0)

    def __call__(self, t: int) -> float:
        """eps_t."""
        return self.value

    @property
    def sum_of_squares(self) -> float:
        """Infinite, or 0 for value 0."""
        return math.inf if self.value else 0.0


Tolerance = PolynomialTolerance | GeometricTolerance | ConstantTolerance
