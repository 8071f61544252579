"""RAMDA, RMDA, ProxSGD and ProxAdamW as torch optimizers, and what goes with them."""

from ramda_theory.optim.prox_adamw import ProxAdamW
from ramda_theory.optim.prox_sgd import ProxSGD
from ramda_theory.optim.ramda import RAMDA
from ramda_theory.optim.rmda import RMDA
from ramda_theory.optim.schedule import StageSchedule

__all__ = [
    "RAMDA",
    "RMDA",
    "ProxAdamW",
    "ProxSGD",
    "StageSchedule",
]
