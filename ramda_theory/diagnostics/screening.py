"""What one gradient proves of every minimiser's structure; the proofs are in docs/certificate.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ramda_theory.problems import Problem
from ramda_theory.regularizers import NuclearNorm, Regularizer
from ramda_theory.structure import Structure

ROUNDING = 1e-14
"""Relative error that values of F are granted; a duality gap counts as at least that."""


@dataclass(frozen=True)
class Screen:
    """What is proved of all minimisers of a convex F, from one gradient.

    Attributes
    ----------
    zero, nonzero : bool array
        Entries proved zero, and entries of pieces proved nonzero at every minimiser; for matrices of low rank
        singular values, largest first.
    gap : float
        Bound on F(w) - min F; infinite where none is known.
    distance : float
        Bound on the distance of w to every minimiser; infinite where none is known.
    structure : Structure or None
        That of every minimiser, if it is proved.
    reason : str
        Why not, "" if it is.
    """

    zero: np.ndarray
    nonzero: np.ndarray
    gap: float
    distance: float
    structure: Structure | None
    reason: str

    @property
    def undecided(self) -> int:
        """Entries (or singular values) of which nothing is proved."""
        return int(np.count_nonzero(~(self.zero | self.nonzero)))


def screen(problem: Problem, w: np.ndarray) -> Screen:
    """Prove pieces zero or nonzero at every minimiser, with one gradient (and the Hessian among what is left).

    Parameters
    ----------
    problem : Problem
        With convex f and psi.
    w : float64 array
        Any point; the nearer to a minimiser, the more is proved.

    Returns
    -------
    Screen

    Raises
    ------
    ValueError
        If ``w`` has another shape than the problem's, or F is not convex.

    Notes
    -----
    With G = grad f(w), delta >= F(w) - min F from duality, and L_B a Lipschitz constant of the part B of the gradient
    under moves of B, every minimiser w* has ||(grad f(w*) - G)_B|| <= sqrt(2 L_B delta).  Pieces that this keeps
    inside their dual ball are zero.  With s = dist(0, dF(w)) and m the least eigenvalue of the Hessian, both among
    the entries that are left, and R as in `Problem.self_concordance`, 1 - exp(-R ||w - w*||) <= R s / m: pieces that
    are farther from zero are nonzero.  Both are exact in real arithmetic; values of F are granted a rounding error of
    1e-14.
    """
    if not (problem.convex and problem.regularizer.convex):
        raise ValueError(f"screen proves something of convex F only, {problem!r} is not convex")
    if np.shape(w) != problem.initial.shape:
        raise ValueError(f"w must have the shape {problem.initial.shape} of the problem, got {np.shape(w)}")
    w = centred(problem, np.asarray(w, dtype=np.float64))
    value, gradient = problem.value_and_gradient(w)
    return screened(problem, w, value, gradient)


def centred(problem: Problem, w: np.ndarray) -> np.ndarray:
    """w without what f does not see, where psi is smaller without it: groups of norms that hold whole rows."""
    psi = problem.regularizer
    grouping = getattr(psi, "grouping", None)
    if not psi.sum_of_group_norms or grouping is None or w.ndim != 2:
        return w
    rows = [set(entries // w.shape[1]) for entries in grouping.indices(w.shape)]
    whole = all(
        len(own) * w.shape[1] == len(entries) for own, entries in zip(rows, grouping.indices(w.shape), strict=True)
    )
    return problem.centred(w) if whole else w


def gap_bound(problem: Problem, w: np.ndarray, value: float, gradient: np.ndarray) -> float:
    """F(w) - min F is at most this: Fenchel's inequality at -s grad f(w), s <= 1 the largest that psi* allows."""
    psi = problem.regularizer
    objective = value + float(psi.value(w))
    critical = float(psi.critical_weight(gradient)) if psi.norm else 0.0
    scale = min(1.0, psi.weight / critical * (1.0 - 1e-15)) if critical > 0 else 1.0
    dual, conjugate = problem.dual_value(w, scale), 0.0 if psi.norm else psi.conjugate(-scale * gradient)
    if dual is None or conjugate is None:
        return math.inf
    return max(objective - dual + conjugate, 0.0) + ROUNDING * (1.0 + abs(objective))


