"""The optimizers against one another on the digits networks: weights tuned alike, then several seeds."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ramda_theory.arrays import integers
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.train import UNREGULARIZED, TrainResult, TrainSettings, train
from ramda_theory.experiments.train_settings import tuple_or
from ramda_theory.tables import aligned

REGULARIZED = ("RAMDA", "RMDA", "ProxSGD", "ProxAdamW")
WEIGHTS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""The weights tried for every regularized optimizer."""
ACCURACY_LOSS = 0.01
"""The sparsest weight wins whose validation accuracy is within this of the optimizer's best."""


def compare(
    *,
    model: str = "cnn",
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 100,
    weights: Sequence[float] = WEIGHTS,
    out: str | Path = "compare",
    jobs: int | None = None,
    progress: bool = False,
    command: str | None = None,
) -> list[dict[str, Any]]:
    """Tune the weight of every regularized optimizer on the first seed, then run all optimizers on all seeds.

    The rule is the same for all: of the weights whose validation accuracy on the first seed is within `ACCURACY_LOSS`
    of that optimizer's best, the one with the highest weighted group sparsity.

    Parameters
    ----------
    model : {"cnn", "mlp"}
    seeds : sequence of int
    epochs : int
    weights : sequence of float
        The grid.
    out : path
        Folder for ``compare.json``, ``compare.png`` and, in ``runs``, a folder for each run; finished runs found there
        are not repeated, unfinished ones go on.
    jobs : int, optional
        Runs at a time, one thread each; by default as many as there are processors.
    progress : bool
        Show a bar.
    command : str, optional
        What ``compare.json`` names as the command that made it.

    Returns
    -------
    list of dict
        One per optimizer: "optimizer", "weight", "runs" (settings and final numbers of each), and mean and standard
        deviation of "test", "validation", "sparsity" and "milliseconds" per step.
    """
    seeds = integers("seeds", seeds)
    if not seeds or not weights:
        raise ValueError("seeds and weights must not be empty")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, got {', '.join(map(str, seeds))}")
    base = TrainSettings(model=model, epochs=epochs, seed=seeds[0])
    grid = [replace(base, optimizer=name, weight=weight, lr=None) for name in REGULARIZED for weight in weights]
    plain = [replace(base, optimizer=name, weight=0.0, lr=None) for name in UNREGULARIZED]
    first = run_all(grid, out, jobs, progress, "tuning")
    chosen = {name: tuned([result for result in first if result.settings.optimizer == name]) for name in REGULARIZED}
    wanted = [replace(s, seed=seed) for s in (*chosen.values(), *plain) for seed in seeds]
    results = run_all(wanted, out, jobs, progress, "seeds")
    rows = [
        summary([result for result in results if result.settings.optimizer == name])
        for name in (*REGULARIZED, *UNREGULARIZED)
    ]
    from ramda_theory.experiments.compare_figure import plot_comparison

    tuning = [settings_and_final(result) for result in first]
    record_figure(out, "compare", command=command, seeds=seeds, data={"tuning": tuning, "rows": rows})
    plot_comparison(tuning, rows, Path(out) / "compare")
    return rows


def tuned(results: Sequence[TrainResult]) -> TrainSettings:
    """The settings of the sparsest result whose validation accuracy is within `ACCURACY_LOSS` of the best."""
    best = max(result.final["validation"] for result in results)
    good = [result for result in results if result.final["validation"] >= best - ACCURACY_LOSS]
    return max(good, key=lambda result: result.final["sparsity"]).settings


def summary(results: Sequence[TrainResult]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    settings = results[0].settings

    def mean_and_deviation(values: Iterable[float]) -> dict[str, float]:
        numbers = list(values)
        return {"mean": mean(numbers), "std": stdev(numbers) if len(numbers) > 1 else 0.0}

    row: dict[str, Any] = {"optimizer": settings.optimizer, "weight": settings.weight}
    for name in ("test", "validation", "sparsity"):
        if name in results[0].final:
            row[name] = mean_and_deviation(result.final[name] for result in results)
    row["milliseconds"] = mean_and_deviation(result.final["milliseconds"] for result in results)
    return row | {"runs": [settings_and_final(result) for result in results]}


def settings_and_final(result: TrainResult) -> dict[str, Any]:
    """Settings and final numbers; the history is in the run's own ``train.json``."""
    return {"settings": asdict(result.settings), "final": result.final}


def run_all(
    settings: Sequence[TrainSettings], out: str | Path, jobs: int | None, progress: bool, label: str
) -> list[TrainResult]:
    """Train or load every run, several at a time."""
    jobs = min(jobs or os.cpu_count() or 1, len(settings))
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=len(settings), desc=label, unit="run", leave=False)
    results = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread) as pool:
        try:
            for result in pool.map(run_or_load, settings, [Path(out)] * len(settings)):
                results.append(result)
                if bar is not None:
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            if bar is not None:
                bar.close()
    return results


def one_thread() -> None:
    """Give a worker one thread: the networks are small, and the workers share the processors."""
    import torch

    torch.set_num_threads(1)


def run_or_load(settings: TrainSettings, out: Path) -> TrainResult:
    """The run of these settings in ``out``: as found there if finished, else from its checkpoint or the start."""
    folder = out / "runs" / settings.name
    if (folder / "train.json").exists():
        data = json.loads((folder / "train.json").read_text()).get("data", {})
        if {key: tuple_or(value) for key, value in data.get("settings", {}).items()} == asdict(settings):
            return TrainResult(settings, data["history"], data["final"])
    try:
        return train(settings, out=folder, resume=(folder / "checkpoint.pt").exists())
    except ValueError:  # a checkpoint of other settings
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return train(settings, out=folder)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean +- standard deviation of every optimizer."""

    def text(row: dict[str, Any], name: str, form: str) -> str:
        return f"{row[name]['mean']:{form}} +- {row[name]['std']:{form}}" if name in row else "-"

    lines = [("optimizer", "weight", "test accuracy", "validation accuracy", "group sparsity", "ms/step")]
    lines += [
        (
            row["optimizer"],
            f"{row['weight']:g}" if row["weight"] else "-",
            text(row, "test", ".2%"),
            text(row, "validation", ".2%"),
            text(row, "sparsity", ".2%"),
            text(row, "milliseconds", ".2f"),
        )
        for row in rows
    ]
    return aligned(lines)
