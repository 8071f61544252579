"""What, the point with exact structure, in the place of the weights: for a while, or for good."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels.eager.joint import is_joint
from ramda_theory.kernels.sharding import local


class HasStructuredPoint(torch.optim.Optimizer):
    """An optimizer that knows a point of exact structure beside its weights; by default the weights are that point."""

    _holds_structured_point: bool

    def _structured_piece(self, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        """This process's piece of What; None where it is the parameter itself."""
        return None

    def _joint_pieces(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """What of the parameters of a group that psi takes together; nothing where it is the parameters themselves."""
        yield from ()

    @contextmanager
    def structured_point(self) -> Iterator[None]:
        """Let the parameters hold What, the point with exact structure, inside the ``with`` block.

        What is computed from the state; the parameters' own values are kept aside and come back, bit for bit, at the
        end.  Before the first step of a stage What is W.  For optimizers that do not average it always is.

        Yields
        ------
        None

        Raises
        ------
        RuntimeError
            Inside another such block.
        """
        self.refuse_structured_point("structured_point()")
        kept: list[tuple[Tensor, Tensor]] = []
        try:
            self._holds_structured_point = True
            with torch.no_grad():
                for parameter, piece in self._structured_points():
                    kept.append((parameter, parameter.detach().clone()))
                    local(parameter).copy_(piece)
            yield
        finally:
            with torch.no_grad():
                for parameter, own in kept:
                    parameter.copy_(own)
            self._holds_structured_point = False

    @torch.no_grad()
    def adopt_structured_point(self) -> None:
        """Make What the weights for good: with averaging this is how exact zeros reach the model.

        Raises
        ------
        RuntimeError
            Inside `structured_point`.

        Warns
        -----
        UserWarning
            If What is further than 1 % from the weights, as it is before averaging has reached 1: the model changes.
        """
        self.refuse_structured_point("adopt_structured_point()")
        moved = total = 0.0
        for parameter, piece in self._structured_points():
            w = local(self.state[parameter].get("w", parameter))
            moved += float(torch.linalg.vector_norm(piece - w, dtype=torch.float64)) ** 2
            total += float(torch.linalg.vector_norm(w, dtype=torch.float64)) ** 2
            w.copy_(piece)
            local(parameter).copy_(piece)
        if moved > 1e-4 * total:
            averaging = min((1.0 - float(group["momentum"]) for group in self.param_groups), default=1.0)
            warnings.warn(
                f"the adopted point w_hat is {(moved / total) ** 0.5 if total else float('inf'):.1%} of the norm of w "
                f"away from it (averaging weight {averaging:g}), so the model has changed: let the averaging weight "
                "grow to 1 first, as StageSchedule does in its last stage",
                stacklevel=3,  # past torch.no_grad
            )

    def _structured_points(self) -> Iterator[tuple[Tensor, Tensor]]:
        for group in self.param_groups:
            if is_joint(group):
                yield from self._joint_pieces(group)
                continue
            for parameter in group["params"]:
                piece = self._structured_piece(group, parameter) if self.state.get(parameter) else None
                if piece is not None:
                    yield parameter, piece

    def refuse_structured_point(self, what: str) -> None:
        """Refuse what is not possible inside `structured_point`, where the model does not hold its own weights.

        Parameters
        ----------
        what : str
            The call, as it is to be named.

        Raises
        ------
        RuntimeError
            Inside such a block.
        """
        if self._holds_structured_point:
            raise RuntimeError(f"{what} inside structured_point(): the model does not hold its own weights there")
