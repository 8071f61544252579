"""``torch.compile(optimizer.step, fullgraph=True)``: one graph, the same results."""

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from toy import CLASSES, NoisyQuadratic, structured

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, StageSchedule
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    NuclearNorm,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STEPS = 6


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


def optimizer_of(cls, psis, dtypes, **options):
    problem = NoisyQuadratic(steps=40)
    params = [problem.parameter(dtype) for dtype in dtypes]
    groups = [{"params": [p], "regularizer": psi} for p, psi in zip(params, psis, strict=True)]
    return problem, params, cls(groups, **{"lr": 0.05, "on_nonfinite": "skip", **options})


def run(problem, params, optimizer, step, steps=STEPS, spoil=None, late=None, after=None):
    for t in range(1, steps + 1):
        for i, parameter in enumerate(params):
            if i == late and t <= 2:
                continue
            parameter.grad = problem.gradient(parameter.detach(), t)
        if t == spoil:
            params[-1].grad[0, 0] = torch.nan
        step()
        if after is not None:
            after()
    return [p.detach().clone() for p in params], [structured(optimizer, p) for p in params]


def compare(cls, psis, dtypes, backend="aot_eager", spoil=None, late=None, graphs=1, **options):
    """A compiled and a plain run with the same arguments agree, after ``graphs`` compilations."""
    results = []
    for compiled in (False, True):
        problem, params, optimizer = optimizer_of(cls, psis, dtypes, **options)
        counter = CompileCounterWithBackend(backend)
        step = torch.compile(optimizer.step, fullgraph=True, backend=counter) if compiled else optimizer.step
        results.append(run(problem, params, optimizer, step, spoil=spoil, late=late))
        results[-1] += ([dict(optimizer.state[p]) for p in params], int(optimizer.skipped_steps))
    assert counter.frame_count == graphs
    for plain, compiled in zip(results[0][:2], results[1][:2], strict=True):
        for ours, theirs in zip(compiled, plain, strict=True):
            close = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7}[ours.dtype]
            torch.testing.assert_close(ours, theirs, rtol=close, atol=close)
            assert torch.equal(ours == 0, theirs == 0)
    for theirs, ours in zip(results[0][2], results[1][2], strict=True):
        assert ours.keys() == theirs.keys() - {"norms"}  # where the compiled engine starts
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-5)
    assert results[0][3] == results[1][3] == (0 if spoil is None else 1)
    return results


ENTRYWISE = [None, L1(0.5), ElasticNet(0.5, 0.1), MCP(0.5, 3.0), SCAD(0.5, 3.7)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("cls", [*CLASSES[:-1], pytest.param(CLASSES[-1], marks=pytest.mark.slow)])
def test_one_graph_with_equal_results(cls):
    """Also for half precision and for a skipped step, which needs no graph of its own."""
    compare(cls, ENTRYWISE, DTYPES, spoil=4)


def test_one_graph_without_a_look_at_the_gradients():
    compare(RAMDA, [None, L1(0.5)], DTYPES[:2], on_nonfinite="ignore")


@pytest.mark.parametrize("cls", CLASSES)
def test_group_norms_compile(cls):
    compare(cls, [GroupLasso(1.0)], [torch.float32])


def test_a_gradient_that_comes_later_is_one_more_graph():
    compare(RAMDA, [L1(0.5), None, L1(0.5)], [torch.float32] * 3, late=1, graphs=2)


def test_tensor_lr_zero_compiles():
    compare(RAMDA, [L1(0.5)], [torch.float32], lr=torch.tensor(0.05))
    problem, params, optimizer = optimizer_of(RAMDA, [L1(0.5)], [torch.float32], lr=torch.tensor(0.0))
    start = params[0].detach().clone()
    run(problem, params, optimizer, torch.compile(optimizer.step, fullgraph=True, backend="aot_eager"))
    assert torch.equal(params[0], start)


def test_the_default_backend():
    """Inductor's code, with a skipped step; no update of alpha is lost."""
    results = compare(RAMDA, [GroupLasso(1.0), None], [torch.float32, torch.float64], "inductor", spoil=4)
    state = results[1][2][0]
    assert float(state["step"]) == STEPS - 1
    assert float(state["weight_sum"]) == pytest.approx(0.05 * sum(t**0.5 for t in range(1, STEPS)), rel=1e-12)


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("cls", [RAMDA, RMDA])
def test_stages_and_growing_averaging_need_few_graphs(cls, kind):
    """Numbers become inputs of the graph once they are seen to change; tensors are inputs from the start."""
    ends = []
    for compiled in (False, True):
        problem, params, optimizer = optimizer_of(
            cls, [L1(0.5), None], [torch.float64] * 2, lr=kind(0.05), momentum=kind(0.9)
        )
        schedule = StageSchedule(optimizer, [5, 9], 0.5, memory=2)
        counter = CompileCounterWithBackend("eager")
        step = torch.compile(optimizer.step, fullgraph=True, backend=counter) if compiled else optimizer.step
        ends.append(run(problem, params, optimizer, step, steps=30, after=schedule.step))
    assert counter.frame_count <= 3
    for plain, compiled in zip(*ends, strict=True):
        for ours, theirs in zip(compiled, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_compiled_says_so():
    problem, params, optimizer = optimizer_of(RAMDA, [L1(0.5)], [torch.float32], on_nonfinite="raise")
    with pytest.raises(Exception, match=r"a compiled step needs\s+'skip' or 'ignore'"):
        run(problem, params, optimizer, torch.compile(optimizer.step, fullgraph=True, backend="eager"))
    problem, params, optimizer = optimizer_of(ProxAdamW, [NuclearNorm(0.5)], [torch.float32])
    with pytest.raises(Exception, match="such a step cannot compile"):
        run(problem, params, optimizer, torch.compile(optimizer.step, fullgraph=True, backend="eager"))
