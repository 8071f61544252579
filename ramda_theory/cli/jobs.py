"""The commands but ``train``: each a job of `ramda_theory.experiments` or `ramda_theory.workloads`, and its table."""

from __future__ import annotations

import argparse
import sys

from ramda_theory.cli.arguments import say_written, shows_progress


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
