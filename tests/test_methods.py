"""The methods against loops over Python floats, their purity, and what they refuse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import recurrences
import torch
from backends import DOUBLE, NUMPY32, NUMPY64, TORCH32, to_numpy
from hypothesis import given
from hypothesis import strategies as st
from stepping import GROUPS, SHAPE, STEPS, data, numbers, steps_of, varying

from ramda_theory.methods import (
    FISTA,
    MADGRAD,
    MDA,
    NSGD,
    RAMDA,
    RDA,
    RMDA,
    FullGradient,
    ProxGen,
    ProxSGD,
    SampledGradient,
    Schedule,
    Settings,
)
from ramda_theory.problems import lasso
from ramda_theory.regularizers import L1, MCP, GroupLasso, NuclearNorm
from ramda_theory.run import run

PENALTIES = {"none": (None, 0.0, None), "l1": (L1(0.3), 0.3, None), "groups": (GroupLasso(0.3, dims=(1,)), 0.3, GROUPS)}


def assert_follows(states, expected) -> None:
    """W_t and What_t of all steps equal the expected lists to 1e-12, with the same zeros."""
    for t, (state, (w, w_hat)) in enumerate(zip(states, expected, strict=True), start=1):
        for name, array, values in (("w", state.w, w), ("w_hat", state.w_hat, w_hat)):
            found = to_numpy(array).ravel()
            assert np.max(np.abs(found - values)) <= 1e-12 * (1.0 + np.max(np.abs(values))), (t, name)
            assert ((found == 0) == (np.asarray(values) == 0)).all(), (t, name)


on_doubles = pytest.mark.parametrize("backend", DOUBLE, ids=str)
each_penalty = pytest.mark.parametrize("penalty", PENALTIES)


# -- trajectories ---------------------------------------------------------------------------------------------------


@on_doubles
@each_penalty
@pytest.mark.parametrize("name", ["RAMDA", "RMDA", "RDA", "ProxSGD", "ProxGen", "NSGD", "PG", "FISTA"])
def test_trajectories_follow_the_recurrences(name, penalty, backend):
    psi, weight, groups = PENALTIES[penalty]
    start, gradient = data()
    method, loop, options = {
        "RAMDA": (RAMDA(psi), recurrences.ramda, {}),
        "RMDA": (RMDA(psi), recurrences.ramda, {"metric": "sqrt t"}),
        "RDA": (RDA(psi), recurrences.rda, {}),
        "NSGD": (NSGD(psi, 1.5), recurrences.nsgd, {"tau": 1.5}),
        "ProxSGD": (ProxSGD(psi), recurrences.prox_sgd, {}),
        "ProxGen": (ProxGen(psi, eps=0.2, weight_decay=0.1), recurrences.prox_gen, {"eps": 0.2, "decay": 0.1}),
        "PG": (FISTA(psi, accelerate=False), recurrences.proximal_gradient, {"accelerate": False}),
        "FISTA": (FISTA(psi), recurrences.proximal_gradient, {}),
    }[name]
    expected = list(loop(start, gradient, numbers(), weight, groups, **options))
    assert_follows(steps_of(method, backend), expected)
    if penalty != "none":  # the case has zeros and nonzeros to tell apart
        assert 0 < np.count_nonzero(expected[-1][1]) < math.prod(SHAPE)


def test_fista_restarts_in_its_trajectory():
    """The comparison above covers both branches of the restart."""
    momenta = [state.momentum for state in steps_of(FISTA(PENALTIES["l1"][0]), NUMPY64)]
    first = 0.5 * (1.0 + math.sqrt(5.0))
    assert momenta[0] == first and momenta[1] > first and first in momenta[2:]


@on_doubles
@pytest.mark.parametrize(("method", "options"), [(MADGRAD(), {}), (MDA(), {"metric": "sqrt t"})], ids=["RAMDA", "RMDA"])
def test_unregularized_methods_follow_their_recurrences(method, options, backend):
    start, gradient = data(1)
    assert_follows(steps_of(method, backend, seed=1), recurrences.ramda(start, gradient, numbers(), **options))
    for state in steps_of(method, backend, seed=1):
        anchor, v, p = (to_numpy(a) for a in (state.anchor, state.grad_sum, state.metric))
        np.testing.assert_allclose(to_numpy(state.w_hat), anchor - v / p, rtol=1e-13, atol=1e-14)


@on_doubles
@pytest.mark.parametrize("given", ["array", "function"])
def test_prox_gen_in_a_given_metric(given, backend):
    diagonal = np.linspace(0.5, 3.0, 12)
    psi, weight, groups = PENALTIES["groups"]
    start, gradient = data(2)

    def at(t: int):
        return diagonal if given == "array" else diagonal * (1.0 + 1.0 / t)

    def as_array(t: int):
        return backend.array(np.reshape(at(t), SHAPE))

    method = ProxGen(psi, metric=as_array(1) if given == "array" else as_array)
    expected = recurrences.prox_gen(start, gradient, numbers(), weight, groups, metric=lambda t: at(t).tolist())
    assert_follows(steps_of(method, backend, seed=2), expected)


@on_doubles
def test_prox_gen_with_vanishing_momentum(backend):
    """Theorem 4's rho_t = rho_0 mu^(t-1), whose bias correction is a product of different numbers."""
    psi, weight, groups = PENALTIES["l1"]
    start, gradient = data(3)
    rho = [0.9 * 0.8**t for t in range(STEPS)]
    expected = recurrences.prox_gen(start, gradient, numbers(), weight, groups, beta1=lambda t: rho[t - 1], beta2=0.99)
    assert_follows(steps_of(ProxGen(psi, betas=(lambda t: rho[t - 1], 0.99)), backend, seed=3), expected)


