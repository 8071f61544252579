"""The state_dict of the optimizers: regularizers as plain data, arrays in their own precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ramda_theory.optim.options import PLAIN_KEYS, check_loaded, from_plain, to_plain
from ramda_theory.optim.solving import Inexactness


class Checkpointed(Optimizer):
    """An optimizer whose options may be objects, and whose state keeps its precision through save and load."""

    _checks: ClassVar[dict[str, Callable]]
    _state_keys: ClassVar[tuple[str, ...]]
    """Keys of the state in the order `_update` takes them."""
    _scalar_keys: ClassVar[tuple[str, ...]] = ("step", "weight_sum")
    """Those that are one number per parameter."""

    inexactness: dict[Tensor, Inexactness]

    @staticmethod
    @abstractmethod
    def _scalar(group: dict[str, Any], parameter: Tensor, key: str, value: float) -> Tensor:
        """A number of the state, where and in the dtype that a step wants it."""

    @torch._disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """As in torch; regularizers, solvers and tolerances are plain data (``torch.load(weights_only=True)``)."""
        hook = self.register_state_dict_post_hook(_pack_options, prepend=True)
        try:
            return super().state_dict()
        finally:
            hook.remove()

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but the state keeps its precision whatever the dtype of the parameters.

        Raises
        ------
        TypeError, ValueError
            If the groups do not match, the state is another optimizer's, a state tensor does not have its parameter's
            shape, or an option is not allowed; nothing has changed then.

        Notes
        -----
        Options that the saved groups lack (those of an older version) stay as they are; so does the regularizer.
        """
        saved: dict[str, Any] = {}

        def unpack(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            check_keys("state_dict", state_dict, "state", "param_groups")
            for index, group in enumerate(state_dict["param_groups"]):
                check_keys(f"param_groups[{index}] of state_dict", group, "params")
            groups = [
                {key: from_plain(key, value) for key, value in group.items()} for group in state_dict["param_groups"]
            ]
            if len(groups) == len(self.param_groups):  # otherwise torch refuses
                groups = [
                    {key: own[key] for key in self._checks if key in own} | group
                    for own, group in zip(self.param_groups, groups, strict=True)
                ]
            saved.update(state_dict, param_groups=groups)
            for own, group in zip(self.param_groups, groups, strict=False):
                check_loaded(group, own["params"], groups[0], self._checks)
            self._check_shapes(saved)
            return dict(saved)

        before = self.register_load_state_dict_pre_hook(unpack)
        after = self.register_load_state_dict_post_hook(lambda _: self._restore_precision(saved), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _saved_state(self, saved: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Tensor, dict[str, Any]]]:
        """(group, parameter, saved state) of every parameter that has a saved state."""
        for group, saved_group in zip(self.param_groups, saved["param_groups"], strict=False):
            for parameter, index in zip(group["params"], saved_group["params"], strict=False):
                if index in saved["state"]:
                    yield group, parameter, saved["state"][index]

    def _check_shapes(self, saved: dict[str, Any]) -> None:
        for _, parameter, state in self._saved_state(saved):
            if state and (missing := [key for key in self._state_keys if key not in state]):
                raise ValueError(f"loaded state is not of {type(self).__name__}: it lacks {', '.join(missing)}")
            for key, value in state.items():
                own_shape = key in self._scalar_keys or key == "norms"
                if torch.is_tensor(value) and not own_shape and value.shape != parameter.shape:
                    raise ValueError(
                        f"loaded state {key!r} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                    )

    def _restore_precision(self, saved: dict[str, Any]) -> None:
        """Take every array from ``saved`` again: torch has cast it to the dtype of its parameter."""
        self.inexactness.clear()
        for group, parameter, state in self._saved_state(saved):
            wide = torch.promote_types(parameter.dtype, torch.float32)
            for key, value in state.items():
                if key in self._scalar_keys:
                    number = self._scalar(group, parameter, key, 0.0)
                    number.copy_(torch.as_tensor(value, dtype=torch.float64).reshape(number.shape))
                    self.state[parameter][key] = number
                elif torch.is_tensor(value):
                    self.state[parameter][key] = value.to(parameter.device, wide)
            if parameter.dtype == wide:
                self.state[parameter].pop("w", None)  # saved from a half-precision model
            elif self.state[parameter]:
                self.state[parameter].setdefault("w", parameter.detach().to(wide))


def check_keys(name: str, found: dict[str, Any], *keys: str) -> None:
    """Refuse a dictionary that lacks some of ``keys``."""
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{name} lacks {', '.join(map(repr, missing))}; it has the keys {sorted(map(str, found))}")


def _pack_options(_: Optimizer, state_dict: dict[str, Any]) -> None:
    """Write regularizers, solvers and tolerances as plain data."""
    for group in state_dict["param_groups"]:
        group.update({key: to_plain(group[key]) for key in PLAIN_KEYS if key in group})
