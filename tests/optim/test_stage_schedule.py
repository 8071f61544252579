"""Stages of the torch optimizers: decay, restarts with and without memory, the last stage's averaging, resuming."""

import copy
import io
import math

import pytest
import torch
from torch.optim import lr_scheduler
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD, StageSchedule
from ramda_theory.regularizers import GroupLasso

DUAL = (RAMDA, RMDA)
PSI = GroupLasso(0.5)


def two_groups(cls, problem, **options):
    params = [problem.parameter(), problem.parameter()]
    groups = [{"params": [params[0]], "regularizer": PSI}, {"params": [params[1]], "lr": 0.4}]
    if cls in DUAL:
        groups[1].update(momentum=0.5)
    if cls is RAMDA:
        groups[1].update(eps=1e-2)
    return params, cls(groups, lr=0.1, **options)


def run(params, optimizer, problem, steps, first=1, after=()):
    for t in range(first, first + steps):
        for parameter in params:
            parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        for schedule in after:
            schedule.step()


@pytest.mark.parametrize("memory", [0, 5])
@pytest.mark.parametrize("cls", DUAL)
def test_a_milestone_decays_and_restarts_every_group(cls, memory):
    """lr and eps of each group times gamma; W^0 = W; V/alpha and U/alpha kept as if ``memory`` steps had been seen."""
    problem = NoisyQuadratic(steps=10)
    params, optimizer = two_groups(cls, problem)
    schedule = StageSchedule(optimizer, [6, 8], 0.25, memory)
    run(params, optimizer, problem, 5, after=[schedule])
    assert schedule.stage == 0
    run(params, optimizer, problem, 1, first=6)
    states = [copy.deepcopy(optimizer.state[p]) for p in params]
    w = [p.detach().clone() for p in params]
    schedule.step()
    assert schedule.stage == 1
    for group, lr, eps in zip(optimizer.param_groups, (0.1, 0.4), (1e-6, 1e-2), strict=True):
        assert group["lr"] == pytest.approx(0.25 * lr)
        assert "eps" not in group or group["eps"] == pytest.approx(0.25 * eps)
    for parameter, before, own, lr in zip(params, states, w, (0.025, 0.1), strict=True):
        after = optimizer.state[parameter]
        assert torch.equal(parameter, own)
        assert torch.equal(after["anchor"], own)
        assert float(after["step"]) == memory
        alpha = lr * sum(math.sqrt(k) for k in range(1, memory + 1))
        assert float(after["weight_sum"]) == pytest.approx(alpha)
        for key in ("grad_sum", "grad_sq_sum"):
            if key in after:
                kept = before[key] / before["weight_sum"] * alpha
                torch.testing.assert_close(after[key], kept, rtol=1e-13, atol=0)