def screened(problem: Problem, w: np.ndarray, value: float, gradient: np.ndarray) -> Screen:
    """`screen` at a centred point whose value and gradient are known."""
    gap = gap_bound(problem, w, value, gradient)

    def radius(entries: np.ndarray) -> float:
        lipschitz = problem.block_lipschitz(entries)
        return math.inf if lipschitz is None else math.sqrt(2.0 * lipschitz * gap)

    psi = problem.regularizer
    if (matrices := psi.as_matrices) is not None:
        return _ranked(problem, matrices, w, gradient, gap)
    zero = psi.surely_zero(gradient, radius) if math.isfinite(gap) else np.zeros(w.shape, dtype=bool)
    if np.any(w[zero] != 0):
        return Screen(zero, zero & False, gap, math.inf, None, "w is not zero where every minimiser is")
    distance = _distance(problem, w, gradient, np.flatnonzero(~zero))
    nonzero = _pieces_beyond(psi, w, distance)
    left = int(np.count_nonzero(~(zero | nonzero)))
    structure = None if left else psi.structure(w)
    reason = "" if structure is not None else _why(gap, distance, left)
    return Screen(zero, nonzero, gap, distance, structure, reason)


def _why(gap: float, distance: float, left: int) -> str:
    if not math.isfinite(gap):
        return "no dual bound is known for this problem"
    if not math.isfinite(distance):
        return f"{left} entries undecided: no bound on the distance to a minimiser, which need not be unique"
    return f"{left} entries undecided: gap {gap:.1e}, distance {distance:.1e}"


def _pieces_beyond(psi: Regularizer, w: np.ndarray, distance: float) -> np.ndarray:
    """Entries of the pieces whose norm is above the distance, and that are not zero themselves."""
    norms = getattr(psi, "group_norms", None)
    if norms is None or not psi.sum_of_group_norms:
        beyond: np.ndarray = np.abs(w) > distance
        return beyond
    return np.broadcast_to(psi.spread(norms(w) > distance, w), w.shape).copy()


def _distance(problem: Problem, w: np.ndarray, gradient: np.ndarray, entries: np.ndarray) -> float:
    """||w - w*|| for every minimiser w* that vanishes where w was shown to: those entries are left out."""
    psi = problem.regularizer
    residual = np.asarray(psi.subdifferential_residual(w, gradient)).ravel()[entries]
    size = float(np.linalg.norm(residual)) + ROUNDING * (1.0 + float(np.linalg.norm(gradient)))
    bounds = [size / psi.strong_convexity] if psi.strong_convexity > 0 else []
    concordance = problem.self_concordance(entries)
    if concordance is not None and len(entries):
        curvature = least_curvature(problem, w, entries)
        ratio = concordance * size / curvature if curvature > 0 else math.inf
        if ratio < 1:
            bounds.append(-math.log1p(-ratio) / concordance if concordance > 0 else size / curvature)
    return min(bounds, default=math.inf) if len(entries) else 0.0


def least_curvature(problem: Problem, w: np.ndarray, entries: np.ndarray) -> float:
    """Least eigenvalue of the Hessian of f among the entries, without the directions `centred` removes; 0 if not sure.

    Eigenvalues within rounding of zero count as zero.
    """
    hessian = problem.hessian_matrix(w)[np.ix_(entries, entries)]
    basis = _centred_basis(problem, w, entries)
    if basis is not None:
        hessian = basis.T @ hessian @ basis
    eigenvalues = np.linalg.eigvalsh(hessian)
    rounding = 1e-12 * max(float(eigenvalues[-1]), 0.0) if len(eigenvalues) else 0.0
    least = float(eigenvalues[0]) - rounding if len(eigenvalues) else math.inf
    return least if least > rounding else 0.0


def _centred_basis(problem: Problem, w: np.ndarray, entries: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis of what `centred` leaves, among the entries; None if it leaves all."""
    probe = np.zeros(w.shape)
    probe.ravel()[entries] = np.cos(np.arange(len(entries)) ** 2)
    if np.array_equal(centred(problem, probe), probe):
        return None
    columns = w.shape[1]  # whole rows are left: an orthonormal basis of the vectors of sum zero for each
    helmert = np.linalg.qr(np.vstack([np.ones((1, columns)), np.eye(columns)[1:]]).T)[0][:, 1:]
    return np.kron(np.eye(len(entries) // columns), helmert)


def _ranked(problem: Problem, psi: NuclearNorm, w: np.ndarray, gradient: np.ndarray, gap: float) -> Screen:
    """Ranks: by Weyl's inequality for the singular values of grad f(w*) and of w*."""
    matrix = psi.matrix(w)
    lipschitz = problem.lipschitz
    radius = math.inf if lipschitz is None else math.sqrt(2.0 * lipschitz * gap)
    zero = np.linalg.svd(psi.matrix(gradient), compute_uv=False) + radius < psi.weight
    distance = _distance(problem, w, gradient, np.arange(w.size))
    nonzero = np.linalg.svd(matrix, compute_uv=False) > distance
    left = int(np.count_nonzero(~(zero | nonzero)))
    structure = None if left else psi.structure(w)
    return Screen(zero, nonzero, gap, distance, structure, "" if left == 0 else _why(gap, distance, left))
