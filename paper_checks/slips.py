"""Slips of arXiv:2403.14398 and where its released code differs, each shown by a few numbers; none breaks a result.

"holds" means that the slip is real and has the effect stated.  Slips 6 to 9 need whole runs: `slips_runs`.
"""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.inner_iterations import grouped_hits, steps
from paper_checks.slips_runs import CHECKS as RUNS
from paper_checks.slips_runs import verdict
from paper_checks.subproblems import LASSO, NONCONVEX, planted, slowest_direction
from paper_checks.table_2 import training_subproblems
from ramda_theory.methods import RAMDA, SampledGradient, Settings
from ramda_theory.problems import digits, group_lasso
from ramda_theory.regularizers import GroupLasso
from ramda_theory.subproblem import ProximalGradient, Subproblem, solve
from ramda_theory.subproblem.solve import judge


@check(
    "slip_01",
    claim="Theorem 1 for convex psi is stated as O(log 1/eps_t) in Section 5 and as O(1/eps_t) in Appendix B",
    kind="tight",
    criterion="each further factor 1000 in 1/eps costs the same iterations, within 1 %",
)
def rates(quick: bool) -> Outcome:
    """Problem: the slowest l1 subproblem with max P/min P = 100.
    Claim: the proof gives the logarithm, and that is what is seen.
    Algorithm: Algorithm 2.
    Theorem: Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix B.
    Failure would mean: the appendix states the rate and Section 5 is too optimistic.
    """
    problem, start, _ = slowest_direction(planted(LASSO, 100.0, "(4)", 0)[0])
    hits = grouped_hits(problem, start, float(problem.metric.min()) * 10.0 ** -np.array([1, 4, 7, 10]), 10**6)
    further = np.diff(hits)
    return verdict(
        bool(np.ptp(further) <= 0.01 * further[0]),
        {"iterations": hits},
        f"iterations {', '.join(map(str, hits))} for eps = 1e-1, 1e-4, 1e-7, 1e-10 times min P",
    )


@check(
    "slip_02",
    claim="Algorithm 1 starts PG at W_t, which does not exist yet; started elsewhere than W_{t-1}, PG can violate (7)",
    kind="qualitative",
    criterion="Q_t(What_t) > Q_t(W_{t-1}) at some step when PG starts at W^0, at none when it starts at W_{t-1}",
)
def start_point(quick: bool) -> Outcome:
    """Problem: planted group LASSO, batches of 20, 100 steps of RAMDA.
    Claim: the objective condition of (7) is free of charge from W_{t-1} only, as PG descends.
    Algorithm: RAMDA with exact solutions; beside it PG, stopped at a residual of 0.3 alpha_t lambda.
    Theorem: (7), Algorithm 1.
    Reference: Huang & Lee, arXiv:2403.14398, Algorithm 1 and (7).
    Failure would mean: the starting point does not matter.
    """
    problem, method, gradients = group_lasso(), RAMDA(group_lasso().regularizer), SampledGradient(20)
    state, ascents = method.init(problem.initial), {"W_{t-1}": 0, "W^0": 0}
    for t in range(1, 101):
        before = state.w
        state, _ = method.step(state, gradients(problem, before, t), Settings(1e-1))
        inner, tolerance = method.subproblem(state), 0.3 * state.weight_sum * problem.regularizer.weight
        for name, start in (("W_{t-1}", before), ("W^0", state.anchor)):
            candidate = ProximalGradient()(inner, start, tolerance, 1000)
            ascents[name] += judge(inner, candidate, tolerance, before).status == "no_descent"
    return verdict(
        ascents["W_{t-1}"] == 0 < ascents["W^0"],
        ascents,
        f"ascents in 100 steps: {ascents['W_{t-1}']} from W_(t-1), {ascents['W^0']} from W^0",
    )


