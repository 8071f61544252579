"""The graph of a model on example inputs, by `torch.export`, with every parameter under its name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ramda_theory.model.compaction.layers import PlainRMSNorm, is_rms_norm


@dataclass(frozen=True)
class Example:
    """Arguments of a model's forward.

    Parameters
    ----------
    args : tuple
    kwargs : dict
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, inputs: Any) -> Example:
        """From a tensor, a tuple or list of arguments, or a mapping of keyword arguments."""
        if isinstance(inputs, Mapping):
            return cls((), dict(inputs))
        if isinstance(inputs, (tuple, list)):
            return cls(tuple(inputs), {})
        if isinstance(inputs, Tensor):
            return cls((inputs,), {})
        raise TypeError(
            f"example_inputs must be a tensor, a tuple of arguments or a dict of keyword arguments, "
            f"got {type(inputs).__name__}"
        )

    def to(self, dtype: torch.dtype) -> Example:
        """With floating-point tensors in another dtype."""

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        found: Example = Example(*torch.utils._pytree.tree_map(cast, (self.args, self.kwargs)))
        return found


@dataclass(frozen=True)
class Trace:
    """The graph of a model.

    Parameters
    ----------
    graph : torch.fx.Graph
        Functional ATen operations.
    tensors : dict from str to (str, Tensor)
        Placeholder -> name of its parameter or buffer in the model, and its values.
    learned : frozenset of str
        Names of parameters.
    """

    graph: fx.Graph
    tensors: dict[str, tuple[str, Tensor]]
    learned: frozenset[str]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without nn.Transformer's fused inference path, inside the ``with`` block."""
    modes = {name: module.training for name, module in model.named_modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, module in model.named_modules():
            module.training = modes[name]


def trace(model: nn.Module, example: Example) -> Trace:
    """The graph of ``model`` in evaluation mode.

    Raises
    ------
    ValueError
        If the model cannot be called with the example, or cannot be traced.
    """
    with evaluating(model):
        try:
            with torch.no_grad():
                model(*example.args, **example.kwargs)
        except Exception as error:
            raise ValueError(f"example_inputs do not fit the model: {first_line(error)}") from error
    with_norms = _with_plain_norms(model)
    with evaluating(with_norms):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
                program = torch.export.export(with_norms, example.args, example.kwargs, strict=False)
                program = program.run_decompositions({})
        except Exception as error:
            raise ValueError(
                "the model has no graph that holds for all inputs (torch.export), so that nothing can be proved about "
                f"it; control flow that depends on values is one reason: {first_line(error)}"
            ) from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    buffers = dict(with_norms.named_buffers(remove_duplicate=False))
    tensors: dict[str, tuple[str, Tensor]] = {}
    for placeholder, name in names.items():
        found = program.state_dict[name] if name in program.state_dict else buffers[name]
        tensors[placeholder] = (name, found.detach().cpu())
    return Trace(program.graph, tensors, frozenset(signature.inputs_to_parameters.values()))


def _with_plain_norms(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters, in which root mean square norms of other libraries are one operation."""
    tensors = [*model.parameters(), *model.buffers()]
    shared = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name, module in list(shared.named_modules(remove_duplicate=False)):
        if name and is_rms_norm(module):
            shared.set_submodule(name, PlainRMSNorm(module))
    return shared


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with its class."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]


def owner(node: fx.Node) -> str:
    """Name of the innermost module that runs a node."""
    stack = node.meta.get("nn_module_stack") or {}
    name = next(reversed(list(stack.values())))[0] if stack else ""
    return str(name).partition("@")[0]
