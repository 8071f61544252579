"""Half-precision parameters, mixed precision, gradient scaling and clipping."""

import copy
import io

import pytest
import torch
from torch import nn
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory import kernels
from ramda_theory.optim import RAMDA, RMDA, NormalMapSGD, ProxAdamW
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm

HALF = (torch.bfloat16, torch.float16)
LASSO = GroupLasso(0.5)


def plain(cls):
    """The options that make float32 parameters take the path of half-precision ones."""
    return {"fused": False} if cls is RAMDA else {}


def feed(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


def gradients_of(dtype, steps=100):
    """Gradients that ``dtype`` holds exactly, the same for every run."""
    problem = NoisyQuadratic(steps=steps)
    start = torch.tensor(problem.start)
    return [problem.gradient(start, t).to(dtype) for t in range(1, steps + 1)]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("cls", CLASSES)
def test_half_parameters_are_the_float32_run_rounded(cls, dtype):
    """Bit for bit: the weights never lose what rounding drops, so averaging does not stall."""
    gradients, start = gradients_of(dtype), NoisyQuadratic().parameter(dtype).detach()
    half, single = nn.Parameter(start.clone()), nn.Parameter(start.float())
    runs = []
    for parameter in (half, single):
        optimizer = cls([parameter], lr=0.01, regularizer=LASSO, **plain(cls))
        feed(optimizer, parameter, gradients)
        runs.append(optimizer)
    assert torch.equal(half, single.to(dtype))
    assert torch.equal(structured(runs[0], half), structured(runs[1], single).to(dtype))
    for key, value in runs[1].state[single].items():
        assert torch.equal(runs[0].state[half][key], value)
    assert torch.equal(runs[0].state[half]["w"], single)


def test_averaging_in_half_precision_would_stall():
    """What the float32 copy is for: without it small averaging weights stop moving."""
    start, end, c = torch.ones(1000), torch.linspace(1.5, 2.5, 1000), 0.01
    naive = start.to(torch.bfloat16)
    for _ in range(2000):
        naive = torch.lerp(naive, end.to(torch.bfloat16), c)
    assert float((naive.float() - end).norm() / end.norm()) > 0.1
    parameter = nn.Parameter(start.to(torch.bfloat16))
    optimizer = RMDA([parameter], lr=1.0, momentum=1 - c)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = optimizer.state[parameter]
    for _ in range(2000):
        state["anchor"].copy_(end)  # What stays at ``end``
        optimizer.step()
    torch.testing.assert_close(parameter.float(), end, rtol=2**-8, atol=0)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
@pytest.mark.parametrize("cls", CLASSES)
def test_saved_loaded_and_resumed_bit_for_bit(cls, dtype):
    """Every array stays float32 (float64 for float64) through torch.save, weights_only loading and load_state_dict."""
    wide = torch.promote_types(dtype, torch.float32)
    gradients = gradients_of(dtype, 40)
    parameter = NoisyQuadratic().parameter(dtype)
    optimizer = cls([parameter], lr=0.01, regularizer=LASSO)
    feed(optimizer, parameter, gradients[:20])
    buffer = io.BytesIO()
    torch.save((parameter, optimizer.state_dict()), buffer)
    feed(optimizer, parameter, gradients[20:])
    buffer.seek(0)
    resumed, state_dict = torch.load(buffer, weights_only=True)
    other = cls([resumed], lr=0.5)
    other.load_state_dict(state_dict)
    arrays = {key: value for key, value in other.state[resumed].items() if value.ndim == 2}
    assert {value.dtype for value in arrays.values()} == {wide}
    assert ("w" in arrays) == (dtype in HALF)
    feed(other, resumed, gradients[20:])
    assert torch.equal(resumed, parameter)
    for key, value in optimizer.state[parameter].items():
        assert other.state[resumed][key].dtype == value.dtype
        assert torch.equal(other.state[resumed][key], value)


@pytest.mark.parametrize("cls", CLASSES)
def test_states_go_between_precisions(cls):
    """A float32 checkpoint goes on in bfloat16 and back, with float32 state throughout."""
    single = NoisyQuadratic().parameter(torch.float32)
    first = cls([single], lr=0.01, regularizer=LASSO)
    feed(first, single, gradients_of(torch.bfloat16, 5))
    half = nn.Parameter(single.detach().to(torch.bfloat16))
    second = cls([half])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(second.state[half]["w"], half.float())
    feed(second, half, gradients_of(torch.bfloat16, 5))
    back = nn.Parameter(half.detach().float())
    third = cls([back])
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    assert "w" not in third.state[back]
    feed(third, back, gradients_of(torch.bfloat16, 5))
    assert all(value.dtype == torch.float32 for value in third.state[back].values() if value.ndim == 2)


@pytest.mark.parametrize("way", ["raise", "skip"])
@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not NormalMapSGD])
def test_weights_changed_from_outside_count(cls, way):
    """An entry set by hand overrules the float32 copy; the others keep what rounding hides.

    NormalMapSGD's W is the proximal point of its state, whatever it was before.
    """
    gradients = gradients_of(torch.bfloat16, 12)
    parameter = NoisyQuadratic().parameter(torch.bfloat16)
    optimizer = cls([parameter], lr=0.01, on_nonfinite=way)
    feed(optimizer, parameter, gradients[:10])
    kept = optimizer.state[parameter]["w"].clone()
    with torch.no_grad():
        parameter[0, 0] = 3.0
    optimizer.param_groups[0]["lr"] = 1e-12
    if cls in (RAMDA, RMDA):  # What is elsewhere: do not move towards it
        optimizer.param_groups[0]["momentum"] = 1.0 - 1e-9
    feed(optimizer, parameter, gradients[10:11])
    now = optimizer.state[parameter]["w"]
    assert float(now[0, 0]) == pytest.approx(3.0)
    assert float(parameter.detach()[0, 0]) == 3.0
    kept[0, 0] = 3.0
    torch.testing.assert_close(now, kept, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("cls", CLASSES)
def test_large_gradients_of_half_precision_are_squared_in_float32(cls, dtype):
    parameter = NoisyQuadratic().parameter(dtype)
    optimizer = cls([parameter], lr=1e-3, regularizer=L1(0.1))
    for size in (1e3, 6e4):
        parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
    assert bool(parameter.isfinite().all())
    assert all(bool(value.isfinite().all()) for value in optimizer.state[parameter].values())


@pytest.mark.parametrize("dtype", HALF)
def test_structured_points_of_half_precision(dtype):
    parameter = NoisyQuadratic().parameter(dtype)
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(2.0))
    feed(optimizer, parameter, gradients_of(dtype, 10))
    own = parameter.detach().clone()
    w_hat = structured(optimizer, parameter)
    assert 0 < int(torch.count_nonzero(w_hat)) < w_hat.numel()
    assert torch.equal(parameter, own)
    optimizer.adopt_structured_point()
    assert torch.equal(parameter, w_hat)
    assert torch.equal(optimizer.state[parameter]["w"] == 0, w_hat == 0)
    feed(optimizer, parameter, gradients_of(dtype, 1))
    assert optimizer.state[parameter]["w"].dtype == torch.float32


