"""The proximal map of psi along the iterates of a solver, where each array is close to the one before."""

from __future__ import annotations

from typing import Any

from ramda_theory.arrays import Array
from ramda_theory.structure import Structure


class ProxSequence:
    """A proximal map that may use what it knows of the arrays before; here it uses nothing and is exact.

    Parameters
    ----------
    regularizer : Regularizer
        psi.

    Attributes
    ----------
    basis : array or None
        What helps the next sequence to begin, to be kept with a state.
    """

    def __init__(self, regularizer: Any) -> None:
        self.regularizer = regularizer
        self.basis: Array | None = None

    def __call__(self, z: Array, step: float, slack: float) -> tuple[Array, Structure | None, float]:
        """argmin_x 1/2 ||x - z||^2 + step psi(x), as far as it costs little.

        Parameters
        ----------
        z : array
            The point that is mapped.
        step : float
            Factor of psi, > 0.
        slack : float
            Error that is not worth much work.

        Returns
        -------
        point : array
            Like ``z``.
        structure : Structure or None
            None where exact zeros tell it.
        error : float
            The norm of an e with (z - e - point) / step in d psi(point), if `confirmed`.
        """
        point, structure = self.regularizer.prox_structure(z, step)
        return point, structure, 0.0

    def confirmed(self) -> bool:
        """Whether the last error holds; if not, the next call works harder.

        Returns
        -------
        bool
        """
        return True
