"""A checkpoint of another optimizer neither turns the regularization off nor is stepped with."""

import pytest
import torch

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1


def stepped(make):
    parameter = torch.nn.Parameter(torch.full((3,), 0.5))
    optimizer = make([parameter])
    parameter.grad = torch.full((3,), 0.01)
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
def test_groups_without_a_regularizer_leave_it_as_it_is(cls):
    parameter = torch.nn.Parameter(torch.full((3,), 0.5))
    optimizer = cls([parameter], lr=0.1, regularizer=L1(1.0))
    optimizer.load_state_dict(torch.optim.SGD([parameter], lr=0.2).state_dict())
    assert optimizer.param_groups[0]["regularizer"] == L1(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.2


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
def test_the_state_of_another_optimizer_is_refused_and_nothing_changes(cls):
    parameter = torch.nn.Parameter(torch.full((3,), 0.5))
    optimizer = cls([parameter], lr=0.1, regularizer=L1(1.0))
    foreign = stepped(lambda params: torch.optim.SGD(params, lr=0.2, momentum=0.9))
    with pytest.raises(ValueError, match=f"not of {cls.__name__}: it lacks"):
        optimizer.load_state_dict(foreign)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not optimizer.state[parameter]


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"state_dict lacks 'state', 'param_groups'; it has the keys \[\]"),
        ({"state": {}}, r"state_dict lacks 'param_groups'; it has the keys \['state'\]"),
        ({"state": {}, "param_groups": [{"lr": 0.2}]}, r"param_groups\[0\] of state_dict lacks 'params'"),
    ],
)
def test_missing_keys_are_named_and_nothing_changes(cls, state, message):
    optimizer = cls([torch.nn.Parameter(torch.full((3,), 0.5))], lr=0.1, regularizer=L1(1.0))
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_gradients_too_large_to_square_are_named():
    parameter = torch.nn.Parameter(torch.zeros(3, 4))
    optimizer = RAMDA([("layer.weight", parameter)])
    parameter.grad = torch.full((3, 4), 1e19)
    with pytest.raises(RuntimeError, match=r"layer\.weight"):
        optimizer.step()
