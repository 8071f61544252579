"""The command ``ramda-theory``: reads arguments, calls the jobs of `ramda_theory.experiments`, prints their tables."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
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
    validate.add_argument("--out", type=Path, default=Path("validate"), help="folder for the results")

    train = commands.add_parser("train", help="train a network on the digits, or compare all optimizers there")
    train.add_argument("--optimizer", default="RAMDA", help="an unknown one lists them")
    train.add_argument("--model", default="cnn", help="cnn or mlp")
    train.add_argument("--weight", type=nonnegative, default=1e-5, help="weight lambda of the group LASSO")
    train.add_argument("--lr", type=positive, help="learning rate (default: the optimizer's)")
    train.add_argument("--momentum", type=nonnegative, default=0.9, help="1 - averaging weight")
    train.add_argument("--epochs", type=count, default=100)
    train.add_argument("--batch", type=count, default=64, help="samples per gradient")
    train.add_argument("--milestones", type=count, nargs="*", help="epochs after which a stage begins")
    train.add_argument("--gamma", type=positive, default=0.1, help="decay of the learning rate at a milestone")
    train.add_argument("--memory", type=seed, default=0, help="steps' worth of averages that restarts keep")
    train.add_argument("--seed", type=seed, default=0, help="seed of the weights and the batches")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    train.add_argument("--out", type=Path, default=Path("train"), help="folder for the results")
    train.add_argument("--compact", action="store_true", help="write the small model that the zeros leave")
    train.add_argument("--compare", action="store_true", help="all optimizers, weights tuned alike, several seeds")
    train.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2], help="seeds of --compare")
    for command in commands.choices.values():
        command.add_argument("--quiet", action="store_true", help="no progress bars")
    return main_parser


def add_problem(command: argparse.ArgumentParser) -> None:
    """``--problem`` and ``--weight``."""
    command.add_argument("--problem", default="digits", help="name of the problem (an unknown one lists them)")
    command.add_argument("--weight", type=positive, help="weight lambda of the regularizer")


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
    cases = validate(quick=arguments.quick, seed=arguments.seed, out=arguments.out, progress=progress, command=command)
    print(table(cases))
    wrong = false_claims(cases)
    for case in wrong:
        print(f"FALSE CLAIM: {case.solver} on {case.name} says solved, but its error is {case.error:.1e}")
    say_written(arguments.out, "validate")
    return 1 if wrong else 0


def run_train(arguments: argparse.Namespace, command: str) -> int:
    """``ramda-theory train``."""
    if arguments.compact:
        require("export")
    if arguments.compare:
        if arguments.compact:
            raise ValueError("--compact is of one run: leave out --compare")
        if arguments.resume:
            raise ValueError("--compare goes on from the runs in --out by itself: leave out --resume")
        from ramda_theory.experiments import compare

        rows = compare.compare(
            model=arguments.model,
            seeds=arguments.seeds,
            epochs=arguments.epochs,
            out=arguments.out,
            progress=shows_progress(arguments),
            command=command,
        )
        print(compare.table(rows))
        say_written(arguments.out, "compare")
        return 0
    from ramda_theory.experiments.train import TrainSettings, table, train

    settings = TrainSettings(
        optimizer=arguments.optimizer,
        model=arguments.model,
        weight=arguments.weight,
        lr=arguments.lr,
        momentum=arguments.momentum,
        epochs=arguments.epochs,
        batch=arguments.batch,
        milestones=None if arguments.milestones is None else tuple(arguments.milestones),
        gamma=arguments.gamma,
        memory=arguments.memory,
        seed=arguments.seed,
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
    }
    try:
        require("experiments")
        for path in (arguments.out, *arguments.out.parents):
            if path.exists() and not path.is_dir():
                raise ValueError(f"--out must be a folder, {path} is a file")
        check_writable(arguments.out)
        return jobs[arguments.command](arguments, command_line("ramda-theory", argv, without=["--resume", "--quiet"]))
    except (MissingExtra, ValueError, TypeError, OSError, ArithmeticError) as error:
        print(f"ramda-theory {arguments.command}: {in_words(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"ramda-theory {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted; {left_behind(arguments)}", file=sys.stderr)
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
