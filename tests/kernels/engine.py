"""Optimizers on an engine: one that is named, or (``"default"``) whichever takes a tensor."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib.util import find_spec

from ramda_theory import kernels
from ramda_theory.kernels.triton import support

INTERPRETED = "triton" in sys.modules and find_spec("triton") is not None and support.interpreted()
"""Whether Triton's kernels can be tested here, on the CPU (`conftest`)."""
ENGINES = ("eager", "default")
EVERY_ENGINE = (*ENGINES, *(["triton"] if INTERPRETED else []))
"""With the one that takes seconds here for what it does in microseconds on a device."""


def forced(engine):
    """A block in which steps use the engine."""
    return nullcontext() if engine == "default" else kernels.using(engine)


def optimizer(engine, cls, params, **options):
    """An optimizer whose steps, inside `forced`, use the engine."""
    return cls(params, **options)
