"""The regularizer of docs/own_regularizer.md, as printed there, wherever a regularizer can go."""

import dataclasses
import io
import re
import sys
import types
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.problems import least_squares
from ramda_theory.regularizers import L1, Regularizer
from ramda_theory.subproblem import Subproblem, solve

PAGE = Path(__file__).parents[1] / "docs" / "own_regularizer.md"
OWN = types.ModuleType("own_regularizer")
sys.modules["own_regularizer"] = OWN  # as if imported: dataclasses look their module up
for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
    exec(compile(block, PAGE.name, "exec"), OWN.__dict__)

FACTORS = (0.5, 2.0, 1.0, 0.1, 3.0, 1.5)
PSI = OWN.WeightedL1(0.3, FACTORS)
SHAPES = [(6,), (2, 3)]


def exact(linear, metric, threshold):
    """Entry by entry, argmin_x linear x + metric/2 x^2 + threshold |x|."""
    b = -linear
    return np.sign(b) * np.maximum(np.abs(b) - threshold, 0) / metric


def data(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape), rng.uniform(0.1, 4.0, shape)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", [None, "proximal_gradient", "accelerated"])
def test_solve(method, shape, library):
    anchor, grad_sum, metric = data(shape)
    solution = solve(Subproblem(*map(library, (anchor, grad_sum, metric)), 1.7, PSI), method, tolerance=1e-11)
    expected = exact(grad_sum - metric * anchor, metric, 1.7 * 0.3 * np.reshape(FACTORS, shape))
    assert solution.status == "solved" and solution.iterations > 0
    np.testing.assert_allclose(np.asarray(solution.point), expected, atol=1e-10)
    assert 0 < solution.structure.count < 6


def test_an_exact_method_is_used_where_there_is_one():
    psi = OWN.FastWeightedL1(0.3, FACTORS)
    anchor, grad_sum, metric = data((6,))
    solution = solve(Subproblem(anchor, grad_sum, metric, 1.7, psi))
    assert solution.status == "solved" and solution.iterations == 0
    np.testing.assert_allclose(solution.point, exact(grad_sum - metric * anchor, metric, 0.51 * np.asarray(FACTORS)))
    assert psi != PSI and Regularizer.from_dict(psi.to_dict()) == psi


def test_solution_of_a_problem_against_cvxpy():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((40, 6))
    y = a @ np.array([1.0, 0.0, -0.5, 0.3, 0.1, 0.0]) + 0.1 * rng.standard_normal(40)
    psi = dataclasses.replace(PSI, weight=0.1)
    problem = least_squares(a, y, psi)
    reference = problem.solution()
    w = cp.Variable(6)
    value = float(problem.value(np.zeros(6))) / float(np.sum(y**2))  # the factor of the sum of squares
    objective = value * cp.sum_squares(a @ w - y) + 0.1 * np.asarray(FACTORS) @ cp.abs(w)
    cp.Problem(cp.Minimize(objective)).solve(solver="CLARABEL")
    assert reference.certified and 0 < reference.structure.count < 6
    assert reference.objective == pytest.approx(float(objective.value), rel=1e-8)
    np.testing.assert_allclose(reference.point, w.value, atol=1e-4)


def test_the_default_manifold_hessian_is_that_of_the_formula():
    w = np.array([0.3, 0.0, -2.0, 1e-3, 0.0, 5.0])
    d = np.linspace(-1, 1, 6)
    np.testing.assert_allclose(PSI.manifold_hessian(w)(d), 0, atol=1e-6)  # linear on its manifold

    class Bent(OWN.WeightedL1):
        """With a square added, whose Hessian is 2."""

        def subdifferential_residual(self, w, g, scale=1.0):
            return super().subdifferential_residual(w, g + 2 * scale * w, scale)

    np.testing.assert_allclose(Bent(0.3, FACTORS).manifold_hessian(w)(d), np.where(w == 0, 0, 2 * d), atol=1e-6)


@pytest.mark.parametrize("optimizer_class", [RAMDA, RMDA, ProxSGD, ProxAdamW])
def test_optimizers_and_checkpoints(optimizer_class):
    """As the exact one takes its steps (factors of 1: as L1), and on from a checkpoint as without."""
    target = torch.tensor([1.0, -0.2, 0.05, 0.5, 0.0, -0.7], dtype=torch.float64)

    def start(psi):
        w = torch.nn.Parameter(torch.full((6,), 0.4, dtype=torch.float64))
        options = {"tolerance": 1e-13} if optimizer_class in (RAMDA, ProxAdamW) else {}
        return w, optimizer_class([w], lr=0.05, regularizer=psi, **options)

    def run(w, optimizer, steps):
        for _ in range(steps):
            w.grad = w.detach() - target
            optimizer.step()

    own, twin = start(PSI), start(OWN.FastWeightedL1(0.3, FACTORS))
    plain, l1 = start(OWN.WeightedL1(0.3, (1.0,) * 6)), start(L1(0.3))
    for each in (own, twin, plain, l1):
        run(*each, 12)
    torch.testing.assert_close(own[0], twin[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(plain[0], l1[0], rtol=0, atol=1e-10)
    assert not torch.allclose(own[0], plain[0], atol=1e-3)

    file = io.BytesIO()
    torch.save({"w": own[0].detach().clone(), "optimizer": own[1].state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = start(None)
    with torch.no_grad():
        again[0].copy_(saved["w"])
    again[1].load_state_dict(saved["optimizer"])
    assert again[1].param_groups[0]["regularizer"] == PSI
    run(*own, 5)
    run(*again, 5)
    assert torch.equal(own[0], again[0])


def test_a_checkpoint_that_names_what_is_not_imported(monkeypatch):
    plain = PSI.to_dict()
    assert plain == {"name": "WeightedL1", "weight": 0.3, "factors": list(FACTORS)}
    again = Regularizer.from_dict(plain)
    assert again == PSI and hash(again) == hash(PSI)
    monkeypatch.delitem(Regularizer._registry, "WeightedL1")
    with pytest.raises(ValueError, match=r"got 'WeightedL1': if .* of your own, import the module that defines it"):
        Regularizer.from_dict(plain)


def test_names_of_the_package_are_taken():
    with pytest.raises(TypeError, match=r"a regularizer named 'L1' exists in ramda_theory\.regularizers\.l1"):
        type("L1", (OWN.WeightedL1,), {"__module__": "elsewhere"})
    assert type(Regularizer.from_dict({"name": "L1", "weight": 1.0})) is L1
    with pytest.raises(ValueError, match=r"name must be one of .* got 'Separable'"):
        Regularizer.from_dict({"name": "Separable", "weight": 1.0})
