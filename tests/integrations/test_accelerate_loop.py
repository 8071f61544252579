"""StructureCallback in a loop with accelerate: the bits of the plain loop, and of one that was resumed."""

import warnings

import pytest
import torch

pytest.importorskip("accelerate")

import accelerate

from ramda_theory.integrations.accelerate import StructureCallback
from ramda_theory.model import structured_param_groups
from ramda_theory.optim import RAMDA, StageSchedule
from ramda_theory.regularizers import GroupLasso

STEPS, EPOCHS = 6, 3


def parts():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = RAMDA(structured_param_groups(model, GroupLasso(5e-3)), lr=1e-2)
    return model, optimizer, StageSchedule(optimizer, [1, 2], memory=2, steps_per_epoch=STEPS)


def batch(epoch, step):
    x = torch.randn(16, 10, generator=torch.Generator().manual_seed(100 * epoch + step))
    return x, x[:, :1] - x[:, 1:2]


def run(first=0, last=EPOCHS, load=None, save=None, prepare_schedule=True):
    accelerator = accelerate.Accelerator(cpu=True)
    model, raw, schedule = parts()
    model, optimizer = accelerator.prepare(model, raw)
    if prepare_schedule:
        schedule = accelerator.prepare(schedule)
    else:  # made around the wrapper
        schedule = StageSchedule(optimizer, [1, 2], memory=2, steps_per_epoch=STEPS)
        accelerator.register_for_checkpointing(schedule)
    callback = StructureCallback(accelerator, optimizer, schedule)
    if load is not None:
        accelerator.load_state(load)
    scalars = []
    for epoch in range(first, last):
        for step in range(STEPS):
            x, y = batch(epoch, step)
            accelerator.backward(torch.nn.functional.mse_loss(model(x), y))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        scalars.append(callback.epoch_end())
    if save is not None:
        accelerator.save_state(save)
        callback.save_structured(model, save / "structured.bin")
    return model, callback, scalars


def plain():
    model, optimizer, schedule = parts()
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            x, y = batch(epoch, step)
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.mark.parametrize("prepare_schedule", [True, False])
def test_it_is_the_plain_loop(prepare_schedule):
    model, _, scalars = run(prepare_schedule=prepare_schedule)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain().parameters(), strict=True))
    assert len(scalars) == EPOCHS and all("structure/w_hat/group_sparsity" in each for each in scalars)


@pytest.mark.parametrize("prepare_schedule", [True, False])
def test_a_resumed_loop_ends_with_the_same_bits(tmp_path, prepare_schedule):
    whole, _, _ = run(prepare_schedule=prepare_schedule)
    run(last=2, save=tmp_path / "state", prepare_schedule=prepare_schedule)
    again, callback, _ = run(first=2, load=str(tmp_path / "state"), prepare_schedule=prepare_schedule)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    before = [p.detach().clone() for p in again.parameters()]
    callback.train_end()
    assert any(not torch.equal(a, b) for a, b in zip(before, again.parameters(), strict=True))


def test_saved_structure_is_what(tmp_path):
    model, callback, _ = run(save=tmp_path / "state")
    saved = torch.load(tmp_path / "state" / "structured.bin", weights_only=True)
    assert any(not torch.equal(saved[key], value) for key, value in model.state_dict().items())
    callback.train_end()
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_several_steps_of_the_schedule_per_step_are_refused():
    class Several:
        num_processes = 4

    class Prepared:
        step_with_optimizer, split_batches = True, False

        def __init__(self, scheduler):
            self.scheduler = scheduler

    _, optimizer, schedule = parts()
    with pytest.raises(ValueError, match="steps a prepared scheduler 4 times per step"):
        StructureCallback(Several(), optimizer, Prepared(schedule))
    StructureCallback(Several(), optimizer, schedule)
    with pytest.warns(UserWarning, match="no StageSchedule was found"):
        StructureCallback(Several(), optimizer)
