"""The regularizers psi; see `Regularizer` for what each of them can do, and for how to write another."""

from ramda_theory.regularizers.base import Regularizer
from ramda_theory.regularizers.elastic_net import ElasticNet
from ramda_theory.regularizers.group_lasso import GroupLasso
from ramda_theory.regularizers.group_mcp import GroupMCP
from ramda_theory.regularizers.grouped import Reshaped
from ramda_theory.regularizers.l1 import L1
from ramda_theory.regularizers.mcp import MCP
from ramda_theory.regularizers.nuclear_norm import NuclearNorm
from ramda_theory.regularizers.scad import SCAD
from ramda_theory.regularizers.sparse_group_lasso import SparseGroupLasso

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