@pytest.mark.parametrize("backend", [NUMPY32, TORCH32], ids=str)
@pytest.mark.parametrize(
    "method",
    [RAMDA(L1(0.3)), RMDA(L1(0.3)), ProxSGD(L1(0.3)), ProxGen(L1(0.3)), FISTA(L1(0.3)), NSGD(L1(0.3)), RDA(L1(0.3))],
)
def test_float32_states_stay_float32(method, backend):
    for single, double in zip(steps_of(method, backend), steps_of(method, NUMPY64), strict=True):
        for field in dataclasses.fields(single):
            value = getattr(single, field.name)
            assert value is None or isinstance(value, (int, float)) or backend.dtype in str(value.dtype), field.name
        np.testing.assert_allclose(to_numpy(single.w), double.w, rtol=0, atol=2e-5)


def test_a_restart_of_fista_keeps_w_and_drops_momentum():
    method = FISTA(L1(0.1))
    state = list(steps_of(method, NUMPY64, count=5))[-1]
    assert not np.array_equal(state.query, state.w)
    again = method.restart(state, varying(6))
    assert again.query is state.w and again.w is state.w and again.momentum == 1.0


# -- averaging and purity -------------------------------------------------------------------------------------------


@on_doubles
def test_averaging_is_exact_where_it_can_be(backend):
    """c = 1 gives What itself; equal arguments give themselves at any c."""
    for state in steps_of(RAMDA(L1(0.3)), backend, lambda t: Settings(0.1, 1.0)):
        assert state.w is state.w_hat
    from ramda_theory.methods.state import average

    rng = np.random.default_rng(0)
    x = backend.array(rng.standard_normal(1000) * 10.0 ** rng.uniform(-150, 150, 1000))
    for c in (0.0, 1e-3, 0.1, 1 / 3, 0.5, 0.7, 0.9, 1 - 2**-53, 1.0):
        assert (to_numpy(average(x, x, c)) == to_numpy(x)).all()
        y = average(x, 2.0 * x, c)
        np.testing.assert_allclose(to_numpy(y), (1 + c) * to_numpy(x), rtol=4e-16)


