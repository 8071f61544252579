"""What in the model: for a while, or for good."""

import copy

import pytest
import torch
from torch import nn
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD, StageSchedule
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm

LASSO = GroupLasso(2.0)
DUAL = (RAMDA, RMDA)


def trained(cls, psi=LASSO, dtype=torch.float64, steps=8, **options):
    problem = NoisyQuadratic(steps=40)
    parameter = problem.parameter(dtype)
    lr = 0.05 if cls is not RMDA else 0.3
    optimizer = cls([parameter], **{"lr": lr, "regularizer": psi, **options})
    train(optimizer, parameter, problem, steps)
    return problem, parameter, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", DUAL)
def test_holds_what_inside_and_the_weights_after(cls, dtype):
    """What is the point an optimizer without averaging would have stepped to; the weights come back bit for bit."""
    problem, parameter, optimizer = trained(cls, dtype=dtype)
    own = parameter.detach().clone()
    twin = copy.deepcopy((parameter, optimizer))
    with optimizer.structured_point():
        w_hat = parameter.detach().clone()
    assert torch.equal(parameter, own)
    zero = (w_hat == 0).all(dim=0)
    assert 0 < int(zero.sum()) < 5
    assert not bool((own == 0).any())
    # The next step, from the same state, once with c = 1.
    twin[1].param_groups[0]["momentum"] = 0.0
    expected = train(twin[1], twin[0], problem, 1, first=9)
    train(optimizer, parameter, problem, 1, first=9)
    close = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(structured(optimizer, parameter), expected, rtol=close, atol=close)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_run_that_looks_is_the_run_that_does_not(cls):
    """Looking changes nothing, in state, weights or later steps."""
    problem, parameter, optimizer = trained(cls)
    _, other, blind = trained(cls)
    for t in range(9, 13):
        with optimizer.structured_point():
            pass
        train(optimizer, parameter, problem, 1, first=t)
        train(blind, other, problem, 1, first=t)
    assert torch.equal(parameter, other)
    for key, value in blind.state[other].items():
        assert torch.equal(optimizer.state[parameter][key], value)


@pytest.mark.parametrize("cls", [ProxSGD, ProxAdamW])
def test_without_averaging_what_is_the_weights(cls):
    _, parameter, optimizer = trained(cls)
    own = parameter.detach().clone()
    assert torch.equal(structured(optimizer, parameter), own)
    optimizer.adopt_structured_point()
    assert torch.equal(parameter, own)


@pytest.mark.parametrize("psi", [LASSO, L1(1.0), NuclearNorm(2.0), None], ids=repr)
@pytest.mark.parametrize("cls", DUAL)
def test_before_the_first_step_of_a_stage_what_is_w(cls, psi):
    """On a new optimizer and right after a restart, bit for bit; also for parameters without gradient so far."""
    problem = NoisyQuadratic(steps=5)
    parameter, other = problem.parameter(), problem.parameter()
    optimizer = cls([parameter, other], lr=0.05, regularizer=psi)
    start = parameter.detach().clone()
    assert torch.equal(structured(optimizer, parameter), start)
    train(optimizer, parameter, problem, 3)
    optimizer.restart()
    own = parameter.detach().clone()
    with optimizer.structured_point():
        assert torch.equal(parameter, own)
        assert torch.equal(other, start)
    optimizer.param_groups[0]["lr"] = 0.0
    train(optimizer, parameter, problem, 2)  # alpha stays 0
    assert torch.equal(structured(optimizer, parameter), own)


@pytest.mark.parametrize("cls", DUAL)
def test_after_a_restart_with_memory_what_follows_from_what_was_kept(cls):
    """argmin alpha psi + <V, w> + 1/2 <w - W, P (w - W)> with the kept averages: checked through its optimality."""
    _, parameter, optimizer = trained(cls)
    optimizer.restart(memory=50)
    state, w_hat = optimizer.state[parameter], structured(optimizer, parameter)
    metric = state["grad_sq_sum"].pow(1 / 3) + 1e-6 if cls is RAMDA else torch.full_like(w_hat, 50**0.5)
    gradient = state["grad_sum"] + metric * (w_hat - parameter.detach())
    distance = LASSO.subdifferential_distance(w_hat, gradient, float(state["weight_sum"]))
    assert float(distance) <= 1e-10 * float(gradient.norm())
    assert torch.equal(state["anchor"], parameter)


@pytest.mark.parametrize("cls", DUAL)
def test_adopting_puts_exact_zeros_into_the_model(cls):
    problem, parameter, optimizer = trained(cls)
    w_hat = structured(optimizer, parameter)
    before = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    optimizer.adopt_structured_point()
    assert torch.equal(parameter, w_hat)
    assert bool((parameter == 0).any())
    for key, value in before.items():
        assert torch.equal(optimizer.state[parameter][key], value)
    train(optimizer, parameter, problem, 3, first=9)  # training goes on from there


def test_one_copy_of_the_weights_exists_inside_and_none_after():
    problem = NoisyQuadratic(shape=(300, 200), steps=3)
    parameters = [problem.parameter(torch.float32) for _ in range(3)]
    optimizer = RAMDA(parameters, regularizer=LASSO)
    for parameter in parameters:
        parameter.grad = problem.gradient(parameter.detach(), 1)
    optimizer.step()
    held = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    frame = optimizer.structured_point()
    frame.__enter__()
    kept = frame.gen.gi_frame.f_locals["kept"]
    assert sum(own.nbytes for _, own in kept) == sum(p.nbytes for p in parameters)
    frame.__exit__(None, None, None)
    assert sum(value.nbytes for state in optimizer.state.values() for value in state.values()) == held


def test_the_weights_come_back_from_an_exception():
    problem, parameter, optimizer = trained(RAMDA)
    own = parameter.detach().clone()
    with pytest.raises(ZeroDivisionError), optimizer.structured_point():
        assert not torch.equal(parameter, own)
        raise ZeroDivisionError
    assert torch.equal(parameter, own)
    train(optimizer, parameter, problem, 1, first=9)


def test_what_cannot_be_done_inside_is_refused():
    """Steps, restarts, adopting and another such block; the model's state_dict is what one wants inside."""
    problem, parameter, optimizer = trained(RAMDA)
    schedule = StageSchedule(optimizer, [1], 0.5)
    parameter.grad = problem.gradient(parameter.detach(), 9)
    own = parameter.detach().clone()
    with optimizer.structured_point():
        for refused in (optimizer.step, optimizer.restart, optimizer.adopt_structured_point, schedule.step):
            with pytest.raises(RuntimeError, match=r"inside structured_point\(\)"):
                refused()
        with pytest.raises(RuntimeError, match=r"structured_point\(\) inside structured_point\(\)"):
            optimizer.structured_point().__enter__()
        assert not torch.equal(parameter, own)
    assert torch.equal(parameter, own)
    optimizer.step()


def test_a_model_is_evaluated_and_exported_at_what():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = RAMDA([{"params": model[0].weight, "regularizer": GroupLasso(0.1)}, {"params": model[2].parameters()}])
    for _ in range(30):
        x = torch.randn(32, 8)
        optimizer.zero_grad()
        (model(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
    with optimizer.structured_point():
        exported = {key: value.clone() for key, value in model.state_dict().items()}
    columns = (exported["0.weight"] == 0).all(dim=0)
    assert 0 < int(columns.sum()) < 8
    assert not bool((model[0].weight == 0).all(dim=0).any())
