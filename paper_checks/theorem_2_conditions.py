"""What each condition of Theorem 2 is for: runs that violate one.

Quick runs as in theorem_2.
"""

from __future__ import annotations

from paper_checks.check import Outcome, check
from paper_checks.theorem_2_limits import convergent, falls, rate, words
from paper_checks.theorem_2_runs import (
    SUMMABLE,
    constant,
    curves,
    followed,
    growing_tolerance,
    lazy,
    plain,
    reference,
    right_side,
)
from ramda_theory.diagnostics import Table
from ramda_theory.methods import Schedule
from ramda_theory.subproblem import ConstantTolerance


@check(
    "theorem_2_averaging",
    claim="sum c_t = inf is needed: with a finite sum What_t does not become stationary",
    kind="qualitative",
    criterion="with c_t = t^(-2) the fitted power of dist(0, dF(What_t)) is not below 0 by more than its 95 % interval",
)
def averaging(quick: bool) -> Outcome:
    """Problem: as in theorem_2_limits, with c_t = t^(-2) instead of min(1, 4/t).
    Claim: where W_t stops short of a solution, V/alpha converges to a gradient that is no -d psi.
    Algorithm: RAMDA, exact subproblems.
    Theorem: the condition sum c_t = inf of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: the condition is stronger than what the conclusion needs.
    """
    return needed(quick, "theorem_2_averaging", "$c_t = t^{-2}$", convergent(averaging=inverse_square))


@check(
    "theorem_2_weights",
    claim="sum s_t/alpha_t = inf in (13) is needed: otherwise the first gradients are never forgotten",
    kind="qualitative",
    criterion="with lr t^(-2) the fitted power of dist(0, dF(What_t)) is not below -0.05 by more than its 95 % range",
)
def weights(quick: bool) -> Outcome:
    """Problem: as in theorem_2_limits, with lr t^(-2), for which alpha_t converges.
    Claim: V/alpha keeps a share of every gradient and does not converge to grad f.
    Algorithm: RAMDA, exact subproblems.
    Theorem: (13), a condition of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: the condition is stronger than what the conclusion needs.
    """
    return needed(quick, "theorem_2_weights", "lr $t^{-2}$", convergent(lr=inverse_square), slowest=-0.05)


def inverse_square(t: int) -> float:
    """t^(-2)."""
    return t**-2.0


def needed(quick: bool, name: str, label: str, schedule: Schedule, slowest: float = 0.0) -> Outcome:
    """A condition is needed if without it dist(0, dF(What_t)) falls no faster than t^slowest."""
    tables = {"all conditions hold": reference(quick), label: followed(schedule, quick)}
    fitted, own = (rate(table, "stationarity") for table in tables.values())
    broken = tables[label]
    return Outcome(
        "holds" if own.exponent + own.uncertainty >= slowest else "fails",
        {"with": plain(fitted), "without": plain(own)}
        | {column: broken[column][-1] for column in ("stationarity", "gradient_error", "model_error")},
        f"dist(0, dF(What_t)) ~ t^({words(own)}) instead of t^({words(fitted)}), {broken['stationarity'][-1]:.2g} at "
        f"the end instead of {tables['all conditions hold']['stationarity'][-1]:.2g}; ||V/alpha - grad f(W)|| "
        f"{broken['gradient_error'][-1]:.2g}, ||V/alpha - grad f(What)|| {broken['model_error'][-1]:.2g}",
        {name: curves(tables, "stationarity", r"dist$(0, \partial F(\hat{W}_t))$", "One condition violated")},
    )


