"""What an engine keeps between steps, and that changes of anything are noticed."""

import copy
import io

import pytest
import torch
from engine import ENGINES, forced, optimizer

from ramda_theory import kernels
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso

CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW)
each_engine = pytest.mark.parametrize("engine", ENGINES)


def drawn(steps, shape=(20, 20), seed=0):
    """A start and gradients, of columns of different size."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(shape[-1], generator=generator).exp()
    start, *gradients = (torch.randn(shape, generator=generator) * size for _ in range(steps + 1))
    return start, gradients


def run(engine, own, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient
        with forced(engine):
            own.step()
    return parameter.detach()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.detach().abs().max()), check_dtype=False)


def changed_dtype(parameter, own):
    parameter.data = parameter.data.half()
    parameter.grad = parameter.grad.half()


def changed_memory(parameter, own):
    parameter.data = parameter.data.clone()


def changed_layout(parameter, own):
    parameter.data = parameter.data.T.contiguous().T


def transposed(parameter, own):
    parameter.data = parameter.data.T


def changed_gradient(parameter, own):
    parameter.grad = parameter.grad.T.contiguous().T


def changed_regularizer(parameter, own):
    own.param_groups[0]["regularizer"] = GroupLasso(0.3, dims=(1,))


def without_regularizer(parameter, own):
    own.param_groups[0]["regularizer"] = None


def changed_options(parameter, own):
    own.param_groups[0].update(lr=0.03, maximize=True)
    if "eps" in own.param_groups[0]:
        own.param_groups[0]["eps"] = 1e-3
    if "momentum" in own.param_groups[0]:
        own.param_groups[0]["momentum"] = 0.2


def tensor_lr(parameter, own):
    own.param_groups[0]["lr"] = torch.tensor(0.03)


def no_lr(parameter, own):
    own.param_groups[0]["lr"] = 0.0


def changed_policy(parameter, own):
    own.param_groups[0]["on_nonfinite"] = "skip"


def changed_state(parameter, own):
    own.state[parameter] = {key: value.clone() for key, value in own.state[parameter].items()}


def forgotten_state(parameter, own):
    own.state.clear()


def another_group(parameter, own):
    other = torch.nn.Parameter(torch.ones(30, 20))
    other.grad = torch.ones(30, 20)
    own.add_param_group({"params": [other], "regularizer": GroupLasso(0.1)})
    own.param_groups.reverse()


CHANGES = (
    changed_dtype, changed_memory, changed_layout, transposed, changed_gradient, changed_regularizer,
    without_regularizer, changed_options, tensor_lr, no_lr, changed_policy, changed_state, forgotten_state,
    another_group,
)  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_noticed(cls, change):
    """The step after a change is that of an optimizer that has never made another, and the eager one."""
    start, gradients = drawn(6)
    parameter = torch.nn.Parameter(start.clone())
    own = cls([parameter], lr=1e-2, regularizer=GroupLasso(0.05))
    run("default", own, parameter, gradients[:4])
    parameter.grad = gradients[4].clone()
    change(parameter, own)
    # A copy of an optimizer knows what its state says, and nothing else.
    fresh, eager = copy.deepcopy(own), copy.deepcopy(own)
    for group in eager.param_groups:
        if "fused" in group:
            group["fused"] = False
    every = [[p for group in each.param_groups for p in group["params"]] for each in (own, fresh, eager)]
    for params, each, engine in zip(every, (own, fresh, eager), ("default", "default", "eager"), strict=True):
        for parameter, first in zip(params, every[0], strict=True):
            parameter.grad = first.grad
        with forced(engine):
            each.step()
    for ours, expected, plain in zip(*every, strict=True):
        assert torch.equal(ours, expected)
        torch.testing.assert_close(ours, plain, rtol=1e-3 if ours.dtype is torch.half else 0, atol=1e-5)
    for parameter, other in zip(own.state, fresh.state, strict=True):
        assert all(torch.equal(value, fresh.state[other][key]) for key, value in own.state[parameter].items())


def with_half_norms(state):
    if "norms" in state:
        state["norms"] = state["norms"].half()


def with_one_norm_for_all(state):
    if "norms" in state:
        state["norms"] = torch.ones(1).expand(20)


def with_float32_weight_sum(state):
    state["weight_sum"] = state["weight_sum"].float()


def with_float64_step(state):
    state["step"] = state["step"].double()


def with_integer_step(state):
    state["step"] = state["step"].long()


KINDS = (with_half_norms, with_one_norm_for_all, with_float32_weight_sum, with_float64_step, with_integer_step)


@pytest.mark.parametrize("change", KINDS)
def test_a_state_of_other_kinds_is_not_taken_for_what_it_was(change):
    start, gradients = drawn(6)
    ends = []
    for engine in ENGINES:
        parameter = torch.nn.Parameter(start.clone())
        own = optimizer(engine, RAMDA, [parameter], regularizer=GroupLasso(0.05))
        run(engine, own, parameter, gradients[:4])
        if engine != "eager":
            change(own.state[parameter])
        ends.append(run(engine, own, parameter, gradients[4:]))
        assert own.state[parameter]["step"] == 6
    close(ends[1], ends[0])


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
def test_a_resumed_run_is_the_same_bit_for_bit(engine, cls):
    start, gradients = drawn(12, (40, 60))
    parameter = torch.nn.Parameter(start.clone())
    straight = run(engine, optimizer(engine, cls, [parameter], regularizer=GroupLasso(0.3)), parameter, gradients)
    parameter = torch.nn.Parameter(start.clone())
    own = optimizer(engine, cls, [parameter], regularizer=GroupLasso(0.3))
    run(engine, own, parameter, gradients[:5])
    file = io.BytesIO()
    torch.save({"w": parameter.detach(), "optimizer": own.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    parameter = torch.nn.Parameter(saved["w"])
    resumed = cls([parameter])
    resumed.load_state_dict(saved["optimizer"])
    assert torch.equal(run(engine, resumed, parameter, gradients[5:]), straight)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("engines", [ENGINES, ENGINES[::-1]])
def test_a_run_may_change_its_engine(cls, engines):
    """Also through a checkpoint."""
    start, gradients = drawn(12, (40, 60))
    parameter = torch.nn.Parameter(start.double())
    expected = run("eager", cls([parameter], regularizer=GroupLasso(0.3)), parameter, [g.double() for g in gradients])
    parameter = torch.nn.Parameter(start.clone())
    own = optimizer(engines[0], cls, [parameter], regularizer=GroupLasso(0.3))
    run(engines[0], own, parameter, gradients[:5])
    other = optimizer(engines[1], cls, [parameter], regularizer=GroupLasso(0.3))
    saved = own.state_dict()
    for group in saved["param_groups"]:
        group.pop("fused", None)
    other.load_state_dict(saved)
    close(run(engines[1], other, parameter, gradients[5:]), expected)


def test_one_step_takes_some_parameters_and_leaves_others():
    ends = []
    for engine in ENGINES:
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(6, 5, dtype=dtype)) for dtype in (torch.float32, torch.float64) * 2]
        own = optimizer(engine, RAMDA, params, regularizer=GroupLasso(0.05))
        for late in (1, 0, 0):  # the last two parameters get their first gradient one step later
            for parameter in params[: 4 - 2 * late]:
                parameter.grad = torch.randn_like(parameter)
            with forced(engine):
                own.step()
        ends.append(params)
        assert [int(own.state[parameter]["step"]) for parameter in params] == [3, 3, 2, 2]
    for ours, plain in zip(*ends, strict=True):
        close(ours, plain)


@pytest.mark.parametrize("gradient", [torch._neg_view(torch.ones(4)), torch._efficientzerotensor((4,))])
def test_gradients_that_are_not_what_is_in_memory_are_left(gradient):
    ends = []
    for engine in ENGINES:
        parameter = torch.nn.Parameter(torch.arange(4.0))
        ends.append(run(engine, optimizer(engine, RAMDA, [parameter]), parameter, [gradient] * 2))
    assert torch.equal(*ends)


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
def test_a_model_made_wider_goes_on_without_the_copies_of_its_weights(engine, cls):
    parameter = torch.nn.Parameter(torch.ones(4, 5).half())
    own = optimizer(engine, cls, [parameter])
    run(engine, own, parameter, [torch.ones(4, 5).half()])
    parameter.data = parameter.data.float()
    before = parameter.detach().clone()
    assert (run(engine, own, parameter, [torch.ones(4, 5)]) < before).all()
    assert "w" not in own.state[parameter]


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
def test_a_half_precision_parameter_changed_from_outside_overrules_its_copy(engine, cls):
    parameter = torch.nn.Parameter(torch.ones(4, 5).half())
    own = optimizer(engine, cls, [parameter], lr=1e-4)
    run(engine, own, parameter, [torch.ones(4, 5).half()])
    with torch.no_grad():
        parameter[1, 2].fill_(7.0)
    run(engine, own, parameter, [torch.ones(4, 5).half()])
    if cls in (ProxSGD, ProxAdamW):
        assert abs(parameter[1, 2].item() - 7.0) < 0.01
    else:  # What is far away: a tenth of the way
        assert 6.0 < parameter[1, 2].item() < 6.6


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_in_the_same_memory_are_stepped_one_after_the_other(cls, groups):
    start, gradients = drawn(3, (300, 200))
    ends = []
    for engine in ("default", "default", "eager"):
        first = torch.nn.Parameter(start.clone())
        second = torch.nn.Parameter(first.detach())
        members = [[first], [second]] if groups == 2 else [[first, second]]
        own = optimizer(engine, cls, [{"params": each} for each in members], lr=1e-2)
        for gradient in gradients:
            first.grad, second.grad = gradient, 2 * gradient
            with forced(engine):
                own.step()
        ends.append(first.detach())
    assert torch.equal(ends[0], ends[1])
    close(ends[0], ends[2])
    pytest.importorskip("numba")
    with pytest.raises(RuntimeError, match="memory of another"), kernels.using("cpu"):
        own.step()


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
def test_autograd_notices_that_the_weights_changed(engine, cls):
    parameter = torch.nn.Parameter(torch.ones(6, 5))
    loss = (parameter * parameter).sum()
    run(engine, optimizer(engine, cls, [parameter]), parameter, [torch.ones(6, 5)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_recording_how_well_the_subproblems_are_solved_takes_the_eager_engine():
    parameter = torch.nn.Parameter(torch.randn(6, 5))
    own = RAMDA([parameter], regularizer=L1(0.05))
    own.record_inexactness = True
    run("default", own, parameter, [torch.randn(6, 5)])
    assert own.inexactness[parameter].status == "solved"
    ((_, engine, reason),) = own.explain_step().rows
    assert (engine, "inexactness" in reason) == ("eager", True)
