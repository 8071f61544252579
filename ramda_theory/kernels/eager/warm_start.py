"""Where an iterative solver ended in the step before, kept in the state of its parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ramda_theory.arrays import is_host
from ramda_theory.kernels.sharding import as_sharded_like, full_tensor, is_sharded, local, local_shard
from ramda_theory.regularizers import Regularizer
from ramda_theory.subproblem.problem import Candidate

ROUNDINGS = 8.0
"""Of Z, so far a proximal map may be off: about what products in float32 leave of a hundred singular vectors."""


class WarmStart:
    """The point, the dual and the basis that ADMM or ALS ended with, in ``state`` under the keys below.

    ``solution`` is Z, the What of the last step, ``dual`` an element of d psi(Z): both have the shape of the parameter,
    and are cut as it is.  ``basis`` is where the next proximal map begins, on hosts and for whole parameters only.

    Parameters
    ----------
    state : dict
        Of one parameter.
    mask : Tensor, optional
        Flag; where true the state stays as it is.
    keep : bool
        Whether what a solver ends with is to be written at all.
    """

    def __init__(self, state: dict[str, Any], mask: Tensor | None = None, *, keep: bool = True) -> None:
        self._state, self._mask, self._keep = state, mask, keep

    def read(self, parameter: Tensor) -> dict[str, Tensor]:
        """The arguments of the solver that say where it begins; without a dual it knows of none, it is 0."""
        state = self._state
        if "solution" not in state or "dual" not in state:
            return {}
        found = {"point": state["solution"], "dual": state["dual"]}
        found = {key: full_tensor(local(value), parameter) for key, value in found.items()}
        return found | ({"basis": state["basis"]} if "basis" in state else {})

    def remembers(self, psi: Regularizer, parameter: Tensor, z: Tensor) -> bool:
        """Whether the proximal map at ``z`` is to begin from the basis of the step before."""
        return (
            psi.remembers
            and z.dtype == torch.float32
            and is_host(z)
            and not is_sharded(parameter)
            and bool(z.isfinite().all())
        )

    def prox(self, psi: Regularizer, z: Tensor, step: float) -> Tensor:
        """The proximal map to the rounding of ``z``; the basis it ends with is kept."""
        basis = self._state.get("basis")
        sequence = psi.prox_sequence(basis, exact=True)
        slack = ROUNDINGS * torch.finfo(z.dtype).eps * float(torch.linalg.vector_norm(z))
        x: Tensor = sequence(z, step, slack)[0]
        if not sequence.confirmed():
            x = sequence(z, step, slack)[0]
        self._write_basis(sequence.basis, z.dtype)
        return x

    def _write_basis(self, basis: Tensor | None, dtype: torch.dtype) -> None:
        if not self._keep or (self._mask is not None and bool(self._mask)):
            return
        if basis is None:
            self._state.pop("basis", None)
        else:
            self._state["basis"] = basis.to(dtype)

    def write(self, candidate: Candidate, parameter: Tensor, like: Tensor) -> None:
        """Keep what the solver ended with, unless the mask says not to."""
        if not self._keep or candidate.dual is None:
            return
        mask = self._mask
        for key, array in (("solution", candidate.point), ("dual", candidate.dual)):
            piece = local_shard(array.to(like.dtype), parameter)
            if key in self._state and mask is not None:
                own = local(self._state[key])
                own.copy_(torch.where(mask, own, piece))
            elif mask is None or not bool(mask):
                kept = piece.clone()
                self._state[key] = as_sharded_like(kept, parameter) if is_sharded(parameter) else kept
        if parameter.is_cpu and not is_sharded(parameter):
            self._write_basis(candidate.basis, like.dtype)
