"""The optimizers against the NumPy methods, independent scalar loops, and torch's AdamW."""

from functools import partial

import numpy as np
import pytest
import recurrences
import torch
from toy import CLASSES, NoisyQuadratic, structured, train

from ramda_theory import methods
from ramda_theory.optim import RAMDA, RMDA, NormalMapSGD, ProxAdamW, ProxSGD, StageSchedule
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

EXACT = {
    "none": None,
    "L1": L1(0.2),
    "ElasticNet": ElasticNet(0.2, 0.1),
    "MCP": MCP(0.25, 3.0),
    "SCAD": SCAD(0.2, 3.7),
    "GroupLasso": GroupLasso(0.2),
    "GroupLasso rows": GroupLasso(0.2, dims=(1,), size_scaled=False),
    "SparseGroupLasso": SparseGroupLasso(0.2, 0.5),
}
ITERATIVE = {"NuclearNorm": NuclearNorm(0.4), "GroupMCP": GroupMCP(0.2, 3.0)}
"""Without an exact method for every metric: RAMDA and ProxAdamW iterate."""

REGULARIZERS = EXACT | ITERATIVE
LR = {RAMDA: 0.05, RMDA: 0.3, ProxSGD: 0.05, ProxAdamW: 0.05, NormalMapSGD: 0.05}


def options(cls, regularizer, tolerance=1e-13):
    """Iterations are run to rounding level, in a metric that is not too far from round."""
    arguments = {"lr": LR[cls], "regularizer": regularizer}
    if cls in (RAMDA, ProxAdamW) and regularizer in ITERATIVE.values():
        arguments.update(tolerance=tolerance, max_iter=20_000, eps=1.0)
    return arguments


def reference(cls, regularizer, eps):
    """The NumPy method of the same name."""
    if cls is RAMDA:
        return methods.RAMDA(regularizer, max_iter=20_000)
    if cls is ProxAdamW:
        return methods.ProxGen(regularizer, eps=eps, max_iter=20_000)
    return {RMDA: methods.RMDA, ProxSGD: methods.ProxSGD, NormalMapSGD: methods.NSGD}[cls](regularizer)


