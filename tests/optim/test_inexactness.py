"""Subproblems solved inexactly in networks: condition (7) per step when asked for, and nothing when not."""

import copy

import pytest
import torch
from toy import NoisyQuadratic, structured, train
from waiting import NoSynchronisation

from ramda_theory.model import StructureTracker
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, structure_report
from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso
from ramda_theory.subproblem import (
    Accelerated,
    Exact,
    GeometricTolerance,
    NewtonRaphson,
    PolynomialTolerance,
    ProximalGradient,
    Subproblem,
)

SOLVING = (RAMDA, ProxAdamW)
SOLVERS = [
    "proximal_gradient",
    ProximalGradient(step="group"),
    "accelerated",
    Accelerated(step="group"),
    NewtonRaphson(),
    Exact(),
    "exact",
]


def recorded(cls, psi, steps=10, dtype=torch.float64, **options):
    """The parameter, the optimizer and the record of every step."""
    problem = NoisyQuadratic(steps=steps)
    parameter = problem.parameter(dtype)
    optimizer = cls([parameter], **{"lr": 0.05, "regularizer": psi, **options})
    optimizer.record_inexactness = True
    records = []
    train(optimizer, parameter, problem, steps, after=lambda: records.append(optimizer.inexactness[parameter]))
    return parameter, optimizer, records


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("cls", SOLVING)
def test_every_solver_meets_the_tolerance_sequence_it_is_given(cls, solver):
    """eps_t = 1e-2 t^-1; the solution is within the error bound of the exact one."""
    sequence = PolynomialTolerance(1e-2)
    _, _, records = recorded(cls, GroupLasso(0.5), solver=solver, tolerance=sequence, max_iter=5000, eps=0.1)
    for t, record in enumerate(records, start=1):
        assert record.tolerance == pytest.approx(1e-2 / t)
        assert record.residual <= record.tolerance
        assert record.status == "solved"
    exact = isinstance(solver, Exact) or solver == "exact"
    assert (records[-1].iterations == 0) == exact
    assert exact or isinstance(solver, NewtonRaphson) or records[-1].residual > 1e-9


def test_t_of_the_tolerance_starts_anew_with_the_stage():
    problem = NoisyQuadratic(steps=10)
    parameter = problem.parameter()
    optimizer = RAMDA([parameter], regularizer=L1(0.5), solver="accelerated", tolerance=GeometricTolerance(1.0, 0.5))
    optimizer.record_inexactness = True
    train(optimizer, parameter, problem, 4)
    assert optimizer.inexactness[parameter].tolerance == 0.5**3
    optimizer.restart()
    assert not optimizer.inexactness
    train(optimizer, parameter, problem, 1, first=5)
    assert optimizer.inexactness[parameter].tolerance == 1.0


def test_the_residual_is_that_of_the_step():
    """Recomputed from the state after the step: (4) at the What the step averaged in."""
    psi = GroupLasso(0.5)
    parameter, optimizer, records = recorded(
        RAMDA, psi, solver="proximal_gradient", tolerance=1e-2, momentum=0.0, max_iter=1000
    )
    state = optimizer.state[parameter]
    metric = state["grad_sq_sum"].pow(1 / 3) + 1e-6
    problem = Subproblem(state["anchor"], state["grad_sum"], metric, float(state["weight_sum"]), psi)
    assert float(problem.residual(parameter.detach())) == pytest.approx(records[-1].residual, rel=1e-6)


@pytest.mark.parametrize("cls", SOLVING)
def test_iterations_begin_at_the_weights(cls):
    """With a tolerance anything meets, Algorithm 2 makes one step from W_{t-1}: its fixed point is W_{t-1} itself."""
    problem = NoisyQuadratic(steps=3)
    parameter = problem.parameter()
    optimizer = cls([parameter], lr=0.05, regularizer=L1(0.2), solver="proximal_gradient", tolerance=1e9, eps=0.1)
    optimizer.record_inexactness = True
    train(optimizer, parameter, problem, 2)
    assert optimizer.inexactness[parameter].iterations == 1


