"""``ramda-theory train``: a workload or the digits, one run or a comparison."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ramda_theory.cli.arguments import count, nonnegative, positive, say_written, seed, shows_progress
from ramda_theory.extras import require

WHERE_AND_HOW = ("size", "data", "device", "amp", "shard", "workers", "limit_batches", "log_to")
ONLY_WORKLOADS = (*WHERE_AND_HOW, "optimizers", "tune_rates", "known")
"""Options of ``train`` that say nothing without ``--workload``."""
ONE_RUN = {
    "optimizer": "all are compared, or --optimizers",
    "weight": "it is tuned",
    "lr": "it is tuned, or the workload's own",
    "momentum": "it is the workload's own",
    "seed": "give --seeds",
    "shard": "every run has one process",
    "workers": "every run has one thread",
    "log_to": "the runs are in the folder runs in --out",
}
"""Options of one run that a comparison of workloads does not take, and why."""
ONE_RUN_ON_DIGITS = {
    "optimizer": "all are compared",
    **{name: ONE_RUN[name] for name in ("weight", "seed")},
    "lr": "every optimizer has its own",
    **dict.fromkeys(("momentum", "batch", "milestones", "gamma", "memory"), "every run has the same"),
}
"""Those that the comparison on the digits does not take."""


def add_train(train: argparse.ArgumentParser) -> None:
    """What ``train`` takes."""
    add_workload(train)
    train.add_argument("--optimizer", default="RAMDA", help="an unknown one lists them")
    train.add_argument("--model", default="cnn", help="cnn or mlp")
    train.add_argument("--weight", type=nonnegative, help="weight lambda of the regularizer (digits: 1e-5)")
    train.add_argument("--target-sparsity", type=positive, help="weighted group sparsity that the weight is steered to")
    train.add_argument("--lr", type=positive, help="learning rate (default: the optimizer's)")
    train.add_argument("--momentum", type=nonnegative, help="1 - averaging weight (digits: 0.9)")
    train.add_argument("--epochs", type=count, help="passes over the data (digits: 100)")
    train.add_argument("--batch", type=count, help="samples per gradient (digits: 64)")
    train.add_argument("--milestones", type=count, nargs="*", help="epochs after which a stage begins")
    train.add_argument("--gamma", type=positive, help="decay of the learning rate at a milestone (0.1)")
    train.add_argument("--memory", type=seed, default=0, help="steps' worth of averages that restarts keep")
    train.add_argument("--seed", type=seed, default=0, help="seed of the weights and the batches")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    train.add_argument("--out", type=Path, default=Path("train"), help="folder for the results")
    train.add_argument("--compact", action="store_true", help="write the small model that the zeros leave")
    train.add_argument("--compare", action="store_true", help="all optimizers, weights tuned alike, several seeds")
    train.add_argument("--seeds", type=seed, nargs="+", help="several runs, one after another (--compare: 0 1 2)")


def add_workload(command: argparse.ArgumentParser) -> None:
    """What ``train`` needs to know of a workload."""
    command.add_argument("--workload", help="a name that `ramda-theory workloads` lists, or a Python file")
    command.add_argument("--size", choices=("scaled", "paper"), help="the model (scaled)")
    command.add_argument("--data", type=Path, help="folder of the published data (default: what packages install)")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to train a workload (auto)")
    command.add_argument("--amp", choices=("off", "bf16"), help="autocast of the forward pass (off)")
    command.add_argument("--shard", action="store_true", help="cut weights and state among the processes (FSDP2)")
    command.add_argument("--workers", type=int, help="threads that prepare batches")
    command.add_argument("--limit-batches", type=count, help="at most so many batches of a pass, to try things out")
    command.add_argument("--log-to", nargs="+", default=[], metavar="KIND", help="csv, tensorboard")
    command.add_argument("--optimizers", nargs="+", metavar="OPTIMIZER", help="those of --compare (all)")
    command.add_argument("--known", type=Path, help="record of a comparison whose runs --compare does not repeat")
    command.add_argument(
        "--tune-rates", action="store_true", help="with --compare: learning rates of all, not weights alone"
    )


def refuse(arguments: argparse.Namespace, options: Mapping[str, str]) -> None:
    """No option of one run together with ``--compare``, which would not heed it."""
    usual = {"optimizer": "RAMDA", "seed": 0, "memory": 0, "shard": False, "log_to": []}
    for name, why in options.items():
        if getattr(arguments, name) != usual.get(name):
            raise ValueError(f"--{name.replace('_', '-')} is of one run: leave it out with --compare ({why})")


def run_train(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory train``."""
    if arguments.compact:
        require("export")
        if arguments.compare:
            raise ValueError("--compact is of one run: leave out --compare")
        if arguments.workload is not None:
            raise ValueError("--compact is for the digits: leave out --workload")
    if arguments.compare and arguments.target_sparsity is not None:
        raise ValueError("--target-sparsity is of one run: --compare tunes weights by its own rule")
    if arguments.compare and arguments.resume:
        raise ValueError("--compare goes on from the runs in --out by itself: leave out --resume")
    if arguments.workload is not None:
        return run_workload(arguments, command)
    for option in ONLY_WORKLOADS:
        if getattr(arguments, option):
            raise ValueError(f"--{option.replace('_', '-')} needs --workload")
    given = {name: value for name in ("weight", "epochs") if (value := getattr(arguments, name)) is not None}
    if arguments.compare:
        from ramda_theory.experiments import compare

        refuse(arguments, ONE_RUN_ON_DIGITS)
        rows = compare.compare(
            model=arguments.model,
            seeds=arguments.seeds or [0, 1, 2],
            epochs=given.get("epochs", 100),
            out=arguments.out,
            progress=shows_progress(arguments),
            command=command,
        )
        print(compare.table(rows))
        say_written(arguments.out, "compare")
        return 0
    if arguments.seeds:
        raise ValueError("--seeds needs --compare or --workload: give --seed")
    from ramda_theory.experiments.train import TrainSettings, table, train

    given |= {name: value for name in ("momentum", "batch", "gamma") if (value := getattr(arguments, name)) is not None}
    settings = TrainSettings(
        optimizer=arguments.optimizer,
        model=arguments.model,
        lr=arguments.lr,
        milestones=None if arguments.milestones is None else tuple(arguments.milestones),
        memory=arguments.memory,
        seed=arguments.seed,
        target_sparsity=arguments.target_sparsity,
        **{"weight": 1e-5} | given,
    )
    result = train(
        settings, out=arguments.out, resume=arguments.resume, progress=shows_progress(arguments), command=command
    )
    print(table(result))
    if arguments.compact:
        from ramda_theory.experiments.train import write_compact

        print(f"\n{write_compact(settings, arguments.out)}")
    say_written(arguments.out, "train")
    return 0


