"""What the opponents share: parameter groups that carry a regularizer, and state dicts of plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ramda_theory.optim.options import from_plain, to_plain
from ramda_theory.regularizers import Regularizer
from ramda_theory.regularizers.grouped import Grouped


class Opponent(Optimizer):
    """A torch optimizer whose parameter groups may carry a "regularizer".

    Parameters
    ----------
    params : iterable
        Parameters or groups, as `ramda_theory.optim.structured_param_groups` makes them.
    defaults : dict
        Of the options.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, {"regularizer": None, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; the closure is called before it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update_all()
        return loss

    def update_all(self) -> None:
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group, self.state[parameter])

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """Change ``w`` in place."""
        raise NotImplementedError

    def structured(self) -> Iterator[tuple[Tensor, Regularizer]]:
        """Every parameter that has a regularizer, with it."""
        for group in self.param_groups:
            if group["regularizer"] is not None:
                yield from ((parameter, group["regularizer"]) for parameter in group["params"])

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with regularizers as plain data."""
        state = super().state_dict()
        groups = [
            {key: to_plain(v) if key == "regularizer" else v for key, v in g.items()} for g in state["param_groups"]
        ]
        return {**state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        groups = [
            group | {"regularizer": from_plain("regularizer", group["regularizer"])}
            for group in state_dict["param_groups"]
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})


def needs_groups(regularizer: Regularizer, opponent: str) -> Grouped:
    """The regularizer, if it has groups; ValueError otherwise."""
    groups: Grouped | None = regularizer.as_groups
    if groups is None:
        raise ValueError(f"{opponent} needs a regularizer with groups, got {type(regularizer).__name__}")
    return groups
