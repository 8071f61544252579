"""Table 2 in small: ProxSSI's Newton-Raphson, PG with early stopping and the concave Newton on training subproblems."""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from ramda_theory.drawing import COLOURS, new_figure, style
from ramda_theory.methods import RAMDA, Method, ProxGen, Settings
from ramda_theory.regularizers import GroupLasso
from ramda_theory.subproblem import Exact, ProximalGradient, Subproblem, solve
from ramda_theory.subproblem.problem import Candidate

LAYERS = (64, 128, 128, 10)
SETTINGS: dict[str, tuple[Any, Settings]] = {
    "ProxGen": (ProxGen, Settings(lr=1e-3, eps=1e-8)),
    "RAMDA": (RAMDA, Settings(lr=1e-2, eps=1e-6)),
}
SOLVERS: dict[str, tuple[Any, int]] = {
    "Newton-Raphson (ProxSSI)": ("newton_raphson", 100),
    "PG, early stopping": (ProximalGradient(step="group", stopping="relative_decrease"), 100),
    "concave Newton (ours)": ("exact", 100),
}


@cache
def training_subproblems(name: str, steps: int) -> tuple[tuple[Subproblem, np.ndarray], ...]:
    """Subproblems and W_{t-1} of every layer of a ReLU network on digits, after a quarter, half and all of the steps.

    The network is trained with exact solutions, batches of 64 and ``GroupLasso(1e-3)``, a group per input of a layer.
    """
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    features, targets = torch.tensor(data.data / 16.0), torch.tensor(data.target)
    rng = np.random.default_rng(0)
    seen: list[tuple[Subproblem, np.ndarray]] = []

    def exact_and_kept(problem: Subproblem, start: np.ndarray, tolerance: float, max_iter: int) -> Candidate:
        seen.append((problem, start))
        return Exact()(problem, start, tolerance, max_iter)

    make, settings = SETTINGS[name]
    psi = GroupLasso(1e-3, dims=(0,))
    silent, keeping = make(psi), make(psi, solver=exact_and_kept)
    states = [
        silent.init(rng.uniform(-1, 1, (outputs, inputs)) / np.sqrt(inputs)) for inputs, outputs in pairwise(LAYERS)
    ]
    for t in range(1, steps + 1):
        weights = [torch.tensor(state.query, requires_grad=True) for state in states]
        batch = torch.from_numpy(rng.choice(len(targets), 64, replace=False))
        activations = features[batch]
        for weight in weights[:-1]:
            activations = torch.relu(activations @ weight.T)
        torch.nn.functional.cross_entropy(activations @ weights[-1].T, targets[batch]).backward()
        method: Method = keeping if t in (steps // 4, steps // 2, steps) else silent
        gradients = [weight.grad.numpy() for weight in weights if weight.grad is not None]
        states = [method.step(state, g, settings)[0] for state, g in zip(states, gradients, strict=True)]
    return tuple(seen)


def timed(problem: Subproblem, start: np.ndarray, solver: Any, max_iter: int, repeats: int) -> dict[str, float]:
    """Shortest processor time of a solve in ms, iterations, and the residual of (7) over weight_sum lambda_g."""
    psi = problem.regularizer
    assert isinstance(psi, GroupLasso)
    times = []
    for _ in range(repeats):
        clock = time.process_time()
        solution = solve(problem, solver, start=start, max_iter=max_iter)
        times.append(time.process_time() - clock)
    scale = problem.weight_sum * float(psi.group_weights(problem.anchor))
    return {"ms": 1e3 * min(times), "iterations": solution.iterations, "residual": solution.residual / scale}


@cache
def measurements(quick: bool) -> dict[tuple[str, str], list[dict[str, float]]]:
    """(method, solver) -> one row per subproblem."""
    steps, repeats = (40, 2) if quick else (200, 7)
    return {
        (name, label): [
            timed(problem, start, solver, max_iter, repeats) for problem, start in training_subproblems(name, steps)
        ]
        for name in SETTINGS
        for label, (solver, max_iter) in SOLVERS.items()
    }


def condition_number(problem: Subproblem) -> float:
    """max P / min P inside a group, the median over the groups."""
    return float(np.median(problem.metric.max(axis=0) / problem.metric.min(axis=0)))


def medians(quick: bool, name: str) -> dict[str, dict[str, float]]:
    """Median time and iterations and largest residual of every solver on one method's subproblems."""
    table = {}
    for label in SOLVERS:
        rows = measurements(quick)[name, label]
        table[label] = {
            "ms": float(np.median([row["ms"] for row in rows])),
            "iterations": float(np.median([row["iterations"] for row in rows])),
            "largest residual": float(max(row["residual"] for row in rows)),
        }
    return table


def in_words(table: dict[str, dict[str, float]]) -> str:
    """A solver's medians after its name."""
    return "; ".join(
        f"{label} {row['ms']:.2g} ms, {row['iterations']:.0f} iterations, residual <= {row['largest residual']:.0e}"
        for label, row in table.items()
    )


@check(
    "table_2_time",
    claim="PG with early stopping solves ProxGen's group LASSO subproblems faster than ProxSSI's Newton-Raphson",
    kind="qualitative",
    criterion="median time of a solve below that of Newton-Raphson on ProxGen's subproblems",
    expected="fails",
    fault="the claim: PG takes fewer iterations (18 against 22), but one costs 0.37 ms and one of Newton-Raphson, all "
    "groups at once, 0.10 ms; the published ratio is one of epochs of two programs on a GPU, and does not hold of "
    "the algorithms.",
)
def faster(quick: bool) -> Outcome:
    """Problem: subproblems (6) of a 64-128-128-10 ReLU network on digits, taken from its training, and RAMDA's (4).
    Claim: the published ratio of the times of an epoch is 24/79 s to 70/260 s (a V100, VGG19 and ResNet50).
    Algorithm: Newton-Raphson on ProxSSI's scalar equation and PG with a step per group, all groups together.
    Theorem: Table 2.
    Reference: Huang & Lee, arXiv:2403.14398, Table 2; Deleu & Bengio (2021).
    Failure would mean: the published gap comes from the implementations, not from the two algorithms.
    """
    table = medians(quick, "ProxGen")
    ratio = table["PG, early stopping"]["ms"] / table["Newton-Raphson (ProxSSI)"]["ms"]
    with style():
        figure = new_figure(5.4, 3.4)
        axes = figure.subplots()
        for index, label in enumerate(SOLVERS):
            for name in SETTINGS:
                rows = measurements(quick)[name, label]
                axes.loglog(
                    [row["ms"] for row in rows],
                    [max(row["residual"], 1e-17) for row in rows],
                    linestyle="none",
                    marker="osD"[index],
                    color=COLOURS[index],
                    markerfacecolor="none" if name == "RAMDA" else COLOURS[index],
                    label=f"{label}, {name}",
                )
        axes.set(xlabel="processor ms per solve", ylabel=r"residual of (7) / ($\alpha\lambda_g$ or $\eta\lambda_g$)")
        axes.set_title("Subproblems of a training run")
        axes.legend(fontsize=6.5)
    conditions = [condition_number(problem) for problem, _ in training_subproblems("ProxGen", 40 if quick else 200)]
    return Outcome(
        "holds" if ratio < 1 else "fails",
        {"medians": table, "RAMDA": medians(quick, "RAMDA"), "PG / Newton-Raphson": ratio, "spreads of P": conditions},
        f"PG takes {ratio:.1f} times as long as a Newton-Raphson that handles all groups at once: {in_words(table)}; "
        f"median max P/min P in a group {min(conditions):.0e} to {max(conditions):.0e}",
        {"table_2_time": figure},
    )


@check(
    "table_2_exact",
    claim="The concave Newton solves the same subproblems to rounding, in less time than either (our own claim)",
    kind="qualitative",
    criterion="residual <= 1e-10 of its scale on every subproblem; median time below both, on ProxGen's and RAMDA's",
)
def exact(quick: bool) -> Outcome:
    """Problem: as in table_2_time.
    Claim: exactness costs less than inexactness for the group LASSO.
    Algorithm: Newton's method on the concave form of the scalar equation, from the better of two tangent points.
    Theorem: none of the paper; it replaces Algorithm 2 where the scalar equation exists.
    Reference: Deleu & Bengio (2021) for the equation.
    Failure would mean: there is a price for exact subproblem solutions after all.
    """
    ours = "concave Newton (ours)"
    tables = {name: medians(quick, name) for name in SETTINGS}
    residual = max(table[ours]["largest residual"] for table in tables.values())
    ratios = {
        f"{label}, {name}": table[label]["ms"] / table[ours]["ms"]
        for name, table in tables.items()
        for label in SOLVERS
        if label != ours
    }
    return Outcome(
        "holds" if residual <= 1e-10 and min(ratios.values()) > 1 else "fails",
        {"medians": tables, "times in units of ours": ratios},
        f"residual <= {residual:.0e}; times in units of ours: "
        + ", ".join(f"{label} {ratio:.1f}" for label, ratio in ratios.items()),
    )


CHECKS = (faster, exact)
