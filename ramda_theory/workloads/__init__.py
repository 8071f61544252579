"""Data sets, models and settings of the paper's experiments, one file each, and `Workload` for one's own."""

from ramda_theory.workloads.examples import Examples, Stream, Tensors, hold_out
from ramda_theory.workloads.registry import WORKLOADS, find_workload
from ramda_theory.workloads.workload import Settings, Workload

__all__ = ["WORKLOADS", "Examples", "Settings", "Stream", "Tensors", "Workload", "find_workload", "hold_out"]
