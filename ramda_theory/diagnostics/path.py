"""The regularization path: minimisers over the weight lambda, each with its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.certificate import Certificate, certify
from ramda_theory.diagnostics.newton import DENSE
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.structure import Pattern
from ramda_theory.tables import to_pandas

if TYPE_CHECKING:
    import pandas

POINTS, RATIO = 20, 30.5
"""Weights of a path that is not told any: so many, from the critical one down to it over the ratio."""
ABOVE = 1.0 + 1e-3
"""Where it starts, in critical weights: at 1 itself the margin is 0 and nothing can be certified."""
BISECTIONS = 40


@dataclass(frozen=True)
class PathPoint:
    """A weight, and the certificate of the minimiser found there.

    Attributes
    ----------
    weight : float
        lambda.
    certificate : Certificate
    objective : float
        F at the certificate's point.
    """

    weight: float
    certificate: Certificate
    objective: float

    def to_dict(self) -> dict[str, Any]:
        """A row of the table.

        Returns
        -------
        dict
            "pieces" is the number of nonzero pieces, or the rank.
        """
        found = self.certificate
        return {
            "weight": self.weight,
            "pieces": found.structure.count,
            "dimension": found.structure.dimension,
            "norm": float(np.linalg.norm(found.point)),
            "objective": self.objective,
            "margin": found.margin,
            "gap": float(found.gap),
            "stationarity": found.stationarity,
            "passes": found.passes,
            "verdict": found.verdict,
        }


@dataclass(frozen=True)
class RegularizationPath:
    """Minimisers over lambda.

    Attributes
    ----------
    points : tuple of PathPoint
        From the largest weight down.
    chosen : PathPoint or None
        The one with ``target_pieces`` pieces, if that was asked for and found.
    """

    points: tuple[PathPoint, ...]
    chosen: PathPoint | None = None

    def table(self) -> pandas.DataFrame:
        """A row per weight.

        Returns
        -------
        pandas.DataFrame
        """
        return to_pandas(self.points)


def regularization_path(
    problem: Problem,
    weights: Sequence[float] | None = None,
    *,
    target_pieces: int | None = None,
    tolerance: float = 1e-12,
    max_passes: int = 50,
) -> RegularizationPath:
    """Certified minimisers over lambda, each started from the one before, moved along the path's tangent.

    Parameters
    ----------
    problem : Problem
        Its own weight does not count.
    weights : sequence of float, optional
        Positive; by default 20 from just above the critical one, below which 0 is not stationary, down to a
        thirtieth of it, evenly in logarithms.
    target_pieces : int, optional
        Stop at the first weight with so many nonzero pieces (or that rank), bisecting where the number is jumped over.
    tolerance, max_passes
        As in `certify`.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    TypeError, ValueError
        If a weight is not positive, or an argument out of its range.
    """
    if target_pieces is not None:
        integer("target_pieces", target_pieces, 0)
    if weights is None:
        start = problem.initial * 0.0
        top = float(problem.regularizer.critical_weight(problem.gradient(start)))
        weights = [float(weight) for weight in np.geomspace(ABOVE * top, top / RATIO, POINTS)]
    weights = sorted((real("weights", weight, minimum=0.0, strict=True) for weight in weights), reverse=True)
    if not weights:
        raise ValueError("weights must hold at least one weight, got none")
    points: list[PathPoint] = []

    def follow(weight: float, before: PathPoint | None) -> PathPoint:
        on = problem.with_weight(weight)
        w = problem.initial * 0.0 if before is None else predicted(problem.with_weight(before.weight), before, weight)
        found = certify(on, w, tolerance=tolerance, max_passes=max_passes)
        return PathPoint(weight, found, on.objective(found.point))

    for weight in weights:
        points.append(follow(weight, points[-1] if points else None))
        count = points[-1].certificate.structure.count
        if target_pieces is not None and count >= target_pieces:
            return _choose(points, target_pieces, follow)
    return RegularizationPath(tuple(points))


def _choose(points: list[PathPoint], target: int, follow: Any) -> RegularizationPath:
    """Bisect, in logarithms, between the last two points until one has the target's pieces."""
    for _ in range(BISECTIONS):
        low = points[-1]
        if low.certificate.structure.count == target:
            return RegularizationPath(tuple(points), low)
        if len(points) < 2:
            break
        high = points[-2]
        middle = follow(float(np.sqrt(high.weight * low.weight)), high)
        if middle.certificate.structure.count >= target:
            points[-1] = middle
        else:
            points.insert(-1, middle)
    return RegularizationPath(tuple(points))


def predicted(problem: Problem, at: PathPoint, weight: float) -> np.ndarray:
    """w moved along the tangent of the path: w + H^-1 (-d grad psi/d lambda) (change of lambda) on the manifold.

    Pieces that the move turns round are set to zero.  Without move where the structure is not one of entries.
    """
    w, psi = at.certificate.point, problem.regularizer
    if not isinstance(at.certificate.structure, Pattern) or w.size > DENSE or not psi.convex:
        return np.array(w)
    active = np.flatnonzero(w)
    if not len(active):
        return np.array(w)
    twice: Any = psi
    slope = [
        each.subdifferential_residual(w, np.zeros_like(w)) for each in (psi, replace(twice, weight=2 * psi.weight))
    ]
    push = ((slope[1] - slope[0]) / psi.weight).ravel()[active]
    hessian = problem.hessian_matrix(w)[np.ix_(active, active)]
    bend = psi.manifold_hessian(w)
    units = np.eye(w.size)[active].reshape(len(active), *w.shape)
    hessian = hessian + np.array([bend(unit).ravel()[active] for unit in units])
    move = np.zeros(w.size)
    move[active] = np.linalg.lstsq(hessian, -push * (weight - psi.weight), rcond=1e-12)[0]
    moved: np.ndarray = w + move.reshape(w.shape)
    if psi.sum_of_group_norms:
        groups: Any = psi
        along = groups.spread(groups.groups(w).total(np, moved * w), w)
    else:
        along = moved * w
    return np.where(along > 0, moved, 0.0)
