"""When a run has found a structure, and whether it kept it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramda_theory.diagnostics.trace import StructureTrace
from ramda_theory.problems.checks import integer
from ramda_theory.structure import Structure


@dataclass(frozen=True)
class Identification:
    """Against one reference structure.

    Attributes
    ----------
    time : int or None
        T0: the first step from which the structure equals the reference up to the end of the run; None if the run does
        not end there.
    held_for : int
        Steps from T0 to the end, T0 included; 0 without a T0.
    final_error : int
        Distance to the reference at the end of the run.
    steps : int
        Length of the run.
    """

    time: int | None
    held_for: int
    final_error: int
    steps: int


def identification(trace: StructureTrace, reference: Structure | None = None) -> Identification:
    """T0 of Theorem 3 (arXiv:2403.14398) as a run shows it.

    Parameters
    ----------
    trace : StructureTrace
        Of What (the theorem's) or of W.
    reference : Structure, optional
        Structure of the limit point; the run's own last structure by default.

    Returns
    -------
    Identification

    Raises
    ------
    TypeError
        If the arguments are something else, or the structures are not of one kind and shape.
    ValueError
        If the trace is empty.
    """
    if not isinstance(trace, StructureTrace):
        raise TypeError(f"trace must be a StructureTrace such as result.record.structures_hat, got {trace!r}")
    if reference is not None and not isinstance(reference, Structure):
        raise TypeError(f"reference must be a structure such as problem.solution().structure, got {reference!r}")
    if not len(trace):
        raise ValueError("trace must hold at least one step, got none")
    errors = trace.distances(trace[-1] if reference is None else reference)
    wrong = np.flatnonzero(errors)
    last_wrong = int(wrong[-1]) + 1 if len(wrong) else 0  # steps are counted from 1
    held = len(errors) - last_wrong
    return Identification(last_wrong + 1 if held else None, held, int(errors[-1]), len(errors))


def changes_per_epoch(trace: StructureTrace, steps_per_epoch: int) -> np.ndarray:
    """How many pieces flipped in each epoch, summed over its steps (a last partial epoch counts as one).

    Parameters
    ----------
    trace : StructureTrace
        Of What or of W.
    steps_per_epoch : int
        >= 1.

    Returns
    -------
    array of int
        An entry per epoch.

    Raises
    ------
    TypeError, ValueError
        If ``steps_per_epoch`` is not a positive integer.
    """
    integer("steps_per_epoch", steps_per_epoch, 1)
    changes = trace.changes()
    return np.add.reduceat(changes, np.arange(0, len(changes), steps_per_epoch)) if len(changes) else changes
