"""What a user may rely on: names, signatures, exact averaging, and clear refusals that leave everything as it was."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn
from toy import CLASSES, NoisyQuadratic, structured, train

import ramda_theory.optim
from ramda_theory import kernels
from ramda_theory.optim import (
    RAMDA,
    RMDA,
    NormalMapSGD,
    ProxAdamW,
    ProxSGD,
    StageSchedule,
    StructureTracker,
    structured_param_groups,
)
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

AVERAGED = {"momentum": 0.9, "regularizer": None, "maximize": False, "on_nonfinite": "raise"}
SIGNATURES = {
    RAMDA: {"lr": 1e-2, "momentum": 0.9, "eps": 1e-6, "regularizer": None, "maximize": False, "on_nonfinite": "raise"},
    RMDA: {"lr": 1e-1, **AVERAGED},
    ProxSGD: {"lr": 1e-1, **AVERAGED},
    ProxAdamW: {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "regularizer": None},
    NormalMapSGD: {"lr": 1e-1, "prox_step": 1.0, "regularizer": None, "maximize": False, "on_nonfinite": "raise"},
}


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_by_position_and_their_defaults(cls):
    assert cls.__name__ in ramda_theory.optim.__all__
    parameters = list(inspect.signature(cls).parameters.values())
    assert parameters[0].name == "params"
    found = {p.name: p.default for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD}
    wanted = SIGNATURES[cls]
    assert list(found.items())[: len(wanted)] == list(wanted.items())
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


OWN = {
    RAMDA: [{"momentum": 0.5, "eps": 1e-2}, {"lr": 0.2, "regularizer": GroupLasso(0.3), "momentum": 0.0}, {"eps": 1.0}],
    RMDA: [{"momentum": 0.5}, {"lr": 0.2, "regularizer": GroupLasso(0.3), "momentum": 0.0}, {"maximize": True}],
    ProxSGD: [{"momentum": 0.5}, {"lr": 0.2, "regularizer": GroupLasso(0.3), "momentum": 0.0}, {"maximize": True}],
    NormalMapSGD: [{"prox_step": 0.5}, {"lr": 0.2, "regularizer": GroupLasso(0.3)}, {"maximize": True}],
    ProxAdamW: [{"betas": (0.5, 0.9)}, {"weight_decay": 0.2, "regularizer": GroupLasso(0.3)}, {"eps": 1e-2}],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_may_differ_between_groups(cls, dtype):
    """Each group goes as an optimizer of its own with these options would."""
    problem = NoisyQuadratic(steps=20)
    together = [problem.parameter(dtype) for _ in OWN[cls]]
    groups = [{"params": [p], **own} for p, own in zip(together, OWN[cls], strict=True)]
    joint = cls(groups, lr=0.05, regularizer=L1(0.1))
    for t in range(1, 21):
        for parameter in together:
            parameter.grad = problem.gradient(parameter.detach(), t)
        joint.step()
    for parameter, own in zip(together, OWN[cls], strict=True):
        alone = problem.parameter(dtype)
        train(cls([alone], **{"lr": 0.05, "regularizer": L1(0.1), **own}), alone, problem, 20)
        assert torch.equal(parameter, alone)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_residual_costs_nothing_when_nobody_asks(cls, monkeypatch):
    """No residual is computed, and no problem built to compute it from."""

    def refuse(*_):
        raise AssertionError("asked for")

    monkeypatch.setattr("ramda_theory.kernels.eager.solve.judge", refuse)
    monkeypatch.setattr("ramda_theory.kernels.eager.solve.Subproblem", refuse)
    problem = NoisyQuadratic(steps=3)
    parameter = problem.parameter()
    optimizer = cls([parameter], regularizer=GroupLasso(0.3))
    train(optimizer, parameter, problem, 3)
    assert not optimizer.inexactness
    if cls in (RAMDA, ProxAdamW):
        optimizer.record_inexactness = True
        with pytest.raises(AssertionError, match="asked for"):
            train(optimizer, parameter, problem, 1)


PSIS = [None, L1(0.3), ElasticNet(0.3, 0.1), GroupLasso(0.3), SparseGroupLasso(0.3, 0.5)]


@pytest.mark.parametrize("psi", PSIS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", [RAMDA, RMDA])
def test_averaging_with_c_of_one_is_what_exactly(cls, dtype, psi):
    problem = NoisyQuadratic(shape=(30, 40), steps=10)
    parameter = problem.parameter(dtype)
    optimizer = cls([parameter], lr=0.05, momentum=0.0, regularizer=psi)
    with kernels.using("eager"):
        train(optimizer, parameter, problem, 10)
    assert torch.equal(parameter, structured(optimizer, parameter))


@pytest.mark.parametrize("fused", [False, None], ids=["plain", "fastest"])
@pytest.mark.parametrize("psi", PSIS, ids=repr)
def test_averaging_a_point_with_itself_changes_no_bit(psi, fused):
    """A stage that starts at What = W and has gradients for which it stays there: 0, and the group norm's own -lam."""
    w = torch.tensor(np.random.default_rng(0).normal(size=(30, 40)), dtype=torch.float32)
    parameter = nn.Parameter(w if psi is None else 0 * w)
    start = parameter.detach().clone()
    optimizer = RAMDA([parameter], lr=0.05, momentum=0.7, regularizer=psi, fused=fused)
    for _ in range(50):
        parameter.grad = torch.zeros_like(start) if psi is None else 1e-3 * w
        optimizer.step()
    assert torch.equal(parameter, start)


