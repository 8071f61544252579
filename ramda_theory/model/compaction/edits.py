"""What makes a model smaller, as plain data: sizes of tensors, numbers in modules, modules in place of others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ramda_theory.model.compaction.layers import REPLACEMENTS


@dataclass
class Edits:
    """The changes, by names of the original model.

    Parameters
    ----------
    replaced : dict from str to dict
        Module -> "class", a name of `REPLACEMENTS`, and the numbers it takes.
    shapes : dict from str to list of int
        Parameter or buffer -> its new shape; a bias that did not exist is made.
    numbers : dict from str to dict
        Module -> attribute -> its new value.
    """

    replaced: dict[str, dict[str, Any]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Edits:
        """Inverse of `to_dict`; ValueError if it is something else."""
        fields = ("replaced", "shapes", "numbers")
        if not isinstance(data, dict) or any(not isinstance(data.get(key), dict) for key in fields):
            raise ValueError(f"the edits of a compacted model have the keys {', '.join(fields)}")
        for name, each in data["replaced"].items():
            if not isinstance(each, dict) or each.get("class") not in REPLACEMENTS:
                raise ValueError(f"{name} is replaced by what is none of {', '.join(REPLACEMENTS)}")
        for name, shape in data["shapes"].items():
            if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"the shape of {name} is {shape!r}")
        for name, numbers in data["numbers"].items():
            if not isinstance(numbers, dict) or not all(type(value) is int for value in numbers.values()):
                raise ValueError(f"the numbers of {name} are {numbers!r}")
        return cls(*(data[key] for key in fields))

    def apply(self, model: nn.Module) -> nn.Module:
        """A smaller copy of ``model``, its changed tensors not yet filled.

        Raises
        ------
        ValueError
            If the model lacks what is to be changed.
        """
        small = copy.deepcopy(model)
        try:
            for name, arguments in self.replaced.items():
                old = small.get_submodule(name)
                numbers = {key: value for key, value in arguments.items() if key != "class"}
                new = REPLACEMENTS[arguments["class"]](old, **numbers)
                new.training = old.training
                small = new if name == "" else _with_submodule(small, name, new)
            for name, numbers in self.numbers.items():
                module = small.get_submodule(name)
                for attribute, value in numbers.items():
                    if type(getattr(module, attribute)) not in (int, tuple):
                        raise AttributeError(f"{attribute} of {name} is no number")
                    setattr(module, attribute, (value,) if isinstance(getattr(module, attribute), tuple) else value)
            self._resize(small)
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"the model is not the one that was compacted: {error}") from error
        return small

    def _resize(self, small: nn.Module) -> None:
        made: dict[int, tuple[Any, Tensor]] = {}  # by identity, which holds while the old one is held
        for name, shape in self.shapes.items():
            module_name, _, attribute = name.rpartition(".")
            module = small.get_submodule(module_name)
            old = getattr(module, attribute)
            like = next(module.parameters(recurse=False)) if old is None else old
            if id(old) not in made or old is None:
                empty = torch.zeros(shape, dtype=like.dtype, device=like.device)
                is_parameter = isinstance(like, nn.Parameter)
                made[id(old)] = (old, nn.Parameter(empty, like.requires_grad) if is_parameter else empty)
                if old is not None:
                    made[id(made[id(old)][1])] = made[id(old)]  # a shared module has the new one already
            setattr(module, attribute, made[id(old)][1])


def _with_submodule(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """The model, with ``new`` wherever it has the module of that name: shared modules stay shared."""
    old = model.get_submodule(name)
    for each, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(each, new)
    return model


def names_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every name of every parameter and buffer, shared ones under each."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def sizes_in(module: nn.Module, shapes: dict[str, list[int]], groups: int | None) -> dict[str, int]:
    """The numbers by which a module of torch, or a like one, describes its tensors.

    Parameters
    ----------
    module : torch.nn.Module
    shapes : dict from str to list of int
        New shapes of its own tensors, by attribute.
    groups : int or None
        New number of groups of a convolution or a group norm.
    """
    weight = shapes.get("weight")
    if isinstance(module, nn.RNNBase):
        return {"input_size": shapes["weight_ih_l0"][1], "hidden_size": shapes["weight_hh_l0"][1]}
    if weight is None:
        return {}
    found: dict[str, int] = {}
    if isinstance(module, nn.Linear):
        found = {"out_features": weight[0], "in_features": weight[1]}
    elif isinstance(module, _ConvTransposeNd):
        found = {"in_channels": weight[0], "out_channels": weight[1] * module.groups}
    elif isinstance(module, _ConvNd):
        count = module.groups if groups is None else groups
        found = {"out_channels": weight[0], "in_channels": weight[1] * count, "groups": count}
    elif isinstance(module, _NormBase):
        found = {"num_features": weight[0]}
    elif isinstance(module, nn.GroupNorm):
        found = {"num_channels": weight[0], "num_groups": module.num_groups if groups is None else groups}
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        found = {"normalized_shape": weight[0]}
    elif isinstance(module, nn.Embedding):
        found = {"num_embeddings": weight[0], "embedding_dim": weight[1]}
    elif isinstance(module, nn.PReLU):
        found = {"num_parameters": weight[0]}
    elif type(module).__name__ == "Conv1D" and hasattr(module, "nx"):  # transformers': a linear layer, transposed
        found = {"nx": weight[0], "nf": weight[1]}
    return {key: value for key, value in found.items() if hasattr(module, key)}
