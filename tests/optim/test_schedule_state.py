"""The state of a StageSchedule: it goes on only in a schedule like its own; and what makes it one of torch's."""

import copy
import json
import warnings

import pytest
import torch
from torch import nn

from ramda_theory.optim import RAMDA, ProxAdamW, StageSchedule

SETTINGS = {
    "milestones": [4, 9],
    "gamma": 0.5,
    "memory": 3,
    "steps_per_epoch": 2,
    "grow_averaging": True,
    "memory_growth": 2.0,
}


def schedule_of(lr=0.1, **changes):
    optimizer = RAMDA([nn.Parameter(torch.ones(2))], lr=lr)
    return StageSchedule(optimizer, **{**SETTINGS, **changes})


def stepped(schedule, steps):
    for _ in range(steps):
        schedule.optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        schedule.optimizer.step()
        schedule.step()
    return schedule


@pytest.mark.parametrize("steps", [0, 5, 20])
def test_a_state_is_plain_data_and_goes_on(steps):
    first, second = stepped(schedule_of(), steps), schedule_of()
    state = json.loads(json.dumps(first.state_dict()))
    assert {key: state[key] for key in SETTINGS} == SETTINGS
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    assert (second.stage, second.last_epoch) == (first.stage, steps)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("milestones", [4, 8]),
        ("milestones", [4]),
        ("milestones", []),
        ("gamma", 0.25),
        ("memory", 0),
        ("steps_per_epoch", 1),
        ("grow_averaging", False),
        ("memory_growth", 1.0),
    ],
)
def test_a_schedule_with_other_settings_is_refused_by_name(name, other):
    saved, schedule = stepped(schedule_of(), 20).state_dict(), schedule_of(**{name: other})
    before = copy.deepcopy(schedule.state_dict())
    with pytest.raises(ValueError, match=f"of a schedule with {name} .*, this one has .*: make it with {name}="):
        schedule.load_state_dict(saved)
    assert schedule.state_dict() == before


def test_states_of_older_versions_load():
    schedule = schedule_of()
    schedule.load_state_dict({"count": 7, "averaging": []})
    assert (schedule.count, schedule.stage) == (7, 0)
    state = stepped(schedule_of(), 20).state_dict()
    del state["memory_growth"]
    schedule.load_state_dict(state)
    assert schedule.count == 20


@pytest.mark.parametrize(
    "state", [None, [], {"count": 1}, {"count": 1, "averaging": 0.5}, {"count": 1.5, "averaging": []}]
)
def test_what_is_no_state_is_refused(state):
    schedule = schedule_of()
    with pytest.raises((TypeError, ValueError), match=r"(state|averaging|count) must"):
        schedule.load_state_dict(state)
    assert schedule.count == 0


@pytest.mark.parametrize("cls", [RAMDA, ProxAdamW])
def test_it_is_one_of_torch_s_schedulers_without_their_first_step(cls):
    optimizer = cls([nn.Parameter(torch.ones(2))], lr=0.25)
    groups = copy.deepcopy({key: value for key, value in optimizer.param_groups[0].items() if key != "params"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = StageSchedule(optimizer, [2], 0.5)
        assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)
        assert {key: value for key, value in optimizer.param_groups[0].items() if key != "params"} == groups
        lrs = []
        for _ in range(3):
            lrs += schedule.get_last_lr()
            stepped(schedule, 1)
    assert lrs == [0.25, 0.25, 0.125]
    assert schedule.last_epoch == 3
    with pytest.raises(ValueError, match="epoch must be left out"):
        schedule.step(5)
    assert schedule.last_epoch == 3


def test_a_tensor_lr_is_not_handed_out_to_be_changed():
    schedule = schedule_of(lr=torch.tensor(0.5))
    schedule.get_last_lr()[0].fill_(9.0)
    assert float(schedule.optimizer.param_groups[0]["lr"]) == 0.5
