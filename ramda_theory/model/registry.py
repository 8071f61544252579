"""`register_module`: what the parameters of a class of modules are, and along which axes their groups lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from ramda_theory.arrays import integers

KINDS = ("embedding", "norm", "bias")
"""Kinds of parameters that are regularized only when asked for."""


@dataclass(frozen=True)
class Slices:
    """Groups of a weight: seen in ``shape``, one for each index along the axes ``kept``.

    Parameters
    ----------
    shape : tuple of int
        Shape, of as many entries in C order, in which the weight is seen.
    kept : tuple of int
        Axes of that shape.
    """

    shape: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The axes that a group spans."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.kept)


@dataclass(frozen=True)
class Role:
    """What a parameter is to the module that owns it.

    Parameters
    ----------
    kind : str
        "weight", "embedding", "norm", "bias", or "unsupported".
    by_input, by_output : Slices, optional
        What reads one input, and what writes one output, of the module.
    reason : str
        Why it is unsupported.
    heads : bool
        Whether the slices are whole heads.
    """

    kind: str
    by_input: Slices | None = None
    by_output: Slices | None = None
    reason: str = ""
    heads: bool = False


@dataclass(frozen=True)
class Axes:
    """Which axes of a weight count inputs and outputs: a group is what reads one input, or writes one output.

    Parameters
    ----------
    input, output : int or tuple of int
        Axes; several where inputs have several indices, as with the experts of a mixture (expert, feature).
    view : tuple of int, optional
        Shape, of as many entries in C order, in which they name axes; None: the weight's own.

    Raises
    ------
    TypeError
        If these are no integers.
    """

    input: int | tuple[int, ...]
    output: int | tuple[int, ...]
    view: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            object.__setattr__(self, name, integers(name, getattr(self, name)))
        if self.view is not None:
            object.__setattr__(self, "view", integers("view", self.view))

    def role(self, name: str, shape: tuple[int, ...]) -> Role:
        """The role of a weight of this shape.

        Parameters
        ----------
        name : str
            Of the weight, for messages.
        shape : tuple of int

        Returns
        -------
        Role

        Raises
        ------
        ValueError
            If the shape lacks an axis, or cannot be seen in the view.
        """
        seen = shape if self.view is None else self.view
        return Role("weight", slices_of(name, shape, seen, self.input), slices_of(name, shape, seen, self.output))


def slices_of(name: str, shape: tuple[int, ...], seen: tuple[int, ...], axes: int | tuple[int, ...]) -> Slices:
    """`Slices` of a parameter of ``shape`` seen as ``seen``; ValueError where that cannot be."""
    axes = integers("axes", axes)
    entries, others = 1, 1
    for size in shape:
        entries *= size
    for size in seen:
        others *= size
    if entries != others:
        raise ValueError(f"{name} of shape {shape} cannot be seen as {seen}")
    if any(not -len(seen) <= axis < len(seen) for axis in axes):
        raise ValueError(f"{name} is seen as {seen}, which lacks an axis of {axes}")
    return Slices(seen, tuple(sorted({axis % len(seen) for axis in axes})))


Meaning: TypeAlias = Axes | Role | str
"""What is registered for a parameter: its axes, "embedding", "norm", "bias", or any other words: why not."""
Heads: TypeAlias = Mapping[str, Slices] | str
"""Parameter below an attention module -> its slices by head; or why the heads are not known."""
MeaningOf: TypeAlias = Meaning | Callable[[Any, tuple[int, ...]], Meaning]


@dataclass(frozen=True)
class Rule:
    """What is registered for a class of modules."""

    parameters: Mapping[str, MeaningOf] | None = None
    heads: Callable[[Any], Heads | None] | None = None


_rules: dict[type[nn.Module] | tuple[str, str], Rule] = {}
"""By class, or by package and name."""


def register_module(
    module_class: type[nn.Module] | str,
    parameters: Mapping[str, MeaningOf] | None = None,
    *,
    heads: Callable[[Any], Heads | None] | None = None,
) -> None:
    """Tell `structured_param_groups` what the parameters of a class of modules are.

    Parameters
    ----------
    module_class : class of modules, or str
        Classes derived from it are meant too, unless registered themselves.  A name "package.Class" stands for
        classes of that name (or pattern, such as "transformers.*Attention") in any module of that package, which is
        not imported; a class counts before a name, and an exact name before a pattern.
    parameters : mapping from str to Axes, str or callable, optional
        For each parameter the module owns (its name, or a regular expression that matches all of it): the axes that
        count inputs and outputs; "embedding", "norm" or "bias" for what is regularized only when asked for; or other
        words: why it is never regularized.  A function of the module and the parameter's shape may choose among them.
        Parameters with "bias" in their name are biases unless said otherwise.  None: as registered before.
    heads : callable, optional
        For attention modules: a function of the module that gives, for parameters below it ("q_proj.weight"), the
        `Slices` that are whole heads; or, in words, why it cannot.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these; nothing is registered then.

    Examples
    --------
    >>> import torch
    >>> from ramda_theory.model import Axes, register_module
    >>> class Mixing(torch.nn.Module):
    ...     def __init__(self, inputs, outputs):
    ...         super().__init__()
    ...         self.kernel = torch.nn.Parameter(torch.randn(inputs, outputs))
    ...         self.scale = torch.nn.Parameter(torch.ones(outputs))
    >>> register_module(Mixing, {"kernel": Axes(input=0, output=1), "scale": "norm"})
    """
    for name, meaning in ({} if parameters is None else parameters).items():
        if not isinstance(name, str):
            raise TypeError(f"parameters must be named by strings, got {name!r}")
        try:
            re.compile(name)
        except re.error as error:
            raise ValueError(f"parameters: {name!r} is no regular expression: {error}") from error
        if not (isinstance(meaning, (Axes, Role)) or callable(meaning) or (isinstance(meaning, str) and meaning)):
            raise TypeError(f"parameters[{name!r}] must be Axes, words or a function, got {meaning!r}")
    if heads is not None and not callable(heads):
        raise TypeError(f"heads must be a function of the module, got {heads!r}")
    if isinstance(module_class, str):
        package, _, name = module_class.partition(".")
        if not package or not name or "." in name:
            raise ValueError(f"module_class must be a class or 'package.Class', got {module_class!r}")
        key: Any = package, name
    elif isinstance(module_class, type) and issubclass(module_class, nn.Module):
        key = module_class
    else:
        raise TypeError(f"module_class must be a class of modules or 'package.Class', got {module_class!r}")
    before = _rules.get(key, Rule())
    _rules[key] = Rule(
        before.parameters if parameters is None else dict(parameters), before.heads if heads is None else heads
    )


def rules_of(module: nn.Module) -> Iterator[Rule]:
    """What is registered for the class of ``module`` and for the classes it derives from, the nearest first."""
    for cls in type(module).__mro__:
        package = cls.__module__.partition(".")[0]
        keys: list[Any] = [cls, (package, cls.__name__)]
        keys += [
            key for key in _rules if isinstance(key, tuple) and key[0] == package and fnmatchcase(cls.__name__, key[1])
        ]
        yield from (_rules[key] for key in dict.fromkeys(keys) if key in _rules)


def heads_of(module: nn.Module) -> Heads | None:
    """The heads of an attention module, or why they are not known; None for other modules."""
    rule = next((rule for rule in rules_of(module) if rule.heads is not None), None)
    return None if rule is None or rule.heads is None else rule.heads(module)


def meaning_of(module: nn.Module, name: str, shape: tuple[int, ...]) -> Role:
    """The role of a parameter of ``module`` as it is registered; "unsupported" if it is not."""
    parameters = next((rule.parameters for rule in rules_of(module) if rule.parameters is not None), None)
    kind = type(module).__name__
    found: Any = next((meaning for pattern, meaning in (parameters or {}).items() if re.fullmatch(pattern, name)), None)
    if found is not None and callable(found):
        found = found(module, shape)
    if found is None and parameters is not None and "bias" in name:  # also in_proj_bias, bias_ih_l0
        found = "bias"
    if isinstance(found, Axes):
        return found.role(f"{name} of {kind}", shape)
    if isinstance(found, Role):
        return found
    if found in ("norm", "bias"):
        alone = Slices(shape, tuple(range(len(shape))))  # every entry a group of its own
        return Role(found, alone, alone)
    if found == "embedding":
        return Role(found, Slices(shape, (0,)), Slices(shape, (1,)))  # a linear map of one-hot inputs, transposed
    return Role("unsupported", reason=found or f"unsupported: {name} of {kind}")