def run_workload(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory train --workload``: one run, or one per seed."""
    from ramda_theory.experiments.processes import join
    from ramda_theory.experiments.workload import Plan, table, train_workload

    if arguments.model != "cnn":
        raise ValueError("--model is for the digits: a workload has its own")
    plan = Plan(
        arguments.workload,
        size=arguments.size or "scaled",
        optimizer=arguments.optimizer,
        lr=arguments.lr,
        averaging=None if arguments.momentum is None else 1.0 - arguments.momentum,
        weight=arguments.weight,
        epochs=arguments.epochs,
        batch=arguments.batch,
        milestones=None if arguments.milestones is None else tuple(arguments.milestones),
        gamma=arguments.gamma,
        memory=arguments.memory,
        seed=arguments.seed,
        amp=arguments.amp or "off",
        limit_batches=arguments.limit_batches,
        target_sparsity=arguments.target_sparsity,
    )
    if arguments.compare:
        return compare_workloads(plan, arguments, command)
    if arguments.optimizers:
        raise ValueError("--optimizers needs --compare: give --optimizer")
    if arguments.tune_rates:
        raise ValueError("--tune-rates needs --compare: give --lr")
    if arguments.known is not None:
        raise ValueError("--known needs --compare")
    processes = join(arguments.device or "auto", arguments.shard)
    try:
        for number in arguments.seeds or [arguments.seed]:
            out = arguments.out / f"seed{number}" if arguments.seeds else arguments.out
            result = train_workload(
                replace(plan, seed=number),
                data=arguments.data,
                out=out,
                resume=arguments.resume and (not arguments.seeds or (out / "checkpoint.pt").exists()),
                workers=arguments.workers,
                log_to=tuple(arguments.log_to),
                progress=shows_progress(arguments),
                command=command,
                processes=processes,
            )
            if processes.first:
                print(table(result))
                say_written(out, "train")
    finally:
        processes.close()
    return 0


def compare_workloads(plan: Any, arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory train --workload --compare``."""
    from ramda_theory.experiments import workload_compare
    from ramda_theory.experiments.entrants import ENTRANTS
    from ramda_theory.workloads.registry import find_workload

    refuse(arguments, ONE_RUN)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("--compare starts its own processes: leave out torchrun")
    contest = workload_compare.Contest(
        replace(plan, lr=None, weight=None, averaging=None),
        optimizers=tuple(arguments.optimizers or ENTRANTS),
        seeds=tuple(arguments.seeds or (0, 1, 2)),
        rates=arguments.tune_rates,
        data=arguments.data,
        device=arguments.device or "auto",
        known=arguments.known,
    )
    rows = workload_compare.compare_workload(
        contest, out=arguments.out, progress=shows_progress(arguments), command=command
    )
    workload = find_workload(plan.workload, plan.size)
    print(workload_compare.table(rows, workload.metric))
    say_written(arguments.out, contest.name)
    return 0
