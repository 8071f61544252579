"""Inexact solutions that no proximal gradient step would produce, yet meet (7)."""

from __future__ import annotations

import numpy as np

from ramda_theory.arrays import Array, real
from ramda_theory.subproblem.problem import Candidate, Solution, Subproblem
from ramda_theory.subproblem.solve import judge


def perturbed(
    problem: Subproblem,
    point: Array,
    distance: float,
    *,
    tolerance: float,
    start: Array | None = None,
    seed: int = 0,
    along: str = "manifold",
) -> Solution:
    """Move ``point`` by ``distance`` in a random direction and judge the result by (7).

    Parameters
    ----------
    problem : Subproblem
    point : array
        A solution of ``problem``.
    distance : float
        Euclidean length of the move, >= 0.
    tolerance : float
        eps_t of (7).
    start : array, optional
        W_{t-1} of (7); without it the objective condition is not asked for.
    seed : int
        Of the random direction.
    along : {"manifold", "ambient"}
        Keep the zeros of ``point`` (nuclear norm: its column space, hence its rank), or move every entry.

    Returns
    -------
    Solution
        Its status says whether the moved point meets (7); see `largest_perturbation` for the longest move that does.
    """
    real("distance", distance, minimum=0.0)
    direction = random_direction(problem, point, seed, along)
    return judge(problem, Candidate(point + distance * direction, 0), tolerance, start)


def largest_perturbation(
    problem: Subproblem,
    point: Array,
    *,
    tolerance: float,
    start: Array | None = None,
    seed: int = 0,
    along: str = "manifold",
) -> Solution:
    """The longest move along one random direction, to 1 %, that still meets (7); ``point`` itself if none does.

    The length is found by bisection, so it is one where (7) starts to fail, the first such if the residual grows
    along the direction (as it does for convex psi).

    Parameters
    ----------
    problem : Subproblem
        That of (4).
    point : array
        A solution of ``problem``.
    tolerance : float
        eps_t of (7).
    start : array, optional
        W_{t-1} of (7); without it the objective condition is not asked for.
    seed : int
        Of the random direction.
    along : {"manifold", "ambient"}
        As in `perturbed`.

    Returns
    -------
    Solution
        At the moved point; its status is "solved" unless ``point`` itself does not meet (7).

    Raises
    ------
    ValueError
        If ``along`` is neither of the two.
    """
    direction = random_direction(problem, point, seed, along)

    def moved(distance: float) -> Solution:
        return judge(problem, Candidate(point + distance * direction, 0), tolerance, start)

    low, high = 0.0, 1.0
    while moved(high).status == "solved" and high < 1e150:
        low, high = high, 2.0 * high
    while high - low > 0.01 * low and high > 1e-150:
        middle = 0.5 * (low + high) if low > 0 else 0.1 * high
        low, high = (middle, high) if moved(middle).status == "solved" else (low, middle)
    return moved(low)


def random_direction(problem: Subproblem, point: Array, seed: int, along: str) -> Array:
    """A random unit direction of the shape and library of ``point``, on its manifold or anywhere."""
    if along not in ("manifold", "ambient"):
        raise ValueError(f"along must be 'manifold' or 'ambient', got {along!r}")
    xp = problem.xp
    noise = np.random.default_rng(seed).standard_normal(tuple(point.shape))
    noise = xp.asarray(noise, dtype=point.dtype, device=point.device)
    if along == "manifold":
        noise = problem.regularizer.keeping_structure(point, noise)
    size = float(xp.linalg.vector_norm(noise))
    return noise / size if size > 0 else noise
