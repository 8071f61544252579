"""`structured_param_groups`: which parameters of a model a regularizer reaches, in which groups, and why not others."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ramda_theory.model.critical import warn_of_critical_weights
from ramda_theory.model.modules import WAYS, adapt, role
from ramda_theory.model.selection import Selector, Uses, parameter_uses, selectors, selects, spell
from ramda_theory.regularizers import Regularizer
from ramda_theory.tables import aligned

ASKED_FOR = {"embedding": "embeddings", "norm": "norms", "bias": "biases"}
"""Kinds of parameters that are regularized only when asked for, and the argument that does."""
CHOSEN = ("not selected", "excluded", "not included", "frozen: requires_grad is False")
"""Reasons that the caller gave."""


@dataclass(frozen=True)
class Decision:
    """What happens to one parameter.

    Parameters
    ----------
    names : tuple of str
        Its names in the model: several where modules share it.
    parameter : torch.nn.Parameter
    module : str
        Class of the module that owns it.
    regularizer : Regularizer or None
        The regularizer with the axes that suit the parameter.
    reason : str
        Why there is none.
    note : str
        With ``heads``: "whole heads", or why a part of an attention module is not cut into them.
    kind : str
        "weight", "embedding", "norm", "bias" or "unsupported".
    """

    names: tuple[str, ...]
    parameter: Tensor
    module: str
    regularizer: Regularizer | None
    reason: str = ""
    note: str = ""
    kind: str = "weight"

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        shape = tuple(self.parameter.shape)
        about = self.reason
        if self.regularizer is not None:
            joint = self.regularizer.joint_shapes
            whole = shape if joint is None else (sum(math.prod(each) for each in joint),)
            about = ("part of " * (joint is not None)) + self.regularizer.describe_pieces(whole)
        about += f" ({self.note})" if self.note else ""
        return " = ".join(self.names), self.module, "x".join(map(str, shape)), _spell_out(self.regularizer), about


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups for one ``torch.optim`` optimizer; printing them shows the decision on every parameter.

    Build them anew for a second optimizer: torch writes the first one's defaults into them.

    Parameters
    ----------
    decisions : iterable of Decision
        One per parameter: its names, module, regularizer and the reason.
    frozen : bool
        Also take parameters that do not require gradients.
    """

    def __init__(self, decisions: Iterable[Decision], frozen: bool = False) -> None:
        super().__init__()
        self.decisions = tuple(decisions)
        groups: dict[Regularizer | None, dict[str, Any]] = {}
        for decision in sorted(self.decisions, key=lambda decision: decision.regularizer is None):
            if frozen or decision.parameter.requires_grad:
                empty: dict[str, Any] = {"params": [], "param_names": [], "regularizer": decision.regularizer}
                group = groups.setdefault(decision.regularizer, empty)
                group["params"].append(decision.parameter)
                group["param_names"].append(decision.names[0])
        self.extend(groups.values())

    def table(self) -> str:
        """One line per parameter: names, module, shape, regularizer, and its groups or why there are none.

        Returns
        -------
        str
            A line per parameter below a heading, a line that adds up what is not regularized by reason, and a line of
            totals.
        """
        header = ("parameter", "module", "shape", "regularizer", "groups, or why none")
        reached = sum(d.parameter.numel() for d in self.decisions if d.regularizer is not None)
        every = sum(d.parameter.numel() for d in self.decisions)
        rows = [header, *(decision.row for decision in self.decisions)]
        left = f"\nnot regularized: {_reasons(self.decisions)}" if reached < every else ""
        return f"{aligned(rows)}{left}\nregularized: {reached} of {every} parameters"

    __str__ = __repr__ = table


