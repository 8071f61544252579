"""Which learning rates and weights a comparison tries next, and which it takes: one rule for every optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ramda_theory.experiments.workload import Plan, WorkloadResult

APART = 3.0
"""Weights, and learning rates of optimizers that have no weight, are tried this factor apart."""
ROUNDS = 4
"""Rounds of weights, and of learning rates, of which one is tried in each: at first of rates a smaller and a larger."""
MARGIN = 0.02
"""A run is good enough if its validation metric is within this share of the best of all runs."""


def good_enough(results: Sequence[WorkloadResult], higher_is_better: bool) -> list[WorkloadResult]:
    """The runs whose validation metric is within `MARGIN` of the best of all."""
    best = best_of(results, higher_is_better).final.get("validation", math.inf)
    return [result for result in results if abs(result.final.get("validation", math.inf) - best) <= MARGIN * abs(best)]


def further_rates(
    results: Sequence[WorkloadResult], higher_is_better: bool, *, all_of_them: bool = False
) -> list[Plan]:
    """The learning rates to be tried next: beside an optimizer's best, while that is the largest or the smallest.

    Parameters
    ----------
    results : sequence of WorkloadResult
        What has been tried, of all optimizers, each at one weight.
    higher_is_better : bool
    all_of_them : bool
        Whether those with a weight are tuned as well.

    Returns
    -------
    list of Plan
    """
    plans = []
    for own in by_optimizer(results):
        if all_of_them or not own[0].plan.weight:
            own.sort(key=lambda result: result.plan.lr)
            best = best_of(own, higher_is_better)
            plans += [replace(best.plan, lr=apart(best.plan.lr, 1 / APART))] if best is own[0] else []
            plans += [replace(best.plan, lr=apart(best.plan.lr, APART))] if best is own[-1] else []
    return plans


def further_weights(results: Sequence[WorkloadResult], higher_is_better: bool) -> list[Plan]:
    """The weights to be tried next, none for optimizers whose choice is certain.

    Parameters
    ----------
    results : sequence of WorkloadResult
        What has been tried, of all optimizers; of runs with equal weights the best learning rate counts.
    higher_is_better : bool

    Returns
    -------
    list of Plan
    """
    plans = []
    good = good_enough(results, higher_is_better)
    for tried in by_optimizer(results):
        weights = sorted({result.plan.weight for result in tried if result.plan.weight})
        if not weights:
            continue
        own = [
            best_of([result for result in tried if result.plan.weight == weight], higher_is_better)
            for weight in weights
        ]
        least, most = own[0].plan, own[-1].plan
        pruned = most.optimizer.startswith("Pruned")
        if own[-1] in good:
            plans.append(replace(most, weight=0.5 + 0.5 * most.weight if pruned else apart(most.weight, APART)))
        elif not any(result in good for result in own) and still_better(own, higher_is_better):
            plans.append(replace(least, weight=0.5 * least.weight if pruned else apart(least.weight, 1 / APART)))
    return plans


def still_better(own: Sequence[WorkloadResult], higher_is_better: bool) -> bool:
    """Whether the smallest weight made a difference: less than a tenth of `MARGIN` counts as none."""
    if len(own) == 1 or "validation" not in own[0].final:
        return True
    least, second = (result.final.get("validation", -math.inf if higher_is_better else math.inf) for result in own[:2])
    gain = least - second if higher_is_better else second - least
    return bool(gain > 0.1 * MARGIN * abs(least))


def by_optimizer(results: Sequence[WorkloadResult]) -> list[list[WorkloadResult]]:
    """The runs of each optimizer."""
    names = dict.fromkeys(result.plan.optimizer for result in results)
    return [[result for result in results if result.plan.optimizer == name] for name in names]


def apart(value: float, factor: float) -> float:
    """The product, as it is written down."""
    return float(f"{factor * value:.3g}")


def best_of(results: Sequence[WorkloadResult], higher_is_better: bool) -> WorkloadResult:
    """The run with the best validation metric; one that diverged has none."""
    sign = 1.0 if higher_is_better else -1.0
    return max(results, key=lambda result: sign * result.final.get("validation", -sign * math.inf))


def tuned(results: Sequence[WorkloadResult], higher_is_better: bool) -> list[Plan]:
    """For every optimizer the plan with the most structure among those that are good enough, else its best."""
    good = good_enough(results, higher_is_better)
    chosen = []
    for own in by_optimizer(results):
        fit = [result for result in own if result in good and result.plan.weight]
        best = best_of(own, higher_is_better)
        chosen.append(max(fit, key=lambda result: result.final.get("level", 0.0), default=best).plan)
    return chosen
