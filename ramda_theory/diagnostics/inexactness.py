"""Whether a run's inner solutions met (7) and (8) of arXiv:2403.14398."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramda_theory.diagnostics.record import Record


@dataclass(frozen=True)
class Inexactness:
    """Over the steps of a run that an inexact solver solved.

    Attributes
    ----------
    worst_ratio : float
        Largest residual / eps_t: at most 1 if the first half of (7) held at every step.
    violations : int
        Steps at which either half of (7) failed.
    ascents : int
        Steps at which Q(What_t) > Q(W_{t-1}).
    sum_of_squares : array
        Running sum of eps_t^2, bounded if (8) holds.
    iterations : array
        Inner iterations of every step.
    """

    worst_ratio: float
    violations: int
    ascents: int
    sum_of_squares: np.ndarray
    iterations: np.ndarray


def inexactness(record: Record) -> Inexactness:
    """Read (7) and (8) off a record.

    Parameters
    ----------
    record : Record
        Of a run with an inexact solver.

    Returns
    -------
    Inexactness

    Raises
    ------
    ValueError
        If the run solved its subproblems exactly and recorded nothing of them.
    """
    if not len(record.inner):
        raise ValueError("record holds no inner solutions: the run's subproblems were solved exactly")
    tolerance, residual = record.inner["tolerance"], record.inner["residual"]
    ascent = record.inner["descent"] == 0
    failed = ~(residual <= tolerance) | ascent
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(residual == 0, 0.0, residual / tolerance)
    return Inexactness(
        worst_ratio=float(np.max(ratio)),
        violations=int(np.count_nonzero(failed)),
        ascents=int(np.count_nonzero(ascent)),
        sum_of_squares=np.cumsum(tolerance**2),
        iterations=record.inner["iterations"].astype(int),
    )