def structured_param_groups(
    model: nn.Module,
    regularizer: Regularizer | Mapping[Selector, Regularizer],
    *,
    by: str = "input",
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    embeddings: bool = False,
    norms: bool = False,
    biases: bool = False,
    heads: bool = False,
    frozen: bool = False,
) -> ParamGroups:
    """Parameter groups that regularize the weights of ``model`` and leave the rest unregularized.

    ========================  ==================================  ====================================
    module                    a group with ``by="input"``         a group with ``by="output"``
    ========================  ==================================  ====================================
    Linear                    input feature: a column             output feature: a row
    Conv, ConvTranspose       input channel                       filter (output channel)
    RNN, LSTM, GRU            input or hidden feature: a column   a row: one gate of one hidden unit
    MultiheadAttention        feature before a projection         feature after a projection
    Embedding                 token                               embedding feature
    ========================  ==================================  ====================================

    Parameters
    ----------
    model : torch.nn.Module
    regularizer : Regularizer or mapping from selector to Regularizer
        The axes of group norms (``dims``) are replaced by those above, the matricisation of `NuclearNorm` by rows
        along the first axis; other regularizers act entry by entry and stay as they are.  In a mapping the first
        selector that matches a parameter counts, and what none matches is unregularized.
    by : {"input", "output"}
        Which slices are groups, see the table.
    include, exclude : selector or several, optional
        Only what ``include`` selects is regularized, and nothing that ``exclude`` selects.  A selector is a name or
        pattern of a parameter or module ("encoder.*"), a module, or a class of modules; modules stand for all that
        lies below them.
    embeddings, norms, biases : bool
        Regularize these kinds too, where selected.  Each entry of a norm's weight or of a bias is a group of its own.
    heads : bool
        Group the projections of attention by whole heads instead of ``by``: a head's query, key and value rows
        (together where they are one parameter), and the columns of the output projection that read it.  Known are
        MultiheadAttention and the attention of transformers, whose heads are read from its config (where keys and
        values have fewer heads, theirs are groups of their own), and what `register_module` has been told.
    frozen : bool
        Take parameters with ``requires_grad=False`` as well, because they will be trained later.

    Returns
    -------
    ParamGroups
        A list of groups with keys "params", "param_names" and "regularizer" (None where there is none); its ``str``
        is the table of decisions.

    Raises
    ------
    ValueError
        If nothing, or nothing of what a selector of ``include`` or ``regularizer`` names, can be regularized; if a
        selector matches nothing; if the modules that share a parameter would group it differently; if a lazy module
        has not seen its first input; if ``heads`` finds no attention whose heads are known.

    Warns
    -----
    UserWarning
        If less than half of the weights that were selected are reached (biases and norms do not count); if the model
        has gradients and the weight lambda is at or above the critical one of a layer, which would become zero.

    Notes
    -----
    Groups follow Section 5 of arXiv:2403.14398.  A shared parameter is regularized once, and not at all if one of its
    roles forbids it: an output layer tied to an embedding is left alone with it.  transformers' ``Conv1D`` and the
    three-dimensional weights of its mixtures of experts (a group belongs to one expert) are known as well; modules that
    neither this table nor `register_module` names are never regularized.
    """
    groups = decided_groups(
        model,
        regularizer,
        by=by,
        include=include,
        exclude=exclude,
        flags={"embeddings": embeddings, "norms": norms, "biases": biases, "heads": heads, "frozen": frozen},
    )
    _warn_below_half(groups.decisions)
    warn_of_critical_weights(groups)
    return groups