def test_iterative_solver_for_half_precision():
    gradients = gradients_of(torch.bfloat16, 10)
    start = NoisyQuadratic().parameter(torch.bfloat16).detach()
    half, single = nn.Parameter(start.clone()), nn.Parameter(start.float())
    for parameter in (half, single):
        feed(RAMDA([parameter], lr=0.05, regularizer=NuclearNorm(0.5)), parameter, gradients)
    assert torch.equal(half, single.to(torch.bfloat16))


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_precisions_mix_in_one_group(cls, foreach):
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    problem = NoisyQuadratic(steps=5)
    together = [problem.parameter(dtype) for dtype in dtypes]
    alone = [problem.parameter(dtype) for dtype in dtypes]
    optimizer = cls(together, lr=0.05, regularizer=LASSO, foreach=foreach)
    for t in range(1, 6):
        for parameter in together:
            parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
    for parameter, other in zip(together, alone, strict=True):
        train(cls([other], lr=0.05, regularizer=LASSO), other, problem, 5)
        assert torch.equal(parameter, other)


def small_network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def batches(steps):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 6, generator=generator) for _ in range(steps)]


def run_network(cls, steps, amp=False, scaled=False, spoil=None, clip=None):
    """Weights after training, the scaler, and how many steps the optimizer counted."""
    model = small_network()
    optimizer = cls(model.parameters(), lr=0.01, regularizer=L1(0.01))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5, enabled=scaled)
    for t, x in enumerate(batches(steps)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        scaler.scale(loss).backward()
        if t == spoil:
            model[0].weight.grad[0, 0] = torch.inf
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
    counted = {int(state["step"]) for state in optimizer.state.values()}
    return [p.detach() for p in model.parameters()], scaler, counted


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_gradient_scaling_changes_nothing(cls, amp):
    """Scales are powers of two: the scaled run is the unscaled one bit for bit, and an overflow leaves its step out."""
    unscaled, _, _ = run_network(cls, 12, amp=amp)
    scaled, scaler, counted = run_network(cls, 12, amp=amp, scaled=True)
    assert all(torch.equal(a, b) for a, b in zip(unscaled, scaled, strict=True))
    assert scaler.get_scale() == 2.0**12
    assert counted == {12}
    _, scaler, counted = run_network(cls, 12, amp=amp, scaled=True, spoil=3)
    assert counted == {11}


@pytest.mark.parametrize("cls", [RAMDA, ProxAdamW])
def test_clipping_after_unscaling(cls):
    unscaled, _, _ = run_network(cls, 8, clip=0.05)
    scaled, _, _ = run_network(cls, 8, clip=0.05, scaled=True)
    unclipped, _, _ = run_network(cls, 8)
    for a, b in zip(unscaled, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert not torch.equal(unscaled[0], unclipped[0])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("before", [*HALF, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("after", [*HALF, torch.float32, torch.float64], ids=str)
def test_a_model_whose_precision_changes_goes_on_as_one_that_was_loaded_into_it(cls, before, after):
    """Its state has the precision of new parameters; W has the float32 copy that averaging needs."""
    parameter = nn.Parameter(NoisyQuadratic().parameter(before).detach())
    optimizer = cls([parameter], lr=0.05, regularizer=LASSO)
    gradients = gradients_of(torch.bfloat16, 6)
    with kernels.using("eager"):
        feed(optimizer, parameter, gradients[:3])
    saved = copy.deepcopy(optimizer.state_dict())
    parameter.data, parameter.grad = parameter.data.to(after), None
    loaded = nn.Parameter(parameter.detach().clone())
    other = cls([loaded], lr=0.05, regularizer=LASSO)
    other.load_state_dict(saved)
    with kernels.using("eager"):
        feed(optimizer, parameter, gradients[3:])
        feed(other, loaded, gradients[3:])
    assert torch.equal(parameter, loaded)
    torch.testing.assert_close(optimizer.state[parameter], other.state[loaded], rtol=0, atol=0)
