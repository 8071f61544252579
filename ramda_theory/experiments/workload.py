"""Train any workload with any optimizer, on one process or many, and see its structure settle."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from ramda_theory.experiments.checkpoint import read_checkpoint
from ramda_theory.experiments.logs import KINDS, log
from ramda_theory.experiments.processes import Processes, join
from ramda_theory.experiments.train_settings import tuple_or
from ramda_theory.experiments.workload_plan import LEVELS, Plan, WorkloadResult, table
from ramda_theory.experiments.workload_run import Run
from ramda_theory.workloads.registry import find_workload

__all__ = ["LEVELS", "Plan", "Run", "WorkloadResult", "read_checkpoint", "table", "train_workload"]


def train_workload(
    plan: Plan,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    shard: bool = False,
    workers: int | None = None,
    log_to: tuple[str, ...] = (),
    progress: bool = False,
    checkpoint_seconds: float = 60.0,
    command: str | None = None,
    processes: Processes | None = None,
) -> WorkloadResult:
    """Train, and record loss, metric and structure after every epoch.

    Parameters
    ----------
    plan : Plan
    data : path, optional
        Folder of the published data; without one the data that packages install are taken.
    out : path, optional
        Folder for ``checkpoint.pt``, the folder it names if the run is sharded, ``train.json``, ``train.png`` and logs.
    resume : bool
        Go on from the checkpoint in ``out``, to the same bits; more epochs than the run had are taken.
    device : {"auto", "cpu", "cuda"}
    shard : bool
        Cut parameters and state among the processes (FSDP2).
    workers : int, optional
        Threads that prepare batches; by default none for data in memory, else as many as the machine has processors,
        at most 16.
    log_to : tuple of {"csv", "tensorboard"}
    progress : bool
        Show a bar with metric and structure.
    checkpoint_seconds : float
        A checkpoint is written after an epoch if the last is older than this, and at the end.
    command : str, optional
        What ``train.json`` names as the command that made it.
    processes : Processes, optional
        Those to train with; by default those that ``torchrun`` started.

    Returns
    -------
    WorkloadResult

    Raises
    ------
    ValueError
        If the plan, the data or the checkpoint do not fit, or ``out`` holds a run already and ``resume`` is not given.
    OSError
        If a file cannot be written.
    RuntimeError
        If the loss, or the metric of the validation data, is not finite.
    """
    for kind in log_to:
        if kind not in KINDS:
            raise ValueError(f"log_to must be among {', '.join(KINDS)}, got {kind!r}")
    folder = None if out is None else Path(out)
    path = None if folder is None else folder / "checkpoint.pt"
    if path is not None and path.exists() and not resume:
        raise ValueError(f"{folder} holds a run already: go on from it with --resume, or give another --out")
    if resume and (path is None or not path.exists()):
        raise ValueError(f"nothing to resume: there is no checkpoint {path}")
    workload = find_workload(plan.workload, plan.size)
    state = read_checkpoint(path) if resume and path is not None else None
    if state is not None and plan.milestones is None:
        plan = replace(plan, milestones=tuple_or(state["plan"]["milestones"]))
    run = Run(plan.settled(workload), workload, data, processes or join(device, shard), workers)
    if state is not None and path is not None:
        run.load(state, path)
    bar = None
    if progress and run.processes.first:
        from tqdm import tqdm

        total, done = run.plan.epochs * run.steps, len(run.history) * run.steps
        bar = tqdm(total=total, initial=done, desc=run.plan.name, unit="step", leave=False)
    saved, clock = len(run.history), time.monotonic()
    try:
        while len(run.history) < run.plan.epochs:
            for _ in run.epoch():
                if bar is not None:
                    bar.update()
            if bar is not None:
                bar.set_postfix_str(run.summary())
            if folder is not None and log_to and run.processes.first:
                log(log_to, folder, run.history)
            old = run.processes.total(float(time.monotonic() - clock >= checkpoint_seconds))[0] > 0
            if path is not None and (old or len(run.history) == run.plan.epochs):
                run.save(path)
                saved, clock = len(run.history), time.monotonic()
    finally:
        if bar is not None:
            bar.close()
        if path is not None and run.whole and len(run.history) > saved and run.processes.world == 1:
            run.save(path)
    result = run.result()
    if folder is not None and run.processes.first:
        from ramda_theory.drawing.provenance import record_figure
        from ramda_theory.experiments.workload_figure import plot_run

        record_figure(folder, "train", command=command, seeds=[plan.seed], data=result.to_dict())
        plot_run(result, folder / "train")
    return result
