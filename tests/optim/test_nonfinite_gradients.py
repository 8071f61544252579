"""NaN and Inf gradients never become sparsity silently."""

import copy

import pytest
import torch
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory.optim import RAMDA, RMDA
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm, SparseGroupLasso

BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf, "square overflows": 1e200}
PSIS = [None, L1(0.5), GroupLasso(0.5), SparseGroupLasso(0.5, 0.5), NuclearNorm(0.5)]


def prepared(cls, policy, psi=None, **options):
    """Two parameters after three good steps, with gradients for the fourth."""
    problem = NoisyQuadratic(steps=6)
    params = [problem.parameter(), problem.parameter()]
    groups = [{"params": [params[0]], "regularizer": psi}, {"params": [params[1]]}]
    optimizer = cls(groups, lr=0.05, on_nonfinite=policy, **options)
    for t in range(1, 5):
        for parameter in params:
            parameter.grad = problem.gradient(parameter.detach(), t)
        if t < 4:
            optimizer.step()
    return problem, params, optimizer


def snapshot(params, optimizer):
    return copy.deepcopy([p.detach() for p in params]), copy.deepcopy(optimizer.state_dict()["state"])


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True)) and all(
        torch.equal(first[1][i][key], second[1][i][key]) for i in first[1] for key in first[1][i]
    )


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("cls", CLASSES)
def test_raise_changes_nothing_and_names_the_parameter(cls, bad):
    """The bad gradient is the last one's: even so no other parameter has moved."""
    _, params, optimizer = prepared(cls, "raise", GroupLasso(0.5))
    before = snapshot(params, optimizer)
    params[1].grad[2, 3] = BAD[bad]
    with pytest.raises(RuntimeError, match=r"non-finite gradient .* of parameter 0 of group 1; nothing was changed"):
        optimizer.step()
    assert same(snapshot(params, optimizer), before)


def test_raise_knows_names_and_makes_no_state():
    problem = NoisyQuadratic()
    params = [("good", problem.parameter()), ("bad", problem.parameter()), ("worse", problem.parameter())]
    optimizer = RAMDA(params)
    for name, parameter in params:
        parameter.grad = torch.full_like(parameter, 1.0 if name == "good" else torch.nan)
    with pytest.raises(RuntimeError, match="of parameters bad, worse; nothing"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("psi", PSIS, ids=repr)
@pytest.mark.parametrize("cls", CLASSES)
def test_skip_leaves_the_whole_step_out_and_counts_it(cls, psi, bad):
    """As if it had not happened: weights, sums and t of all parameters, at that step and in the rest of the run."""
    problem, params, optimizer = prepared(cls, "skip", psi)
    twin_params, twin = copy.deepcopy((params, optimizer))
    before = snapshot(params, optimizer)
    params[1].grad[0, 0] = BAD[bad]
    optimizer.step()
    assert same(snapshot(params, optimizer), before)
    assert int(optimizer.skipped_steps) == 1
    for t in (4, 5):
        for ours, theirs in zip(params, twin_params, strict=True):
            ours.grad, theirs.grad = problem.gradient(ours.detach(), t), problem.gradient(theirs.detach(), t)
        optimizer.step()
        twin.step()
    assert all(torch.equal(a, b) for a, b in zip(params, twin_params, strict=True))
    assert (int(optimizer.skipped_steps), int(twin.skipped_steps)) == (1, 0)


def test_skip_on_the_very_first_step_and_in_half_precision():
    for dtype in (torch.float32, torch.bfloat16):
        problem = NoisyQuadratic()
        parameter = problem.parameter(dtype)
        start = parameter.detach().clone()
        optimizer = RAMDA([parameter], regularizer=GroupLasso(0.5), on_nonfinite="skip")
        parameter.grad = torch.full_like(parameter, torch.nan)
        optimizer.step()
        assert torch.equal(parameter, start)
        assert torch.equal(structured(optimizer, parameter), start)
        assert float(optimizer.state[parameter]["step"]) == 0


def test_the_count_of_skipped_steps_is_saved():
    _, params, optimizer = prepared(RAMDA, "skip")
    params[0].grad[0, 0] = torch.nan
    optimizer.step()
    optimizer.step()
    other = RAMDA([{"params": [p]} for p in params], on_nonfinite="skip")
    assert int(other.skipped_steps) == 0
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert int(other.skipped_steps) == 2
    other.step()
    assert (int(other.skipped_steps), int(optimizer.skipped_steps)) == (3, 2)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("psi", PSIS, ids=repr)
@pytest.mark.parametrize("cls", CLASSES)
def test_ignored_they_become_nan_and_never_zero(cls, psi, capturable):
    """Where the NaN is, w and What are NaN; nothing is zero that would not be zero without it."""
    _, params, optimizer = prepared(cls, "ignore", psi, capturable=capturable)
    twin_params, twin = copy.deepcopy((params, optimizer))
    for ours, theirs in zip(params, twin_params, strict=True):
        theirs.grad = ours.grad.clone()
    params[0].grad[2, 3] = torch.nan
    optimizer.step()
    twin.step()
    w, w_hat = params[0].detach(), structured(optimizer, params[0])
    assert bool(w[2, 3].isnan())
    assert bool(w_hat[2, 3].isnan())
    assert not bool(((w_hat == 0) & (structured(twin, twin_params[0]) != 0)).any())
    assert torch.equal(params[1], twin_params[1])


def test_large_but_harmless_gradients_pass():
    parameter = torch.nn.Parameter(torch.zeros(100, dtype=torch.float16))
    optimizer = RMDA([parameter], lr=1e-6)
    parameter.grad = torch.full_like(parameter, 6e4)  # their sum overflows float16
    optimizer.step()
    assert bool((parameter != 0).all())


def test_recorded_inexactness_of_an_ignored_nan_is_nan():
    _, params, optimizer = prepared(RAMDA, "ignore", GroupLasso(0.5))
    optimizer.record_inexactness = True
    params[0].grad[2, 3] = torch.nan
    optimizer.step()
    record = optimizer.inexactness[params[0]]
    assert record.residual != record.residual
    assert record.status == "max_iter"
    assert bool(params[0].isnan().any())


@pytest.mark.parametrize("cls", CLASSES)
def test_good_gradients_pass_under_every_policy(cls):
    problem, runs = NoisyQuadratic(steps=5), []
    for policy in ("raise", "skip", "ignore"):
        parameter = problem.parameter()
        runs.append(train(cls([parameter], lr=0.05, on_nonfinite=policy), parameter, problem, 5))
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=1e-13, atol=1e-13)
