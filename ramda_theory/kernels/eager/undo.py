"""A step that can be taken back: copies of what it changes, until every subproblem is solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels.work import Work


class Undo:
    """What a step is about to change, if a solve in it may raise.

    That may be a regularizer written by the user, an iterative solver, or the equation of a group in float64 beyond the
    sizes that it can be solved for.  Closed forms and the group equation in float32 raise nothing, so a step of these
    alone copies nothing; nor does one that is being captured.

    Parameters
    ----------
    works : sequence of Work
        What the eager engine steps.

    Attributes
    ----------
    needed : bool
        Whether a solve may raise.
    """

    def __init__(self, works: Sequence[Work]) -> None:
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._states: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.needed = any(map(_may_raise, works))
        if not self.needed:
            return
        for work in works:
            for state in work.states:
                warm = {key: value.clone() for key, value in state.items() if key in ("solution", "dual")}
                self._states.append((state, {**state, **warm}))
            for tensor in {id(tensor): tensor for tensor in work.tensors()}.values():
                self._tensors.append((tensor, tensor.detach().clone()))

    def restore(self) -> None:
        """Bring everything back, bit for bit."""
        for state, before in self._states:
            state.clear()
            state.update(before)
        for tensor, kept in self._tensors:
            tensor.copy_(kept)


def _may_raise(work: Work) -> bool:
    psi = work.options["regularizer"]
    if psi is None or work.options["capturable"] or not work.weights:
        return False
    return psi.kernel() is None or any(w.dtype == torch.float64 for w in work.weights)
