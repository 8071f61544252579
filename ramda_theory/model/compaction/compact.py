"""`compact`: a smaller model that computes the same, from exact zeros, ranks and constants; each removal is proved."""

from __future__ import annotations

import copy
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ramda_theory.model.compaction import (
    rules_attention,
    rules_entrywise,
    rules_linear,
    rules_norms,
    rules_recurrent,
    rules_shape,
)
from ramda_theory.model.compaction.analysis import Analysis, Site
from ramda_theory.model.compaction.edits import Edits, names_of, sizes_in
from ramda_theory.model.compaction.equality import difference
from ramda_theory.model.compaction.layers import has_hooks
from ramda_theory.model.compaction.result import Compaction, Cut, Kept, Removed
from ramda_theory.model.compaction.trace import Example, trace
from ramda_theory.structure import numerical_rank

RULE_FILES = (rules_attention, rules_entrywise, rules_linear, rules_norms, rules_recurrent, rules_shape)
"""Importing them registers the rules."""
TOLERANCE = 1e-9
"""The largest relative difference, in float64, by which the small model may miss the output on the example."""
FACTORED = 1e4
"""The same where matrices were factored, in units of the weights' precision."""


def compact(model: nn.Module, example_inputs: Any, *, training: bool = False, low_rank: bool = True) -> Compaction:
    """A smaller model that computes the same; ``model`` is left as it is.

    Parameters
    ----------
    model : torch.nn.Module
        Its exact zeros decide, see `RAMDA.adopt_structured_point`.
    example_inputs : Tensor, tuple or dict
        What the model is called with: one tensor, the arguments, or keyword arguments.  Values do not matter, shapes
        do: the graph is that of inputs of these shapes, as `torch.export.export` finds it.
    training : bool
        Remove only what leaves the function the same in training mode too, where batch norm computes its own
        statistics (and dropout draws other numbers).
    low_rank : bool
        Write linear layers as two factors where that takes fewer parameters.  The rank is that of the weights'
        precision (`numerical_rank`).

    Returns
    -------
    Compaction

    Raises
    ------
    TypeError
        If ``model`` is no module or ``example_inputs`` no such thing.
    ValueError
        If the model cannot be called with the example, or has no graph that holds for all inputs: control flow that
        depends on values, or a parameter is NaN or Inf.
    RuntimeError
        If the smaller model does not compute the same on the example: an error of this package.

    Notes
    -----
    A channel leaves if nobody reads it (a zero column in every consumer) or if it is a constant (a zero row: its bias,
    through norms and activations) that every consumer can absorb: into its bias, or into the counts of a norm.
    Attention heads leave as a whole; a matrix of rank r becomes two factors where r (m + n) < m n.  All that shares a
    channel (residual additions, concatenations, tied weights) loses it together or not at all.  What cannot be proved
    stays, and `Compaction.table` says why.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"model must have finite parameters, got NaN or Inf in {name}")
    example = Example.of(example_inputs)
    planner = Planner(model, example, training, low_rank)
    return planner.find()


@dataclass
class Plan:
    """A way to a smaller model.

    Parameters
    ----------
    analysis : Analysis
    edits : Edits
    tensors : dict from str to Tensor
        The changed tensors, by name.
    cuts : dict from str to Cut
        How they come from the original ones.
    """

    analysis: Analysis
    edits: Edits
    tensors: dict[str, Tensor]
    cuts: dict[str, Cut]

    def build(self, model: nn.Module) -> nn.Module:
        """The smaller model."""
        small = self.edits.apply(model)
        own = dict(names_of(small))
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)
        return small


@dataclass
class Planner:
    """The search for a smaller model that runs.

    Modules whose forward holds sizes as numbers (``view(batch, self.num_heads, -1)``) get new ones where the old value
    of an attribute tells which; whether that is right is found out by running the result.
    """

    model: nn.Module
    example: Example
    training: bool
    low_rank: bool

    def find(self) -> Compaction:
        """The smallest model that computes the same on the example."""
        self.traced = trace(self.model, self.example)
        fixed = self._held()
        plan = self.plan(fixed, {})
        why = self.fault(plan)
        if why:
            plan, why = self.search(fixed, plan)
        if why:
            raise RuntimeError(f"the smaller model does not compute the same, which is an error of ramda_theory: {why}")
        return self.result(plan)

    def _held(self) -> dict[str, str]:
        """Modules that keep their sizes from the start."""
        held = {}
        for name, module in self.model.named_modules():
            if has_hooks(module):
                held[name] = f"{name or 'the model'} has hooks, which may look at sizes"
            elif isinstance(module, nn.MultiheadAttention) and (module.add_zero_attn or module.bias_k is not None):
                held[name] = f"{name} attends to more than its inputs"
        for name in [name for name in held if isinstance(self.model.get_submodule(name), nn.MultiheadAttention)]:
            held[f"{name}.out_proj"] = held[name]
        return held

    def search(self, fixed: dict[str, str], first: Plan) -> tuple[Plan, str]:
        """Of every class whose sizes change, the attributes to change; where none will do, its sizes stay."""
        names = {name for name, _ in first.analysis.resized}
        classes: dict[type, list[str]] = defaultdict(list)
        for name in sorted(names):
            classes[type(self.model.get_submodule(name))].append(name)
        left: dict[type, frozenset[str]] = {}
        holding = dict(fixed)
        for cls, members in classes.items():
            others = {n: "for now" for own, ns in classes.items() if own is not cls for n in ns}
            attributes = sorted({key for n in members for key in first.edits.numbers.get(n, {})})
            for excluded in itertools.islice(_subsets(attributes), 16):
                if not self.fault(self.plan({**others, **fixed}, {cls: excluded})):
                    left[cls] = excluded
                    break
            else:
                holding |= dict.fromkeys(members, f"the forward of {cls.__name__} holds sizes that were not found")
        plan = self.plan(holding, left)
        if why := self.fault(plan):
            holding |= dict.fromkeys(names, "sizes in forward that do not go together")
            plan = self.plan(holding, {})
            why = self.fault(plan)
        if why:
            everything = [name for name, _ in self.model.named_modules()]
            plan = self.plan(holding | dict.fromkeys(everything, "the forward of the model reads sizes as numbers"), {})
            why = self.fault(plan)
        return plan, why

    def fault(self, plan: Plan) -> str:
        """What is wrong with a plan: "" if its model computes the same on the example."""
        try:
            try:  # from weights in float64: what rounding does to a constant that a bias absorbs is no fault
                wide = copy.deepcopy(self.model).double()
                found = difference(wide, plan.build(wide), self.example.to(torch.float64))
            except (RuntimeError, TypeError):
                found = difference(self.model, plan.build(self.model), self.example)
        except Exception as error:  # whatever the model's own code raises
            return f"{type(error).__name__}: {error}"
        tolerance = TOLERANCE
        if any(cut.factored for cut in plan.cuts.values()):  # what the weights' precision calls zero has been left out
            tolerance = max(tolerance, max(FACTORED * torch.finfo(p.dtype).eps for p in self._floating()))
        return "" if found <= tolerance else f"relative difference {found:.1e}"

    def _floating(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.is_floating_point()]

    # -- the plan ---------------------------------------------------------------------------------------------------

    def plan(self, fixed: dict[str, str], excluded: dict[type, frozenset[str]]) -> Plan:
        """What the zeros allow, with the sizes of some modules fixed and some attributes left alone."""
        analysis = Analysis(self.model, self.traced, self.training, dict(fixed))
        edits, tensors, cuts = Edits(), dict[str, Tensor](), dict[str, Cut]()
        own = dict(names_of(self.model))
        names: dict[int, list[str]] = defaultdict(list)
        for name, tensor in own.items():
            names[id(tensor)].append(name)
        for name, leaf in analysis.leaves.items():
            if name not in own:
                continue
            kept = {axis: analysis.stays(ids) for axis, ids in leaf.axes.items()}
            kept = {axis: mask for axis, mask in kept.items() if not mask.all()}
            if kept:
                cut = Cut(name, {axis: np.flatnonzero(mask) for axis, mask in kept.items()})
                for each in names[id(own[name])]:
                    tensors[each], cuts[each] = cut.of(own[name].detach()), cut
                    edits.shapes[each] = list(tensors[each].shape)
        self._absorb(analysis, own, tensors, cuts, edits)
        self._replace_norms(analysis, edits)
        self._numbers(analysis, own, edits, excluded)
        if self.low_rank:
            self._factor(analysis, own, edits, tensors, cuts)
        return Plan(analysis, edits, tensors, cuts)

    def _absorb(
        self, analysis: Analysis, own: dict[str, Tensor], tensors: dict[str, Tensor], cuts: dict[str, Cut], edits: Edits
    ) -> None:
        """Constants of what leaves, in the biases of what read them."""
        for site in analysis.sites:
            if site.kind != "bias" or site.weight is None or site.out is None:
                continue
            gone = ~analysis.stays(site.ids) & ~np.isnan(site.const) & (site.const != 0)
            extra = site.weight[:, gone] @ site.const[gone]
            rows = analysis.stays(site.out)
            if not extra[rows].any():
                continue
            like = own[site.leaf.name] if site.leaf is not None else next(iter(own.values()))
            old = own.get(site.bias)
            base = torch.zeros(len(rows), dtype=like.dtype, device=like.device) if old is None else old.detach()
            shift = torch.from_numpy(extra).to(like.device)
            cut = cuts.get(site.bias) or Cut(site.bias, {} if rows.all() else {0: np.flatnonzero(rows)})
            cut.shift = shift
            cuts[site.bias], tensors[site.bias] = cut, cut.of(base.double())  # rounded where it is written
            edits.shapes[site.bias] = list(tensors[site.bias].shape)

    def _replace_norms(self, analysis: Analysis, edits: Edits) -> None:
        """Norms that go on counting what left."""
        for site in analysis.sites:
            stays = analysis.stays(site.ids)
            if site.kind == "bias" or stays.all():
                continue
            const = np.where(np.isnan(site.const), 0.0, site.const)
            if site.kind == "group_norm":
                self._replace_group_norm(site, stays, const, edits)
                continue
            gone = const[~stays]
            edits.replaced[site.module] = (
                {"class": "CountedLayerNorm", "count": len(stays), "removed": len(gone), "total": float(gone.sum()),
                 "squares": float(gone @ gone)}
                if site.kind == "layer_norm"
                else {"class": "CountedRMSNorm", "count": len(stays), "squares": float(gone @ gone)}
            )  # fmt: skip

    def _replace_group_norm(self, site: Site, stays: np.ndarray, const: np.ndarray, edits: Edits) -> None:
        module: Any = self.model.get_submodule(site.module)
        blocks = stays.reshape(module.num_groups, -1)
        if (blocks.all(axis=1) | ~blocks.any(axis=1)).all():  # whole groups: the norm knows how
            return
        present = np.flatnonzero(blocks.any(axis=1))
        values = np.where(blocks, 0.0, const.reshape(blocks.shape))[present]
        edits.replaced[site.module] = {
            "class": "CountedGroupNorm",
            "groups": np.repeat(np.arange(len(present)), blocks[present].sum(axis=1)).tolist(),
            "count": blocks.shape[1],
            "removed": (~blocks[present]).sum(axis=1).tolist(),
            "totals": values.sum(axis=1).tolist(),
            "squares": (values**2).sum(axis=1).tolist(),
        }

    def _numbers(
        self, analysis: Analysis, own: dict[str, Tensor], edits: Edits, excluded: dict[type, frozenset[str]]
    ) -> None:
        """The sizes that modules keep as numbers."""
        owners = {name.rpartition(".")[0] for name in edits.shapes}
        for name in sorted(owners):
            module = self.model.get_submodule(name)
            if name in edits.replaced:
                continue
            shapes = {
                key.rpartition(".")[2]: edits.shapes.get(key, list(tensor.shape))
                for key, tensor in own.items()
                if key.rpartition(".")[0] == name
            }
            numbers = sizes_in(module, shapes, self._groups(module, name, analysis))
            if numbers:
                edits.numbers[name] = numbers
        for name, module in self.model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                self._attention(name, module, edits)
        known = set(edits.numbers)
        changed: dict[str, dict[int, int]] = defaultdict(dict)
        for name, value in analysis.resized:
            if value.ids is not None:
                kept = analysis.stays(value.ids)
                for axis in value.channels:
                    others = tuple(i for i in range(kept.ndim) if i != axis)
                    new = int(kept.any(axis=others).sum())
                    if new < value.shape[axis]:
                        changed[name][value.shape[axis]] = new
        for name, sizes in changed.items():
            module = self.model.get_submodule(name)
            if name in edits.replaced or name in known or type(module).__module__.startswith("torch.nn."):
                continue
            left = excluded.get(type(module), frozenset())
            numbers = {
                key: sizes[value]
                for key, value in vars(module).items()
                if type(value) is int and value in sizes and key not in left and not key.startswith("_")
            }
            if numbers:
                edits.numbers[name] = {**edits.numbers.get(name, {}), **numbers}

    def _groups(self, module: nn.Module, name: str, analysis: Analysis) -> int | None:
        """How many groups of a convolution or a group norm stay."""
        groups = getattr(module, "groups", getattr(module, "num_groups", None))
        leaf = analysis.leaves.get(f"{name}.weight")
        if not isinstance(groups, int) or groups == 1 or leaf is None or 0 not in leaf.axes:
            return None
        return int(analysis.stays(leaf.axes[0]).reshape(groups, -1).any(axis=1).sum())

    def _attention(self, name: str, module: nn.MultiheadAttention, edits: Edits) -> None:
        """nn.MultiheadAttention whose heads no longer fill its width."""
        prefix = f"{name}." if name else ""
        shape = edits.shapes.get(f"{prefix}out_proj.weight")
        rows = edits.shapes.get(f"{prefix}in_proj_weight")
        if shape is None and rows is None:
            return
        width = module.embed_dim if shape is None else shape[1]
        head = module.head_dim
        edits.replaced[name] = {"class": "FewerHeads", "num_heads": width // head, "head_dim": head}
        edits.numbers.pop(name, None)

    def _factor(
        self,
        analysis: Analysis,
        own: dict[str, Tensor],
        edits: Edits,
        tensors: dict[str, Tensor],
        cuts: dict[str, Cut],
    ) -> None:
        """Two factors where these are smaller."""
        for name, calls in analysis.linears.items():
            prefix = f"{name}." if name else ""
            key = f"{prefix}weight"
            weight = tensors.get(key, own[key].detach())
            if calls != 1 or min(weight.shape) < 3 or name in analysis.fixed or not bool(weight.isfinite().all()):
                continue
            wide = weight.double().cpu()
            rows, columns = wide.shape
            left, singular, right = torch.linalg.svd(wide, full_matrices=False)
            epsilon = torch.finfo(weight.dtype).eps
            rank = numerical_rank(singular.numpy(), (rows, columns), epsilon)
            if rank < 1 or rank * (rows + columns) >= rows * columns:
                continue
            edits.replaced[name] = {"class": "LowRankLinear", "rank": rank}
            edits.numbers.pop(name, None)
            edits.shapes.pop(key, None)
            tensors.pop(key, None)
            cuts[key] = Cut(key, cuts[key].kept if key in cuts else {}, factored=rank)
            root = singular[:rank].sqrt()
            for attribute, factor in (("down", root[:, None] * right[:rank]), ("up", left[:, :rank] * root)):
                tensors[f"{prefix}{attribute}"] = factor.to(weight.dtype)
                edits.shapes[f"{prefix}{attribute}"] = list(factor.shape)

    # -- the result -------------------------------------------------------------------------------------------------

    def result(self, plan: Plan) -> Compaction:
        """The smaller model with its account."""
        analysis = plan.analysis
        removed, kept = [], []
        parameters = dict(self.model.named_parameters())
        for name, leaf in analysis.leaves.items():
            shape = tuple(leaf.data.shape)
            cut = plan.cuts.get(name)
            if name in parameters and cut is not None and (cut.kept or cut.factored):
                removed.append(Removed(name, shape, cut.shape(shape), self._why(analysis, leaf.axes, cut)))
            kept += self._zeros_that_stay(analysis, name, leaf)
        small = plan.build(self.model)
        unknown = sorted(set(analysis.unknown.values()))
        return Compaction(self.model, small, self.example, plan.edits, plan.cuts, removed, kept, unknown)

    def _why(self, analysis: Analysis, axes: dict[int, np.ndarray], cut: Cut) -> str:
        """How what left was found out."""
        constant = self._constant(analysis)
        reasons = []
        for axis in sorted(cut.kept):
            ids = axes[axis][~analysis.stays(axes[axis])]
            roots = analysis.units.find(ids)
            number = int(constant[roots].sum())
            parts = [f"{number} constant" * (number > 0), f"{len(ids) - number} unread" * (len(ids) > number)]
            reasons.append(f"axis {axis}: " + ", ".join(filter(None, parts)))
        if cut.factored:
            reasons.append(f"rank {cut.factored}")
        return "; ".join(reasons)

    def _constant(self, analysis: Analysis) -> np.ndarray:
        """Which units are constant at some position, by the unit they are tied to."""
        found = np.zeros(len(analysis.units), dtype=bool)
        for value in analysis.values:
            if value.ids is not None and value.const is not None:
                found[analysis.units.find(value.ids[~np.isnan(value.const)])] = True
        return found

    def _zeros_that_stay(self, analysis: Analysis, name: str, leaf: Any) -> list[Kept]:
        """Zero slices of a weight that could not leave, with the commonest reason."""
        if leaf.data.ndim < 2 or not leaf.data.is_floating_point():
            return []
        found = []
        for axis, ids in sorted(leaf.axes.items()):
            others = tuple(i for i in range(leaf.data.ndim) if i != axis)
            zero = (leaf.data == 0).all(dim=others[0]) if len(others) == 1 else (leaf.data == 0).sum(others) == (
                leaf.data.numel() // max(leaf.data.shape[axis], 1))  # fmt: skip
            stuck = ids[zero.numpy() & analysis.stays(ids)]
            if len(stuck):
                reasons = Counter(analysis.why.get(int(unit), "it is read") for unit in analysis.units.find(stuck))
                found.append(Kept(name, axis, len(stuck), reasons.most_common(1)[0][0]))
        return found


def _subsets(items: list[str]) -> Any:
    """All subsets, small ones first."""
    return (frozenset(c) for n in range(len(items) + 1) for c in itertools.combinations(items, n))
