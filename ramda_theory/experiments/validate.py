"""Every subproblem solver against exact references: error, residual, iterations, time, and whether its claim holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramda_theory.arrays import to_host
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.processes import find_device
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    Regularizer,
    SparseGroupLasso,
)
from ramda_theory.subproblem import ProximalGradient, Subproblem, solve
from ramda_theory.subproblem.bisection import bisection_reference
from ramda_theory.subproblem.solve import Solver
from ramda_theory.tables import aligned

REGULARIZERS: tuple[Regularizer, ...] = (
    L1(1.0),
    ElasticNet(1.0, 0.5),
    MCP(1.0, 3.0),
    SCAD(1.0, 3.7),
    GroupLasso(1.0),
    SparseGroupLasso(1.0, 0.5),
    GroupMCP(1.0, 3.0),
    NuclearNorm(1.0),
)
CONDITIONS = (4.0, 1e4, 1e8)
"""About max P / min P of the generated metrics."""
SIZES = ((8, 6), (64, 64))
TOLERANCES = (1e-4, 1e-9)
"""Residual tolerances, relative to the magnitude of the data."""

SOLVERS: dict[str, str | Solver] = {
    "exact": "exact",
    "PG": "proximal_gradient",
    "PG per group": ProximalGradient(step="group"),
    "PG, relative decrease": ProximalGradient(stopping="relative_decrease"),
    "accelerated": "accelerated",
    "admm": "admm",
    "als": "als",
    "newton_raphson": "newton_raphson",
    "cvxpy": "cvxpy",
}


@dataclass(frozen=True)
class Case:
    """One solver on one generated subproblem.

    Attributes
    ----------
    name : str
        Regularizer, size and condition number of the metric.
    solver : str
    tolerance, residual : float
        Of (7), divided by the magnitude of the data.
    error : float
        ||x - x*|| / ||x*|| against the reference.
    iterations : int
    milliseconds : float
    status : str
    claim_holds : bool
        False if the status says "solved" and the reference shows otherwise: for convex psi ||x - x*||_P above the
        bound that the tolerance implies, for nonconvex psi an objective above the reference's where the solver is
        exact (the others claim a stationary point only).
    """

    name: str
    solver: str
    tolerance: float
    residual: float
    error: float
    iterations: int
    milliseconds: float
    status: str
    claim_holds: bool


def generated(regularizer: Regularizer, shape: tuple[int, int], condition: float, seed: int) -> Subproblem:
    """A subproblem in a metric of about that condition number; about half of its solution's pieces are zero."""
    rng = np.random.default_rng((seed, *shape, int(np.log10(condition) * 10)))
    metric = np.exp(np.log(condition) * (rng.random(shape) - 0.5))
    strong_only = not regularizer.convex and not regularizer.exact_in_every_metric
    if strong_only:
        metric = metric / metric.min()  # exact solutions need metric > weight_sum/gamma
    b = rng.standard_normal(shape)
    if not regularizer.separable:
        b = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1])) + 0.3 * b
    b = b * np.sqrt(metric)
    alpha = 0.5 * float(regularizer.critical_weight(b))
    if strong_only:
        alpha = min(alpha, 0.9 / regularizer.weak_convexity)
    anchor = rng.standard_normal(shape)
    return Subproblem(anchor, metric * anchor - b, metric, alpha, regularizer)


def reference_solution(problem: Subproblem) -> tuple[np.ndarray, float]:
    """The minimiser and a bound on its error in the metric: bisection, or for the nuclear norm a certified long run."""
    if not problem.regularizer.separable:
        point = solve(problem, "accelerated", tolerance=1e-13 * problem.magnitude, max_iter=50_000).point
        return point, float(problem.error_bound(point))
    point = np.asarray(bisection_reference(problem), dtype=float)
    return point, 1e-15 * float(np.linalg.norm(np.sqrt(problem.metric) * point))


def applicable(name: str, problem: Subproblem) -> bool:
    """Whether a solver can be asked to solve this subproblem at all, and in reasonable time."""
    psi = problem.regularizer
    if name == "exact":
        return psi.has_metric_prox(problem.metric, problem.weight_sum)
    if name == "PG per group":
        return psi.separable
    if name in ("accelerated", "admm"):
        return psi.convex
    if name == "als":
        return psi.as_matrices is not None
    if name == "newton_raphson":
        return psi.sum_of_group_norms
    if name == "cvxpy":
        return psi.convex and problem.anchor.size <= 64
    return True