@pytest.mark.parametrize("cls", SOLVING)
def test_recording_changes_nothing(cls):
    """Bit for bit in float64, and for the nuclear norm; it is off until asked for and forgets when turned off."""
    for psi in (GroupLasso(0.5), SparseGroupLasso(0.5, 0.5), NuclearNorm(1.0)):
        parameter, _, _ = recorded(cls, psi, steps=5)
        problem = NoisyQuadratic(steps=5)
        other = problem.parameter()
        plain = cls([other], lr=0.05, regularizer=psi)
        assert plain.record_inexactness is False
        train(plain, other, problem, 5)
        assert plain.inexactness == {}
        assert torch.equal(parameter, other)


def test_only_regularized_parameters_are_recorded():
    problem = NoisyQuadratic(steps=2)
    params = [problem.parameter(), problem.parameter()]
    optimizer = RAMDA([{"params": [params[0]], "regularizer": L1(0.1)}, {"params": [params[1]]}])
    optimizer.record_inexactness = True
    for parameter in params:
        parameter.grad = problem.gradient(parameter.detach(), 1)
    optimizer.step()
    assert list(optimizer.inexactness) == [params[0]]


@pytest.mark.parametrize("cls", SOLVING)
def test_exact_steps_are_exact(cls):
    """What is solved exactly has a residual at rounding level, in float64 and float32."""
    for dtype, level in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        for psi in (GroupLasso(0.5), SparseGroupLasso(0.5, 0.5), L1(0.5)):
            _, _, records = recorded(cls, psi, dtype=dtype, tolerance=level)
            assert {record.status for record in records} == {"solved"}


def test_a_limit_that_does_not_suffice_shows():
    _, _, records = recorded(RAMDA, GroupLasso(0.5), solver="proximal_gradient", tolerance=1e-12, max_iter=1, eps=1e-6)
    assert {record.iterations for record in records} == {1}
    assert "max_iter" in {record.status for record in records}


def test_nuclear_norm_reaches_its_default_tolerance_and_a_low_rank():
    for dtype in (torch.float64, torch.float32):
        parameter, optimizer, records = recorded(RAMDA, NuclearNorm(2.0), steps=15, dtype=dtype, max_iter=2000, eps=0.1)
        assert {record.status for record in records} <= {"solved", "no_descent"}
        assert int(torch.linalg.matrix_rank(structured(optimizer, parameter))) < 5


def test_nonconvex_groups_are_solved_exactly_in_every_metric():
    """GroupMCP, where P exceeds alpha/gamma and where it does not."""
    _, _, records = recorded(RAMDA, GroupMCP(0.05, 1e4), lr=0.01, steps=3)
    assert {record.iterations for record in records} == {0}
    _, _, records = recorded(RAMDA, GroupMCP(0.5, 0.1), steps=3, max_iter=5000, eps=0.1)
    assert {(record.iterations, record.status) for record in records} == {(0, "solved")}


def test_solvers_go_through_checkpoints():
    options = {"solver": ProximalGradient(step="group"), "tolerance": PolynomialTolerance(0.1, 0.75), "max_iter": 7}
    parameter, optimizer, _ = recorded(RAMDA, GroupLasso(0.5), **options)
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["param_groups"][0]["solver"] == {
        "name": "ProximalGradient",
        "step": "group",
        "stopping": "residual",
        "rtol": 1e-8,
    }
    other = RAMDA([parameter])
    other.load_state_dict(saved)
    assert {key: other.param_groups[0][key] for key in options} == options
    saved["param_groups"][0]["solver"]["name"] = "Simplex"
    with pytest.raises(ValueError, match=r"solver must be one of .*Simplex"):
        other.load_state_dict(saved)
    saved["param_groups"][0]["solver"] = None
    saved["param_groups"][0]["regularizer"]["weigth"] = 1.0
    with pytest.raises(ValueError, match="GroupLasso has no argument 'weigth'"):
        other.load_state_dict(saved)
    assert {key: other.param_groups[0][key] for key in options} == options


