"""Optimizers against one another on a workload, on equal budgets: weights tuned by one rule, then several seeds."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ramda_theory.arrays import integers
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.compare import one_thread
from ramda_theory.experiments.entrants import ENTRANTS, find_entrant
from ramda_theory.experiments.train_settings import tuple_or
from ramda_theory.experiments.workload import Plan, WorkloadResult, read_checkpoint, train_workload
from ramda_theory.experiments.workload_run import TrainingDiverged
from ramda_theory.experiments.workload_tuning import ROUNDS, further_rates, further_weights, tuned
from ramda_theory.kernels.nonfinite import NonFiniteGradient
from ramda_theory.tables import aligned
from ramda_theory.workloads.registry import find_workload
from ramda_theory.workloads.workload import Workload

SHARE = 0.5
"""The share that magnitude pruning is tried with first."""
THRESHOLD = 0.03
"""The weight that Bregman iterations are tried with first: a weight is a threshold on the dual variable there."""


@dataclass(frozen=True)
class Contest:
    """What is compared on what.

    Parameters
    ----------
    plan : Plan
        Workload, size, epochs, batch, milestones and limits of every run.
    optimizers : sequence of str
        Keys of `ENTRANTS`; all by default.
    seeds : sequence of int
        The weights are tuned on the first.
    tune : bool
        Whether weights and rates are tuned; otherwise the workload's own are kept.
    rates : bool
        Whether the learning rates of optimizers with a weight are tuned as well, at the first weight.
    data : path, optional
    device : str
    known : path, optional
        A ``compare_WORKLOAD.json`` whose runs are not repeated: those of the same plan, whatever the code was then.
    """

    plan: Plan
    optimizers: Sequence[str] = tuple(ENTRANTS)
    seeds: Sequence[int] = (0, 1, 2)
    tune: bool = True
    rates: bool = False
    data: Path | None = None
    device: str = "auto"
    known: Path | None = None

    @property
    def name(self) -> str:
        """Of the figure and its record."""
        return f"compare_{self.plan.stem.replace('-', '_')}"

    def begin(self, workload: Workload) -> list[Plan]:
        """A run of every optimizer on the first seed, at the workload's weight (RAMDA's where it has none for it)."""
        seeds = integers("seeds", self.seeds)
        for name, values in (("optimizers", self.optimizers), ("seeds", seeds)):
            if not values or len(set(values)) < len(values):  # runs share a folder if they are the same
                raise ValueError(f"{name} must differ and be at least one, got {', '.join(map(str, values)) or 'none'}")
        base = replace(self.plan, seed=seeds[0])
        plans = []
        for name in self.optimizers:
            if not find_entrant(name).structured:
                plans.append(replace(base, optimizer=name))
            elif applies(name, workload):
                plans.append(replace(base, optimizer=name, weight=first_weight(name, workload)))
        if not plans:
            raise ValueError(f"{', '.join(self.optimizers)} need a regularizer with groups, {workload.name} has none")
        return [plan.settled(workload) for plan in plans]


def applies(name: str, workload: Workload) -> bool:
    """Whether an optimizer can use the workload's regularizer: gates and pruning need groups."""
    return (
        name not in ("DGating", "PAT", "PrunedMSGD", "PrunedAdamW") or workload.regularizer(1.0).as_groups is not None
    )


def first_weight(name: str, workload: Workload) -> float:
    """The weight an optimizer is tried with first."""
    if name.startswith("Pruned"):
        return SHARE
    if name.endswith("Breg"):
        return THRESHOLD
    known = workload.settings.get(name) or workload.settings.get("RAMDA")
    if known is None:
        raise ValueError(
            f"workload {workload.name} has settings neither of {name} nor of RAMDA: no weight to begin with"
        )
    return known.weight


def compare_workload(
    contest: Contest, *, out: str | Path, jobs: int | None = None, progress: bool = False, command: str | None = None
) -> list[dict[str, Any]]:
    """Tune every optimizer's weight on the first seed's validation data, then run all seeds.

    The rule is the same for all (`ramda_theory.experiments.workload_tuning`): of an optimizer's runs whose validation
    metric is within `MARGIN` of the best run of all optimizers, the one with the most structure; if none is, its best.
    Which are tried: learning rates, of optimizers without a weight or with `Contest.rates` of all at their first
    weight, until the best lies between two others (`further_rates`); then the next larger weight while the largest is
    good enough, the next smaller one while none is and the last made a difference (`further_weights`).

    Parameters
    ----------
    contest : Contest
    out : path
        Folder for ``compare_WORKLOAD.json`` and ``.png`` and, in ``runs``, a folder per run; finished runs found there
        are not repeated, unfinished ones go on.
    jobs : int, optional
        Runs at a time, one thread each; by default as many as there are processors.
    progress : bool
    command : str, optional

    Returns
    -------
    list of dict
        One per optimizer: "optimizer", "lr", "weight", "tried" (weights, or learning rates without one) and, over the
        seeds, means and standard deviations of "test", "test_w", "level", "level_w", "milliseconds" and the
        "identification_epoch" of each run.
    """
    workload = find_workload(contest.plan.workload, contest.plan.size)
    known = [] if contest.known is None else recorded(contest.known)
    run = partial(run_or_load, out=Path(out), data=contest.data, device=contest.device, known=known)
    first = run_all(contest.begin(workload), run, jobs, progress, "tuning")
    for further in (partial(further_rates, all_of_them=contest.rates), further_weights) if contest.tune else ():
        for _ in range(ROUNDS):
            first += run_all(further(first, workload.higher_is_better), run, jobs, progress, "tuning")
    chosen = tuned(first, workload.higher_is_better)
    others = [replace(plan, seed=seed) for plan in chosen for seed in contest.seeds]
    results = run_all(others, run, jobs, progress, "seeds")
    rows = [
        summary([result for result in results if result.plan.optimizer == plan.optimizer], first) for plan in chosen
    ]
    from ramda_theory.experiments.workload_figure import plot_contest

    tuning = [{"plan": asdict(result.plan), "final": result.final} for result in first]
    data = {
        "tuning": tuning,
        "rows": rows,
        "metric": workload.metric,
        "higher_is_better": workload.higher_is_better,
        "level": level_of(results),
    }
    record_figure(out, contest.name, command=command, seeds=list(contest.seeds), data=data)
    plot_contest(data, Path(out) / contest.name)
    return rows


