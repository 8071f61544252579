"""What a regularizer does to a torch model: which parameters carry it, and what structure they show."""

from ramda_theory.model.groups import ParamGroups, structured_param_groups
from ramda_theory.model.registry import Axes, Slices, register_module
from ramda_theory.model.report import StructureReport, structure_report
from ramda_theory.model.tracker import StructureTracker

__all__ = [
    "Axes",
    "ParamGroups",
    "Slices",
    "StructureReport",
    "StructureTracker",
    "register_module",
    "structure_report",
    "structured_param_groups",
]