def decided_groups(
    model: nn.Module,
    regularizer: Regularizer | Mapping[Selector, Regularizer],
    *,
    by: str,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    flags: Mapping[str, bool],
) -> ParamGroups:
    """`structured_param_groups` without its warning; ``flags`` are its arguments that are True or False."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be True or False, got {flag!r}")
    if by not in WAYS:
        raise ValueError(f"by must be 'input' or 'output', got {by!r}")
    rules = _rules(regularizer)
    wanted, unwanted = selectors("include", include), selectors("exclude", exclude)
    if include is not None and not wanted:
        raise ValueError(f"include must name something, got {include!r}")
    frozen, heads = flags.get("frozen", False), flags.get("heads", False)
    allowed = {kind: flags.get(flag, False) for kind, flag in ASKED_FOR.items()} | {"weight": True}

    def decide(uses: Uses) -> Decision:
        parameter = uses[0].parameter
        selector = _deciding(rules, uses)
        kind, forbidden = _forbidden(uses, allowed)
        if selector is None:
            reason = "not selected"
        elif any(selects(each, uses) for each in unwanted):
            reason = "excluded"
        elif wanted and not any(selects(each, uses) for each in wanted):
            reason = "not included"
        elif not (frozen or parameter.requires_grad):
            reason = CHOSEN[3]
        else:
            reason = forbidden
        names, owner = tuple(use.name for use in uses), type(uses[0].owner).__name__
        if reason or selector is None:
            return Decision(names, parameter, owner, None, reason, kind=kind)
        first = role(uses[0], heads)
        note = "whole heads" if first.heads else first.reason
        return Decision(names, parameter, owner, _fitted(rules[selector], uses, by, heads), note=note, kind=kind)

    places = parameter_uses(model)
    for uses in places:
        if is_lazy(uses[0].parameter):
            raise ValueError(f"{uses[0].name} has no shape yet: run one batch through the model first")
    decided = [(decide(uses), uses) for uses in places]
    for each in unwanted:
        _matched("exclude", each, [decision for decision, uses in decided if selects(each, uses)])
    for each in wanted:
        _reached("include", each, [decision for decision, uses in decided if selects(each, uses)])
    for each in rules:
        _reached("regularizer", each, [decision for decision, uses in decided if _deciding(rules, uses) == each])
    if heads:
        _found_heads([decision for decision, _ in decided])
    return ParamGroups([decision for decision, _ in decided], frozen)


def _rules(regularizer: Regularizer | Mapping[Selector, Regularizer]) -> dict[Selector, Regularizer]:
    """Which regularizer is meant for what; a single one for everything."""
    if isinstance(regularizer, Mapping):
        rules = {each: regularizer[each] for each in selectors("regularizer", regularizer)}
    else:
        rules = {"*": regularizer}
    if not rules:
        raise ValueError("regularizer must name something, got an empty mapping")
    for value in rules.values():
        if not isinstance(value, Regularizer):
            raise TypeError(f"regularizer must be a Regularizer or a mapping to them, got {value!r}")
        if value.tied_to_shape:
            raise ValueError(
                f"regularizer must not carry labels or a shape, its groups are chosen by `by`, got {value!r}"
            )
    return rules


def _deciding(rules: Mapping[Selector, Regularizer], uses: Uses) -> Selector | None:
    """The first selector that matches."""
    return next((each for each in rules if selects(each, uses)), None)


def _forbidden(uses: Uses, allowed: Mapping[str, bool]) -> tuple[str, str]:
    """Kind of a parameter, and why it is not regularized, from the first of its roles that says so; "" if none does."""
    for use in uses:
        found = role(use)
        if not allowed.get(found.kind, False):
            what = found.reason or found.kind
            return found.kind, what if len(uses) == 1 else f"shared, and {what} as {use.name}"
    return role(uses[0]).kind, ""


def _fitted(regularizer: Regularizer, uses: Uses, by: str, heads: bool) -> Regularizer:
    """The regularizer with the axes that suit all uses of a parameter."""
    shape = tuple(uses[0].parameter.shape)
    fits = {adapt(regularizer, role(use, heads), by, use.name, shape): use.name for use in uses}
    if len(fits) > 1:
        ways = ", ".join(f"{_spell_out(found)} as {name}" for found, name in fits.items())
        raise ValueError(f"a shared parameter would be grouped in two ways, {ways}: exclude it")
    return next(iter(fits))


def _matched(argument: str, selector: Selector, decisions: list[Decision]) -> None:
    if not decisions:
        raise ValueError(f"{argument}: {spell(selector)} selects no parameter (that an earlier one has not taken)")


def _reached(argument: str, selector: Selector, decisions: list[Decision]) -> None:
    """Refuse a selector that regularizes nothing, saying what it selects and why that stays as it is."""
    _matched(argument, selector, decisions)
    if all(decision.regularizer is None for decision in decisions):
        reasons = ", ".join(f"{d.names[0]} ({d.reason})" for d in decisions[:5]) + ", ..." * (len(decisions) > 5)
        raise ValueError(f"{argument}: {spell(selector)} reaches no parameter that can be regularized: {reasons}")


def _found_heads(decisions: list[Decision]) -> None:
    """Refuse ``heads`` that cut nothing."""
    if not any(decision.note == "whole heads" for decision in decisions):
        notes = sorted({decision.note for decision in decisions if decision.note})
        why = "; ".join(notes) or "there is no attention whose heads are known, `register_module` can tell of it"
        raise ValueError(f"heads: True reaches no attention head: {why}")


def _warn_below_half(decisions: Iterable[Decision]) -> None:
    """Warn if less than half of the weights are regularized, for other reasons than that they were not selected."""
    weights = [each for each in decisions if each.kind not in ("bias", "norm") and each.reason not in CHOSEN]
    every = sum(each.parameter.numel() for each in weights)
    reached = sum(each.parameter.numel() for each in weights if each.regularizer is not None)
    if reached < 0.5 * every:
        warnings.warn(
            f"only {reached} of {every} weights are regularized ({reached / every:.0%}); not: {_reasons(weights)}. "
            "Printing the groups shows every parameter.",
            stacklevel=3,
        )


def _reasons(decisions: Iterable[Decision]) -> str:
    """How many entries are not regularized for which reasons, the largest numbers first."""
    counts: Counter[str] = Counter()
    for decision in decisions:
        if decision.regularizer is None:
            counts[decision.reason] += decision.parameter.numel()
    words = [f"{entries} {reason}" for reason, entries in counts.most_common()]
    return "; ".join(words[:6]) + (f"; and {len(words) - 6} more reasons" if len(words) > 6 else "")


def _spell_out(regularizer: Regularizer | None) -> str:
    """The regularizer on one line, without what is at its default, the axes aside."""
    if regularizer is None:
        return "-"
    words = [f"{regularizer.weight:g}"]
    for field in fields(regularizer):
        value = getattr(regularizer, field.name)
        if field.name == "spans" and value is not None:
            value = f"{len(value)} tensors"
        if field.name != "weight" and (field.name == "dims" or value != field.default):
            words.append(f"{field.name}={value}")
    return f"{type(regularizer).__name__}({', '.join(words)})"