@pytest.mark.parametrize("cls", CLASSES)
def test_half_precision_with_gradient_scaling_and_clipping(cls):
    """Scales are powers of two: the same bits as without scaling; a step with Inf is left out."""
    ends = []
    for scaled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).bfloat16()
        optimizer = cls(structured_param_groups(net, GroupLasso(0.01)), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=4, enabled=scaled)
        inputs = torch.randn(12, 16, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
        for t, x in enumerate(inputs):
            optimizer.zero_grad(set_to_none=t % 2 == 0)
            scaler.scale((net(x) - x.sum(1, keepdim=True)).square().mean()).backward()
            if t == 5 and scaled:
                net[0].weight.grad[0, 0] = torch.inf
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            if t != 5 or scaled:
                scaler.step(optimizer)
            scaler.update()
        assert {int(state["step"]) for state in optimizer.state.values()} == {11}
        ends.append(list(net.parameters()))
    for ours, theirs in zip(*ends, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_policy_for_nonfinite_gradients_may_change_on_the_way(cls):
    problem = NoisyQuadratic(steps=5)
    parameter = problem.parameter()
    optimizer = cls([parameter], regularizer=L1(0.1))
    train(optimizer, parameter, problem, 2)
    optimizer.param_groups[0]["on_nonfinite"] = "skip"
    w = train(optimizer, parameter, problem, 2, first=3)
    parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert torch.equal(parameter, w)
    assert int(optimizer.skipped_steps) == 1


SHAPES = [(0, 3), (3, 0), (0, 0), (0, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("psi", [*PSIS, NuclearNorm(0.3), GroupMCP(0.3, 3.0)], ids=repr)
@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_without_entries_are_stepped(cls, psi, shape):
    if isinstance(psi, NuclearNorm):
        psi = NuclearNorm(0.3, (0,), tuple(range(1, len(shape))))
    empty, full = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.ones(3))
    optimizer = cls([{"params": [empty], "regularizer": psi}, {"params": [full]}])
    optimizer.record_inexactness = True
    for _ in range(2):
        empty.grad, full.grad = torch.zeros(shape), torch.ones(3)
        optimizer.step()
    optimizer.adopt_structured_point()
    assert empty.shape == shape
    assert bool((full < 1).all())


def test_a_schedule_inside_a_structured_point_changes_nothing():
    """The lr of a stage that cannot begin is not decayed, and the step is not counted."""
    problem = NoisyQuadratic(steps=5)
    parameter = problem.parameter()
    optimizer = RAMDA([parameter], lr=0.05, regularizer=L1(0.3))
    schedule = StageSchedule(optimizer, [1], 0.5)
    train(optimizer, parameter, problem, 1)
    before, state = repr(optimizer), copy.deepcopy(optimizer.state[parameter])
    with optimizer.structured_point(), pytest.raises(RuntimeError, match=r"StageSchedule.step\(\) inside"):
        schedule.step()
    assert repr(optimizer) == before
    torch.testing.assert_close(optimizer.state[parameter], state, rtol=0, atol=0)
    assert (schedule.count, schedule.state_dict()["averaging"]) == (0, [])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state must have the keys"),
        ({"last_epoch": 3, "_step_count": 4}, "state must have the keys"),  # of a torch scheduler
        ({"count": 3, "averaging": [0.1, 5.0]}, "averaging must be at most 1"),
    ],
)
def test_a_schedule_refuses_states_that_are_not_its_own(state, message):
    schedule = StageSchedule(RAMDA([nn.Parameter(torch.ones(2))]), [1])
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=message):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    ("cls", "name"), [(RAMDA, "eps"), (ProxAdamW, "eps"), (ProxAdamW, "weight_decay")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("psi", [None, GroupLasso(0.1)], ids=repr)
def test_numbers_may_come_as_tensors_of_one_entry(cls, name, shape, psi):
    problem, ends = NoisyQuadratic(steps=5), []
    for value in (0.25, torch.full(shape, 0.25)):
        parameter = problem.parameter(torch.float32)
        ends.append(train(cls([parameter], regularizer=psi, **{name: value}), parameter, problem, 5))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("momentum", 3.0, "momentum must be < 1, got 3.0"),
        ("eps", 0.0, "eps must be finite and > 0"),
        ("on_nonfinite", "stop", "on_nonfinite must be one of"),
        ("on_nonfinite", "skip", "on_nonfinite must be the same in every group, got 'raise' and 'skip'"),
        ("maximize", "yes", "maximize must be one of"),
        ("solver", "newton", "solver must be None, one of"),
        ("solver", "newton_raphson", "GroupLasso only"),
        ("regularizer", GroupLasso(0.1, dims=(7,)).to_dict(), "does not fit a parameter of shape"),
        ("regularizer", 0.1, "regularizer must be a Regularizer"),
    ],
)
def test_loaded_options_are_checked_as_given_ones_are(option, value, message):
    """Nothing has changed when they are refused; not even the groups before the bad one."""

    def begin(lr):
        params = [NoisyQuadratic().parameter() for _ in range(2)]
        return RAMDA([{"params": [p]} for p in params], lr=lr, regularizer=L1(0.1))

    state_dict = begin(0.5).state_dict()
    state_dict["param_groups"][1][option] = value
    optimizer = begin(0.1)
    before = repr(optimizer)
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.load_state_dict(state_dict)
    assert repr(optimizer) == before
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize("flag", ["embeddings", "norms", "biases", "heads", "frozen"])
def test_flags_of_parameter_groups_are_true_or_false(flag):
    """ "no" would count as true."""
    with pytest.raises(TypeError, match=f"{flag} must be True or False, got 'no'"):
        structured_param_groups(nn.Linear(3, 2), GroupLasso(0.1), **{flag: "no"})