@pytest.mark.parametrize("cls", [ProxSGD, ProxAdamW])
def test_the_others_have_their_lr_decayed_alone(cls):
    problem = NoisyQuadratic(steps=10)
    params, optimizer = two_groups(cls, problem)
    before = copy.deepcopy([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
    schedule = StageSchedule(optimizer, [3, 5], 0.1)
    run(params, optimizer, problem, 5, after=[schedule])
    for group, old in zip(optimizer.param_groups, before, strict=True):
        assert group["lr"] == pytest.approx(0.01 * old["lr"])
        assert {k: v for k, v in group.items() if k not in ("params", "lr")} == {
            k: v for k, v in old.items() if k != "lr"
        }
    assert float(optimizer.state[params[0]]["step"]) == 5
    with pytest.raises(ValueError, match="memory must be 0 for Prox"):
        StageSchedule(optimizer, [3], 0.1, memory=10)


@pytest.mark.parametrize("cls", DUAL)
def test_averaging_grows_in_the_last_stage_only(cls):
    """c_i = min(c sqrt(i), 1) for the i-th step of the last stage, per group; at 1, w is What."""
    problem = NoisyQuadratic(steps=150)
    params, optimizer = two_groups(cls, problem)
    schedule = StageSchedule(optimizer, [2, 5], 0.5)
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([1 - g["momentum"] for g in o.param_groups]))
    run(params, optimizer, problem, 120, after=[schedule])
    for t, (first, second) in enumerate(seen, start=1):
        i = max(t - 5, 1)
        assert first == pytest.approx(min(0.1 * math.sqrt(i), 1.0), abs=1e-12)
        assert second == pytest.approx(min(0.5 * math.sqrt(i), 1.0), abs=1e-12)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert torch.equal(params[0], structured(optimizer, params[0]))


def test_growth_can_be_turned_off_and_one_stage_is_the_last():
    problem = NoisyQuadratic(steps=20)
    parameter = problem.parameter()
    optimizer = RAMDA([parameter])
    still = StageSchedule(optimizer, [], 0.1, grow_averaging=False)
    train(optimizer, parameter, problem, 5, after=still.step)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    growing = StageSchedule(optimizer, [], 0.1)
    train(optimizer, parameter, problem, 3, after=growing.step)
    assert 1 - optimizer.param_groups[0]["momentum"] == pytest.approx(0.2)  # the 4th step is next


def test_milestones_in_epochs():
    problem = NoisyQuadratic(steps=30)
    lrs = []
    for options in ({"milestones": [2, 3], "steps_per_epoch": 4}, {"milestones": [8, 12]}):
        parameter = problem.parameter()
        optimizer = RAMDA([parameter], lr=1.0)
        schedule = StageSchedule(optimizer, gamma=0.5, **options)
        for t in range(1, 20):
            train(optimizer, parameter, problem, 1, first=t)
            schedule.step()
            lrs.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"], schedule.stage))
    assert lrs[:19] == lrs[19:]
    assert [lr for lr, _, _ in lrs[:19]] == [1.0] * 7 + [0.5] * 4 + [0.25] * 8


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: lr_scheduler.StepLR(o, 3, 0.5),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 7], 0.3),
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
        lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 5),
        lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
        lambda o: lr_scheduler.PolynomialLR(o, 12),
        lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.95),
    ],
)
@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("cls", CLASSES)
def test_composes_with_lr_schedulers(cls, kind, scheduler):
    """In either order the lr is the scheduler's times gamma per milestone passed, for numbers and shared tensors."""
    problem = NoisyQuadratic(steps=12)
    alone = cls([problem.parameter()], lr=0.1)
    theirs = scheduler(alone)
    for stages_first in (False, True):
        params = [problem.parameter(), problem.parameter()]
        optimizer = cls([{"params": [p]} for p in params], lr=kind(0.1))
        pair = [StageSchedule(optimizer, [4, 9], 0.1), scheduler(optimizer)]
        expected = cls([problem.parameter()], lr=0.1)
        theirs = scheduler(expected)
        for t in range(1, 12):
            run(params, optimizer, problem, 1, first=t, after=pair if stages_first else pair[::-1])
            expected.step()
            theirs.step()
            lr = expected.param_groups[0]["lr"] * 0.1 ** ((t >= 4) + (t >= 9))
            for group in optimizer.param_groups:
                assert float(group["lr"]) == pytest.approx(lr, rel=1e-5)


@pytest.mark.parametrize("at", [3, 6, 11, 14])
@pytest.mark.parametrize("cls", CLASSES)
def test_resumes_exactly(cls, at):
    """From any stage, together with an LR scheduler, in any order of loading, bit for bit."""
    memory = 4 if cls in DUAL else 0

    def start(problem):
        params, optimizer = two_groups(cls, problem)
        schedule = StageSchedule(optimizer, [6, 10], 0.3, memory)
        return params, optimizer, schedule, lr_scheduler.ExponentialLR(optimizer, 0.97)

    problem = NoisyQuadratic(steps=20)
    params, *parts = start(problem)
    run(params, parts[0], problem, at, after=parts[1:])
    buffer = io.BytesIO()
    torch.save(([p.detach() for p in params], [part.state_dict() for part in parts]), buffer)
    run(params, parts[0], problem, 20 - at, first=at + 1, after=parts[1:])
    for order in ((0, 1, 2), (2, 1, 0)):
        buffer.seek(0)
        weights, states = torch.load(buffer, weights_only=True)
        others, *other_parts = start(problem)
        for which in order:
            other_parts[which].load_state_dict(states[which])
        with torch.no_grad():
            for parameter, w in zip(others, weights, strict=True):
                parameter.copy_(w)
        run(others, other_parts[0], problem, 20 - at, first=at + 1, after=other_parts[1:])
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
        assert other_parts[1].state_dict() == parts[1].state_dict()
        for ours, theirs in zip(other_parts[0].param_groups, parts[0].param_groups, strict=True):
            assert ours["lr"] == theirs["lr"]
            assert ours.get("momentum") == theirs.get("momentum")


