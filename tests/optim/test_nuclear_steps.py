"""Steps with nuclear norms: solved from where the last step ended, to (7), with the rank of the float64 solution."""

import copy
import io

import pytest
import torch
from torch import nn
from toy import NoisyQuadratic, structured, train

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem import PolynomialTolerance, Subproblem, solve

WARM = ("solution", "dual")


def low_rank_gradients(shape=(20, 30), steps=20, dead=0, seed=0, noise=1.0):
    """Gradients of rank 4 in noise, entries of different size, ``dead`` inputs always zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    mean = normal(shape[0], 4) @ normal(4, shape[1])
    size = torch.exp(normal(*shape))
    for _ in range(steps):
        gradient = size * (mean + noise * normal(*shape))
        gradient[:, :dead] = 0.0
        yield gradient


def parameter(dtype=torch.float32, shape=(20, 30), seed=1):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return nn.Parameter((values / shape[1] ** 0.5).to(dtype))


def feed(optimizer, w, gradients, after=None):
    for gradient in gradients:
        w.grad = gradient.to(w.dtype)
        optimizer.step()
        if after is not None:
            after()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_step_meets_summable_tolerances_with_the_rank_of_the_float64_solution(dtype):
    """Against the accelerated solver to 1e-9 on the same subproblem, whose solution has a clear rank or is left out."""
    w, psi, compared = parameter(dtype), NuclearNorm(3.0), []
    sequence = PolynomialTolerance(0.05, 0.75)
    optimizer = RAMDA([w], lr=0.05, momentum=0.5, eps=1e-1, regularizer=psi, tolerance=sequence, max_iter=2000)
    optimizer.record_inexactness = True

    def compare():
        record, state = optimizer.inexactness[w], optimizer.state[w]
        assert record.status == "solved" and record.residual <= record.tolerance == sequence(int(state["step"]))
        if int(state["step"]) % 4:
            return
        metric = state["grad_sq_sum"].double().pow(1 / 3) + 1e-1
        arrays = state["anchor"].double(), state["grad_sum"].double(), metric
        problem = Subproblem(*arrays, float(state["weight_sum"]), psi)
        exact = solve(problem, "accelerated", tolerance=1e-9 * problem.magnitude, max_iter=20_000)
        error = record.tolerance / float(metric.min())
        singular = torch.linalg.svdvals(exact.point)
        margin = float(psi.nondegeneracy_margin(exact.point, problem.gradient(exact.point) / problem.weight_sum))
        found = psi.structure(structured(optimizer, w)).rank
        clear = float(singular[exact.structure.rank - 1]) > 0.1 and margin > 0.02
        compared.append((found, exact.structure.rank, clear))
        assert float((structured(optimizer, w).double() - exact.point).norm()) <= error

    feed(optimizer, w, low_rank_gradients(), compare)
    decided = [(found, expected) for found, expected, clear in compared if clear]
    assert len(decided) >= 3
    assert all(found == expected for found, expected in decided)
    assert 0 < decided[-1][0] < 20


def test_the_point_is_carried_on_and_few_iterations_are_left():
    """Iterations of a step that begins with Z and Y, and of one that does not."""
    counts = {}
    for name in ("carried", "dropped"):
        w = parameter()
        optimizer = RAMDA([w], lr=0.05, eps=1e-3, regularizer=NuclearNorm(3.0), max_iter=2000)
        optimizer.record_inexactness = True
        counts[name] = []

        def after(optimizer=optimizer, w=w, name=name):
            counts[name].append(optimizer.inexactness[w].iterations)
            if name == "dropped":
                for key in WARM:
                    del optimizer.state[w][key]

        feed(optimizer, w, low_rank_gradients(), after)
    assert sum(counts["carried"][10:]) < 0.9 * sum(counts["dropped"][10:])


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_small_matrices_are_solved_by_numpy_as_by_torch(shape, monkeypatch):
    """In as many iterations, to the same points but for rounding; what is carried on are tensors either way."""
    runs = []
    for small in (0, 10**6):
        monkeypatch.setattr("ramda_theory.kernels.eager.solve.SMALL", small)
        w = parameter(shape=shape)
        optimizer = RAMDA([w], lr=0.05, eps=1e-3, regularizer=NuclearNorm(3.0))
        optimizer.record_inexactness = True
        feed(optimizer, w, low_rank_gradients(shape, dead=3))
        state = optimizer.state[w]
        assert all(isinstance(state[key], torch.Tensor) and state[key].dtype == torch.float32 for key in WARM)
        assert optimizer.inexactness[w].status == "solved"
        runs.append((w.detach(), optimizer.inexactness[w]))
    (w, record), (other, other_record) = runs
    assert abs(record.iterations - other_record.iterations) <= 2
    torch.testing.assert_close(w, other, rtol=0, atol=2e-4)


@pytest.mark.parametrize("dead", [10, 27])
def test_inputs_that_are_always_zero_do_not_cost_the_first_step_its_limit(dead):
    """P = eps in their columns, many orders of magnitude below the rest."""
    w = parameter()
    optimizer = RAMDA([w], lr=1e-2, regularizer=NuclearNorm(1e-3))
    optimizer.record_inexactness = True
    records, gradients = [], [0.01 * gradient for gradient in low_rank_gradients(steps=3, dead=dead)]
    feed(optimizer, w, gradients, lambda: records.append(optimizer.inexactness[w]))
    assert [record.status for record in records] == ["solved"] * 3
    assert max(record.iterations for record in records) <= 30


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
def test_a_resumed_run_has_the_same_bits(cls):
    gradients = list(low_rank_gradients(steps=12))
    options = {"lr": 0.02, "regularizer": NuclearNorm(3.0)}
    w = parameter()
    optimizer = cls([w], **options)
    feed(optimizer, w, gradients[:6])
    file = io.BytesIO()
    torch.save({"w": w.detach(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = nn.Parameter(saved["w"])
    resumed = cls([other], lr=0.5)
    resumed.load_state_dict(saved["optimizer"])
    for each, own in ((optimizer, w), (resumed, other)):
        feed(each, own, gradients[6:])
    assert torch.equal(w, other)
    for key, value in optimizer.state[w].items():
        assert torch.equal(resumed.state[other][key], value)
    if cls in (RAMDA, ProxAdamW):
        assert set(WARM) <= optimizer.state[w].keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dual", torch.zeros(30, 20), r"'dual' in the state of parameter 0 of group 0 has shape \(30, 20\)"),
        ("solution", torch.full((20, 30), torch.nan), "'solution' in the state .* must be finite"),
        ("basis", torch.full((20, 3), torch.inf), "'basis' in the state .* must be finite"),
        ("basis", [1.0], "'basis' in the state .* must be a tensor"),
    ],
)
def test_a_bad_state_is_refused_and_nothing_changes(key, value, message):
    w = parameter()
    optimizer = RAMDA([w], regularizer=NuclearNorm(3.0))
    feed(optimizer, w, low_rank_gradients(steps=2))
    saved = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(optimizer.state[w])
    saved["state"][0][key] = value
    with pytest.raises((ValueError, TypeError), match=message):
        optimizer.load_state_dict(saved)
    assert all(torch.equal(optimizer.state[w][k], v) for k, v in before.items())


@pytest.mark.parametrize("basis", [torch.zeros(20, 3), torch.ones(7, 2), torch.ones(20, 20)])
def test_a_basis_that_fits_nothing_does_no_harm(basis):
    """As it may come from a checkpoint: the step is that of a run without one, to the tolerance."""
    runs = []
    for given in (None, basis):
        w = parameter()
        optimizer = RMDA([w], lr=0.1, regularizer=NuclearNorm(3.0))
        feed(optimizer, w, low_rank_gradients(steps=3))
        optimizer.state[w].pop("basis", None)
        if given is not None:
            optimizer.state[w]["basis"] = given.clone()
        feed(optimizer, w, low_rank_gradients(steps=2, seed=5))
        runs.append(w.detach())
    torch.testing.assert_close(*runs, rtol=0, atol=1e-5)


def test_a_state_without_what_is_carried_is_loaded():
    """Of an older version."""
    w = parameter()
    optimizer = RAMDA([w], regularizer=NuclearNorm(3.0))
    feed(optimizer, w, low_rank_gradients(steps=2))
    saved = copy.deepcopy(optimizer.state_dict())
    for key in (*WARM, "basis"):
        saved["state"][0].pop(key, None)
    optimizer.load_state_dict(saved)
    feed(optimizer, w, low_rank_gradients(steps=1))
    assert set(WARM) <= optimizer.state[w].keys()


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxSGD, ProxAdamW])
@pytest.mark.parametrize("how", ["lr", "skip"])
def test_what_is_carried_stays_where_a_step_changes_nothing(cls, how):
    w = parameter()
    tensor_lr = torch.tensor(0.05)
    options = {"lr": tensor_lr} if how == "lr" else {"lr": 0.05, "on_nonfinite": "skip"}
    optimizer = cls([w], regularizer=NuclearNorm(3.0), **options)
    gradients = list(low_rank_gradients(steps=3))
    feed(optimizer, w, gradients[:2])
    before = copy.deepcopy(optimizer.state[w])
    if how == "lr":
        tensor_lr.zero_()
    else:
        gradients[2][0, 0] = torch.nan
    feed(optimizer, w, gradients[2:])
    for key in (*WARM, "basis"):
        assert key not in before or torch.equal(optimizer.state[w][key], before[key])


@pytest.mark.parametrize("memory", [0, 5])
def test_a_stage_begins_well(memory):
    """After a restart every step is solved within its limit."""
    w = parameter()
    optimizer = RAMDA([w], lr=0.05, eps=1e-3, regularizer=NuclearNorm(3.0))
    optimizer.record_inexactness = True
    feed(optimizer, w, low_rank_gradients(steps=10))
    optimizer.restart(memory)
    records = []
    feed(optimizer, w, low_rank_gradients(steps=5, seed=2), lambda: records.append(optimizer.inexactness[w]))
    assert {record.status for record in records} == {"solved"}
    assert max(record.iterations for record in records) < 100


def test_the_structured_point_is_the_one_that_was_averaged():
    w = parameter()
    optimizer = RAMDA([w], lr=0.05, momentum=0.0, regularizer=NuclearNorm(3.0))
    feed(optimizer, w, low_rank_gradients(steps=8))
    before = copy.deepcopy(optimizer.state[w])
    torch.testing.assert_close(structured(optimizer, w), w.detach(), rtol=0, atol=1e-4)
    assert all(torch.equal(optimizer.state[w][key], value) for key, value in before.items())


@pytest.mark.parametrize("cls", [RMDA, ProxSGD])
def test_proximal_maps_in_float32_follow_float64(cls):
    """From one basis to the next in float32, by decompositions in float64: w, What and their ranks."""
    runs = {}
    for dtype in (torch.float32, torch.float64):
        w = parameter(dtype, (40, 60))
        optimizer = cls([w], lr=0.1, regularizer=NuclearNorm(40.0 if cls is RMDA else 25.0))
        ranks = []

        def after(ranks=ranks, optimizer=optimizer, w=w):
            ranks.append(NuclearNorm(1.0).structure(structured(optimizer, w)).rank)

        feed(optimizer, w, low_rank_gradients((40, 60), noise=0.1), after)
        runs[dtype] = w.detach().double(), ranks
        assert ("basis" in optimizer.state[w]) == (dtype == torch.float32)
    (single, ranks), (double, expected) = runs.values()
    assert float((single - double).norm() / double.norm()) <= 1e-5
    assert sum(a == b for a, b in zip(ranks, expected, strict=True)) >= len(ranks) - 1
    assert 0 < expected[-1] < 15


def test_other_solvers_carry_nothing():
    problem = NoisyQuadratic(steps=2)
    w = problem.parameter()
    optimizer = RAMDA([w], regularizer=NuclearNorm(0.5), solver="accelerated")
    train(optimizer, w, problem, 2)
    assert not set(WARM) & optimizer.state[w].keys()