@pytest.mark.parametrize("memory", [0, 7])
@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("cls", CLASSES)
def test_equals_the_numpy_method_through_stages(cls, name, memory):
    """w and What to 1e-10 over three stages with restarts and the averaging of the last stage."""
    if memory and cls in (ProxSGD, ProxAdamW, NormalMapSGD):
        pytest.skip("does not restart")
    regularizer, problem = REGULARIZERS[name], NoisyQuadratic(steps=30)
    averaging = 1.0 if cls in (ProxAdamW, NormalMapSGD) else 0.3
    arguments = {"eps": 1e-6, **options(cls, regularizer)}
    eps = arguments["eps"]
    if cls in (RMDA, ProxSGD, NormalMapSGD):
        del arguments["eps"]
    schedule = methods.Schedule(
        LR[cls],
        averaging,
        eps,
        milestones=(10, 18),
        gamma=0.3,
        memory=memory,
        grow_averaging=cls in (RAMDA, RMDA),
        tolerance=lambda t: 1e-13,
    )
    method = reference(cls, regularizer, eps)
    state = method.init(problem.start)
    parameter = problem.parameter()
    extra = {} if cls in (ProxAdamW, NormalMapSGD) else {"momentum": 0.7}
    optimizer = cls([parameter], **arguments, **extra)
    stages = StageSchedule(optimizer, [10, 18], 0.3, memory)
    for t in range(1, 31):
        if schedule.starts_stage(t):
            state = method.restart(state, schedule.at(t), memory)
        state, _ = method.step(state, problem.gradient(state.query, t), schedule.at(t))
        train(optimizer, parameter, problem, 1, first=t)
        np.testing.assert_allclose(parameter.detach().numpy(), state.w, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(structured(optimizer, parameter).numpy(), state.w_hat, rtol=1e-10, atol=1e-10)
        stages.step()


@pytest.mark.parametrize(
    ("cls", "loop", "arguments"),
    [
        (RAMDA, recurrences.ramda, {"lr": 0.02, "momentum": 0.9, "eps": 1e-6}),
        (RAMDA, recurrences.ramda, {"lr": 0.1, "momentum": 0.0, "eps": 1e-3}),
        (RMDA, partial(recurrences.ramda, metric="sqrt t"), {"lr": 0.1, "momentum": 0.9}),
        (ProxSGD, recurrences.prox_sgd, {"lr": 0.05, "momentum": 0.9}),
    ],
)
def test_without_regularizer_equals_a_scalar_loop(cls, loop, arguments):
    problem, steps = NoisyQuadratic(), 200
    parameter = problem.parameter()
    w = train(cls([parameter], **arguments), parameter, problem, steps)

    def gradient(w, t):
        return problem.gradient(np.reshape(w, problem.start.shape), t).ravel().tolist()

    settings = [(arguments["lr"], 1.0 - arguments["momentum"], arguments.get("eps"))] * steps
    *_, (expected, _) = loop(problem.start.ravel().tolist(), gradient, settings)
    np.testing.assert_allclose(w.numpy().ravel(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_without_regularizer_equals_adamw(weight_decay, maximize):
    problem = NoisyQuadratic()
    arguments = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-8, "weight_decay": weight_decay, "maximize": maximize}
    ours, theirs = problem.parameter(), problem.parameter()
    w = train(ProxAdamW([ours], **arguments), ours, problem, 200)
    expected = train(torch.optim.AdamW([theirs], **arguments), theirs, problem, 200)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("cls", CLASSES)
def test_ways_to_run_a_step_agree(cls, name):
    """foreach lists, tensor arithmetic (capturable, skip) and a tensor lr give the plain path's trajectory."""
    regularizer, problem, steps = REGULARIZERS[name], NoisyQuadratic(steps=15), 4 if name in ITERATIVE else 15

    def run(**changed):
        parameter = problem.parameter()
        return train(cls([parameter], **{**options(cls, regularizer), **changed}), parameter, problem, steps)

    plain = run(foreach=False)
    for changed in (
        {"foreach": True},
        {"on_nonfinite": "skip"},
        {"on_nonfinite": "ignore", "capturable": True},
        {"lr": torch.tensor(LR[cls], dtype=torch.float64)},
        {"lr": torch.tensor([LR[cls]], dtype=torch.float64), "on_nonfinite": "skip"},
    ):
        torch.testing.assert_close(run(**changed), plain, rtol=1e-10, atol=1e-11, msg=lambda m, c=changed: f"{c}: {m}")


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("cls", CLASSES)
def test_float32_follows_float64(cls, name):
    """Within 1e-5 relative over 200 steps (40 where each takes many iterations), with the same zeros in What.

    (A minimiser that jumps, as those of MCP do, could make a jump one step earlier; here it does not.)
    """
    regularizer, problem, steps = REGULARIZERS[name], NoisyQuadratic(steps=200), 40 if name in ITERATIVE else 200
    arguments = options(cls, regularizer, tolerance=1e-5)
    points = {}
    for dtype in (torch.float64, torch.float32):
        parameter = problem.parameter(dtype)
        optimizer = cls([parameter], **arguments)
        points[dtype] = train(optimizer, parameter, problem, steps), structured(optimizer, parameter)
    for double, single in zip(points[torch.float64], points[torch.float32], strict=True):
        assert float((single.double() - double).norm() / double.norm()) <= 1e-5
    assert torch.equal(points[torch.float64][1] == 0, points[torch.float32][1] == 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("cls", CLASSES)
def test_gpu_follows_cpu(cls, name):
    regularizer, problem = REGULARIZERS[name], NoisyQuadratic(steps=50)
    points = []
    for device in ("cpu", "cuda"):
        parameter = problem.parameter(device=device)
        optimizer = cls([parameter], **options(cls, regularizer))
        points.append((train(optimizer, parameter, problem, 50).cpu(), structured(optimizer, parameter).cpu()))
    for cpu, gpu in zip(*points, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-9, atol=1e-10)
    assert torch.equal(points[0][1] == 0, points[1][1] == 0)


@pytest.mark.parametrize("cls", CLASSES)
def test_maximize_is_minimizing_the_negative(cls):
    problem = NoisyQuadratic(steps=30)
    for way in ({}, {"on_nonfinite": "skip"}):
        up, down = problem.parameter(), problem.parameter()
        maximizer = cls([up], lr=LR[cls], regularizer=GroupLasso(0.1), maximize=True, **way)
        minimizer = cls([down], lr=LR[cls], regularizer=GroupLasso(0.1), **way)
        for t in range(1, 31):
            up.grad = -problem.gradient(up.detach(), t)
            down.grad = problem.gradient(down.detach(), t)
            maximizer.step()
            minimizer.step()
        assert torch.equal(up, down)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_groups_have_their_own_options_and_late_parameters_their_own_time(cls, foreach):
    """Three parameters, three regularizers and lrs, one of them without gradient for ten steps: as if alone."""
    problem, psis = NoisyQuadratic(steps=30), [GroupLasso(0.2), None, L1(0.3)]

    def groups(params):
        return [
            {"params": [p], "regularizer": psi, "lr": LR[cls] * k}
            for p, psi, k in zip(params, psis, (1, 2, 3), strict=True)
        ]

    together = [problem.parameter() for _ in psis]
    alone = [problem.parameter() for _ in psis]
    joint = cls(groups(together), foreach=foreach)
    single = [cls([group]) for group in groups(alone)]
    for t in range(1, 31):
        for p, q, optimizer in zip(together, alone, single, strict=True):
            if p is together[2] and t <= 10:
                continue
            p.grad, q.grad = problem.gradient(p.detach(), t), problem.gradient(q.detach(), t)
            optimizer.step()
        joint.step()
    for p, q in zip(together, alone, strict=True):
        assert torch.equal(p, q)
    assert [int(joint.state[p]["step"]) for p in together] == [30, 30, 20]


@pytest.mark.parametrize("cls", CLASSES)
def test_foreach_takes_parameters_of_different_age_in_one_group(cls):
    problem = NoisyQuadratic(steps=20)
    runs = []
    for foreach in (False, True):
        params = [problem.parameter(), problem.parameter(), problem.parameter(torch.float32)]
        optimizer = cls(params, lr=LR[cls], regularizer=GroupLasso(0.1), foreach=foreach)
        for t in range(1, 21):
            for i, p in enumerate(params):
                if i != 1 or t > 5:
                    p.grad = problem.gradient(p.detach(), t)
            optimizer.step()
        runs.append(params)
    for p, q in zip(*runs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6 if p.dtype == torch.float32 else 1e-13, atol=1e-7)