def validate(
    *,
    quick: bool = False,
    seed: int = 0,
    device: str | None = None,
    out: str | Path | None = None,
    progress: bool = False,
    command: str | None = None,
) -> list[Case]:
    """Run every applicable solver on generated subproblems and hold its answer against the reference.

    Parameters
    ----------
    quick : bool
        The small size only.
    seed : int
        Of the generated subproblems.
    device : {"auto", "cpu", "cuda"}, optional
        Solve with torch tensors there ("auto": on an NVIDIA GPU if there is one); by default with NumPy arrays.  The
        references are NumPy's all the same.
    out : path, optional
        Folder for ``validate.json`` and ``validate.png``.
    progress : bool
        Show a bar.
    command : str, optional
        What ``validate.json`` names as the command that made it.

    Returns
    -------
    list of Case

    Raises
    ------
    ValueError
        If ``device`` is none of these, or "cuda" and torch finds no GPU.
    """
    place = None if device is None else find_device(device)
    sizes = SIZES[:1] if quick else SIZES
    plan = [(psi, size, condition) for psi in REGULARIZERS for size in sizes for condition in CONDITIONS]
    if progress:
        from tqdm import tqdm

        plan = tqdm(plan, unit="problem", leave=False)
    cases: list[Case] = []
    for psi, size, condition in plan:
        cases += cases_of(psi, size, condition, seed, place)
        if out is not None:
            data = [asdict(case) for case in cases]
            record_figure(out, "validate", command=command, seeds=[seed], data=data)
    if out is not None:
        from ramda_theory.experiments.validate_figure import plot_validation

        plot_validation(cases, Path(out) / "validate")
    return cases


def on_device(problem: Subproblem, place: torch.device) -> Subproblem:
    """The subproblem as torch tensors."""
    arrays = (problem.anchor, problem.grad_sum, problem.metric)
    anchor, grad_sum, metric = (torch.from_numpy(array).to(place) for array in arrays)
    return replace(problem, anchor=anchor, grad_sum=grad_sum, metric=metric)


def cases_of(
    psi: Regularizer, shape: tuple[int, int], condition: float, seed: int, place: torch.device | None = None
) -> Iterator[Case]:
    """All solvers and tolerances on one generated subproblem."""
    problem = generated(psi, shape, condition, seed)
    asked = problem if place is None else on_device(problem, place)
    reference, reference_error = reference_solution(problem)
    name = f"{type(psi).__name__} {shape[0]}x{shape[1]}, condition {condition:.0e}"
    for solver_name, solver in SOLVERS.items():
        if not applicable(solver_name, problem):
            continue
        one_shot = solver_name in ("exact", "cvxpy", "newton_raphson", "PG, relative decrease")
        for tolerance in TOLERANCES[-1:] if one_shot else TOLERANCES:
            clock = time.perf_counter()
            solution = solve(asked, solver, tolerance=tolerance * problem.magnitude, max_iter=2000)
            point = to_host(solution.point)  # waits for a device
            elapsed = time.perf_counter() - clock
            yield Case(
                name=name,
                solver=solver_name,
                tolerance=tolerance,
                residual=solution.residual / problem.magnitude,
                error=float(np.linalg.norm(point - reference) / np.linalg.norm(reference)),
                iterations=solution.iterations,
                milliseconds=1e3 * elapsed,
                status=solution.status,
                claim_holds=solution.status != "solved"
                or holds(problem, solver_name, point, reference, tolerance, reference_error),
            )


def holds(
    problem: Subproblem, solver: str, point: np.ndarray, reference: np.ndarray, tolerance: float, reference_error: float
) -> bool:
    """Whether a point called solved is as close to the reference as that claim implies."""
    if problem.regularizer.convex:
        # s in dQ(x) with ||s|| <= eps implies ||x - x*||_P <= ||s||_{P^-1} <= eps / sqrt(min P)
        bound = tolerance * problem.magnitude / np.sqrt(problem.metric.min())
        return bool(np.linalg.norm(np.sqrt(problem.metric) * (point - reference)) <= bound + reference_error)
    return solver != "exact" or problem.increase(point, reference) <= 1e-12 * abs(float(problem.objective(reference)))


def false_claims(cases: Sequence[Case]) -> list[Case]:
    """The cases whose "solved" the reference contradicts."""
    return [case for case in cases if not case.claim_holds]


def table(cases: Sequence[Case]) -> str:
    """A row for each solver and subproblem, at the tightest tolerance."""
    rows: list[Sequence[Any]] = [
        ("subproblem", "solver", "error", "residual", "tolerance", "iterations", "ms", "status", "claim")
    ]
    for case in cases:
        if case.tolerance == TOLERANCES[-1]:
            numbers = (f"{case.error:.1e}", f"{case.residual:.1e}", f"{case.tolerance:.0e}", str(case.iterations))
            claim = "-" if case.status != "solved" else "holds" if case.claim_holds else "FALSE"
            rows.append((case.name, case.solver, *numbers, f"{case.milliseconds:.2f}", case.status, claim))
    return aligned(rows)
