"""The state_dict of the optimizers: regularizers as plain data, arrays in their own precision, checked when loaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ramda_theory.arrays import real
from ramda_theory.kernels.eager.solve import Records
from ramda_theory.kernels.sharding import is_sharded, local
from ramda_theory.optim.options import PLAIN_KEYS, Check, check_loaded, from_plain, to_plain

SQUARES = ("grad_sq_sum", "exp_avg_sq", "norms")
"""Arrays of a state that are nowhere negative: sums of squares, and norms of groups."""
UNSHAPED = ("norms", "basis")
"""Those that do not have the shape of their parameter."""


class Checkpointed(Optimizer):
    """An optimizer whose options may be objects, and whose state keeps its precision through save and load."""

    _checks: ClassVar[dict[str, Check]]
    _state_keys: ClassVar[tuple[str, ...]]
    """Keys of the state."""
    _scalar_keys: ClassVar[tuple[str, ...]] = ("step", "weight_sum")
    """Those that are one number per parameter."""
    _spare_keys: ClassVar[tuple[str, ...]] = ("w", "norms", "solution", "dual", "basis")
    """Keys that a state may have besides: the float32 copy of half-precision weights, and where solvers start."""

    _records: Records

    @staticmethod
    @abstractmethod
    def _scalar(group: dict[str, Any], parameter: Tensor, key: str, value: float) -> Tensor:
        """A number of the state, where and in the dtype that a step wants it."""

    @torch._disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """As in torch; regularizers, solvers and tolerances are plain data (``torch.load(weights_only=True)``).

        Returns
        -------
        dict
        """
        hooks = [self.register_state_dict_post_hook(each, prepend=True) for each in (_pack_options, _leave_own_norms)]
        try:
            return super().state_dict()
        finally:
            for hook in hooks:
                hook.remove()

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but all or nothing, and the state keeps its precision whatever the dtype of the parameters.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned; of `ProxAdamW` also that of ``torch.optim.AdamW``.

        Raises
        ------
        TypeError, ValueError
            If the groups do not match, an option is not allowed, or the state of a parameter is another optimizer's,
            lacks a key or has one too many, or holds an array of another shape, NaN, Inf, a negative sum of squares, or
            a step that is not a whole number; nothing has changed then.  The message names the parameter and the key.

        Notes
        -----
        Options that the saved groups lack (those of an older version) stay as they are; so does the regularizer.
        """
        loaded: dict[Tensor, dict[str, Tensor]] = {}
        own = self.state, self.param_groups

        def check(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            groups = self._loaded_groups(state_dict)
            sizes = [[len(group["params"]) for group in each] for each in (self.param_groups, groups)]
            if sizes[0] == sizes[1]:  # otherwise torch refuses
                loaded.update(self._loaded_states(state_dict["state"], groups))
            # torch would cast every array to the dtype of its parameter: it gets none.
            return {**state_dict, "state": {}, "param_groups": groups}

        before = self.register_load_state_dict_pre_hook(check)
        after = self.register_load_state_dict_post_hook(lambda _: self.state.update(loaded), prepend=True)
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            self.state, self.param_groups = own
            raise
        finally:
            before.remove()
            after.remove()
        self._records.clear()

    def _loaded_groups(self, state_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """The parameter groups of a state_dict with their options as objects, checked."""
        check_keys("state_dict", state_dict, "state", "param_groups")
        check_type("'state' of state_dict", state_dict["state"], dict)
        check_type("'param_groups' of state_dict", state_dict["param_groups"], list, tuple)
        for index, group in enumerate(state_dict["param_groups"]):
            name = f"param_groups[{index}] of state_dict"
            check_type(name, group, dict)
            check_keys(name, group, "params")
            check_type(f"'params' in {name}", group["params"], list, tuple)
        groups = [{key: from_plain(key, value) for key, value in group.items()} for group in state_dict["param_groups"]]
        if len(groups) == len(self.param_groups):  # otherwise torch refuses
            groups = [
                {key: own[key] for key in self._checks if key in own} | group
                for own, group in zip(self.param_groups, groups, strict=True)
            ]
        for index, (own, group) in enumerate(zip(self.param_groups, groups, strict=False)):
            check_loaded(group, own["params"], groups[0], self._checks)
            if "skipped_steps" in group:
                name = f"'skipped_steps' in param_groups[{index}] of state_dict"
                device = own["params"][0].device if own["params"] else "cpu"
                skipped = int(checked_number(name, group["skipped_steps"], whole=True))
                group["skipped_steps"] = torch.tensor(skipped, dtype=torch.int64, device=device)
        return groups

    def _loaded_states(
        self, states: dict[Any, Any], groups: list[dict[str, Any]]
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """(parameter, its state as a step wants it) for every state that was saved, checked."""
        unknown = states.keys() - {index for group in groups for index in group["params"]}
        if unknown:
            raise ValueError(f"state_dict has a state of parameter {min(unknown, key=str)!r}, which is in no group")
        for number, (own, group) in enumerate(zip(self.param_groups, groups, strict=True)):
            names = own.get("param_names", group.get("param_names"))
            for place, (parameter, index) in enumerate(zip(own["params"], group["params"], strict=True)):
                if index in states:
                    where = f"parameter {place} of group {number}" if names is None else f"parameter {names[place]!r}"
                    yield parameter, self._loaded_state(group, parameter, states[index], f"the state of {where}")

    def _loaded_state(self, group: dict[str, Any], parameter: Tensor, state: Any, name: str) -> dict[str, Tensor]:
        check_type(name, state, dict)
        if not state:
            return {}
        if missing := [key for key in self._state_keys if key not in state]:
            raise ValueError(f"{name} is not of {type(self).__name__}: it lacks {', '.join(missing)}")
        if extra := [key for key in state if key not in self._state_keys + self._spare_keys]:
            raise ValueError(
                f"{name} is not of {type(self).__name__}, whose states have no {', '.join(map(str, extra))}; "
                f"their keys are {', '.join(self._state_keys)}"
            )
        wide = torch.promote_types(parameter.dtype, torch.float32)
        loaded: dict[str, Tensor] = {}
        for key, value in state.items():
            if key in self._scalar_keys:
                number = checked_number(f"{key!r} in {name}", value, whole=key == "step")
                loaded[key] = self._scalar(group, parameter, key, number)
            elif key != "w" or parameter.dtype != wide:  # else it was saved from a half-precision model
                shape = None if key in UNSHAPED else parameter.shape
                array = checked_array(f"{key!r} in {name}", value, shape)
                loaded[key] = array.to(parameter.device, wide)
                check_range(f"{key!r} in {name}", local(loaded[key]), nonnegative=key in SQUARES)
        if parameter.dtype != wide:
            loaded.setdefault("w", parameter.detach().to(wide))
        return loaded


def check_type(name: str, found: Any, *classes: type) -> None:
    """Refuse what is of none of the classes."""
    if not isinstance(found, classes):
        raise TypeError(f"{name} must be a {classes[0].__name__}, got {found!r}")


def check_keys(name: str, found: dict[str, Any], *keys: str) -> None:
    """Refuse a dictionary that lacks some of ``keys``."""
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{name} lacks {', '.join(map(repr, missing))}; it has the keys {sorted(map(str, found))}")


def checked_number(name: str, value: Any, *, whole: bool = False) -> float:
    """A number of a state as a float: finite, at least 0, and ``whole`` if asked."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
        value = local(value).item()
    number = real(name, value, minimum=0.0)
    if whole and not number.is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return number


def checked_array(name: str, value: Any, shape: torch.Size | None) -> Tensor:
    """An array of a state, after checking that it is a dense tensor of real numbers, of ``shape`` if there is one."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {value!r}")
    if not value.is_floating_point() or value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense floating-point tensor, got {value.dtype} in layout {value.layout}")
    if shape is not None and value.shape != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, its parameter {tuple(shape)}")
    return value.detach()


def check_range(name: str, piece: Tensor, *, nonnegative: bool) -> None:
    """Refuse an array that holds NaN, Inf, or, if ``nonnegative``, anything below 0."""
    if not piece.numel() or piece.is_meta:
        return
    low, high = (float(bound) for bound in piece.aminmax())  # NaN if there is one
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"{name} must be finite, it has entries from {low:g} to {high:g}")
    if nonnegative and low < 0:
        raise ValueError(f"{name} must be nowhere negative, its least entry is {low:g}")


def _pack_options(_: Optimizer, state_dict: dict[str, Any]) -> None:
    """Write regularizers, solvers and tolerances as plain data."""
    for group in state_dict["param_groups"]:
        group.update({key: to_plain(group[key]) for key in PLAIN_KEYS if key in group})


def _leave_own_norms(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Leave out the norms of groups of sharded parameters: each process has those of its own, which are found again."""
    params = (parameter for group in optimizer.param_groups for parameter in group["params"])
    for index, parameter in enumerate(params):
        state = state_dict["state"].get(index, {})
        if "norms" in state and is_sharded(parameter):
            state_dict["state"][index] = {key: value for key, value in state.items() if key != "norms"}
