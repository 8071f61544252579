"""What `compact` found: the smaller model, what left and what could not, equality, cost, and files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ramda_theory.extras import needs, require
from ramda_theory.files import write_atomically
from ramda_theory.model.compaction.edits import Edits, names_of
from ramda_theory.model.compaction.equality import difference
from ramda_theory.model.compaction.trace import Example, evaluating
from ramda_theory.tables import aligned

FORMAT = "ramda_theory compacted model 1"


@dataclass
class Cut:
    """How a tensor of the small model comes from one of the large one.

    Parameters
    ----------
    name : str
        Of the large one's.
    kept : dict from int to int array
        Axis -> the indices that stay.
    shift : Tensor, optional
        Added before that: constants that a bias has absorbed.
    factored : int
        Rank of the two factors it became; 0 if it did not.
    """

    name: str
    kept: dict[int, np.ndarray]
    shift: Tensor | None = None
    factored: int = 0

    def of(self, tensor: Tensor, shifted: bool = True) -> Tensor:
        """The part of a tensor of the large one's shape."""
        if shifted and self.shift is not None:
            tensor = (tensor.double() + self.shift.to(tensor.device)).to(tensor.dtype)
        for axis, index in self.kept.items():
            tensor = tensor.index_select(axis, torch.from_numpy(index).to(tensor.device))
        return tensor

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part."""
        return tuple(len(self.kept[axis]) if axis in self.kept else n for axis, n in enumerate(shape))


@dataclass(frozen=True)
class Removed:
    """A parameter that became smaller.

    Parameters
    ----------
    name : str
    before, after : tuple of int
        Shapes.
    why : str
        How many slices were unread, how many constant; the rank.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Kept:
    """Zero slices of a weight that stay.

    Parameters
    ----------
    name : str
    axis, count : int
    why : str
        The reason, for most of them.
    """

    name: str
    axis: int
    count: int
    why: str


@dataclass(frozen=True)
class Latency:
    """Median seconds of a forward pass.

    Parameters
    ----------
    before, after : float
        Of the model and of the small one.
    """

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """How many times faster the small one is."""
        return self.before / self.after


