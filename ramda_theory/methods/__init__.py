"""Reference methods as pure steps on typed states, for NumPy arrays and torch tensors."""

from ramda_theory.methods.dual_averaging import MADGRAD, MDA, RAMDA, RMDA, DualAveragingState
from ramda_theory.methods.gradients import FullGradient, NoisyGradient, SampledGradient
from ramda_theory.methods.normal_map import NSGD, NormalMapState
from ramda_theory.methods.proximal import FISTA, FISTAState, MomentumState, ProxGen, ProxGenState, ProxSGD
from ramda_theory.methods.schedule import Schedule
from ramda_theory.methods.simple_averaging import RDA
from ramda_theory.methods.state import Method, Settings

__all__ = [
    "FISTA",
    "MADGRAD",
    "MDA",
    "NSGD",
    "RAMDA",
    "RDA",
    "RMDA",
    "DualAveragingState",
    "FISTAState",
    "FullGradient",
    "Method",
    "MomentumState",
    "NoisyGradient",
    "NormalMapState",
    "ProxGen",
    "ProxGenState",
    "ProxSGD",
    "SampledGradient",
    "Schedule",
    "Settings",
]
