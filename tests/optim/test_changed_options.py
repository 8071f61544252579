"""Options changed between steps are checked as new ones are, by the next step, before it changes anything."""

import copy
import timeit

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toy import CLASSES, NoisyQuadratic

from ramda_theory import kernels
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.optim.changes import ChangedOptions
from ramda_theory.regularizers import L1, GroupLasso
from ramda_theory.subproblem import ConstantTolerance

NAN, INF = float("nan"), float("inf")
BAD = {
    "lr": [NAN, INF, -0.1, "fast", None, torch.ones(2), *map(torch.tensor, (NAN, -1.0, 1)), np.array([0.1, 0.2])],
    "momentum": [NAN, 2, 1.0, -0.1, "x", None, torch.tensor(1.5), torch.tensor(0), True],
    "eps": [0, 0.0, 1e-39, -1e-8, NAN, INF, "x", None, torch.tensor(0.0)],
    "prox_step": [0.0, -1.0, NAN, INF, "x", None],
    "betas": [(0.9, 1.0), (0.9,), 0.9, (NAN, 0.9), (-0.1, 0.9), None],
    "weight_decay": [-0.1, NAN, INF, "x", None],
    "regularizer": [0.1, "L1", GroupLasso(0.1, dims=(7,))],
    "maximize": [3, "x", None],
    "on_nonfinite": ["x", None, "skip", 3],
    "solver": ["newton", 3, "newton_raphson"],
    "tolerance": ["x", -1.0, NAN],
    "max_iter": [0, -3, 2.5, NAN, "x", None],
    "foreach": ["x", 3],
    "capturable": [True, "x", None],
    "fused": ["x", 3],
}
"""Values of the second of two groups (psi = L1, on_nonfinite = "raise") that make no sense."""


def two_groups(cls, steps=3):
    """An optimizer of two groups that has stepped, and its parameters with gradients."""
    problem = NoisyQuadratic()
    params = [problem.parameter(torch.float32) for _ in range(2)]
    optimizer = cls([{"params": [parameter]} for parameter in params], lr=0.01, regularizer=L1(0.1))
    for t in range(1, steps + 1):
        for parameter in params:
            parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    ("cls", "option"), [(cls, option) for cls in CLASSES for option in cls._checks], ids=lambda value: str(value)
)
def test_every_option_of_every_optimizer_is_checked_when_it_changes(cls, option, steps):
    optimizer, params = two_groups(cls, steps)
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    weights, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict()["state"])
    good = optimizer.param_groups[1][option]
    for bad in BAD[option]:
        optimizer.param_groups[1][option] = bad
        with pytest.raises((TypeError, ValueError), match=r"param_groups\[1\]: "):
            optimizer.step()
        assert optimizer.param_groups[1][option] is bad
        for parameter, before in zip(params, weights, strict=True):
            assert torch.equal(parameter, before)
        torch.testing.assert_close(optimizer.state_dict()["state"], state, rtol=0, atol=0)
    del optimizer.param_groups[1][option]
    with pytest.raises(ValueError, match=rf"param_groups\[1\]: the option '{option}' is gone"):
        optimizer.step()
    optimizer.param_groups[1][option] = good
    optimizer.step()
    assert not torch.equal(params[1], weights[1])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("option", ["lr", "momentum"])
@pytest.mark.parametrize("bad", [NAN, -1.0, INF])
def test_tensors_on_the_host_are_looked_at_when_they_change_in_place(cls, option, bad):
    if option not in cls._checks:
        pytest.skip(f"{cls.__name__} has no {option}")
    parameter, number = nn.Parameter(torch.ones(3)), torch.tensor(0.5)
    optimizer = cls([parameter], **{option: number})
    for value in (0.5, 0.25):
        number.fill_(value)
        parameter.grad = torch.ones(3)
        optimizer.step()
    before = parameter.detach().clone()
    number.fill_(bad)
    with pytest.raises(ValueError, match=f"{option} must be finite and >= 0"):
        optimizer.step()
    assert torch.equal(parameter, before)
    number.fill_(0.125)
    optimizer.step()
    assert optimizer.param_groups[0][option] is number


def test_good_changes_are_taken_in_the_form_that_a_new_optimizer_gives_them():
    optimizer, _ = two_groups(ProxAdamW)
    group = optimizer.param_groups[1]
    group.update(tolerance=1e-3, betas=[0.5, torch.tensor(0.25)], eps=torch.tensor(0.5), max_iter=np.int64(7))
    optimizer.step()
    assert group["tolerance"] == ConstantTolerance(1e-3)
    assert group["betas"] == (0.5, 0.25) and group["eps"] == 0.5
    assert [type(group[key]) for key in ("betas", "eps", "max_iter")] == [tuple, float, int]


