"""RAMDA, RMDA, ProxSGD, ProxAdamW and NormalMapSGD as torch optimizers, and what goes with them."""

from ramda_theory.model.coupling import removable_parameters
from ramda_theory.model.groups import ParamGroups, structured_param_groups
from ramda_theory.model.report import StructureReport, structure_report
from ramda_theory.model.tracker import StructureTracker
from ramda_theory.optim.normal_map import NormalMapSGD
from ramda_theory.optim.prox_adamw import ProxAdamW
from ramda_theory.optim.prox_sgd import ProxSGD
from ramda_theory.optim.ramda import RAMDA
from ramda_theory.optim.rmda import RMDA
from ramda_theory.optim.schedule import StageSchedule

__all__ = [
    "RAMDA",
    "RMDA",
    "NormalMapSGD",
    "ParamGroups",
    "ProxAdamW",
    "ProxSGD",
    "StageSchedule",
    "StructureReport",
    "StructureTracker",
    "removable_parameters",
    "structure_report",
    "structured_param_groups",
]
