"""StageSchedule where trainers use it: around wrapped optimizers, beside other schedulers, under a GradScaler."""

import copy
import math

import pytest
import torch
from torch.optim import lr_scheduler
from toy import NoisyQuadratic

from ramda_theory.optim import RAMDA, RMDA, ProxSGD, StageSchedule, StructureTracker, structure_report
from ramda_theory.regularizers import GroupLasso

PSI = GroupLasso(0.3)


class Wrapper:
    """What DeepSpeed puts around an optimizer: no optimizer itself, but it has one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getattr__(self, name):
        return getattr(self.optimizer, name)


def accelerated(optimizer):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(optimizer)


def lightning(optimizer):
    pytest.importorskip("lightning")
    from lightning.pytorch.core.optimizer import LightningOptimizer

    return LightningOptimizer(optimizer)


WRAPPERS = {
    "plain": lambda optimizer: optimizer,
    "DeepSpeed-style": Wrapper,
    "twice": lambda optimizer: Wrapper(Wrapper(optimizer)),
    "accelerate": accelerated,
    "Lightning": lightning,
}


def start(cls=RAMDA, **options):
    problem = NoisyQuadratic(steps=60)
    parameter = problem.parameter()
    return problem, parameter, cls([parameter], lr=0.1, regularizer=PSI, **options)


def by_hand(cls, milestones, steps, gamma, memory):
    """The stages written out: decay, restart, and averaging that grows in the last."""
    problem, parameter, optimizer = start(cls)
    group, path = optimizer.param_groups[0], []
    for t in range(1, steps + 1):
        parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        path.append(parameter.detach().clone())
        if t in milestones:
            group["lr"] *= gamma
            if "eps" in group:
                group["eps"] *= gamma
            optimizer.restart(memory)
        if t >= milestones[-1] and (i := t - milestones[-1] + 1) > 1:
            group["momentum"] = 1.0 - min(0.1 * math.sqrt(i), 1.0)
    return path


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("cls", "memory"), [(RAMDA, 0), (RMDA, 3)])
def test_restarts_happen_in_wrapped_optimizers(cls, memory, wrapper):
    problem, parameter, optimizer = start(cls)
    outer = WRAPPERS[wrapper](optimizer)
    schedule = StageSchedule(outer, [5, 12], 0.3, memory)
    path = []
    for t in range(1, 41):
        parameter.grad = problem.gradient(parameter.detach(), t)
        (optimizer if wrapper == "Lightning" else outer).step()  # Lightning's own needs a trainer
        path.append(parameter.detach().clone())
        schedule.step()
    expected = by_hand(cls, [5, 12], 40, 0.3, memory)
    # 1 - momentum is not c to the last bit; where nothing grows yet there is no difference at all
    assert all(torch.equal(a, b) for a, b in zip(path[:13], expected[:13], strict=True))
    for a, b in zip(path, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert float(optimizer.state[parameter]["step"]) == 28 + memory
    assert schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    assert structure_report(outer).total("w_hat").groups == 5
    tracker = StructureTracker(outer)
    tracker.record()
    assert tracker.points == ("w", "w_hat")


def test_what_holds_no_optimizer_is_refused():
    loop = Wrapper(None)
    loop.optimizer = loop
    for wrong in (Wrapper(None), Wrapper(3), loop):
        with pytest.raises(TypeError, match="optimizer must be a torch optimizer"):
            StageSchedule(wrong, [1])
    with pytest.raises(ValueError, match="memory must be 0 for ProxSGD"):
        StageSchedule(Wrapper(start(ProxSGD)[2]), [1], memory=2)


def test_accelerate_s_scheduler_steps_it_with_accumulated_gradients():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
    model = torch.nn.Linear(3, 2)
    raw = RAMDA(model.parameters(), lr=0.1)
    stages = StageSchedule(raw, [2, 4], 0.5)
    model, optimizer, schedule = accelerator.prepare(model, raw, stages)
    for _ in range(15):
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(1, 3)).sum())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert stages.count == 5 and stages.stage == 2 and schedule.get_last_lr() == [0.025]
    assert float(raw.state[model.weight]["step"]) == 1


def test_grad_scaler_s_skipped_steps_restart_all_the_same():
    """The schedule counts its own calls, as torch's do: a step that overflowed is a step of the stage."""
    problem, parameter, optimizer = start()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    schedule = StageSchedule(optimizer, [3], 0.5)
    for t in range(1, 7):
        gradient = problem.gradient(parameter.detach(), t)
        scaler.scale(torch.zeros((), requires_grad=True))  # so that it has a scale
        parameter.grad = torch.full_like(gradient, torch.inf) if t == 2 else gradient * scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
    assert schedule.stage == 1 and float(optimizer.state[parameter]["step"]) == 3