def test_rounding_below_zero_in_a_scheduler_counts_as_zero():
    optimizer, params = two_groups(RMDA)
    before = [parameter.detach().clone() for parameter in params]
    for group in optimizer.param_groups:
        group["lr"] = -1e-17
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    for parameter, old in zip(params, before, strict=True):
        assert torch.equal(parameter, old)
    saved["param_groups"][1]["lr"] = NAN
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.load_state_dict(saved)


def test_options_of_all_groups_go_together():
    optimizer, _ = two_groups(RAMDA)
    for group in optimizer.param_groups:
        group["on_nonfinite"] = "skip"
        group["capturable"] = True
    optimizer.step()
    assert int(optimizer.skipped_steps) == 0
    optimizer.param_groups[0]["on_nonfinite"] = "ignore"
    with pytest.raises(ValueError, match=r"param_groups\[1\]: on_nonfinite .* must be 'ignore' in every group"):
        optimizer.step()


def test_groups_that_come_later_are_checked_and_those_that_go_are_forgotten():
    optimizer, _ = two_groups(ProxSGD)
    late = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(2)
    optimizer.step()
    optimizer.param_groups[2]["lr"] = NAN
    with pytest.raises(ValueError, match=r"param_groups\[2\]: lr"):
        optimizer.step()
    del optimizer.param_groups[2]
    optimizer.step()
    optimizer.param_groups[0] |= {"params": [nn.Parameter(torch.ones(2, 2))], "regularizer": GroupLasso(1.0)}
    optimizer.step()
    optimizer.param_groups[0]["params"] = [nn.Parameter(torch.ones(()))]
    with pytest.raises(ValueError, match=r"param_groups\[0\]: .*does not fit a parameter of shape \(\)"):
        optimizer.step()


@given(values=st.lists(st.floats(width=32) | st.integers(-2, 2), max_size=8))
def test_any_numbers_in_any_order(values):
    """A step refuses a momentum exactly if the constructor does, whatever came before."""
    checks = ChangedOptions(RMDA._checks)
    group = RMDA([nn.Parameter(torch.ones(2))]).param_groups[0]
    for value in values:
        group["momentum"] = value
        try:
            RMDA([nn.Parameter(torch.ones(2))], momentum=value)
        except (TypeError, ValueError) as refusal:
            with pytest.raises(type(refusal)) as caught:
                checks([group])
            assert str(caught.value) == f"param_groups[0]: {refusal}"
        else:
            checks([group])


def test_it_costs_next_to_nothing_where_nothing_has_changed(monkeypatch):
    """No check is made again; and one that changes makes its own alone."""
    made = []

    def counted(key, check):
        return lambda value: made.append(key) or check(value)

    checks = ChangedOptions({key: counted(key, check) for key, check in RAMDA._checks.items()})
    groups = two_groups(RAMDA)[0].param_groups
    checks(groups)
    made.clear()
    checks(groups)
    assert not made
    groups[1]["momentum"] = 0.5
    checks(groups)
    assert made == ["momentum"]
    seconds = min(timeit.repeat(lambda: checks(groups), number=1000, repeat=20)) / 1000
    assert seconds < 50e-6  # of two groups; a microsecond or two where nothing else runs


def appended(group, parameter):
    group["params"].append(nn.Parameter(torch.ones(3)))
    return "does not fit a parameter of shape"


def of_integers(group, parameter):
    group["params"].append(nn.Parameter(torch.ones(3, 3).int(), requires_grad=False))
    return "must have a real floating dtype"


def expanded(group, parameter):
    parameter.data = torch.ones(1, parameter.shape[1]).expand_as(parameter)
    return "memory for every entry"


def reshaped(group, parameter):
    parameter.data, parameter.grad = torch.ones(7, 2), None
    return r"of shape \(7, 2\) has a gradient or state of shape \(6, 5\)"


@pytest.mark.parametrize("change", [appended, of_integers, expanded, reshaped])
@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_put_into_a_group_or_given_other_memory_are_checked(cls, change):
    """An error before anything has changed, of the parameters before it in particular."""
    problem = NoisyQuadratic()
    params = [problem.parameter(torch.float32) for _ in range(2)]
    optimizer = cls(params, regularizer=GroupLasso(0.1, dims=(1,)))
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    with kernels.using("eager"):
        optimizer.step()
    message = change(optimizer.param_groups[0], params[1])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    before, state = params[0].detach().clone(), copy.deepcopy(optimizer.state[params[0]])
    with pytest.raises((TypeError, ValueError), match=message), kernels.using("eager"):
        optimizer.step()
    assert torch.equal(params[0], before)
    torch.testing.assert_close(optimizer.state[params[0]], state, rtol=0, atol=0)