@check(
    "slip_03",
    claim="Algorithm 2 writes prox_psi; without its step alpha theta the iteration solves another problem",
    kind="qualitative",
    criterion="after 1000 iterations the residual is above 0.1 alpha lambda as written, below 1e-10 of it with a step",
)
def missing_step(quick: bool) -> Outcome:
    """Problem: l1 subproblem (4) with max P/min P = 10.
    Claim: the proximal map must be prox_{alpha theta psi} on Q_t, prox_{theta psi} on Q_t/alpha_t.
    Algorithm: Algorithm 2 literally, and with the step.
    Theorem: Algorithm 2.
    Reference: Huang & Lee, arXiv:2403.14398, Algorithm 2.
    Failure would mean: the step can be left out.
    """
    problem, start, _ = planted(LASSO, 10.0, "(4)", 0)
    theta, scale = 1.0 / float(problem.metric.max()), problem.weight_sum * LASSO.weight
    relative = {}
    for name, step in (("as written", 1.0), ("with its step", problem.weight_sum * theta)):
        z = start
        for _ in range(1000):
            z = LASSO.prox(z - theta * problem.gradient(z), step)
        relative[name] = float(problem.residual(z)) / scale
    return verdict(
        relative["as written"] > 0.1 and relative["with its step"] < 1e-10,
        relative,
        f"residual / (alpha lambda): {relative['as written']:.2g} as written, {relative['with its step']:.1e} with it",
    )


@check(
    "slip_04",
    claim="(7) bounds the residual of Q_t; on Q_t/alpha_t PG must stop at eps_t/alpha_t, and the rate is the same",
    kind="tight",
    criterion="stopped at eps on Q/alpha, Q's residual exceeds eps (alpha = 5); at eps/alpha it does not, after as "
    "many iterations as on Q with eps",
)
def scaling(quick: bool) -> Outcome:
    """Problem: l1 subproblem (4) with alpha = 5, and the same divided by alpha.
    Claim: the scaled problem is min P/alpha-strongly convex (not eps-), L is max P/alpha: their ratio is unchanged.
    Algorithm: Algorithm 2, eps = 1e-3 min P.
    Theorem: (7), proof of Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, Appendix B.
    Failure would mean: the scaling enters the rate.
    """
    problem, start, _ = planted(LASSO, 10.0, "(4)", 0)
    alpha, eps = problem.weight_sum, 1e-3 * float(problem.metric.min())
    scaled = Subproblem(problem.anchor, problem.grad_sum / alpha, problem.metric / alpha, 1.0, LASSO)
    same = solve(scaled, ProximalGradient(), start=start, tolerance=eps)
    divided = solve(scaled, ProximalGradient(), start=start, tolerance=eps / alpha)
    unscaled = solve(problem, ProximalGradient(), start=start, tolerance=eps)
    ratios = [float(problem.residual(solution.point)) / eps for solution in (same, divided)]
    return verdict(
        ratios[0] > 1 >= ratios[1] and divided.iterations == unscaled.iterations,
        {"residual / eps": ratios, "iterations": [same.iterations, divided.iterations, unscaled.iterations]},
        f"residual of Q / eps: {ratios[0]:.1f} where Q/alpha meets eps, {ratios[1]:.2f} where it meets eps/alpha; "
        f"{divided.iterations} iterations there, {unscaled.iterations} on Q",
    )


@check(
    "slip_05",
    claim="(12) drops the index: it bounds min_k ||Z_{k+1} - Z_k||, and for nonconvex psi the last step may be longer",
    kind="qualitative",
    criterion="some step of PG is more than 1 % longer than an earlier one with MCP, none with l1",
)
def index(quick: bool) -> Outcome:
    """Problem: subproblems (6) with max P/min P = 100, with MCP and with l1.
    Claim: for convex psi the steps shorten monotonically, so that the minimum is the last; for MCP they do not.
    Algorithm: Algorithm 2, 2000 iterations.
    Theorem: (12), proof of Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, Appendix B.
    Failure would mean: the index is immaterial for nonconvex psi too.
    """
    growth = {}
    for name, psi in {"l1": LASSO, "MCP": NONCONVEX["MCP"]}.items():
        problem, start, _ = planted(psi, 100.0, "(6)", 0)
        points = [start, *(z for z, _ in islice(steps(problem, start), 2000))]
        lengths = np.array([np.linalg.norm(b - a) for a, b in pairwise(points)])
        lengths = lengths[lengths > 1e-12]  # above rounding
        growth[name] = float(np.max(lengths / np.minimum.accumulate(lengths)))
    return verdict(
        growth["MCP"] > 1.01 and growth["l1"] <= 1.01,
        {"longest step over the shortest before it": growth},
        f"largest step over the shortest before it: {growth['MCP']:.3g} with MCP, {growth['l1']:.3g} with l1",
    )


