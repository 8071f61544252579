"""A small noisy quadratic on lists of floats, and any method taking steps on it in any array library."""

from __future__ import annotations

import math

import numpy as np
from backends import to_numpy

from ramda_theory.methods import Settings

SHAPE = (4, 3)
GROUPS = [[3 * row + column for column in range(3)] for row in range(4)]
STEPS = 60


def data(seed: int = 0):
    """A start and the noisy gradient of a quadratic with eigenvalues in 0.5 .. 2, on lists of floats.

    The quadratic's minimiser is zero in two of the four rows.
    """
    rng = np.random.default_rng(seed)
    size = math.prod(SHAPE)
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    hessian = (q * rng.uniform(0.5, 2.0, size)) @ q.T
    target = 2.0 * rng.standard_normal(size) * np.repeat([0, 1, 0, 1], 3)
    matrix, shift = hessian.tolist(), (hessian @ target).tolist()
    noise = (0.3 * rng.standard_normal((STEPS + 1, size))).tolist()
    start = rng.standard_normal(size)
    start[:3] = 0.0

    def gradient(w: list[float], t: int) -> list[float]:
        products = [math.fsum(a * x for a, x in zip(row, w, strict=True)) for row in matrix]
        return [product - b + e for product, b, e in zip(products, shift, noise[t], strict=True)]

    return start.tolist(), gradient


def varying(t: int) -> Settings:
    """Settings that change from step to step, as the recurrences allow."""
    return Settings(0.2 / (1.0 + 0.05 * t), min(1.0, 0.1 + 0.02 * t), 1e-3 * (1.0 + 1.0 / t))


def steps_of(method, backend, settings=varying, count: int = STEPS, seed: int = 0):
    """States after every step of ``method`` on the data of `data`."""
    start, gradient = data(seed)
    state = method.init(backend.array(np.reshape(start, SHAPE)))
    for t in range(1, count + 1):
        g = gradient(to_numpy(state.query).ravel().tolist(), t)
        state, _ = method.step(state, backend.array(np.reshape(g, SHAPE)), settings(t))
        yield state


def numbers(settings=varying, count: int = STEPS):
    return [(s.lr, s.averaging, s.eps) for s in map(settings, range(1, count + 1))]
