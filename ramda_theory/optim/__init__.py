"""RAMDA, RMDA, ProxSGD and ProxAdamW as torch optimizers, and what goes with them."""

from ramda_theory.optim.chains import removable_parameters
from ramda_theory.optim.param_groups import ParamGroups, structured_param_groups
from ramda_theory.optim.prox_adamw import ProxAdamW
from ramda_theory.optim.prox_sgd import ProxSGD
from ramda_theory.optim.ramda import RAMDA
from ramda_theory.optim.report import StructureReport, structure_report
from ramda_theory.optim.rmda import RMDA
from ramda_theory.optim.schedule import StageSchedule
from ramda_theory.optim.tracker import StructureTracker

__all__ = [
    "RAMDA",
    "RMDA",
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
