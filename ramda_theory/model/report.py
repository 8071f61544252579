"""`structure_report`: the structure of a network, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ramda_theory.model.compaction import compact
from ramda_theory.model.coupling import removable_parameters
from ramda_theory.model.groups import ParamGroups, decided_groups
from ramda_theory.model.layers import LayerStructure, points, read_structure, regularized
from ramda_theory.model.wrappers import unwrapped
from ramda_theory.regularizers import GroupLasso
from ramda_theory.tables import aligned, to_pandas

if TYPE_CHECKING:
    import pandas

HEADER = ("weight", "at", "zero groups", "group sparsity", "rank", "low-rank level", "entry sparsity")


@dataclass(frozen=True, repr=False)
class StructureReport:
    """What `structure_report` found; printing it shows the table.

    Parameters
    ----------
    layers : dict from point to tuple of LayerStructure
        The regularized weights at "w" and, from an optimizer that has it, at "w_hat".
    parameters : int
        Number of all parameters looked at, regularized or not.
    removable : int or None
        Parameters whose removal leaves the function as it is: of a model with example inputs those that `compact`
        removes, of a chain of linear layers without them those of `removable_parameters`; None where zeros do not tell,
        which differs from zero groups: those are removable only together with what they are coupled to.
    compacted : int or None
        Number of parameters that `compact` leaves; None without example inputs.
    notes : tuple of str
        What else the optimizer tells: how far the averaging is, or that a stage has just begun.
    """

    layers: dict[str, tuple[LayerStructure, ...]]
    parameters: int
    removable: int | None
    compacted: int | None = None
    notes: tuple[str, ...] = ()

    def total(self, point: str = "w") -> LayerStructure:
        """All layers at "w" or "w_hat" as one.

        Parameters
        ----------
        point : {"w", "w_hat"}
            Where.

        Returns
        -------
        LayerStructure
        """
        return LayerStructure.total(self.layers[point])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``[point]["layers"][name]`` and ``[point]["total"]``, "parameters", "removable", "compacted".

        Returns
        -------
        dict
            Of dicts, strings and numbers, as JSON takes them.
        """
        at = {
            point: {"total": self.total(point).to_dict(), "layers": {layer.name: layer.to_dict() for layer in layers}}
            for point, layers in self.layers.items()
        }
        more = {} if self.compacted is None else {"compacted": self.compacted}
        return {**at, "parameters": self.parameters, "removable": self.removable, **more}

    def to_pandas(self) -> pandas.DataFrame:
        """A row per weight and point, and the totals.

        Returns
        -------
        pandas.DataFrame
            Columns "name", "point", the counts and the levels of `LayerStructure`.

        Raises
        ------
        MissingExtra
            If pandas is not installed.
        """
        return to_pandas([{"point": point, **layer.to_dict()} for layer, point in self._lines()])

    def _lines(self) -> list[tuple[LayerStructure, str]]:
        """The layers and the totals, w and w_hat side by side."""
        lines = [*zip(*self.layers.values(), strict=True), tuple(self.total(point) for point in self.layers)]
        return [(layer, point) for line in lines for layer, point in zip(line, self.layers, strict=True)]

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        head, *rows = [
            "".join(f"<{cell}>{escape(text)}</{cell}>" for text in row)
            for cell, row in [("th", HEADER), *(("td", _row(layer, point)) for layer, point in self._lines())]
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        below = "".join(f"<p>{escape(line)}</p>" for line in (*self.notes, self._removable()))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"

    def _removable(self) -> str:
        """The last line: what can be removed."""
        if self.removable is None:
            total = self.total(next(reversed(self.layers)))
            zero = f"{total.zero_group_entries} of {self.parameters} parameters lie in zero groups"
            return f"{zero}; which of them can be removed only the model tells: structure_report(model)"
        left = "" if self.compacted is None else f"; compacted, {self.compacted} are left"
        return f"removable parameters: {self.removable} of {self.parameters}{left}"

    def table(self) -> str:
        """A line per weight and point, the totals, and what can be removed.

        Returns
        -------
        str
            Several lines.
        """
        rows = [HEADER, *(_row(layer, point) for layer, point in self._lines())]
        return "\n".join([aligned(rows), *self.notes, self._removable()])

    __str__ = __repr__ = table


def structure_report(
    source: nn.Module | torch.optim.Optimizer | ParamGroups,
    *,
    by: str = "input",
    ranks: bool = True,
    example_inputs: Any = None,
) -> StructureReport:
    """Zero groups, ranks and zero entries of the regularized weights, from their exact zeros.

    Parameters
    ----------
    source : torch.nn.Module, torch.optim.Optimizer or ParamGroups
        An optimizer tells which weights are regularized and in which groups, and shows w and w_hat apart; parameter
        groups tell the former.  A bare model is read as `structured_param_groups` would group it for `GroupLasso`,
        frozen weights included, whatever it was trained with.
    by : {"input", "output"}
        The groups of a bare model.
    ranks : bool
        Compute the rank of every weight, one singular value decomposition each; see `LayerStructure`.
    example_inputs : Tensor, tuple or dict, optional
        What a model is called with, see `compact`: then the report says what could be removed of any model.

    Returns
    -------
    StructureReport

    Raises
    ------
    ValueError
        If nothing is regularized.

    Notes
    -----
    Nothing is estimated from an optimizer's state: with an averaging weight below 1, w may carry a structure of its own
    or none, and w_hat is the point the guarantees speak of (Theorem 3 of arXiv:2403.14398).
    """
    groups: list[dict[str, Any]]
    if isinstance(source, nn.Module):
        groups = decided_groups(source, GroupLasso(1.0), by=by, flags={"frozen": True})
        layers = {"w": _read(groups, ranks)}
        parameters = sum(p.numel() for p in source.parameters())
        if example_inputs is not None:
            _, compacted = compact(source, example_inputs).parameters
            return StructureReport(layers, parameters, parameters - compacted, compacted)
        return StructureReport(layers, parameters, removable_parameters(source))
    if example_inputs is not None:
        raise ValueError("example_inputs need a model as source: an optimizer and its groups do not know theirs")
    notes: tuple[str, ...] = ()
    if isinstance(source, ParamGroups):
        groups, layers = source, {"w": _read(source, ranks)}
    elif isinstance(source, torch.optim.Optimizer) or hasattr(source, "optimizer"):
        optimizer = unwrapped(source)
        layers = {}
        for point, shown in points(optimizer).items():
            with shown:
                layers[point] = _read(optimizer.param_groups, ranks)
        groups = optimizer.param_groups
        notes = tuple(_told(optimizer, layers))
    else:
        raise TypeError(f"source must be a model, an optimizer or ParamGroups, got {type(source).__name__}")
    return StructureReport(layers, sum(p.numel() for group in groups for p in group["params"]), None, notes=notes)


def _told(optimizer: Any, layers: dict[str, tuple[LayerStructure, ...]]) -> Iterator[str]:
    """What an optimizer that averages knows of w and w_hat."""
    if "w_hat" not in layers or not hasattr(optimizer, "stage_is_fresh"):
        return
    averaging = min(1.0 - float(group["momentum"]) for group in optimizer.param_groups)
    if optimizer.stage_is_fresh:
        yield "a stage has just begun (restart): until its first step w_hat follows from w, not from the stage before"
    elif layers["w"] == layers["w_hat"]:
        total = LayerStructure.total(layers["w"])
        yield (
            f"w has the structure of w_hat (averaging weight {averaging:g}): "
            f"{total.zero_entries} of {total.entries} regularized weights are zero, "
            f"{total.zero_group_entries} of them in zero groups"
        )
    else:
        yield f"w is an average (averaging weight {averaging:g}); adopt_structured_point() would make it w_hat"


def _read(groups: list[dict[str, Any]], ranks: bool) -> tuple[LayerStructure, ...]:
    found = tuple(read_structure(*weight, ranks) for weight in regularized(groups))
    if not found:
        raise ValueError("nothing is regularized: no parameter group carries a regularizer")
    return found


def _row(layer: LayerStructure, point: str) -> tuple[str, ...]:
    """A line of the table."""
    levels = (layer.group_sparsity, layer.low_rank_level, layer.entry_sparsity)
    groups, ranks, entries = ("-" if level is None else f"{level:.1%}" for level in levels)
    zero_groups = f"{layer.zero_groups} of {layer.groups}" if layer.groups else "-"
    rank = f"{layer.rank} of {layer.singular_values}" if layer.singular_values else "-"
    return layer.name, point, zero_groups, groups, rank, ranks, entries
