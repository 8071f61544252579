"""Optimizers on an engine: one that is named, or (``"default"``) whichever takes a tensor."""

from __future__ import annotations

from contextlib import nullcontext

from ramda_theory import kernels
from ramda_theory.optim import RAMDA

ENGINES = ("eager", "default")


def forced(engine):
    """A block in which steps use the engine."""
    return nullcontext() if engine == "default" or not hasattr(kernels, "using") else kernels.using(engine)


def optimizer(engine, cls, params, **options):
    """An optimizer whose steps, inside `forced`, use the engine."""
    if cls is RAMDA and not hasattr(kernels, "using"):
        options.setdefault("fused", False if engine == "eager" else None)
    return cls(params, **options)