def summary(results: Sequence[WorkloadResult], tried: Sequence[WorkloadResult]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    plan = results[0].plan
    row: dict[str, Any] = {"optimizer": plan.optimizer, "weight": plan.weight, "lr": plan.lr}
    row["tried"] = [result.plan.weight or result.plan.lr for result in tried if result.plan.optimizer == plan.optimizer]
    for name in ("test", "test_w", "validation", "level", "level_w", "milliseconds"):
        numbers = [result.final[name] for result in results if name in result.final]
        if numbers:
            row[name] = {"mean": mean(numbers), "std": stdev(numbers) if len(numbers) > 1 else 0.0}
    row["identification_epoch"] = [result.final.get("identification_epoch") for result in results]
    return row | {"runs": [{"plan": asdict(result.plan), "final": result.final} for result in results]}


def level_of(results: Sequence[WorkloadResult]) -> str | None:
    """The level that the runs with a regularizer share."""
    return next((result.level for result in results if result.level is not None), None)


def run_all(plans: Sequence[Plan], run: Any, jobs: int | None, progress: bool, label: str) -> list[WorkloadResult]:
    """Every run, several at a time."""
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(plans))
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=len(plans), desc=label, unit="run", leave=False)
    results: list[WorkloadResult] = []
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) if jobs > 1 else None
    try:
        for result in map(run, plans) if pool is None else pool.map(run, plans):
            results.append(result)
            if bar is not None:
                bar.update()
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        if bar is not None:
            bar.close()
    return results


def recorded(path: Path) -> list[WorkloadResult]:
    """The runs of a comparison's record, without what they were on the way."""
    try:
        data = json.loads(path.read_text())["data"]
        runs = data["tuning"] + [run for row in data["rows"] for run in row["runs"]]
        plans = [Plan(**{key: tuple_or(value) for key, value in run["plan"].items()}) for run in runs]
        finals = [dict(run["final"]) for run in runs]
        levels = [data["level"] if "level" in final else None for final in finals]
        return [
            WorkloadResult(plan, data["metric"], level, final=final)
            for plan, level, final in zip(plans, levels, finals, strict=True)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as the record of a comparison: {error!r}") from error


def run_or_load(
    plan: Plan, out: Path, data: Path | None, device: str, known: Sequence[WorkloadResult] = ()
) -> WorkloadResult:
    """The run of this plan: from ``out`` or among the known if finished, else from its checkpoint or the start.

    One that diverges is a result as well, without a metric and with the reason under "diverged".
    """
    folder = out / "runs" / plan.name
    if (folder / "train.json").exists():
        found = json.loads((folder / "train.json").read_text()).get("data", {})
        if same(found.get("plan", {}), plan):
            return WorkloadResult(plan, found["metric"], found["level"], found["history"], found["final"])
    for result in known:
        if result.plan == plan:
            return result
    kept = folder / "checkpoint.pt"
    if kept.exists() and not begins(kept, plan):
        kept.unlink()
    try:
        return train_workload(plan, data=data, out=folder, resume=kept.exists(), device=device)
    except (NonFiniteGradient, TrainingDiverged) as error:
        result = WorkloadResult(plan, find_workload(plan.workload, plan.size).metric, final={"diverged": str(error)})
        record_figure(folder, "train", command=None, seeds=[plan.seed], data=result.to_dict())
        return result


def same(saved: dict[str, Any], plan: Plan) -> bool:
    """Whether this is a plan, as it was written."""
    return {key: tuple_or(value) for key, value in saved.items()} == asdict(plan)


def begins(path: Path, plan: Plan) -> bool:
    """Whether a checkpoint is of this plan, or of one of fewer epochs; not if it is damaged."""
    try:
        state = read_checkpoint(path)
    except ValueError:
        return False
    return same({**state["plan"], "epochs": plan.epochs}, plan) and len(state["history"]) <= plan.epochs


def table(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """Mean +- standard deviation of every optimizer."""

    def text(row: dict[str, Any], name: str, form: str) -> str:
        return f"{row[name]['mean']:{form}} +- {row[name]['std']:{form}}" if name in row else "-"

    lines = [("optimizer", "lr", "weight", f"test {metric}", "of w", "structure", "of w", "T0 (epochs)", "ms/step")]
    for row in rows:
        epochs = ", ".join("-" if each is None else str(each) for each in row["identification_epoch"])
        lines.append(
            (
                row["optimizer"],
                f"{row['lr']:g}",
                f"{row['weight']:g}" if row["weight"] else "-",
                text(row, "test", ".4g"),
                text(row, "test_w", ".4g"),
                text(row, "level", ".2%"),
                text(row, "level_w", ".2%"),
                epochs if "level" in row else "-",
                text(row, "milliseconds", ".1f"),
            )
        )
    return aligned(lines)
