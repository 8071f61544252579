"""Optimizers on an engine: one that is named, or (``"default"``) whichever takes a tensor."""

from __future__ import annotations

from contextlib import nullcontext

from ramda_theory import kernels

ENGINES = ("eager", "default")


def forced(engine):
    """A block in which steps use the engine."""
    return nullcontext() if engine == "default" else kernels.using(engine)


def optimizer(engine, cls, params, **options):
    """An optimizer whose steps, inside `forced`, use the engine."""
    return cls(params, **options)
