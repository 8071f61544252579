"""Short runs of every method, what it means for two to be the same, and oracles that break them."""

from __future__ import annotations

import dataclasses

import numpy as np

from ramda_theory.methods import FISTA, MADGRAD, NSGD, RAMDA, RDA, RMDA, ProxGen, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import lasso
from ramda_theory.run import run
from ramda_theory.subproblem import PolynomialTolerance

STEPS, MILESTONES = 36, (12, 24)
SCHEDULE = Schedule(0.05, 0.3, milestones=MILESTONES, grow_averaging=True, memory=5, tolerance=PolynomialTolerance(0.1))
BATCHES = SampledGradient(30, seed=2)
PROBLEM = lasso()
METHODS = {
    "RAMDA": RAMDA(PROBLEM.regularizer),
    "RAMDA inexact": RAMDA(PROBLEM.regularizer, solver="proximal_gradient"),
    "RMDA": RMDA(PROBLEM.regularizer),
    "RDA": RDA(PROBLEM.regularizer),
    "ProxSGD": ProxSGD(PROBLEM.regularizer),
    "NSGD": NSGD(PROBLEM.regularizer, 0.5),
    "ProxAdamW": ProxGen(PROBLEM.regularizer, weight_decay=0.01),
    "MADGRAD": MADGRAD(),
    "FISTA": FISTA(PROBLEM.regularizer),
}


def go(method, steps=STEPS, problem=PROBLEM, schedule=SCHEDULE, gradients=BATCHES, measure_every=5, **options):
    return run(problem, method, schedule, steps, gradients=gradients, measure_every=measure_every, **options)


def assert_same(one, other) -> None:
    """Bit for bit the same state and record; the clock apart."""
    assert type(one.state) is type(other.state)
    for field in dataclasses.fields(one.state):
        first, second = getattr(one.state, field.name), getattr(other.state, field.name)
        if isinstance(first, np.ndarray):
            assert first.tobytes() == second.tobytes() and first.dtype == second.dtype, field.name
        else:
            assert type(first) is type(second) and first == second, field.name
    arrays, others = one.record.to_arrays(), other.record.to_arrays()
    assert arrays.keys() == others.keys()
    assert one.record.metrics.names == other.record.metrics.names
    for key in arrays.keys() - {"metrics"}:
        assert arrays[key].tobytes() == others[key].tobytes(), key
    for name in one.record.metrics.names:
        if name != "seconds":
            np.testing.assert_array_equal(one.record.metrics[name], other.record.metrics[name])


class Stop(Exception):
    pass


class Interrupting:
    """A gradient oracle that raises ``error`` at the given steps, once each."""

    def __init__(self, gradients, steps, error=Stop) -> None:
        self.gradients, self.steps, self.error = gradients, set(steps), error

    def __call__(self, problem, w, t):
        if t in self.steps:
            self.steps.remove(t)
            raise self.error
        return self.gradients(problem, w, t)

    def steps_per_epoch(self, problem):
        return self.gradients.steps_per_epoch(problem)

    def __repr__(self) -> str:
        return repr(self.gradients)
