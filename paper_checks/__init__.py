"""Every claim of the paper, checked by running it; ``python -m paper_checks``."""

from __future__ import annotations

import importlib

from paper_checks.check import Check

MODULES: tuple[str, ...] = (
    "theorem_1",
    "theorem_2",
    "theorem_2_conditions",
    "theorem_3",
    "theorem_3_iterates",
    "theorem_3_mcp",
    "restarts",
    "theorem_4",
    "variance_reduction",
    "rivals",
    "certificates",
    "online",
    "second_phases",
    "settled",
    "table_1",
    "table_2",
    "table_7",
    "table_8",
    "slips",
)
"""One module per claim, in the paper's order; each has a tuple ``CHECKS``."""


def all_checks() -> list[Check]:
    """The checks of all modules."""
    return [item for name in MODULES for item in importlib.import_module(f"paper_checks.{name}").CHECKS]