@check(
    "theorem_2_noise",
    claim="With constant lr and averaging and persistent noise dist(0, dF(What_t)) does not go to 0",
    kind="qualitative",
    criterion="its fitted power of t is not below 0 by more than its 95 % interval, and is so without noise",
)
def noise(quick: bool) -> Outcome:
    """Problem: planted LASSO, lr 0.1 and averaging 0.1, with and without noise of constant size in the gradients.
    Claim: {What_t} does not converge, so that Theorem 2 has nothing to say; what is lost is the limit itself.
    Algorithm: RAMDA, exact subproblems.
    Theorem: the assumption {What_t} -> Wbar and (14) of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: dual averaging alone removes the noise of a constant step.
    """
    tables = {
        "lr $t^{-9/8}$, averaging $4/t$": reference(quick),
        "lr 0.1, averaging 0.1": constant(quick),
        "the same without noise": constant(quick, 0.1, 0.0),
    }
    rates = {name: rate(table, "stationarity") for name, table in tables.items()}
    noisy, exact = list(rates.values())[1:]
    return Outcome(
        "holds" if not falls(noisy) and falls(exact) else "fails",
        {name: plain(fitted) | {"at the end": tables[name]["stationarity"][-1]} for name, fitted in rates.items()},
        f"constant: t^({words(noisy)}), {tables['lr 0.1, averaging 0.1']['stationarity'][-1]:.2g} at the end; without "
        f"noise t^({words(exact)}), {tables['the same without noise']['stationarity'][-1]:.1e}",
        {"theorem_2_noise": curves(tables, "stationarity", r"dist$(0, \partial F(\hat{W}_t))$", "Constant settings")},
    )


@check(
    "theorem_2_tolerance",
    claim="Square-summable tolerances, (8), are needed",
    kind="qualitative",
    criterion="for eps_t = 0.1 or 1 the bound (28) stops falling: its power of t is not below 0 by its 95 % range",
    expected="fails",
    fault="the claim: (8) is sufficient, not necessary: constant tolerances of 0.1 and 1 leave the bound falling like "
    "t^-0.29 and t^-0.37; what breaks it is eps_t ~ alpha_t, against (20).",
)
def tolerance(quick: bool) -> Outcome:
    """Problem: as in theorem_2_limits, with eps_t = 0.1 t^(-0.6), constant eps_t, and eps_t = 0.05 alpha_t.
    Claim: errors of the subproblems that are not square-summable spoil the limit.
    Algorithm: RAMDA; where W_{t-1}, restricted to the support of the exact solution, meets (7) it is What_t: no
    progress at all as long as eps_t allows it.
    Theorem: (8) and (20) of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix B.
    Failure would mean: (20), eps_t/alpha_t -> 0, is enough for stationarity; (8) asks for more.
    """
    tables = {
        "(8): $0.1\\,t^{-0.6}$": lazy(quick, SUMMABLE, 1),
        "0.1": lazy(quick, ConstantTolerance(0.1), 1),
        "1": lazy(quick, ConstantTolerance(1.0), 1),
        r"$0.05\,\alpha_t$": lazy(quick, growing_tolerance, 1),
    }
    rates = {name: rate(table, "stationarity") for name, table in tables.items()}
    bounds = {
        name: rate(Table({"step": table["step"].tolist(), "bound": right_side(table).tolist()}), "bound")
        for name, table in tables.items()
    }
    needed = not any(falls(bounds[name]) for name in ("0.1", "1"))
    ends = [table["stationarity"][-1] for table in tables.values()]
    left = list(tables.values())[-1]["subproblem_error"][-1]
    return Outcome(
        "holds" if needed else "fails",
        {
            name: {
                "dist": plain(rates[name]),
                "bound": plain(bounds[name]),
                "at the end": tables[name]["stationarity"][-1],
            }
            for name in tables
        },
        f"the bound (28) falls like t^({words(bounds['0.1'])}) for eps = 0.1 and t^({words(bounds['1'])}) for eps = 1; "
        f"dist at the end {ends[0]:.2g} (8), {ends[1]:.2g} (0.1), {ends[2]:.2g} (1), and {ends[3]:.2g} for eps = 0.05 "
        f"alpha, which breaks (20) too (the subproblems' share of it is {left:.2g}).  (20) is what stationarity needs",
        {
            "theorem_2_tolerance": curves(
                tables, "stationarity", r"dist$(0, \partial F(\hat{W}_t))$", r"Tolerances $\varepsilon_t$"
            )
        },
    )


CHECKS = (averaging, weights, noise, tolerance)