def test_rmda_needs_no_solver():
    with pytest.raises(TypeError, match="solver"):
        RMDA([NoisyQuadratic().parameter()], solver="accelerated")


EXACT = [
    L1(0.1),
    ElasticNet(0.1, 0.1),
    MCP(0.1, 3.0),
    SCAD(0.1, 3.7),
    GroupLasso(0.1),
    SparseGroupLasso(0.1, 0.5),
    GroupMCP(0.1, 3.0),
]


def one_of_each(cls, device="cpu", **options):
    """An optimizer of a parameter per exact regularizer, recording, and how to give them gradients."""
    problem = NoisyQuadratic(steps=4)
    params = [torch.nn.Parameter(problem.parameter(torch.float32).detach().to(device)) for _ in EXACT]
    groups = [{"params": [p], "regularizer": psi} for p, psi in zip(params, EXACT, strict=True)]
    optimizer = cls(groups, lr=0.05, **options)
    optimizer.record_inexactness = True

    def gradients(t):
        for parameter in params:
            parameter.grad = problem.gradient(problem.parameter(torch.float32).detach(), t).float().to(device)

    return params, optimizer, gradients


def as_on_a_device(monkeypatch):
    """Tell whoever would look at arrays of the host, since that is free, that they are elsewhere."""
    for module in ("regularizers.pieces", "regularizers.scalar_equation", "regularizers.group_mcp_equation"):
        monkeypatch.setattr(f"ramda_theory.{module}.is_host", lambda array: False)
    monkeypatch.setattr("ramda_theory.kernels.eager.solve.is_host", lambda array: False)


@pytest.mark.parametrize("options", [{"on_nonfinite": "skip"}, {"on_nonfinite": "ignore", "capturable": True}], ids=str)
@pytest.mark.parametrize("cls", SOLVING)
def test_steps_that_are_recorded_and_followed_do_not_wait(cls, options, monkeypatch):
    """Neither the record of (7), nor a tracker or a report between steps; reading does."""
    as_on_a_device(monkeypatch)
    params, optimizer, gradients = one_of_each(cls, **options)
    gradients(1)
    optimizer.step()
    tracker = StructureTracker(optimizer, every=3)
    for t in range(2, 5):
        gradients(t)
        with NoSynchronisation() as watch:
            optimizer.step()
            if t < 4:
                tracker.record()  # not its turn
        assert watch.operations > 100
        assert list(optimizer.inexactness) == params
    with NoSynchronisation(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        tracker.record()
    tracker.record()
    assert len(tracker) == 1
    assert len(structure_report(optimizer).layers["w"]) == len(EXACT)


@pytest.mark.parametrize("cls", SOLVING)
def test_a_device_that_cannot_be_looked_at_records_too(cls):
    """ "meta" has no numbers: whoever asks for one gets an error."""
    _, optimizer, gradients = one_of_each(cls, "meta", on_nonfinite="skip")
    for t in range(1, 3):
        gradients(t)
        optimizer.step()
    with pytest.raises((RuntimeError, NotImplementedError)):
        _ = optimizer.inexactness


@pytest.mark.parametrize("tolerance", [None, PolynomialTolerance(1e-3), 0.0], ids=repr)
@pytest.mark.parametrize("cls", SOLVING)
def test_what_is_left_on_the_device_says_the_same(cls, tolerance):
    records = []
    for options in ({}, {"capturable": True}):
        params, optimizer, gradients = one_of_each(cls, on_nonfinite="ignore", tolerance=tolerance, **options)
        for t in range(1, 4):
            gradients(t)
            optimizer.step()
        records.append([optimizer.inexactness[parameter] for parameter in params])
    for host, device in zip(*records, strict=True):
        assert device.tolerance == pytest.approx(host.tolerance, rel=1e-6)
        assert device.residual == pytest.approx(host.residual, rel=1e-3, abs=1e-6)
        assert (device.iterations, device.status) == (host.iterations, host.status)
    assert {record.status for record in records[1]} == ({"max_iter"} if tolerance == 0.0 else {"solved"})
