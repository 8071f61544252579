"""Theorem 4: ProxGen with inexact steps keeps the rate of Yun et al. (2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paper_checks.check import Outcome, check
from ramda_theory.arrays import Array
from ramda_theory.diagnostics import fit_rate
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.methods import ProxGen, Settings
from ramda_theory.problems import Problem, lasso, teacher
from ramda_theory.subproblem import ProximalGradient, Subproblem
from ramda_theory.subproblem.problem import Candidate

SIGMA = 0.3
RHO, MU = 0.9, 0.9
LARGEST_METRIC = 2.0
MEAN = r"mean of dist$(0, \partial F(W_t))^2$, $t \leq T$"


def laziest(problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
    """W_{t-1} itself whenever it meets (7), else Algorithm 2: inexactness that (7) allows and Algorithm 2 avoids."""
    if float(problem.residual(start)) <= tolerance:
        return Candidate(start, 0)
    return ProximalGradient()(problem, start, tolerance, max_iter)


@dataclass(frozen=True)
class Trajectory:
    """What a run leaves, one entry per step: dist(0, dF(W_t))^2, ||m_t - grad f(W_{t-1})||^2 and eps_t."""

    distance_sq: np.ndarray
    gradient_error_sq: np.ndarray
    tolerance: np.ndarray

    @property
    def average(self) -> np.ndarray:
        """E dist(0, dF(W_a))^2 over the random index a <= T, exactly, for T = 1, 2, ..."""
        return running_mean(self.distance_sq)


def always(b: float) -> Callable[[int], float]:
    """The same batch size at every step."""
    return lambda t: b


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the first T values, T = 1, 2, ..."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)


def trajectory(
    problem: Problem,
    steps: int,
    power: float,
    batch: Callable[[int], float] | None = None,
    seed: int = 0,
    solver: Callable[..., Candidate] = laziest,
    rho: Callable[[int], float] = lambda t: RHO * MU ** (t - 1),
) -> Trajectory:
    """Run ProxGen under C-1 to C-5: eta = min P/(3L), a fixed P in [1, 2], rho_t = rho_0 mu^(t-1), eps_t = t^-power.

    ``batch`` gives b_t: gradients are grad f plus the mean of b_t normal vectors of deviation `SIGMA` per entry; None
    stands for grad f itself.
    """
    rng = np.random.default_rng(seed)
    assert problem.lipschitz is not None
    eta = 1.0 / (3.0 * problem.lipschitz)
    metric = np.geomspace(1.0, LARGEST_METRIC, problem.initial.size).reshape(problem.initial.shape)
    method = ProxGen(problem.regularizer, betas=(rho, 0.999), metric=metric, solver=solver)
    state = method.init(problem.initial)
    out = np.empty((3, steps))
    true_gradient = problem.gradient(state.w)
    for t in range(1, steps + 1):
        noise = SIGMA * rng.standard_normal(state.w.shape) / np.sqrt(batch(t)) if batch else 0.0
        # The package solves (6) times eta; eps_t bounds the residual of (6) itself.
        state, _ = method.step(state, true_gradient + noise, Settings(eta, tolerance=eta * t**-power))
        estimate = state.momentum / (1.0 - state.forgotten)
        out[1, t - 1] = np.sum((estimate - true_gradient) ** 2)
        true_gradient = problem.gradient(state.w)
        out[0, t - 1] = problem.regularizer.subdifferential_distance(state.w, true_gradient) ** 2
        out[2, t - 1] = t**-power
    return Trajectory(*out)


def descent_bound(problem: Problem, run: Trajectory) -> np.ndarray:
    """The theorem's bound on the average, T = 1, 2, ..., with the constants of the descent argument.

    With d = W_t - W_{t-1}, e = m_t - grad f(W_{t-1}) and s in the subdifferential of (6), ||s|| <= eps_t:
    dist(0, dF(W_t)) <= ||e|| + (L + max P/eta) ||d|| + eps_t, and Q_t(W_t) <= Q_t(W_{t-1}) with eta = 1/(3L), min P = 1
    gives F(W_t) <= F(W_{t-1}) + ||e||^2/(2L) - L/2 ||d||^2.
    """
    lipschitz = problem.lipschitz
    assert lipschitz is not None
    factor = 3.0 * (1.0 + 3.0 * LARGEST_METRIC) ** 2  # 3 (L + max P/eta)^2 / L^2
    start_gap = problem.objective(problem.initial) - problem.solution().objective
    steps = np.arange(1, len(run.tolerance) + 1)
    return (
        (3.0 + factor) * running_mean(run.gradient_error_sq)
        + 2.0 * factor * lipschitz * start_gap / steps
        + 3.0 * running_mean(run.tolerance**2)
    )


def exponent(values: np.ndarray) -> float:
    """Exponent in T over the last factor of 30."""
    steps = np.unique(np.geomspace(len(values) / 30, len(values), 25).astype(int))
    return fit_rate(steps, values[steps - 1], window=(float(steps[0]), float(steps[-1]))).exponent


@check(
    "theorem_4_batches",
    claim="With (8), E dist(0, dF(W_a))^2 <= Q1/T sum 1/b_t + Q2 (F(W_0) - inf F)/T + Q3/T for inexact ProxGen",
    kind="upper bound",
    criterion="below the bound for all T and b; exponent in T <= -0.85 for b_t = t and for full gradients; "
    "exponent in b <= -0.9 of what a constant batch adds to the average with full gradients",
)
def batches(quick: bool) -> Outcome:
    """Problem: planted LASSO with unbiased gradients of variance sigma^2/b_t; the nonconvex teacher network.
    Claim: the average of dist(0, dF)^2 falls like 1/T, down to a floor of order 1/b when the batch stays at b.
    Algorithm: ProxGen under C-1 to C-5, eps_t = 1/t, the laziest solutions that (7) allows.
    Theorem: Theorem 4.
    Reference: Huang & Lee, arXiv:2403.14398, Theorem 4; Yun, Lozano & Yang (2021), Theorem 1.
    Failure would mean: the inexact inner solver costs ProxGen its guarantee.
    """
    steps, seeds = (400, 1) if quick else (2000, 2)
    constant = (1, 16, 64) if quick else (1, 4, 16, 64, 256)
    plan: dict[str, tuple[Problem, Callable[[int], float] | None]] = {
        f"b = {b}": (lasso(), always(b)) for b in constant
    }
    plan |= {"b = t": (lasso(), float), "full gradient": (lasso(), None), "teacher, full gradient": (teacher(), None)}
    averages, shares = {}, {}
    for name, (problem, batch) in plan.items():
        runs = [trajectory(problem, steps, 1.0, batch, seed) for seed in range(seeds if batch else 1)]
        averages[name] = np.mean([run.average for run in runs], axis=0)
        shares[name] = max(float(np.max(run.average / descent_bound(problem, run))) for run in runs)
    # The batches' own term: what they add to the full gradient's terms in 1/T.
    added = {b: float(averages[f"b = {b}"][-1] - averages["full gradient"][-1]) for b in constant}
    in_b = float(np.polyfit(np.log(constant), np.log(list(added.values())), 1)[0])
    falling = [name for name in plan if "b = t" in name or "full" in name]
    in_t = {name: exponent(averages[name]) for name in falling}
    share = max(shares.values())
    with style():
        figure = new_figure(7.2, 3.2)
        axes, floor_axes = figure.subplots(1, 2)
        for index, (name, values) in enumerate(averages.items()):
            axes.loglog(np.arange(1, steps + 1), values, label=name, **line_style(index))
        axes.set(xlabel="T", ylabel=MEAN, title="LASSO (and the teacher)")
        axes.legend(ncols=2, fontsize=6)
        b = np.array(constant)
        floor_axes.loglog(b, list(added.values()), marker="o", label="average - full gradient's", **line_style(0))
        floor_axes.loglog(b, added[1] / b, label="proportional to 1/b", **line_style(1))
        floor_axes.set(xlabel="batch size b", title=f"What a constant batch adds at T = {steps}")
        floor_axes.legend()
    return Outcome(
        "holds" if share <= 1 and in_b <= -0.9 and max(in_t.values()) <= -0.85 else "fails",
        {"exponent in T": in_t, "exponent in b": in_b, "added by b": added, "share of the bound": shares},
        f"exponents in T: {', '.join(f'{name} {value:.2f}' for name, value in in_t.items())}; in b {in_b:.2f} (b times "
        f"what it adds: {', '.join(f'{b * value:.2g}' for b, value in added.items())}); {share:.1%} of the bound",
        {"theorem_4_batches": figure},
    )


@check(
    "theorem_4_summability",
    claim="The rate 1/T needs (8): with eps_t = t^-p and the laziest solutions of (7) the average falls like "
    "T^-min(1, 2p)",
    kind="tight",
    criterion="fitted exponents within 0.1 of -min(1, 2p) for p = 0, 1/4, 1/2, 1; Algorithm 2 at p = 0 has <= -0.9",
)
def summability(quick: bool) -> Outcome:
    """Problem: planted LASSO with full gradients.
    Claim: sum eps_t^2 enters as (1/T) sum eps_t^2; where it diverges the rate is lost, with a constant eps_t all of it.
    Algorithm: ProxGen under C-1 to C-5; solutions W_{t-1} where that meets (7), or at least one step of Algorithm 2.
    Theorem: Theorem 4, condition (8).
    Reference: Huang & Lee, arXiv:2403.14398, Theorem 4.
    Failure would mean: (8) is not what the theorem needs.
    """
    steps = 1000 if quick else 6000
    problem = lasso()
    powers = (0.0, 0.25, 0.5, 1.0)
    averages = {
        f"eps_t = t^-{power:g}" if power else "eps_t = 1": trajectory(problem, steps, power).average for power in powers
    }
    at_least_one = trajectory(problem, steps, 0.0, solver=ProximalGradient()).average
    predicted = [-min(1.0, 2 * power) for power in powers]
    fitted = [exponent(values) for values in averages.values()]
    saved = exponent(at_least_one)
    worst = max(abs(one - other) for one, other in zip(fitted, predicted, strict=True))
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, (name, values) in enumerate((averages | {"eps_t = 1, Algorithm 2": at_least_one}).items()):
            label = name.replace("eps_t", r"$\varepsilon_t$")
            axes.loglog(np.arange(1, steps + 1), values, label=label, **line_style(index))
        axes.set(xlabel="T", ylabel=MEAN, title="Laziest solutions of (7)")
        axes.legend()
    return Outcome(
        "holds" if worst <= 0.1 and saved <= -0.9 else "fails",
        {"powers": powers, "exponents": fitted, "predicted": predicted, "Algorithm 2 at p = 0": saved},
        "exponents "
        + ", ".join(f"{value:.2f} (p = {power:g})" for power, value in zip(powers, fitted, strict=True))
        + f"; Algorithm 2, which takes at least one step, has {saved:.2f} even at p = 0",
        {"theorem_4_summability": figure},
    )


CHECKS = (batches, summability)