def test_a_tracker_says_what_it_cannot_follow_or_read(tmp_path):
    net = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="optimizer must be a torch optimizer, got Linear"):
        StructureTracker(net)
    tracker = StructureTracker(RAMDA(structured_param_groups(net, GroupLasso(0.1))))
    for read in (tracker.layers, lambda: tracker.pattern("weight")):
        with pytest.raises(IndexError, match="record must be one of the 0 records, got -1"):
            read()
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "junk.npz").write_text("junk")
    for name in ("other.npz", "junk.npz"):
        with pytest.raises(ValueError, match=f"{name} holds no records of a StructureTracker"):
            tracker.load(tmp_path / name)
    assert len(tracker) == 0


def test_parameters_without_a_shape_so_far_are_checked_by_their_first_step():
    for psi, fits in ((None, True), (GroupLasso(0.1, dims=(-1,)), True), (GroupLasso(0.1, dims=(1,)), False)):
        net = nn.LazyLinear(3)
        optimizer = RAMDA(net.parameters(), regularizer=psi, fused=False)
        net(torch.ones(2, 4)).sum().backward()
        if fits:
            optimizer.step()
        else:
            with pytest.raises(ValueError, match=r"does not fit a parameter of shape \(3,\)"):
                optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("cls", [RAMDA, ProxAdamW])
def test_an_eps_that_vanishes_in_the_metric_is_refused(cls, dtype):
    """0 / 0 would make weights that have had no gradient NaN."""
    parameter = nn.Parameter(torch.ones(2, dtype=dtype))
    eps = 2.5e-308 if dtype is torch.float64 else 2e-38
    optimizer = cls([parameter], eps=eps)
    parameter.grad = torch.zeros_like(parameter)
    with kernels.using("eager"):
        optimizer.step()
    assert torch.equal(parameter, torch.ones_like(parameter))
    with pytest.raises(ValueError, match="eps must be at least"):
        cls([parameter], eps=eps / 4)