METHODS = st.sampled_from(
    [
        RAMDA(L1(0.1)),
        RAMDA(GroupLasso(0.1, dims=(1,))),
        RAMDA(NuclearNorm(0.1)),
        RAMDA(L1(0.1), solver="proximal_gradient"),
        RMDA(GroupLasso(0.1, dims=(0,))),
        ProxSGD(MCP(0.1, 3.0)),
        ProxGen(L1(0.1), weight_decay=0.01),
        FISTA(L1(0.1)),
        FISTA(None, accelerate=False),
    ]
)


def frozen(array):
    array.flags.writeable = False
    return array


@given(
    method=METHODS,
    seed=st.integers(0, 2**32 - 1),
    lr=st.floats(1e-4, 10.0),
    c=st.floats(0.0, 1.0),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_steps_are_pure(method, seed, lr, c, shape):
    """Read-only arguments are enough, nothing of them changes, and the same arguments give the same state."""
    rng = np.random.default_rng(seed)
    start = frozen(rng.standard_normal(shape))
    state = method.init(start)
    assert not np.shares_memory(state.w, start)
    settings = Settings(lr, c, 1e-3, 1e-8)
    for _ in range(3):
        gradient = frozen(rng.standard_normal(shape))
        for field in dataclasses.fields(state):
            if isinstance(getattr(state, field.name), np.ndarray):
                frozen(getattr(state, field.name))
        copies = {f.name: np.copy(getattr(state, f.name)) for f in dataclasses.fields(state)}
        one, _ = method.step(state, gradient, settings)
        two, _ = method.step(state, gradient, settings)
        restarted = method.restart(one, settings, 5)
        again = method.restart(one, settings, 5)
        for first, second in ((one, two), (restarted, again)):
            for field in dataclasses.fields(first):
                np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
        for name, copy in copies.items():
            np.testing.assert_array_equal(getattr(state, name), copy)
        state = one


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-8, 1.0, 1e8]))
def test_rmda_scales_with_the_units_of_w(seed, scale):
    """W in other units: anchor, prox argument and lambda scale along, so that a wrong power of beta_t would show."""
    rng = np.random.default_rng(seed)
    start, gradients = rng.standard_normal(5), rng.standard_normal((6, 5))
    one, other = RMDA(L1(0.2)), RMDA(L1(0.2 * scale))
    state, scaled = one.init(start), other.init(scale * start)
    for g in gradients:
        state, _ = one.step(state, g, Settings(0.3, 0.5))
        scaled, _ = other.step(scaled, scale * g, Settings(0.3, 0.5))
        np.testing.assert_allclose(scaled.w, scale * state.w, rtol=1e-12, atol=1e-14 * scale)


@pytest.mark.parametrize("psi", [None, L1(0.3), GroupLasso(0.3, dims=(1,)), MCP(0.3, 3.0), NuclearNorm(0.3)], ids=str)
@pytest.mark.parametrize("kind", [RAMDA, RMDA, ProxSGD, ProxGen, FISTA, NSGD, RDA])
def test_a_learning_rate_of_zero_moves_nothing(kind, psi):
    start = np.vstack([np.zeros((1, 3)), np.random.default_rng(0).standard_normal((3, 3))])
    method = kind(psi)
    state = method.init(start)
    for _ in range(3):
        state, _ = method.step(state, np.ones((4, 3)), Settings(0.0, 0.5))
        np.testing.assert_allclose(state.w, start, rtol=1e-14, atol=2e-15)
        assert (state.w[0] == 0).all() or isinstance(psi, NuclearNorm)


# -- at the door ----------------------------------------------------------------------------------------------------


