"""The regularizers psi; see `Regularizer` for what each of them can do."""

from ramda_theory.regularizers.base import Regularizer
from ramda_theory.regularizers.grouped import GroupLasso, GroupMCP, SparseGroupLasso
from ramda_theory.regularizers.reshaped import Reshaped
from ramda_theory.regularizers.separable import L1, MCP, SCAD, ElasticNet
from ramda_theory.regularizers.spectral import NuclearNorm

BY_NAME: dict[str, type[Regularizer]] = {
    cls.__name__: cls
    for cls in (L1, ElasticNet, MCP, SCAD, GroupLasso, SparseGroupLasso, GroupMCP, NuclearNorm, Reshaped)
}

__all__ = [
    "L1",
    "MCP",
    "SCAD",
    "ElasticNet",
    "GroupLasso",
    "GroupMCP",
    "NuclearNorm",
    "Regularizer",
    "Reshaped",
    "SparseGroupLasso",
]
