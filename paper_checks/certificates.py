"""Certificates: how many passes they take from a run, from wrong supports and along a path; none may be false.

Not a claim of the paper but ours.  Quick runs take the easy weight, one seed and two wrong supports.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.rival_runs import BATCH, GAMMA, STAGES, WEIGHTS
from ramda_theory import certify, regularization_path, run, screen
from ramda_theory.diagnostics import Certificate
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.methods import RAMDA, SampledGradient, Schedule
from ramda_theory.problems import Problem, digits

AIMS = {WEIGHTS[0]: 5, WEIGHTS[1]: 7}
"""Passes from RAMDA's step 400."""

STEPS, SEEDS, MOST_WRONG, MOST_PASSES = 400, (1, 2, 3, 4, 5), 20, 16


def true(problem: Problem, found: Certificate) -> bool:
    """Whether a certificate says what the reference solution says, with a gap of at most 1e-12."""
    best = problem.solution()
    return found.certified and found.structure == best.structure and found.gap <= 1e-12


Counts = dict[float, list[tuple[int, int]]]
"""Per weight, of every start: wrong pixels, and passes until certified."""


def drawn(after: Counts, perturbed: Counts) -> Any:
    """The figure of the passes over the wrong pixels."""
    with style():
        figure = new_figure(4.8, 3.2)
        axis = figure.subplots()
        for index, weight in enumerate(after):
            for own, marker, label in ((after, "o", "RAMDA, step 400"), (perturbed, "x", "perturbed optimum")):
                wrong, counts = zip(*own[weight], strict=True)
                name = f"{label}, lambda {weight:g}"
                axis.plot(wrong, counts, marker, color=line_style(index)["color"], fillstyle="none", label=name)
        axis.set(xlabel="pixels wrong at the start", ylabel="passes until certified", ylim=(0, None))
        for each in (axis.xaxis, axis.yaxis):
            each.get_major_locator().set_params(integer=True)
        axis.legend()
    return figure


@check(
    "certificate_passes",
    claim="Proximal Newton repairs and proves the structure of RAMDA's step 400 within 5 passes (hard: 7) (ours)",
    kind="upper bound",
    criterion="five seeds and both weights: certified, gap <= 1e-12, passes <= 5 (7); 20 wrong pixels: <= 16 passes",
)
def passes(quick: bool) -> Outcome:
    """Problem: multinomial logistic regression on the digits, group LASSO, lambda 5e-3 and 1.01e-3.
    Claim: a few passes over the data prove what a run found, and correct it where it is wrong.
    Algorithm: RAMDA with stages, 400 steps; then proximal Newton until every piece is proved.
    Theorem: docs/certificate.md.
    Reference: ours.
    Failure would mean: certificates cost more than they are worth, or are false.
    """
    weights, seeds = (WEIGHTS[:1], SEEDS[:1]) if quick else (WEIGHTS, SEEDS)
    after: Counts = {}
    perturbed: Counts = {}
    proved: dict[float, list[int]] = {}
    false = 0
    for weight in weights:
        problem = digits(weight=weight)
        best = problem.solution()
        schedule = Schedule(0.1, 0.3, 1e-6, STAGES, GAMMA, 200, True, memory_growth=3.0)
        for seed in seeds:
            gradients = SampledGradient(BATCH, seed)
            point = run(problem, RAMDA(problem.regularizer), schedule, STEPS, gradients=gradients).state.w_hat
            found = certify(problem, point)
            wrong = problem.regularizer.structure(point).distance(best.structure)
            after.setdefault(weight, []).append((wrong, found.passes))
            proved.setdefault(weight, []).append(int(screen(problem, point).zero.any(axis=1).sum()))
            false += not true(problem, found)
        rng = np.random.default_rng(0)
        for _ in range(2 if quick else 10):
            wrong = int(rng.integers(2, MOST_WRONG + 1))
            w, flipped = best.point.copy(), rng.choice(64, size=wrong, replace=False)
            on = np.any(w[flipped] != 0, axis=1, keepdims=True)
            w[flipped] = np.where(on, 0.0, 0.1 * rng.normal(size=(wrong, 10)))
            found = certify(problem, w)
            perturbed.setdefault(weight, []).append((wrong, found.passes))
            false += not true(problem, found)
    within = all(count <= AIMS[w] for w, own in after.items() for _, count in own)
    repaired = all(count <= MOST_PASSES for own in perturbed.values() for _, count in own)
    text = ", ".join(
        f"lambda {w:g}: {min(c for _, c in own)}-{max(c for _, c in own)} passes from {min(e for e, _ in own)}-"
        f"{max(e for e, _ in own)} wrong pixels, {max(c for _, c in perturbed[w])} at most from perturbed optima"
        for w, own in after.items()
    )
    return Outcome(
        "holds" if within and repaired and not false else "fails",
        {
            "wrong pixels, passes": {f"{w:g}": own for w, own in after.items()},
            "perturbed": {f"{w:g}": own for w, own in perturbed.items()},
            "zero pixels proved at step 400 itself": {f"{w:g}": own for w, own in proved.items()},
            "not certified or false": false,
        },
        f"{text}; not certified or false: {false}",
        {"certificate_passes": drawn(after, perturbed)},
    )


@check(
    "certificate_path",
    claim="Along the path of 20 weights each point is certified within 4 passes, started from the last model (ours)",
    kind="upper bound",
    criterion="20 of 20 certified with gap <= 1e-12, at most 4 passes each",
)
def path(quick: bool) -> Outcome:
    """Problem: the digits from just above the critical weight down to 1.01e-3.
    Claim: starting at the minimiser of the last point's second-order model, with the new weight, makes a path cheap.
    Algorithm: proximal Newton.
    Theorem: docs/certificate.md.
    Reference: ours.
    Failure would mean: some point takes more passes or is not certified.
    """
    problem = digits()
    found = regularization_path(problem)
    points = found.points[:6] if quick else found.points
    counts = [point.certificate.passes for point in points]
    certified = sum(point.certificate.certified and point.certificate.gap <= 1e-12 for point in points)
    return Outcome(
        "holds" if certified == len(points) and max(counts) <= 4 else "fails",
        {"passes": counts, "certified": certified, "pieces": [p.certificate.structure.count for p in points]},
        f"{certified} of {len(points)} certified, {sum(counts)} passes in all, {max(counts)} at most "
        f"({sum(count > 4 for count in counts)} points above 4)",
    )


CHECKS = (passes, path)