@check(
    "slip_10",
    claim="Where an input is always zero P = eps, and PG with one step size, 1/max P, crawls if lambda is small",
    kind="qualitative",
    criterion="max P/min P >= 1e4; one step size needs at least 10 times the iterations of a step per group at lambda "
    "= 1e-6, less than 10 times at 5e-3",
)
def dead_inputs(quick: bool) -> Outcome:
    """Problem: digits, three of whose pixels are zero in every image, from a start that is not zero; step 100 of RAMDA.
    Claim: PG must shrink the dead weights by steps alpha lambda_g / max P; the networks' lambda of 1e-7 to 1e-6 makes
    them tiny, the logistic regression's do not.
    Algorithm: RAMDA, then Algorithm 2 on its subproblem to a residual of 1e-3 alpha lambda_g, from W^0.
    Theorem: Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, (3) and Algorithm 2.
    Failure would mean: the published step size does as well.
    """
    iterations, condition = {}, {}
    for weight in (1e-6, 5e-3):
        problem, gradients = digits(weight), SampledGradient(64)
        psi, method = problem.regularizer, RAMDA(problem.regularizer)
        state = method.init(np.random.default_rng(0).normal(0.0, 0.1, problem.initial.shape))
        for t in range(1, 101):
            state, _ = method.step(state, gradients(problem, state.query, t), Settings(1e-2))
        inner = method.subproblem(state)
        assert isinstance(psi, GroupLasso)
        tolerance = 1e-3 * state.weight_sum * float(psi.group_weights(state.w))
        iterations[weight] = [
            solve(inner, ProximalGradient(step=step), start=state.anchor, tolerance=tolerance).iterations
            for step in ("global", "group")
        ]
        condition[weight] = float(inner.metric.max() / inner.metric.min())
    ratio = {weight: one / per_group for weight, (one, per_group) in iterations.items()}
    return verdict(
        min(condition.values()) >= 1e4 and ratio[1e-6] >= 10 > ratio[5e-3],
        {"max P / min P": condition, "iterations, one step and per group": iterations},
        f"max P/min P = {condition[1e-6]:.1e}; iterations with one step and per group: {iterations[1e-6]} at lambda "
        f"= 1e-6, {iterations[5e-3]} at 5e-3",
    )


@check(
    "slip_11",
    claim="The released code screens by alpha lambda where alpha lambda sqrt(size) is right: safe, but finds fewer",
    kind="qualitative",
    criterion="no group that is nonzero at the solution is screened by either rule; the released one screens fewer",
)
def screening(quick: bool) -> Outcome:
    """Problem: RAMDA's subproblems of the network of table_2.
    Claim: group g is zero iff ||(P W^0 - V)_g|| <= alpha lambda sqrt(n_g); a smaller bound finds some of them.
    Algorithm: both rules beside the exact solution.
    Theorem: the screening of Section 4 (Deleu & Bengio 2021).
    Reference: Huang & Lee, arXiv:2403.14398, Section 4, and the released package.
    Failure would mean: the released rule is unsafe, or as good.
    """
    counts = {"zero groups": 0, "right rule": 0, "released rule": 0, "wrongly screened": 0}
    for problem, _ in training_subproblems("RAMDA", 40 if quick else 200):
        psi = problem.regularizer
        assert isinstance(psi, GroupLasso)
        norms = psi.group_norms(problem.linear)
        zero = psi.group_norms(solve(problem, "exact").point) == 0
        right = norms <= problem.weight_sum * psi.group_weights(problem.anchor)
        released = norms <= problem.weight_sum * psi.weight
        counts["zero groups"] += int(zero.sum())
        counts["right rule"] += int(right.sum())
        counts["released rule"] += int(released.sum())
        counts["wrongly screened"] += int(((right | released) & ~zero).sum())
    return verdict(
        counts["wrongly screened"] == 0 and counts["released rule"] < counts["right rule"],
        counts,
        f"of {counts['zero groups']} zero groups the right rule finds {counts['right rule']}, the released one "
        f"{counts['released rule']}; wrongly screened: {counts['wrongly screened']}",
    )


CHECKS = (rates, start_point, missing_step, scaling, index, *RUNS, dead_inputs, screening)
