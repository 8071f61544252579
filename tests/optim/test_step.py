"""A step: lr 0, layouts, what the state costs, and no look at a number that a device would have to be waited for."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    SparseGroupLasso,
)

REGULARIZERS = [
    None,
    L1(1.0),
    ElasticNet(1.0, 0.1),
    MCP(1.0, 3.0),
    SCAD(1.0, 3.7),
    GroupLasso(2.0),
    SparseGroupLasso(2.0, 0.5),
    NuclearNorm(2.0),
    GroupMCP(2.0, 3.0),
]
WAYS = {
    "plain": {},
    "foreach": {"foreach": True},
    "tensor lr": {"lr": torch.tensor(0.0)},
    "skip": {"on_nonfinite": "skip"},
    "tensor lr, skip": {"lr": torch.tensor([0.0]), "on_nonfinite": "skip"},
    "capturable": {"on_nonfinite": "ignore", "capturable": True},
}


def bits(tensor):
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}
    return tensor.detach().contiguous().view(kinds[tensor.dtype])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("psi", REGULARIZERS, ids=repr)
@pytest.mark.parametrize("cls", CLASSES)
def test_zero_lr_changes_no_weight_and_no_sum(cls, psi, way):
    """On a fresh optimizer and on one under way, with zero groups and negative zeros, bit for bit."""
    options = WAYS[way]
    for dtype in (torch.float32, torch.bfloat16):
        for fresh in (True, False):
            problem = NoisyQuadratic(steps=5)
            problem.start[:, 0], problem.start[0, 1] = 0.0, -0.0
            parameter = problem.parameter(dtype)
            arguments = {"regularizer": psi, **options}
            arguments["lr"] = arguments.get("lr", torch.tensor(0.0)).clone()
            if not isinstance(options.get("lr"), torch.Tensor):
                arguments["lr"] = 0.0
            optimizer = cls([parameter], **arguments)
            if not fresh:
                set_lr(optimizer, 0.05)
                train(optimizer, parameter, problem, 3)
                optimizer.adopt_structured_point()  # exact zeros
                set_lr(optimizer, 0.0)
            before = bits(parameter).clone()
            sums = {key: value.clone() for key, value in optimizer.state[parameter].items()}
            train(optimizer, parameter, problem, 2, first=4)
            assert torch.equal(bits(parameter), before)
            if cls in (RAMDA, RMDA) and not fresh:
                for key in ("anchor", "grad_sum", "grad_sq_sum", "weight_sum"):
                    assert key not in sums or torch.equal(optimizer.state[parameter][key], sums[key])
                steps = optimizer.state[parameter]["step"] - sums["step"]
                assert float(steps) == 2


def set_lr(optimizer, lr):
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


LAYOUTS = {
    "0-d": lambda: torch.tensor(0.7),
    "1-d": lambda: torch.linspace(-1, 1, 7),
    "transposed": lambda: torch.linspace(-1, 1, 12).reshape(3, 4).T,
    "strided": lambda: torch.linspace(-1, 1, 48).reshape(4, 3, 4)[..., 1],
    "channels_last": lambda: torch.linspace(-1, 1, 72).reshape(2, 3, 3, 4).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: (
        torch.linspace(-1, 1, 96).reshape(2, 2, 2, 3, 4).to(memory_format=torch.channels_last_3d)
    ),
    "empty": lambda: torch.zeros(3, 0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cls", CLASSES)
def test_any_layout_is_stepped_as_a_contiguous_copy_is(cls, layout, dtype):
    """Also with a gradient laid out otherwise; parameters keep their strides."""
    start = LAYOUTS[layout]().to(dtype)
    psis = [None, L1(0.1)] + ([GroupLasso(0.1, dims=(0,))] if start.ndim else [GroupLasso(0.1, dims=())])
    for psi in psis:
        odd, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone(memory_format=torch.contiguous_format))
        if layout == "strided":
            odd = nn.Parameter(LAYOUTS[layout]().to(dtype))
        strides = odd.stride()
        optimizers = [cls([p], lr=0.05, regularizer=psi) for p in (odd, plain)]
        for t in range(3):
            gradient = torch.sin(3 * start + t).contiguous()
            odd.grad, plain.grad = gradient, gradient.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert odd.stride() == strides
        close = 1e-6 if dtype == torch.float32 else 1e-13
        torch.testing.assert_close(odd.detach(), plain.detach(), rtol=close, atol=close)
        torch.testing.assert_close(
            structured(optimizers[0], odd), structured(optimizers[1], plain), rtol=close, atol=close
        )


@pytest.mark.parametrize(
    ("cls", "per_weight"), [(RAMDA, 12), (RMDA, 8), (ProxSGD, 4), (ProxAdamW, 8)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_the_state(cls, per_weight, dtype):
    """Per weight: 12 for RAMDA in float32; half precision adds the 4 of its float32 copy.  One number per group."""
    parameter = nn.Parameter(torch.randn(100, 50, dtype=torch.float64).to(dtype))
    optimizer = cls([parameter], regularizer=GroupLasso(0.1))
    parameter.grad = torch.randn(100, 50).to(dtype)
    optimizer.step()
    with optimizer.structured_point():
        pass
    state = optimizer.state[parameter]
    arrays = sum(value.nbytes for value in state.values() if value.shape == parameter.shape)
    assert arrays == (per_weight + 4 * (dtype == torch.bfloat16)) * parameter.numel()
    others = sum(value.nbytes for value in state.values() if value.shape != parameter.shape)
    assert others <= 4 * 50 + 16


class Looks(TorchFunctionMode):
    """Lists the operations that bring a number of a tensor to the host, but for tensors that are there anyway."""

    def __init__(self, on_host):
        super().__init__()
        self.on_host, self.seen = {id(tensor) for tensor in on_host}, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        watched = name in ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "nonzero", "numpy")
        if watched and id(args[0]) not in self.on_host:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (GroupLasso(0.1, dims=(2,)), ValueError, "does not fit a parameter of shape"),
        (NuclearNorm(0.1), ValueError, "does not fit a parameter of shape"),
        ("group lasso", TypeError, "regularizer"),
    ],
)
def test_a_regularizer_put_into_a_group_that_it_does_not_fit_changes_nothing(cls, wrong, error, message):
    params = [torch.nn.Parameter(torch.ones(4, 5)), torch.nn.Parameter(torch.ones(3))]
    optimizer = cls(params, regularizer=L1(0.01))
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = [{key: value.clone() for key, value in optimizer.state[p].items()} | {"own": p.clone()} for p in params]
    optimizer.param_groups[0]["regularizer"] = wrong
    with pytest.raises(error, match=message):
        optimizer.step()
    for parameter, kept in zip(params, before, strict=True):
        now = optimizer.state[parameter] | {"own": parameter}
        assert all(torch.equal(now[key], value) for key, value in kept.items())
    optimizer.param_groups[0]["regularizer"] = L1(0.02)
    optimizer.step()


@pytest.mark.parametrize("policy", ["raise", "skip", "ignore"])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_step_looks_at_one_number_at_most(cls, policy):
    """One with "raise", for all tensors together; none with "skip" and "ignore", whatever the exact regularizer.

    The regularizers are told that their arrays are not on the host, where they would look for an early end.
    """
    exact = [psi for psi in REGULARIZERS if not isinstance(psi, NuclearNorm)]
    problem = NoisyQuadratic(steps=3)
    groups = [{"params": [problem.parameter() for _ in range(2)], "regularizer": psi} for psi in exact]
    device_only = {"capturable": True} if policy == "ignore" else {}
    optimizer = cls(groups, on_nonfinite=policy, **device_only)
    for t in (1, 2, 3):
        for group in groups:
            for parameter in group["params"]:
                parameter.grad = problem.gradient(parameter.detach(), t)
        numbers = [value for state in optimizer.state.values() for value in state.values() if value.numel() == 1]
        with pytest.MonkeyPatch.context() as patch, Looks(numbers if policy == "raise" else []) as looks:
            for module in ("pieces", "scalar_equation", "group_mcp_equation"):
                patch.setattr(f"ramda_theory.regularizers.{module}.is_host", lambda array: False)
            optimizer.step()
        if t > 1:  # the first step makes the state, whose numbers could not be named before
            assert looks.seen == (["__bool__"] if policy == "raise" else [])
