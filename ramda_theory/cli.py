"""The command ``ramda-theory``: reads arguments, calls the jobs of `ramda_theory.experiments`, prints their tables."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from ramda_theory.drawing import command_line
from ramda_theory.extras import MissingExtra, require
from ramda_theory.files import check_writable


class Parser(argparse.ArgumentParser):
    """Bad arguments end in one line and exit code 2; options are spelt out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def positive(text: str) -> float:
    """A positive finite number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return value


def nonnegative(text: str) -> float:
    """A finite number of at least zero."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, got {text}")
    return value


def count(text: str) -> int:
    """An integer of at least one, and no more than anybody has time for."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    if value > 10**9:
        raise argparse.ArgumentTypeError(f"must be at most {10**9}, got {text}")
    return value


def seed(text: str) -> int:
    """An integer of at least zero that every random generator takes."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be at least 0 and less than 2**63, got {text}")
    return value


def parser() -> Parser:
    """The whole command line."""
    main_parser = Parser(prog="ramda-theory", description=__doc__.split(":")[0] + ".")
    main_parser.add_argument("--version", action="version", version=f"ramda-theory {version('ramda-theory')}")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    identify = commands.add_parser("identify", help="when does each method find the structure of the known optimum?")
    add_problem(identify)
    identify.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2], help="seeds of the batches")
    identify.add_argument(
        "--methods", nargs="+", help="methods, with all their settings, or e.g. RAMDA:lr=1e-2,averaging=0.1"
    )
    identify.add_argument("--certify", action="store_true", help="repair and prove each run's last structure")
    identify.add_argument("--quick", action="store_true", help="a third of the epochs, the first seed")
    identify.add_argument("--out", type=Path, default=Path("identify"), help="folder for the results")

    path = commands.add_parser("path", help="certified minimisers over the weight lambda")
    path.add_argument("--problem", default="digits", help="name of the problem (an unknown one lists them)")
    path.add_argument("--weights", type=positive, nargs="+", help="weights (default: 20 from the critical one down)")
    path.add_argument("--pieces", type=count, help="stop at the weight that leaves so many nonzero pieces")
    path.add_argument("--out", type=Path, default=Path("path"), help="folder for the results")

    converge = commands.add_parser("converge", help="objective gap, dist(0, dF) and the error terms over iterations")
    add_problem(converge)
    converge.add_argument("--methods", nargs="+", default=["RAMDA", "RMDA", "ProxSGD", "ProxAdamW"])
    converge.add_argument("--epochs", type=count, default=100, help="passes over the samples")
    converge.add_argument("--batch", type=count, default=64, help="samples per gradient")
    converge.add_argument("--full", action="store_true", help="full gradients instead of batches")
    converge.add_argument("--seed", type=seed, default=0, help="seed of the batches")
    converge.add_argument("--out", type=Path, default=Path("converge"), help="folder for the results")

    validate = commands.add_parser("validate", help="every subproblem solver against exact references")
    validate.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    validate.add_argument("--seed", type=seed, default=0, help="seed of the generated cases")
    validate.add_argument("--device", choices=("auto", "cpu", "cuda"), help="torch tensors there, not NumPy arrays")
    validate.add_argument("--out", type=Path, default=Path("validate"), help="folder for the results")

    train = commands.add_parser("train", help="train a workload, or a network on the digits; compare all optimizers")
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

    commands.add_parser("workloads", help="what `train --workload` knows: models, data, settings, cost")

    data = commands.add_parser("data", help="download a published data set, once you have seen its size and licence")
    data.add_argument("name", help="mnist, cifar10, ... (an unknown one lists them)")
    data.add_argument("--data", type=Path, required=True, help="folder for it")
    data.add_argument("--yes", action="store_true", help="do not ask")
    for command in commands.choices.values():
        command.add_argument("--quiet", action="store_true", help="no progress bars")
    return main_parser


def add_problem(command: argparse.ArgumentParser) -> None:
    """``--problem`` and ``--weight``."""
    command.add_argument("--problem", default="digits", help="name of the problem (an unknown one lists them)")
    command.add_argument("--weight", type=positive, help="weight lambda of the regularizer")


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
    command.add_argument(
        "--tune-rates", action="store_true", help="with --compare: learning rates of all, not weights alone"
    )


def say_written(out: Path, name: str) -> None:
    """Say what lies where."""
    print(f"\nwrote {out / name}.png, and what made it with its numbers in {out / name}.json")


def shows_progress(arguments: argparse.Namespace) -> bool:
    """Whether there is somebody to watch a bar."""
    return not arguments.quiet and sys.stderr.isatty()


