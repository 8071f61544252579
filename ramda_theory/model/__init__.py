"""What a regularizer does to a torch model: which parameters carry it, what structure they show, and what can leave."""

from ramda_theory.model.compaction import Compaction, compact, load_compact
from ramda_theory.model.coupled import coupled_param_groups
from ramda_theory.model.groups import ParamGroups, structured_param_groups
from ramda_theory.model.registry import Axes, Slices, register_module
from ramda_theory.model.report import StructureReport, structure_report
from ramda_theory.model.sparsity_target import SparsityTarget
from ramda_theory.model.tracker import StructureTracker

__all__ = [
    "Axes",
    "Compaction",
    "ParamGroups",
    "Slices",
    "SparsityTarget",
    "StructureReport",
    "StructureTracker",
    "compact",
    "coupled_param_groups",
    "load_compact",
    "register_module",
    "structure_report",
    "structured_param_groups",
]
