"""What a check is: a claim with a criterion fixed before the run, and a function that measures and judges."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ramda_theory.drawing import save_png

Kind = Literal["tight", "upper bound", "lower bound", "qualitative"]
Verdict = Literal["holds", "fails", "not decided"]

SECTIONS = ("Problem", "Claim", "Algorithm", "Theorem", "Reference", "Failure would mean")
"""The parts of every check's docstring, in this order."""


@dataclass
class Outcome:
    """What a check measured.

    Attributes
    ----------
    verdict : {"holds", "fails", "not decided"}
        By the check's criterion.
    measured : dict
        Plain data: the numbers the criterion speaks of.
    reason : str
        One line on how the numbers lead to the verdict.
    figures : dict
        Name of the file, without its suffix -> matplotlib figure.
    """

    verdict: Verdict
    measured: dict[str, Any]
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One claim of the paper (or one of ours) and how it is decided.

    Attributes
    ----------
    id : str
        Name on the command line.
    claim, criterion : str
        One sentence each.
    kind : {"tight", "upper bound", "lower bound", "qualitative"}
        What the claim says of the measured quantity, which decides the form of the criterion.
    expected : {"holds", "fails", "not decided"}
        The verdict of the last full run; another one makes the command fail.
    measure : callable
        ``measure(quick)`` runs it.
    fault : str
        Where the verdict is "fails": whether the claim, the setting or the method is at fault, with the measurement.
    """

    id: str
    claim: str
    kind: Kind
    criterion: str
    expected: Verdict
    measure: Callable[[bool], Outcome]
    fault: str = ""

    def run(self, quick: bool, out: Path | None) -> tuple[Outcome, list[Path]]:
        """Measure, and write the figures into ``out`` as PNG."""
        outcome = self.measure(quick)
        drawn = {} if out is None else outcome.figures
        return outcome, [save_png(figure, f"{out}/{name}") for name, figure in drawn.items()]


def check(id: str, *, claim: str, kind: Kind, criterion: str, expected: Verdict = "holds", fault: str = ""):
    """Make a check of the decorated ``measure(quick)``, whose docstring must have the `SECTIONS` in order."""

    def wrap(measure: Callable[[bool], Outcome]) -> Check:
        text = inspect.getdoc(measure) or ""
        places = [text.find(f"{section}:") for section in SECTIONS]
        if -1 in places or places != sorted(places):
            raise ValueError(
                f"the docstring of {measure.__name__} must have the sections {', '.join(SECTIONS)}, in order"
            )
        return Check(id, claim, kind, criterion, expected, measure, fault)

    return wrap