def run_identify(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory identify``."""
    from ramda_theory.experiments.identify import identify, table

    runs = identify(
        arguments.problem,
        weight=arguments.weight,
        seeds=arguments.seeds,
        methods=arguments.methods,
        quick=arguments.quick,
        out=arguments.out,
        progress=shows_progress(arguments),
        command=command,
        certified=arguments.certify,
    )
    reference = runs[0].reference
    print(f"{arguments.problem}: F* = {reference.objective:.10f}, {reference.structure}, dist(0, dF) = ", end="")
    print(f"{reference.stationarity:.1e}\n")
    print(table(runs))
    if not reference.certified:
        print("\nno certified optimum: structures are held against the end of each run, gaps against the reference")
    say_written(arguments.out, "identify")
    return 0


def run_path(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory path``."""
    from ramda_theory.experiments.path import path, table

    found = path(arguments.problem, arguments.weights, arguments.pieces, out=arguments.out, command=command)
    print(table(found))
    if arguments.pieces is not None:
        print(f"\n{arguments.pieces} pieces: ", end="")
        print("no weight found" if found.chosen is None else f"lambda = {found.chosen.weight:.6g}")
    say_written(arguments.out, "path")
    return 0


def run_converge(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory converge``."""
    from ramda_theory.experiments.converge import converge, table

    runs = converge(
        arguments.problem,
        weight=arguments.weight,
        methods=arguments.methods,
        epochs=arguments.epochs,
        batch=None if arguments.full else arguments.batch,
        seed=arguments.seed,
        out=arguments.out,
        progress=shows_progress(arguments),
        command=command,
    )
    print(table(runs))
    say_written(arguments.out, "converge")
    return 0


def run_validate(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory validate``; exit code 1 if a solver claims an accuracy it does not have."""
    from ramda_theory.experiments.validate import false_claims, table, validate

    progress = shows_progress(arguments)
    about = {"quick": arguments.quick, "seed": arguments.seed, "device": arguments.device}
    cases = validate(**about, out=arguments.out, progress=progress, command=command)
    print(table(cases))
    wrong = false_claims(cases)
    for case in wrong:
        print(f"FALSE CLAIM: {case.solver} on {case.name} says solved, but its error is {case.error:.1e}")
    say_written(arguments.out, "validate")
    return 1 if wrong else 0


ONLY_WORKLOADS = (
    *("size", "data", "device", "amp", "shard", "workers", "limit_batches", "log_to", "optimizers", "tune_rates"),
)
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

    usual = {"optimizer": "RAMDA", "seed": 0, "shard": False, "log_to": []}
    for name, why in ONE_RUN.items():
        if getattr(arguments, name) != usual.get(name):
            raise ValueError(f"--{name.replace('_', '-')} is of one run: leave it out with --compare ({why})")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("--compare starts its own processes: leave out torchrun")
    contest = workload_compare.Contest(
        replace(plan, lr=None, weight=None, averaging=None),
        optimizers=tuple(arguments.optimizers or ENTRANTS),
        seeds=tuple(arguments.seeds or (0, 1, 2)),
        rates=arguments.tune_rates,
        data=arguments.data,
        device=arguments.device or "auto",
    )
    rows = workload_compare.compare_workload(
        contest, out=arguments.out, progress=shows_progress(arguments), command=command
    )
    workload = find_workload(plan.workload, plan.size)
    print(workload_compare.table(rows, workload.metric))
    say_written(arguments.out, contest.name)
    return 0


def run_workloads(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory workloads``."""
    from ramda_theory.workloads.listing import listing

    print(listing())
    return 0


def run_data(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory data``."""
    from ramda_theory.workloads.downloads import describe, download

    print(describe(arguments.name, arguments.data))
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ValueError("nothing is downloaded without --yes")
        if input("download it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was downloaded")
            return 0
    download(arguments.name, arguments.data)
    print(f"{arguments.name} is in {arguments.data}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    jobs = {
        "identify": run_identify,
        "path": run_path,
        "converge": run_converge,
        "validate": run_validate,
        "train": run_train,
        "workloads": run_workloads,
        "data": run_data,
    }
    try:
        if not hasattr(arguments, "out"):
            code = jobs[arguments.command](arguments, "")
            sys.stdout.flush()  # so that a reader who has left is noticed here
            return code
        require("experiments")
        for path in (arguments.out, *arguments.out.parents):
            if path.exists() and not path.is_dir():
                raise ValueError(f"--out must be a folder, {path} is a file")
        check_writable(arguments.out)
        return jobs[arguments.command](arguments, command_line("ramda-theory", argv, without=["--resume", "--quiet"]))
    except BrokenPipeError:  # whoever read the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MissingExtra, ValueError, TypeError, OSError, ArithmeticError) as error:
        print(f"ramda-theory {arguments.command}: {in_words(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"ramda-theory {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        left = left_behind(arguments) if hasattr(arguments, "out") else "the same command goes on from there"
        print(f"\ninterrupted; {left}", file=sys.stderr)
        return 130


def in_words(error: Exception) -> str:
    """The message of an error; of one about a file, what could not be done with which."""
    if isinstance(error, OSError) and error.filename is not None:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        return f"{error.filename}: {error.strerror}" + "; what was written before is whole" * full
    return str(error)


def left_behind(arguments: argparse.Namespace) -> str:
    """What an interrupted command leaves, and how to go on."""
    out = arguments.out
    if not out.is_dir() or not any(out.iterdir()):
        return "nothing was finished"
    found = f"what was finished is in {out}"
    if arguments.command in ("validate", "path"):
        return found
    if arguments.command != "train" or arguments.compare:
        return f"{found}, and the same command goes on from there"
    if not (out / "checkpoint.pt").exists():
        return "nothing was finished"
    return f"{found}, and the same command with --resume goes on from there"


if __name__ == "__main__":
    sys.exit(main())
