"""What the commands share: numbers they take, how they end, and what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn


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
