"""The regularization path: minimisers over the weight lambda, each with its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.certificate import Certificate, certify
from ramda_theory.diagnostics.newton import DENSE, model_at
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.problems.reference import find_reference
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
    """Certified minimisers over lambda, each started from the minimiser of the model of F at the one before.

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
        w = problem.initial * 0.0 if before is None else predicted(problem, before, weight)
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
    """Minimiser of <G, d> + 1/2 <d, H d> + psi(w + d), psi of the new weight, G and H those of f at the point before.

    To first order in the change of lambda it is the path itself, and unlike a tangent it lets pieces come and go; no
    data are touched but for H at a point whose gradient is known.  The point before where the model would cost more
    (many entries) or has more than one minimiser (nonconvex psi).
    """
    found, on = at.certificate, problem.with_weight(weight)
    if found.point.size > DENSE or not on.regularizer.convex:
        return np.array(found.point)
    size = float(on.regularizer.subdifferential_distance(found.point, found.gradient))
    model = model_at(on, found.point, found.gradient)
    return np.array(find_reference(model, max(1e-6 * size, 1e-14), 2000).point)
