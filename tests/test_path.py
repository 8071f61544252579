"""The regularization path: every point is the minimiser CVXPY finds; and the commands that show certificates."""

from __future__ import annotations

import json

import cvxpy as cp
import numpy as np
import pytest

from ramda_theory import regularization_path
from ramda_theory.cli import main
from ramda_theory.diagnostics.path import predicted
from ramda_theory.problems import binary_logistic, group_lasso, lasso, least_squares, low_rank
from ramda_theory.regularizers import ElasticNet, GroupLasso, SparseGroupLasso


def drawn(psi, shape=(12,)):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 12))
    targets = features[:, :4] @ np.array([2.0, -1.0, 0.5, 1.0]) + 0.3 * rng.normal(size=60)
    return least_squares(features, targets, psi, shape=shape), features, targets


@pytest.mark.parametrize(
    ("psi", "shape"),
    [
        (ElasticNet(1.0, 0.05), (12,)),
        (GroupLasso(1.0, dims=(1,)), (4, 3)),
        (SparseGroupLasso(1.0, 0.5, dims=(1,)), (4, 3)),
    ],
    ids=["ElasticNet", "GroupLasso", "SparseGroupLasso"],
)
def test_every_point_is_the_minimiser_that_cvxpy_finds(psi, shape):
    problem, features, targets = drawn(psi, shape)
    path = regularization_path(problem)
    assert len(path.points) == 20
    weights = [point.weight for point in path.points]
    assert weights == sorted(weights, reverse=True)
    for point in path.points[:: 6 if shape != (12,) else 1]:
        w = cp.Variable(12)
        penalty = problem.with_weight(point.weight).regularizer.cvxpy_expression(w, shape)
        loss = cp.sum_squares(features @ w - targets) / 120
        cp.Problem(cp.Minimize(loss + penalty)).solve(solver="CLARABEL")
        np.testing.assert_allclose(point.certificate.point.ravel(), w.value, atol=1e-4)
        assert point.certificate.certified, point


def test_the_prediction_spares_passes_and_counts_grow():
    path = regularization_path(group_lasso(margin=0.3, seed=0))
    table = path.table()
    assert list(table.columns[:3]) == ["weight", "pieces", "dimension"] and len(table) == 20
    assert table["pieces"].iloc[0] == 0 and table["pieces"].iloc[-1] >= table["pieces"].iloc[0]
    assert (table["gap"] <= 1e-12).all() and (table["passes"] <= 8).all()


def test_the_prediction_is_better_than_standing_still():
    problem, _, _ = drawn(ElasticNet(1.0, 0.05))
    weights = [0.3, 0.25]
    first, second = regularization_path(problem, weights).points
    moved = predicted(problem, first, 0.25)
    best = second.certificate.point
    # f is quadratic: the model is F, and its minimiser the next point, whatever pieces come and go
    assert np.linalg.norm(moved - best) < 1e-6 * np.linalg.norm(first.certificate.point - best)


def test_pieces_that_come_in_are_predicted():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 8))
    labels = (features[:, :3] @ [1.0, -0.5, 0.3] + rng.normal(size=80) > 0).astype(int)
    problem = binary_logistic(features, labels, ElasticNet(1.0, 0.01))
    first, second = regularization_path(problem, [0.08, 0.05]).points
    assert second.certificate.structure.count > first.certificate.structure.count
    assert problem.regularizer.structure(predicted(problem, first, 0.05)) == second.certificate.structure


@pytest.mark.parametrize("target", [1, 4, 7])
def test_a_number_of_pieces_picks_the_weight(target):
    path = regularization_path(lasso(margin=0.3, seed=0), target_pieces=target)
    assert path.chosen is not None and path.chosen.certificate.structure.count == target
    assert path.chosen in path.points


def test_ranks_and_logistic_regression_have_paths():
    path = regularization_path(low_rank(rows=6, columns=5, samples=80, rank=2), target_pieces=2)
    assert path.chosen is not None and path.chosen.certificate.structure.rank == 2
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 6))
    labels = (features[:, 0] + rng.normal(size=80) > 0).astype(int)
    path = regularization_path(binary_logistic(features, labels, ElasticNet(1.0, 0.01)))
    assert all(point.certificate.certified for point in path.points)


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0], [np.nan]])
def test_weights_must_be_positive(weights):
    with pytest.raises(ValueError, match="weights must"):
        regularization_path(lasso(), weights)


def test_the_command_path(tmp_path, capsys):
    assert main(["path", "--problem", "lasso", "--pieces", "5", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "5 pieces: lambda = " in printed and "certified" in printed
    rows = json.loads((tmp_path / "path.json").read_text())["data"]
    assert rows[-1]["pieces"] == 5 or any(row["pieces"] == 5 for row in rows)
    assert (tmp_path / "path.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_identify_shows_certificates(tmp_path, capsys):
    arguments = ["identify", "--problem", "lasso", "--methods", "RAMDA:lr=0.02", "NSGD", "--quick", "--certify"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "certificate: passes, added + removed" in capsys.readouterr().out
    for entry in json.loads((tmp_path / "identify.json").read_text())["data"]:
        assert entry["certificate"]["verdict"] == "certified" and entry["certificate"]["gap"] <= 1e-12
