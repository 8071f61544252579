"""A certificate: proximal Newton from any point until the structure of every minimiser is proved, or cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.diagnostics.manifold import manifold_curvature
from ramda_theory.diagnostics.newton import NewtonPoint, proximal_newton
from ramda_theory.diagnostics.screening import Screen, centred, gap_bound, screened
from ramda_theory.problems import Problem
from ramda_theory.problems.checks import integer
from ramda_theory.regularizers import Regularizer
from ramda_theory.structure import GroupSupport, Pattern, Structure

Verdict = Literal["certified", "certified locally", "stationary, margin not positive", "not certified"]

STATIONARY = 1e-8
"""Points with a dist(0, dF) of at most this, times 1 + ||grad f||, count as stationary in a verdict."""

DEGENERATE = 1e-7
"""Margins up to this, and pieces up to this times the largest entry, count as none."""


@dataclass(frozen=True)
class Certificate:
    """A point, and what is known of its structure.

    Attributes
    ----------
    point : float64 array
        Where the search ended, read-only.
    gradient : float64 array
        grad f(point), read-only.
    structure : Structure
        Active manifold of psi there.
    stationarity : float
        dist(0, dF(point)).
    margin : float
        `Regularizer.nondegeneracy_margin` there.
    gap : float
        Bound on F(point) - min F from duality; infinite where none is known.
    passes : int
        Evaluations of f over all samples, that at the start included.
    added, removed : int
        Pieces of the structure that the start lacked, and that it had too many (for matrices: ranks).
    verdict : {"certified", "certified locally", "stationary, margin not positive", "not certified"}
        "certified": every minimiser of F has this structure.  "certified locally": F is not convex, and this point is a
        strict local minimiser on its manifold with a positive margin; nothing is said of other points.
    rigorous : bool
        Whether the verdict rests on `screen`, a proof but for rounding; else on a stationarity and eigenvalues that
        were computed, small and positive.
    reason : str
        What the verdict rests on.
    """

    point: np.ndarray
    gradient: np.ndarray
    structure: Structure
    stationarity: float
    margin: float
    gap: float
    passes: int
    added: int
    removed: int
    verdict: Verdict
    rigorous: bool
    reason: str

    @property
    def certified(self) -> bool:
        """Whether the structure is that of every minimiser of F."""
        return self.verdict == "certified"

    def __str__(self) -> str:
        return (
            f"{self.verdict} after {self.passes} passes: {self.structure}, {self.added} added, {self.removed} removed; "
            f"gap <= {self.gap:.1e}, dist(0, dF) {self.stationarity:.1e}, margin {self.margin:.3g} ({self.reason})"
        )


def certify(problem: Problem, w: np.ndarray, *, tolerance: float = 1e-12, max_passes: int = 50) -> Certificate:
    """Repair the structure of ``w`` by proximal Newton steps until it is proved to be that of every minimiser.

    Parameters
    ----------
    problem : Problem
        F = f + psi.
    w : float64 array
        Any point, such as the end of a run; copied.
    tolerance : float
        The gap to reach, > 0.
    max_passes : int
        Evaluations of f over all samples at most.

    Returns
    -------
    Certificate

    Raises
    ------
    TypeError, ValueError
        If ``w`` has another shape than the problem's or is not finite, or a limit is out of its range.

    Notes
    -----
    A pass is one value and gradient of f over all samples, with the Hessian at the same point.  The search ends where
    `screen` proves the structure and the duality gap is within the tolerance, or where F cannot be reduced.
    """
    real("tolerance", tolerance, minimum=0.0, strict=True)
    integer("max_passes", max_passes, 1)
    w = np.array(w, dtype=np.float64)
    if w.shape != problem.initial.shape:
        raise ValueError(f"w must have the shape {problem.initial.shape} of the problem, got {w.shape}")
    if not np.all(np.isfinite(w)):
        raise ValueError("w must be finite, it holds NaN or Inf")
    psi = problem.regularizer
    convex = problem.convex and psi.convex
    begun = psi.structure(w)
    proof: Screen | None = None
    for at in proximal_newton(problem, centred(problem, w), max_passes):
        if convex and gap_bound(problem, at.point, at.value, at.gradient) <= tolerance:
            proof = screened(problem, at.point, at.value, at.gradient)
            if proof.structure is not None:
                break
    if convex and proof is None:
        proof = screened(problem, at.point, at.value, at.gradient)
    verdict, rigorous, reason = judged(problem, at, proof)
    point, gradient = at.point.copy(), at.gradient.copy()
    point.flags.writeable = gradient.flags.writeable = False
    structure = psi.structure(point)
    added, removed = corrections(begun, structure)
    return Certificate(
        point=point,
        gradient=gradient,
        structure=structure,
        stationarity=at.stationarity,
        margin=float(psi.nondegeneracy_margin(point, gradient)),
        gap=np.inf if proof is None else proof.gap,
        passes=at.passes,
        added=added,
        removed=removed,
        verdict=verdict,
        rigorous=rigorous,
        reason=reason,
    )


def corrections(begun: Structure, ended: Structure) -> tuple[int, int]:
    """Pieces (or ranks) that came in and that went out."""
    if isinstance(begun, Pattern) and isinstance(ended, Pattern):
        return int(np.sum(ended.mask & ~begun.mask)), int(np.sum(begun.mask & ~ended.mask))
    difference = ended.count - begun.count
    return max(difference, 0), max(-difference, 0)


def smallest_piece(psi: Regularizer, w: np.ndarray) -> float:
    """Least norm of a nonzero piece of w; infinity if there is none."""
    if (matrices := psi.as_matrices) is not None:
        return float(min(np.linalg.svd(matrices.matrix(w), compute_uv=False)[: psi.structure(w).count], default=np.inf))
    norms = getattr(psi, "group_norms", None)
    sizes = np.abs(w) if norms is None or not isinstance(psi.structure(w), GroupSupport) else norms(w)
    return float(np.min(sizes[sizes > 0], initial=np.inf))


def judged(problem: Problem, at: NewtonPoint, proof: Screen | None) -> tuple[Verdict, bool, str]:
    """The verdict on a point, whether it is proved, and why."""
    psi = problem.regularizer
    if proof is not None and proof.structure is not None:
        return "certified", True, f"every piece is proved; minimisers are within {proof.distance:.1e}"
    scale = 1.0 + float(np.linalg.norm(at.gradient))
    if not at.stationarity <= STATIONARY * scale:
        return "not certified", False, f"dist(0, dF) = {at.stationarity:.1e} is not small"
    smallest, unit = smallest_piece(psi, at.point), float(np.max(np.abs(at.point), initial=0.0))
    if not smallest > DEGENERATE * unit:
        return "stationary, margin not positive", False, f"a piece of norm {smallest:.1e} may as well be zero"
    margin = float(psi.nondegeneracy_margin(at.point, at.gradient))
    curvature, top = manifold_curvature(problem, at.point, at.gradient)
    if curvature <= 1e-10 * max(top, 1e-300):
        return "not certified", False, "F is flat along the manifold: other minimisers may have another structure"
    # Within ||w - w*|| <= 2 s / curvature ratios to the bounds move by at most that times the Lipschitz constant.
    distance = 2.0 * at.stationarity / curvature
    error = top * distance / psi.weight if psi.weight > 0 else 0.0
    if not margin > 10.0 * error + DEGENERATE:
        return "stationary, margin not positive", False, f"margin {margin:.1e}: pieces at their bound may be nonzero"
    if not smallest > 10.0 * distance:
        return "stationary, margin not positive", False, f"a piece of norm {smallest:.1e} may as well be zero"
    why = f"stationary to {at.stationarity:.1e}, margin {margin:.2g}, curvature on the manifold {curvature:.1e}"
    if problem.convex and psi.convex:
        return "certified", False, why
    return "certified locally", False, f"{why}; F is not convex: a strict local minimiser, nothing is said of others"
