"""The engine of GPUs: Triton kernels that step all tensors of a device at once.

Triton itself is loaded when a step first needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ramda_theory.kernels.triton import support

__all__ = ["make_table", "step_tables", "support"]


def make_table(recurrence: Any, key: Any, rows: Sequence[Any]) -> Any:
    """`ramda_theory.kernels.triton.table.Table` of some rows."""
    from ramda_theory.kernels.triton.table import Table

    return Table(recurrence, key, rows)


def step_tables(tables: Sequence[Any], found: Any, grad_scale: Any) -> None:
    """One step of all tables."""
    from ramda_theory.kernels.triton.table import step_all

    step_all(tables, found, grad_scale)