@dataclass(frozen=True, repr=False, eq=False)
class Compaction:
    """A smaller model that computes the same; printing it shows `table`.

    Parameters
    ----------
    original, model : torch.nn.Module
        The model, untouched, and the smaller one.
    example : Example
        The inputs it was traced with.
    edits : Edits
        What makes one the other, as plain data.
    cuts : dict from str to Cut
        How each changed tensor comes from the original's.
    removed : list of Removed
    kept : list of Kept
        Zero slices that could not leave, and why.
    unknown : list of str
        Operations of which nothing is known.
    """

    original: nn.Module
    model: nn.Module
    example: Example
    edits: Edits
    cuts: dict[str, Cut]
    removed: list[Removed]
    kept: list[Kept]
    unknown: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of parameters before and after, shared ones counted once."""
        before, after = (sum(p.numel() for p in model.parameters()) for model in (self.original, self.model))
        return before, after

    @property
    def flops(self) -> tuple[int, int]:
        """Floating-point operations of a forward pass on the example, before and after (as torch counts them)."""
        from torch.utils.flop_counter import FlopCounterMode

        found = []
        for model in (self.original, self.model):
            with FlopCounterMode(display=False) as counter, torch.no_grad(), evaluating(model):
                model(*self.example.args, **self.example.kwargs)
            found.append(int(counter.get_total_flops()))
        return found[0], found[1]

    def table(self) -> str:
        """A line per parameter that became smaller, then what could not leave and why.

        Returns
        -------
        str
        """
        shapes = ("x".join(map(str, each.after)) for each in self.removed)
        rows = [("parameter", "before", "after", "what left")]
        rows += [(each.name, "x".join(map(str, each.before)), after, each.why)
                 for each, after in zip(self.removed, shapes, strict=True)]  # fmt: skip
        before, after = self.parameters
        text = f"{aligned(rows)}\n" if self.removed else "nothing can be removed\n"
        text += f"parameters: {after} of {before}"
        if self.kept:
            stuck = [("zero, but kept", "axis", "slices", "because")]
            stuck += [(each.name, str(each.axis), str(each.count), each.why) for each in self.kept]
            text += f"\n\n{aligned(stuck)}"
        return text + "".join(f"\nnot looked into: {each}" for each in self.unknown)

    __str__ = __repr__ = table

    def check(self, *inputs: Any, **keywords: Any) -> float:
        """How far the two models are apart, both in float64 and in evaluation mode.

        Parameters
        ----------
        *inputs, **keywords
            Arguments of the model; none for the example's.

        Returns
        -------
        float
            max |a - b| / max |a|, the largest over all tensors they return.
        """
        return difference(self.original, self.model, self._example(inputs, keywords))

    def latency(self, *inputs: Any, **keywords: Any) -> Latency:
        """Time of a forward pass of both models, by `torch.utils.benchmark`, in turns.

        Parameters
        ----------
        *inputs, **keywords
            Arguments of the model; none for the example's.

        Returns
        -------
        Latency
        """
        from torch.utils.benchmark import Timer

        example = self._example(inputs, keywords)
        timers = []
        for model in (self.original, self.model):
            run: Callable[[], Any] = _Run(model, example)
            timers.append(Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads()))
        with evaluating(self.original), evaluating(self.model), torch.inference_mode():
            turns = [[timer.blocked_autorange(min_run_time=0.2).median for timer in timers] for _ in range(5)]
        before, after = np.median(turns, axis=0)
        return Latency(float(before), float(after))

    def _example(self, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Example:
        return Example(inputs, keywords) if inputs or keywords else self.example

    def save(self, path: str | Path) -> Path:
        """Write the small model to one safetensors file, whose header says in JSON what was changed.

        Parameters
        ----------
        path : path
            The file; its folder is made if missing.

        Returns
        -------
        Path
        """
        with needs("export"):
            from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        tied: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, tensor in names_of(self.model):
            if id(tensor) in first:
                tied[name] = first[id(tensor)]
            else:
                first[id(tensor)] = name
                tensors[name] = tensor.detach().cpu().contiguous().clone()
        before = {name: list(tensor.shape) for name, tensor in names_of(self.original)}
        head = {"format": FORMAT, "edits": json.dumps(self.edits.to_dict()), "tied": json.dumps(tied)}
        head["before"] = json.dumps(before)
        data = save(tensors, metadata=head)
        return write_atomically(path, lambda file: file.write(data))

    def export(self, *, dynamic_shapes: Any = None) -> torch.export.ExportedProgram:
        """The small model as `torch.export` keeps it, traced with the example's inputs in evaluation mode.

        Parameters
        ----------
        dynamic_shapes : optional
            As of `torch.export.export`: axes of the inputs that may have another length, such as
            ``({0: torch.export.Dim("batch")},)``; by default none.

        Returns
        -------
        torch.export.ExportedProgram
        """
        with evaluating(self.model):
            return torch.export.export(
                self.model, self.example.args, self.example.kwargs, dynamic_shapes=dynamic_shapes
            )

    def save_onnx(self, path: str | Path, *, dynamic_shapes: Any = None) -> Path:
        """Write the small model as one ONNX file.

        Parameters
        ----------
        path : path
            The file; its folder is made if missing.
        dynamic_shapes : optional
            As in `export`.

        Returns
        -------
        Path

        Raises
        ------
        MissingExtra
            If onnx or onnxscript is not installed.
        ValueError
            If the model is larger than the 2 GiB that one ONNX file may have.
        """
        require("onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch's own calls
            program = torch.onnx.export(self.export(dynamic_shapes=dynamic_shapes), dynamo=True, verbose=False)
        assert program is not None  # as without dynamo
        model = program.model_proto
        if model.ByteSize() >= 2**31:
            raise ValueError(f"the model has {model.ByteSize()} bytes, and one ONNX file at most 2 GiB")
        data = model.SerializeToString()
        return write_atomically(path, lambda file: file.write(data))


@dataclass(frozen=True)
class _Run:
    model: nn.Module
    example: Example

    def __call__(self) -> Any:
        return self.model(*self.example.args, **self.example.kwargs)


def load_compact(path: str | Path, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """The small model that `Compaction.save` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : path
    model_factory : callable
        Makes the model as it was before (its values do not matter).

    Returns
    -------
    torch.nn.Module
        In evaluation mode.

    Raises
    ------
    ValueError
        If the file is no such thing, or of another model.
    """
    with needs("export"):
        from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no compacted model: {error}") from error
    if head.get("format") != FORMAT:
        raise ValueError(f"{path} is no compacted model of this version: its format is {head.get('format')!r}")
    try:
        edits, tied = Edits.from_dict(json.loads(head["edits"])), json.loads(head["tied"])
        before = json.loads(head.get("before", "{}"))
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    model = model_factory()
    for name, tensor in names_of(model):
        if name in before and list(tensor.shape) != before[name]:
            raise ValueError(
                f"{path} is of another model: {name} was {tuple(before[name])}, "
                f"model_factory's is {tuple(tensor.shape)}"
            )
    small = edits.apply(model)
    own = dict(names_of(small))
    if lost := sorted(own.keys() ^ (tensors.keys() | tied.keys())):
        raise ValueError(f"{path} is of another model: {lost[0]} is in one of them only")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise ValueError(
                    f"{path} is of another model: {name} is {tuple(tensor.shape)} there, {tuple(own[name].shape)} here"
                )
            own[name].copy_(tensor)
    return small.eval()
