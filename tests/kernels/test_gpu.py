"""The Triton engine on a GPU: what the interpreter cannot show.  Skipped without one; ``-m gpu`` runs nothing else."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from test_engines import CLASSES, LARGE, check, combinations, kept

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso, SparseGroupLasso

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and find_spec("triton")), reason="needs an NVIDIA GPU, and triton"
    ),
]
SHAPES = [(300, 70), (64, 1030), (33,), (12, 7, 3, 3), (1, 5), (11008, 64)]
PSI = [GroupLasso(0.05), SparseGroupLasso(0.05, 0.5, dims=(1,)), L1(0.02), GroupLasso(0.05, (0, 2, 3)), None]
PSI.append(GroupLasso(0.05))


def model(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to("cuda", dtype)) for shape in SHAPES]


def optimizer(cls, params, **options):
    return cls([{"params": [p], "regularizer": r} for p, r in zip(params, PSI, strict=True)], **options)


def give_gradients(params, t):
    """In the memory of the gradients before, if there are any."""
    generator = torch.Generator().manual_seed(1000 + t)
    for parameter in params:
        gradient = torch.randn(parameter.shape, generator=generator).to("cuda", parameter.dtype)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


def take(own, params, steps, first=0):
    for t in range(first, first + steps):
        give_gradients(params, t)
        own.step()


def everything(own, params):
    return [tensor.detach().clone() for p in params for tensor in (p, *own.state[p].values())]


def assert_same(before, after):
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("case", [case for case in combinations() if kept("triton", case)], ids=str)
def test_follows_the_method_on_a_device(case):
    with torch.device("cuda"):
        check("triton", case)


@pytest.mark.parametrize("case", [c for c in combinations() if c.layout.shape == LARGE and c.dtype != torch.float64])
def test_large_ones_follow_the_method_on_a_device(case):
    with torch.device("cuda"):
        check("default", case)


def test_it_is_the_default_there():
    params = model()
    assert all(row[1:] == ("triton", "") for row in optimizer(RAMDA, params).explain_step().rows)


@pytest.mark.parametrize("cls", CLASSES)
def test_two_launches_and_teams_find_the_same(monkeypatch, cls):
    from ramda_theory.kernels.triton import table

    ends = []
    for scheme in (None, table.SPLIT):
        if scheme:
            monkeypatch.setattr(table, "scheme_of", lambda *_: table.SPLIT)
        params = model()
        take(optimizer(cls, params, lr=0.01), params, 10)
        ends.append(params)
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_bits_every_time(cls):
    ends = []
    for _ in range(3):
        params = model()
        own = optimizer(cls, params)
        take(own, params, 20)
        ends.append(everything(own, params))
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD])
@pytest.mark.parametrize("policy", ["ignore", "skip"])
def test_a_captured_step_replays_bit_for_bit(cls, policy):
    """Through other lrs, averaging weights, gradients that are not finite, and restarts."""
    ends = []
    for captured in (False, True):
        params = model()
        lr, momentum = torch.tensor(0.01, device="cuda"), torch.tensor(0.9, device="cuda")
        own = optimizer(cls, params, lr=lr, momentum=momentum, capturable=True, on_nonfinite=policy)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            take(own, params, 3)
        torch.cuda.current_stream().wait_stream(side)
        step = own.step
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                own.step()
            step = graph.replay
        for t in range(3, 20):
            give_gradients(params, t)
            if policy == "skip" and t in (5, 11):
                params[1].grad[3, 4] = float("nan")
            lr.fill_(0.01 / t)
            momentum.fill_(0.9 - 0.04 * t)
            if t == 12 and cls is not ProxSGD:
                own.restart(2)
            step()
        ends.append([*everything(own, params), torch.as_tensor(own.skipped_steps)])
    assert_same(*ends)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("policy", ["ignore", "skip", "raise"])
def test_a_grad_scaler_is_heard_without_waiting(cls, policy):
    params, others = model(), model()
    own, plain = (optimizer(cls, each, on_nonfinite=policy) for each in (params, others))
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, growth_interval=1000)
    scaler.scale(torch.zeros((), device="cuda"))  # which makes the scale
    for t in range(6):
        give_gradients(params, t)
        for parameter in params:
            parameter.grad *= scaler._scale
        if t == 3:
            params[0].grad[0, 0] = float("inf")
        else:
            give_gradients(others, t)
            plain.step()
        if t > 1:
            torch.cuda.set_sync_debug_mode("error")
        try:
            scaler.step(own)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        scaler.update(2.0**10)
    assert_same(everything(plain, others), everything(own, params))


@pytest.mark.parametrize("policy", ["ignore", "skip"])
def test_a_step_waits_for_nothing_and_takes_three_launches(policy):
    params = [parameter for parameter in model() if parameter.ndim < 3]
    own = RAMDA([{"params": params[:1], "regularizer": GroupLasso(0.1)}, {"params": params[1:]}], on_nonfinite=policy)
    take(own, params, 3)
    give_gradients(params, 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        own.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        own.step()
        torch.cuda.synchronize()
    launches = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and "mem" not in e.name]
    ours = [e.name for e in launches if e.name in ("advance", "step_entries", "step_groups")]
    assert len(ours) == 3
    if policy == "ignore":
        assert len(launches) == 3, [e.name for e in launches]


def test_the_state_takes_12_bytes_for_a_weight_and_a_step_no_more_than_one_for_a_while():
    params = [torch.nn.Parameter(torch.randn(1024, 1024, device="cuda")) for _ in range(6)]
    count = sum(parameter.numel() for parameter in params)
    give_gradients(params, 0)
    before = torch.cuda.memory_allocated()
    own = RAMDA(params, regularizer=GroupLasso(0.01), on_nonfinite="skip")
    own.step()
    assert torch.cuda.memory_allocated() - before <= 13 * count
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    own.step()
    assert torch.cuda.max_memory_allocated() - before <= count


@pytest.mark.parametrize(("cls", "lr"), [(RAMDA, 0.01), (RMDA, 0.1), (ProxSGD, 0.1), (ProxAdamW, 1e-3)])
def test_100_steps_end_where_they_end_on_the_cpu(cls, lr):
    """On gradients that pull the weights to a point, so that differences do not grow."""
    ends = []
    for device in ("cpu", "cuda"):
        params = [torch.nn.Parameter(parameter.detach().to(device)) for parameter in model()]
        own = optimizer(cls, params, lr=lr)
        targets = [parameter.detach().to(device) for parameter in model(seed=5)]
        for _ in range(100):
            for parameter, target in zip(params, targets, strict=True):
                parameter.grad = parameter.detach() - target
            own.step()
        with own.structured_point():
            ends.append([parameter.detach().cpu().clone() for parameter in params])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))
        assert ((one == 0) != (other == 0)).double().mean() <= 1e-2
