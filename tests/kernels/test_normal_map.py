"""NormalMapSGD on every engine against `methods.NSGD`, which is held against a loop over floats elsewhere."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from engine import ENGINES, forced

from ramda_theory.methods import NSGD, Settings
from ramda_theory.optim import NormalMapSGD, StageSchedule
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    SparseGroupLasso,
)

TAU, LR, STEPS = 2.0, 0.3, 12
PSI = {
    "None": None,
    "L1": L1(0.3),
    "ElasticNet": ElasticNet(0.3, 0.2),
    "MCP": MCP(0.3, 4.0),
    "SCAD": SCAD(0.3, 4.0),
    "GroupLasso": GroupLasso(0.5),
    "GroupLasso rows": GroupLasso(1.0, dims=(1,)),
    "SparseGroupLasso": SparseGroupLasso(0.5, 0.4),
    "GroupMCP": GroupMCP(0.5, 4.0),
    "NuclearNorm": NuclearNorm(0.8),
}


def drawn(seed: int = 0, shape=(9, 14)):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=shape[1]))
    start = rng.normal(size=shape) * scale
    start[:, 0] = 0.0
    target = start + rng.normal(size=shape) * 0.3
    noise = 0.2 * rng.normal(size=(STEPS, *shape))
    return start, target, noise


def expected(psi, start, target, noise, lrs, sign=1.0, left_out=()):
    method = NSGD(psi, TAU)
    state = method.init(start)
    states = []
    for t in range(STEPS):
        if t not in left_out:
            gradient = sign * (state.w - target + noise[t])
            state, _ = method.step(state, gradient, Settings(lrs[t]))
        states.append(state)
    return states


def stepped(engine, psi, dtype, lrs, sign=1.0, bad=(), **options):
    """Yields the parameter and the optimizer after every step."""
    start, target, noise = drawn()
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=dtype))
    optimizer = NormalMapSGD([parameter], lr=options.pop("lr", LR), prox_step=TAU, regularizer=psi, **options)
    for t in range(STEPS):
        (group,) = optimizer.param_groups
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lrs[t])
        else:
            group["lr"] = lrs[t]
        w = optimizer.state[parameter].get("w", parameter).detach() if optimizer.state else parameter.detach()
        gradient = sign * (w.double() - torch.tensor(target) + torch.tensor(noise[t]))
        parameter.grad = gradient.to(dtype)
        if t in bad:
            parameter.grad[0, 0] = torch.nan
        with forced(engine):
            optimizer.step()
        yield parameter, optimizer


CASES = {
    "plain": ({}, LR, ()),
    "maximize": ({"maximize": True}, LR, ()),
    "lr 0": ({}, 0.0, ()),
    "tensor lr": ({"lr": torch.tensor(LR, dtype=torch.float64)}, 0.0, ()),
    "skip": ({"on_nonfinite": "skip"}, LR, (2, 7)),
    "ignore, capturable": ({"on_nonfinite": "ignore", "capturable": True}, LR, ()),
    "foreach": ({"foreach": True}, LR, ()),
}


EACH = [(name, "plain") for name in PSI] + [("GroupLasso", case) for case in CASES if case != "plain"]
EACH += [("L1", "tensor lr"), ("L1", "skip"), ("NuclearNorm", "skip")]


@pytest.mark.parametrize(("name", "case"), EACH)
@pytest.mark.parametrize("engine", ENGINES)
def test_follows_the_numpy_method(engine, name, case):
    """float64 to rounding (which only the eager engine takes), float32 to its own; lr 0 in two of the steps."""
    options, pause, bad = CASES[case]
    sign = -1.0 if options.get("maximize") else 1.0
    lrs = [pause if t in (3, 4) else LR for t in range(STEPS)]
    start, target, noise = drawn()
    for dtype, accuracy in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        states = expected(PSI[name], start, target, noise, lrs, left_out=bad)
        before = torch.tensor(start, dtype=dtype)
        zeros = 0
        for t, (parameter, optimizer) in enumerate(
            stepped(engine, PSI[name], dtype, lrs, sign, bad, **copy.deepcopy(options))
        ):
            w = parameter.detach()
            if lrs[t] == 0.0 or t in bad:
                assert torch.equal(w, before)
            if name not in ("MCP", "SCAD", "GroupMCP") or dtype is torch.float64:  # no float32 at a jump
                np.testing.assert_allclose(w.numpy(), states[t].w, rtol=0, atol=accuracy * 10)
                z = optimizer.state[parameter]["normal_map"]
                np.testing.assert_allclose(z.numpy(), states[t].z, rtol=0, atol=accuracy * 30)
            before, zeros = w.clone(), int((w == 0).sum())
        assert float(optimizer.state[parameter]["step"]) == STEPS - len(bad)
        assert zeros > 0 or name in ("None", "NuclearNorm")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ENGINES)
def test_half_precision_parameters_have_float32_copies(engine, dtype):
    lrs = [LR] * STEPS
    *_, (parameter, optimizer) = stepped(engine, PSI["GroupLasso"], dtype, lrs)
    state = optimizer.state[parameter]
    assert state["normal_map"].dtype is torch.float32 and torch.equal(state["w"].to(dtype), parameter.detach())
    start, target, noise = drawn()
    start = torch.tensor(start, dtype=dtype).double().numpy()
    states = expected(PSI["GroupLasso"], start, target, noise, lrs)
    np.testing.assert_allclose(state["w"].numpy(), states[-1].w, rtol=0, atol=0.05)


def test_the_compiled_engine_takes_it_and_says_so():
    parameter = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = NormalMapSGD([parameter], regularizer=GroupLasso(0.1))
    assert optimizer.explain_step().rows[0][1] == "cpu"


@pytest.mark.parametrize("name", PSI)
def test_z_starts_where_its_proximal_point_is_w(name):
    """A first step with lr 0 leaves W, and with no gradient W moves towards the minimiser of psi."""
    psi, start = PSI[name], drawn()[0]
    state = NSGD(psi, TAU).init(start)
    if psi is None or psi.convex:
        np.testing.assert_allclose(start if psi is None else psi.prox(state.z, TAU), start, rtol=1e-12, atol=1e-12)
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = NormalMapSGD([parameter], lr=0.0, prox_step=TAU, regularizer=psi)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.tensor(start))
    np.testing.assert_allclose(optimizer.state[parameter]["normal_map"].numpy(), state.z, rtol=1e-12, atol=1e-13)


def test_a_checkpoint_goes_on_to_the_same_bits():
    start, target, noise = drawn()
    runs = []
    for cut in (None, 5):
        parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
        optimizer = NormalMapSGD([parameter], lr=LR, prox_step=TAU, regularizer=GroupLasso(0.2))
        schedule = StageSchedule(optimizer, [4, 8], 0.5)
        for t in range(STEPS):
            if t == cut:
                file = io.BytesIO()
                torch.save([parameter.data, optimizer.state_dict(), schedule.state_dict()], file)
                file.seek(0)
                data, state, counted = torch.load(file, weights_only=True)
                parameter = torch.nn.Parameter(data)
                optimizer = NormalMapSGD([parameter], regularizer=None)
                optimizer.load_state_dict(state)
                schedule = StageSchedule(optimizer, [4, 8], 0.5)
                schedule.load_state_dict(counted)
            parameter.grad = parameter.detach() - torch.tensor(target + noise[t], dtype=torch.float32)
            optimizer.step()
            schedule.step()
        runs.append((parameter.detach(), optimizer.state[parameter]["normal_map"], optimizer.param_groups[0]["lr"]))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert runs[0][2] == runs[1][2] == pytest.approx(0.25 * LR)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_the_prox_step_must_be_positive(bad):
    with pytest.raises(ValueError, match="prox_step must be"):
        NormalMapSGD([torch.nn.Parameter(torch.zeros(2))], prox_step=bad)
