"""Where a model uses each of its parameters, and selectors that name parameters, modules and classes of modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn

Selector: TypeAlias = str | nn.Module | type[nn.Module]
"""A name or pattern of a parameter or module ("encoder.*"), a module, a class; modules stand for all below them."""


@dataclass(frozen=True, eq=False)
class Use:
    """One place in a model where a parameter sits.

    Parameters
    ----------
    name : str
        Its full name there.
    parameter : torch.nn.Parameter
    modules : tuple of (str, torch.nn.Module)
        The modules around it with their names, the model first, its owner last.
    """

    name: str
    parameter: Tensor
    modules: tuple[tuple[str, nn.Module], ...]

    @property
    def owner(self) -> nn.Module:
        return self.modules[-1][1]

    @property
    def attribute(self) -> str:
        """Its name in the owner."""
        return self.name.rpartition(".")[2]

    def selected_by(self, selector: Selector) -> bool:
        if isinstance(selector, str):
            return any(fnmatchcase(name, selector) for name in (self.name, *(name for name, _ in self.modules)))
        if isinstance(selector, nn.Module):
            return any(module is selector for _, module in self.modules)
        return any(isinstance(module, selector) for _, module in self.modules)


Uses: TypeAlias = list[Use]
"""All uses of one parameter."""


def parameter_uses(model: nn.Module) -> list[Uses]:
    """The uses of every parameter of ``model``, in the order of ``model.named_parameters()``."""
    found: dict[int, Uses] = {}

    def walk(modules: tuple[tuple[str, nn.Module], ...]) -> None:
        name, module = modules[-1]
        prefix = f"{name}." if name else ""
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), []).append(Use(prefix + attribute, parameter, modules))
        for attribute, child in module._modules.items():
            if child is not None:
                walk((*modules, (prefix + attribute, child)))

    walk((("", model),))
    return list(found.values())


def selects(selector: Selector, uses: Uses) -> bool:
    return any(use.selected_by(selector) for use in uses)


def selectors(argument: str, value: Selector | Iterable[Selector] | None) -> list[Selector]:
    """``value`` as a list of selectors; None is none, anything that is no selector a TypeError."""
    if value is None:
        return []
    if isinstance(value, (str, nn.Module, type)):
        return [_selector(argument, value)]
    if not isinstance(value, Iterable):
        raise TypeError(f"{argument} takes names, modules and classes of modules, got {value!r}")
    return [_selector(argument, each) for each in value]


def _selector(argument: str, value: Selector) -> Selector:
    if isinstance(value, (str, nn.Module)) or (isinstance(value, type) and issubclass(value, nn.Module)):
        return value
    raise TypeError(f"{argument} takes names, modules and classes of modules, got {value!r}")


def spell(selector: Selector) -> str:
    """A selector as it reads in a message."""
    if isinstance(selector, str):
        return repr(selector)
    return selector.__name__ if isinstance(selector, type) else f"{type(selector).__name__}(...)"