@on_doubles
@pytest.mark.parametrize("method", [RAMDA(L1(1.0)), RMDA(), ProxSGD(), ProxGen(), FISTA(), NSGD(), RDA()])
def test_bad_gradients_are_refused(method, backend):
    state = method.init(backend.array(np.zeros(3)))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="gradient must be finite"):
            method.step(state, backend.array([0.0, bad, 0.0]), Settings(0.1))
    for shape in ((1, 3), (4,), ()):
        with pytest.raises(ValueError, match="shapes must agree, got gradient"):
            method.step(state, backend.array(np.zeros(shape)), Settings(0.1))
    other = torch.zeros(3, dtype=torch.float64) if backend.library == "numpy" else np.zeros(3)
    with pytest.raises(TypeError, match="all of one library"):
        method.step(state, other, Settings(0.1))
    with pytest.raises(TypeError, match="gradient must have a real floating dtype"):
        method.step(state, np.zeros(3, int) if backend.library == "numpy" else torch.zeros(3, dtype=int), Settings(0.1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RAMDA("l1"), TypeError, "regularizer must be a Regularizer or None, got 'l1'"),
        (lambda: ProxSGD(0.1), TypeError, "regularizer must be"),
        (lambda: NSGD(0.1), TypeError, "regularizer must be"),
        (lambda: NSGD(None, 0.0), ValueError, "prox_step must be"),
        (lambda: ProxGen(betas=(1.0, 0.9)), ValueError, r"betas must lie in \[0, 1\), got \(1.0, 0.9\)"),
        (lambda: ProxGen(betas=(0.9, -0.1)), ValueError, "betas must lie in"),
        (lambda: ProxGen(betas=(0.9,)), ValueError, "betas must be a pair"),
        (lambda: ProxGen(betas=(0.9, lambda t: 0.9)), ValueError, "betas must be a pair"),
        (lambda: ProxGen(betas=("a", 0.9)), TypeError, "betas must be a real number"),
        (lambda: ProxGen(eps=0.0), ValueError, "eps must be finite and > 0, got 0.0"),
        (lambda: ProxGen(weight_decay=-1.0), ValueError, "weight_decay must be finite and >= 0, got -1.0"),
        (lambda: RAMDA().init(np.zeros(3, int)), TypeError, "w must have a real floating dtype"),
        (lambda: RAMDA().init([0.0]), TypeError, "expected NumPy arrays or torch tensors"),
        (lambda: Settings(-1.0), ValueError, "lr must be finite and >= 0, got -1.0"),
        (lambda: Settings(math.nan), ValueError, "lr must be"),
        (lambda: Settings(1.0, 1.5), ValueError, r"averaging must be in \[0, 1\], got 1.5"),
        (lambda: Settings(1.0, math.nan), ValueError, "averaging must be"),
        (lambda: Settings(1.0, eps=0.0), ValueError, "eps must be finite and > 0, got 0.0"),
        (lambda: Settings(1.0, tolerance=-1e-9), ValueError, "tolerance must be finite and >= 0"),
        (lambda: Settings(1.0, tolerance=math.inf), ValueError, "tolerance must be"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ProxGen(betas=(lambda t: 1.0, 0.9)), "rho_1 is 1.0"),
        (ProxGen(metric=np.ones(4)), r"metric \(4,\), w \(3,\)"),
        (ProxGen(metric=np.array([1.0, 0.0, 1.0])), "metric must be finite and positive everywhere, at step 1"),
        (ProxGen(metric=lambda t: np.array([1.0, np.nan, 1.0])), "metric must be finite and positive"),
        (RAMDA(solver="newton"), "method must be one of"),
        (RAMDA(MCP(1.0, 2.0), solver="accelerated"), "accelerated needs a convex regularizer"),
    ],
)
def test_bad_arguments_that_show_in_a_step_are_refused(method, message):
    with pytest.raises(ValueError, match=message):
        method.step(method.init(np.zeros(3)), np.ones(3), Settings(0.1))


def test_one_seed_one_trajectory():
    problem = lasso()
    gradients = SampledGradient(20, seed=3)
    first, second = (run(problem, RAMDA(L1(0.1)), Schedule(0.1), 30, gradients=gradients) for _ in range(2))
    np.testing.assert_array_equal(first.state.w, second.state.w)
    other = run(problem, RAMDA(L1(0.1)), Schedule(0.1), 30, gradients=SampledGradient(20, seed=4))
    assert not np.array_equal(first.state.w, other.state.w)
    full = run(problem, RAMDA(L1(0.1)), Schedule(0.1), 30, gradients=FullGradient())
    assert not np.array_equal(first.state.w, full.state.w)
