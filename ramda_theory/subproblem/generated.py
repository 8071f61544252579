"""Subproblems generated from a few words: the regimes in which solvers of diagonal metrics differ.

All are NumPy float64 with anchor 0 and weight_sum 1, so that grad_sum is minus the data b and the weight of psi is
the threshold: minimise 1/2 <x, P x> - <b, x> + psi(x).
"""

from __future__ import annotations

import numpy as np

from ramda_theory.regularizers import GroupLasso, NuclearNorm
from ramda_theory.subproblem.problem import Subproblem

GROUP_LASSO_REGIMES = (
    "constant",
    "benign",
    "spread",
    "concentrated",
    "near_threshold",
    "tiny_weight",
    "zero_weight",
    "large_scale",
    "small_scale",
)
"""What `group_lasso_problem` makes; see there."""

NUCLEAR_NORM_METRICS = ("benign", "moderate", "wide", "floor")
"""What `nuclear_norm_problem` makes; see there."""


def group_lasso_problem(regime: str, size: int = 64, groups: int = 64, seed: int = 0) -> Subproblem:
    """A group LASSO in a diagonal metric: ``groups`` columns of ``size`` entries, one group each.

    Parameters
    ----------
    regime : str
        "constant": P = 3.  "benign": P in [1, 4].  "spread": P in [1e-6, 1e3], log-uniform.  "concentrated": the
        same P, b nearly all on its smallest entries.  "near_threshold": P as in "spread", ||b_g|| above the threshold
        by a gap 1 - weight_g / ||b_g|| between 1e-8 and 1e-1.  "tiny_weight": P as in "spread", weight 1e-12 of
        ||b||.  "zero_weight": psi = 0.  "large_scale", "small_scale": P as in "spread", b and the weight times 1e12
        or 1e-12.
    size, groups : int
        Entries per group (>= 1) and number of groups.
    seed : int
        Of the random numbers.

    Raises
    ------
    ValueError
        Unknown regime.
    """
    if regime not in GROUP_LASSO_REGIMES:
        raise ValueError(f"regime must be one of {GROUP_LASSO_REGIMES}, got {regime!r}")
    rng = np.random.default_rng((seed, size, groups, GROUP_LASSO_REGIMES.index(regime)))
    shape = (size, groups)
    b = rng.standard_normal(shape) * 10.0 ** rng.uniform(-1, 1, groups)
    metric = 10.0 ** rng.uniform(-6, 3, shape)
    if regime == "constant":
        metric = np.full(shape, 3.0)
    elif regime == "benign":
        metric = rng.uniform(1, 4, shape)
    elif regime == "concentrated":
        b = b / metric / (1.0 / metric).max(axis=0)
    norms = np.linalg.norm(b, axis=0)
    threshold = float(np.median(norms)) * 0.7  # zeroes about a third of the groups
    if regime == "near_threshold":
        b = b / norms * threshold / (1.0 - 10.0 ** rng.uniform(-8, -1, groups))
    elif regime == "tiny_weight":
        threshold = 1e-12 * float(norms.min())
    elif regime == "zero_weight":
        threshold = 0.0
    factor = {"large_scale": 1e12, "small_scale": 1e-12}.get(regime, 1.0)
    psi = GroupLasso(factor * threshold, dims=(0,), size_scaled=False)
    return Subproblem(np.zeros(shape), -factor * b, metric, 1.0, psi)


def nuclear_norm_problem(rows: int, columns: int, metric: str = "moderate", seed: int = 0) -> Subproblem:
    """A nuclear norm in a diagonal metric, its solution of rank about 0.15 min(rows, columns).

    b = (A B / 3 + R / 2) sqrt(P) with A of 5 columns, B of 5 rows and R standard normal; the weight is the singular
    value of b at index int(0.15 min(rows, columns)).

    Parameters
    ----------
    rows, columns : int
    metric : str
        "benign": P = exp(0.1 R), max/min about 2.  "moderate": exp(2/3 R), about 90 at 64 x 64.  "wide": exp(4/3 R),
        about 8e3.  "floor": exp(0.3 R), times 1e-6 in a random 30 % of the entries, about 7e6; here b has the factor
        P in place of its root.
    seed : int
        Of the random numbers.

    Raises
    ------
    ValueError
        Unknown metric.
    """
    import torch

    if metric not in NUCLEAR_NORM_METRICS:
        raise ValueError(f"metric must be one of {NUCLEAR_NORM_METRICS}, got {metric!r}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> np.ndarray:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).numpy()

    floor = np.ones((rows, columns))
    if metric == "floor":
        uniform = torch.rand(rows, columns, generator=generator, dtype=torch.float64).numpy()
        floor = np.where(uniform < 0.3, 1e-6, 1.0)
    noise = normal(rows, columns)
    exponent = {"benign": 0.1, "moderate": 2 / 3, "wide": 4 / 3, "floor": 0.3}[metric]
    diag = floor * np.exp(exponent * noise)
    signal = normal(rows, 5) @ normal(5, columns) / 3
    b = (signal + 0.5 * noise) * (diag if metric == "floor" else np.sqrt(diag))
    weight = float(np.linalg.svd(b, compute_uv=False)[int(0.15 * min(rows, columns))])
    return Subproblem(np.zeros_like(b), -b, diag, 1.0, NuclearNorm(weight))
