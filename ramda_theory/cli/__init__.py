"""The command ``ramda-theory``: reads arguments, calls the jobs of `ramda_theory.experiments`, prints their tables."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ramda_theory.cli.arguments import Parser, add_problem, count, positive, seed
from ramda_theory.cli.jobs import run_converge, run_data, run_identify, run_path, run_validate, run_workloads
from ramda_theory.cli.train import add_train, run_train
from ramda_theory.drawing import command_line
from ramda_theory.extras import MissingExtra, require
from ramda_theory.files import check_writable


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

    add_train(commands.add_parser("train", help="train a workload, or a network on the digits; compare all optimizers"))

    commands.add_parser("workloads", help="what `train --workload` knows: models, data, settings, cost")

    data = commands.add_parser("data", help="download a published data set, once you have seen its size and licence")
    data.add_argument("name", help="mnist, cifar10, ... (an unknown one lists them)")
    data.add_argument("--data", type=Path, required=True, help="folder for it")
    data.add_argument("--yes", action="store_true", help="do not ask")
    for command in commands.choices.values():
        command.add_argument("--quiet", action="store_true", help="no progress bars")
    return main_parser


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
