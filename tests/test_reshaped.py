"""`Reshaped` against the group norm of the array that is really reshaped, in both libraries."""

import dataclasses

import numpy as np
import pytest
import torch

from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, Regularizer, Reshaped, SparseGroupLasso
from ramda_theory.subproblem import Subproblem, solve

SHAPE = (2, 3, 2, 5)
CASES = [GroupLasso(0.7, dims=(0, 2, 3)), SparseGroupLasso(0.9, 0.4, dims=(1, -1), size_scaled=False)]
MCPS = [GroupMCP(0.4, 12.0, dims=(1, -1))]


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("grouped", CASES + MCPS)
def test_every_question_is_answered_in_the_other_shape(grouped, library):
    psi, rng = Reshaped(grouped, SHAPE), np.random.default_rng(0)
    w, g = rng.standard_normal((2, 12, 5))
    w.reshape(SHAPE)[:, 1] *= 0.01  # these groups are to be zero
    w.reshape(SHAPE)[1, :, 1] *= 0.01
    w, g, diag = library(w), library(g), library(rng.uniform(0.1, 3.0, (12, 5)))
    w = psi.prox(w, 0.3)
    seen = [array.reshape(SHAPE) for array in (w, g, diag)]
    assert 0 < psi.group_support(w).count < psi.group_support(w).pattern.size
    for mine, theirs in [
        (psi.value(w), grouped.value(seen[0])),
        (psi.prox(g, 0.5), grouped.prox(seen[1], 0.5)),
        (psi.metric_prox(g, diag, 0.5), grouped.metric_prox(seen[1], seen[2], 0.5)),
        (psi.group_norms(g), grouped.group_norms(seen[1])),
        (psi.group_max(diag), grouped.group_max(seen[2])),
        (psi.subdifferential_residual(w, g, 0.5), grouped.subdifferential_residual(seen[0], seen[1], 0.5)),
        (psi.subdifferential_distance(w, g), grouped.subdifferential_distance(seen[0], seen[1])),
        (psi.nondegeneracy_margin(w, g), grouped.nondegeneracy_margin(seen[0], seen[1])),
        (psi.critical_weight(g), grouped.critical_weight(seen[1])),
    ]:
        np.testing.assert_array_equal(np.asarray(mine).ravel(), np.asarray(theirs).ravel())
    assert psi.prox(w).shape == psi.spread(psi.group_max(diag), w).shape == w.shape
    np.testing.assert_array_equal(
        np.asarray(psi.spread(psi.group_max(diag), w) * w).ravel(),
        np.asarray(grouped.group_max(seen[2]) * seen[0]).ravel(),
    )
    assert psi.structure(w) == grouped.structure(seen[0])
    assert psi.weight == grouped.weight and psi.separable
    for ask in ("convex", "weak_convexity"):
        assert getattr(psi, ask) == getattr(grouped, ask)
    for mine, theirs in [
        (psi.tangent(w, g), grouped.tangent(*seen[:2])),
        (psi.manifold_hessian(w)(g), grouped.manifold_hessian(seen[0])(seen[1])),
        (psi.prox(g, psi.group_max(diag)), grouped.prox(seen[1], grouped.group_max(seen[2]))),
    ]:
        assert mine.shape == w.shape
        np.testing.assert_array_equal(np.asarray(mine).ravel(), np.asarray(theirs).ravel())


@pytest.mark.parametrize("method", ["exact", "proximal_gradient", "accelerated"])
@pytest.mark.parametrize("grouped", CASES)
def test_all_solvers_agree(grouped, method):
    psi, rng = Reshaped(grouped, SHAPE), np.random.default_rng(1)
    anchor, grad_sum = rng.standard_normal((2, 12, 5))
    problem = Subproblem(anchor, grad_sum, rng.uniform(0.5, 3.0, (12, 5)), 1.3, psi)
    solution = solve(problem, method, tolerance=1e-10, max_iter=5000)
    assert solution.status == "solved"
    np.testing.assert_allclose(solution.point, solve(problem).point, atol=1e-9)


@pytest.mark.parametrize("grouped", CASES)
def test_plain_data(grouped):
    psi = Reshaped(grouped, SHAPE)
    assert Regularizer.from_dict(psi.to_dict()) == psi and hash(Regularizer.from_dict(psi.to_dict())) == hash(psi)
    assert psi == dataclasses.replace(grouped, view=SHAPE) and psi.to_dict()["view"] == list(SHAPE)
    former = {"name": "Reshaped", "grouped": grouped.to_dict(), "shape": list(SHAPE)}
    if isinstance(grouped, GroupLasso):
        former["grouped"]["labels"] = None  # as it was written
    assert Regularizer.from_dict(former) == psi


@pytest.mark.parametrize(("grouped", "shape", "error"), [
    (L1(0.1), (2, 3), TypeError),
    (GroupLasso(0.1, labels=(0, 1)), (2,), TypeError),
    (GroupLasso(0.1, dims=(2,)), (2, 3), ValueError),
    (GroupLasso(0.1), (2, 1.5), TypeError),
])  # fmt: skip
def test_what_cannot_be_is_refused(grouped, shape, error):
    with pytest.raises(error):
        Reshaped(grouped, shape)


def test_arrays_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\) cannot be seen as \(2, 3\)"):
        Reshaped(GroupLasso(0.1), (2, 3)).value(np.ones((2, 2)))