@pytest.mark.parametrize("memory", [0, 3])
@pytest.mark.parametrize("options", [{}, {"on_nonfinite": "skip"}], ids=["plain", "skip"])
@pytest.mark.parametrize("cls", DUAL)
def test_restart_of_parameters_without_gradient_so_far(cls, memory, options):
    """They are left alone, keep no state, and start with t = 1 whenever their gradient comes."""
    problem = NoisyQuadratic(steps=12)
    params, optimizer = two_groups(cls, problem, **options)
    late = params[1]
    run(params[:1], optimizer, problem, 4)
    optimizer.restart(memory)
    assert late not in optimizer.state
    run(params, optimizer, problem, 3, first=5)
    assert float(optimizer.state[late]["step"]) == 3
    assert float(optimizer.state[params[0]]["step"]) == 3 + memory


@pytest.mark.parametrize("cls", DUAL)
def test_restart_with_memory_but_nothing_to_remember(cls):
    """After a restart without memory, or steps with lr 0, there is no average: t = alpha = 0 and nothing is NaN."""
    problem = NoisyQuadratic(steps=12)
    params, optimizer = two_groups(cls, problem)
    run(params, optimizer, problem, 3)
    optimizer.restart()
    optimizer.restart(memory=10)
    for parameter in params:
        state = optimizer.state[parameter]
        assert float(state["step"]) == float(state["weight_sum"]) == 0
        assert all(bool((state[key] == 0).all()) for key in ("grad_sum", "grad_sq_sum") if key in state)
    run(params, optimizer, problem, 3, first=4)
    assert all(bool(p.isfinite().all()) for p in params)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 2)])
@pytest.mark.parametrize("cls", [RAMDA, RMDA])
def test_restart_with_memory_of_any_shape(cls, shape):
    parameter = torch.nn.Parameter(torch.ones(shape))
    optimizer = cls([parameter])
    parameter.grad = torch.ones(shape)
    optimizer.step()
    average = optimizer.state[parameter]["grad_sum"] / optimizer.state[parameter]["weight_sum"].reshape(())
    optimizer.restart(memory=3)
    state = optimizer.state[parameter]
    assert state["step"] == 3
    torch.testing.assert_close(state["grad_sum"] / state["weight_sum"].reshape(()), average, check_dtype=False)


def test_restart_forgets_nan():
    problem = NoisyQuadratic(steps=5)
    parameter = problem.parameter()
    optimizer = RAMDA([parameter], on_nonfinite="ignore")
    parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    with torch.no_grad():
        parameter.copy_(torch.tensor(problem.start))
    optimizer.restart()
    assert bool(train(optimizer, parameter, problem, 3).isfinite().all())


def test_groups_added_later_take_part():
    problem = NoisyQuadratic(steps=30)
    params = [problem.parameter(), problem.parameter()]
    optimizer = RAMDA([params[0]], lr=0.1)
    schedule = StageSchedule(optimizer, [3], 0.5)
    run(params[:1], optimizer, problem, 5, after=[schedule])
    optimizer.add_param_group({"params": [params[1]], "momentum": 0.8})
    run(params, optimizer, problem, 1, first=6, after=[schedule])
    assert 1 - optimizer.param_groups[1]["momentum"] == pytest.approx(0.2 * 2)  # the 4th step of the stage is next


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"milestones": [3, 2]}, ValueError, "milestones must be positive and increasing"),
        ({"milestones": [0]}, ValueError, "milestones must be positive and increasing"),
        ({"milestones": [1.5]}, TypeError, "milestones must be an integer or a sequence of integers"),
        ({"gamma": 0.0}, ValueError, "gamma must be finite and > 0"),
        ({"memory": -1}, ValueError, "memory must be >= 0, got -1"),
        ({"memory": 0.5}, TypeError, "memory must be an integer, got 0.5"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at least 1, got 0"),
        ({"grow_averaging": 1}, TypeError, "grow_averaging must be True or False, got 1"),
        ({"optimizer": None}, TypeError, "optimizer must be a torch optimizer, got None"),
    ],
)
def test_bad_arguments(arguments, kind, message):
    optimizer = RAMDA([NoisyQuadratic().parameter()])
    with pytest.raises(kind, match=message):
        StageSchedule(**{"optimizer": optimizer, "milestones": [1], "gamma": 0.1, **arguments})


def test_bad_states_and_memories_are_refused():
    optimizer = RAMDA([NoisyQuadratic().parameter()])
    schedule = StageSchedule(optimizer, [1], 0.1)
    before = schedule.state_dict()
    for state in ({"count": -1, "averaging": []}, {"count": 3, "averaging": [math.nan]}):
        with pytest.raises(ValueError, match="must be"):
            schedule.load_state_dict(state)
        assert schedule.state_dict() == before
    with pytest.raises(ValueError, match="memory must be >= 0"):
        optimizer.restart(-1)