# -- beside other schedulers ----------------------------------------------------------------------------------------


def test_in_a_chained_scheduler_it_is_the_one_that_steps_alone():
    problem, parameter, optimizer = start()
    other, same = start()[1:]
    chained = lr_scheduler.ChainedScheduler(
        [StageSchedule(optimizer, [4, 8], 0.5), lr_scheduler.ExponentialLR(optimizer, 0.9)], optimizer=optimizer
    )
    apart = [StageSchedule(same, [4, 8], 0.5), lr_scheduler.ExponentialLR(same, 0.9)]
    for t in range(1, 21):
        for w, o, after in ((parameter, optimizer, [chained]), (other, same, apart)):
            w.grad = problem.gradient(w.detach(), t)
            o.step()
            for each in after:
                each.step()
        assert torch.equal(parameter, other)
    assert chained.get_last_lr() == [same.param_groups[0]["lr"]]
    state = copy.deepcopy(chained.state_dict())
    again = start()[2]
    twin = lr_scheduler.ChainedScheduler(
        [StageSchedule(again, [4, 8], 0.5), lr_scheduler.ExponentialLR(again, 0.9)], optimizer=again
    )
    twin.load_state_dict(state)
    assert twin._schedulers[0].count == 20


def test_after_a_warm_up_in_a_sequence_it_counts_from_there():
    problem, parameter, optimizer = start()
    warm_up = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 5)
    stages = StageSchedule(optimizer, [4, 8], 0.5)
    sequence = lr_scheduler.SequentialLR(optimizer, [warm_up, stages], [5])
    seen = []
    for t in range(1, 21):
        parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        sequence.step()
        seen.append((optimizer.param_groups[0]["lr"], stages.stage, float(optimizer.state[parameter]["step"])))
    assert [lr for lr, *_ in seen[:5]] == pytest.approx([0.028, 0.046, 0.064, 0.082, 0.1])
    assert [stage for _, stage, _ in seen] == [0] * 8 + [1] * 4 + [2] * 8
    assert [lr for lr, *_ in seen[5:]] == pytest.approx([0.1] * 3 + [0.05] * 4 + [0.025] * 8)
    assert [step for *_, step in seen[7:]] == [8, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]
    assert 1 - optimizer.param_groups[0]["momentum"] == pytest.approx(0.1 * math.sqrt(8))


CYCLERS = {
    "OneCycleLR": lambda o, cycle: lr_scheduler.OneCycleLR(o, 0.1, total_steps=50, cycle_momentum=cycle),
    "CyclicLR": lambda o, cycle: lr_scheduler.CyclicLR(o, 0.01, 0.1, 5, cycle_momentum=cycle),
}


@pytest.mark.parametrize("name", CYCLERS)
def test_schedulers_that_cycle_the_momentum_are_refused(name):
    _, parameter, optimizer = start()
    CYCLERS[name](optimizer, True)
    with pytest.raises(ValueError, match=r"cycles the momentum .* cycle_momentum=False"):
        StageSchedule(optimizer, [3])
    StageSchedule(optimizer, [3], grow_averaging=False)
    _, parameter, optimizer = start()
    schedule = StageSchedule(optimizer, [3])
    CYCLERS[name](optimizer, True)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with pytest.raises(RuntimeError, match="cycles the momentum"):
        schedule.step()
    assert schedule.count == 0


@pytest.mark.parametrize("name", CYCLERS)
def test_without_cycled_momentum_the_averaging_grows(name):
    problem, parameter, optimizer = start()
    schedule = StageSchedule(optimizer, [3])
    theirs = CYCLERS[name](optimizer, False)
    for t in range(1, 10):
        parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        schedule.step()
        theirs.step()
    assert 1 - optimizer.param_groups[0]["momentum"] == pytest.approx(0.1 * math.sqrt(7))


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_momentum_that_is_set_from_outside_in_the_last_stage_is_an_error(kind):
    problem, parameter, optimizer = start(momentum=kind(0.9))
    schedule = StageSchedule(optimizer, [2])
    for t in range(1, 6):
        parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        if t == 5:
            optimizer.param_groups[0]["momentum"] = kind(0.5)
            with pytest.raises(RuntimeError, match=r"momentum of group 0 was set to 0.5 from outside"):
                schedule.step()
            assert schedule.count == 4
        else:
            schedule.step()
