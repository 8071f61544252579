"""What every regularizer answers about itself, held against finite differences, CVXPY and a reading of the sources."""

import ast
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import ramda_theory
from ramda_theory import regularizers
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

PACKAGE = Path(ramda_theory.__file__).parent
CONVEX = [
    L1(0.7),
    ElasticNet(0.7, 0.4),
    GroupLasso(0.7, (1,)),
    GroupLasso(0.7, (0, 2), False),
    GroupLasso(0.7, dims=(1, 2), view=(2, 3, 4)),
    SparseGroupLasso(0.7, 0.3, (0,)),
    SparseGroupLasso(0.7, 0.3, dims=(0,), view=(12, 2)),
    NuclearNorm(0.7, (1,), (0, 2)),
]
NONCONVEX = [
    MCP(0.7, 3.0),
    SCAD(0.7, 3.7),
    GroupMCP(0.4, 3.0, (1,)),
    GroupMCP(0.4, 3.0, dims=(0,), view=(4, 6)),
]
SHAPE = (4, 3, 2)
LABELLED = [
    GroupLasso(0.7, labels=(0, 0, 1, 2, 2, 2, 1)),
    SparseGroupLasso(0.7, 0.3, labels=(0, 0, 1, 2, 2, 2, 1)),
    GroupMCP(0.4, 3.0, labels=(0, 0, 1, 2, 2, 2, 1)),
]


def point(psi, rng):
    """A point with zero pieces and nonzero ones of very different length."""
    if psi.tied_to_shape and psi.labels is not None:
        return np.array([0.3, -0.2, 0.0, 1.5, 2.0, 0.0, 0.0])
    if psi.needs_matrix:
        return (rng.standard_normal((4, 2, 2)) @ rng.standard_normal((2, 3))).swapaxes(1, 2)
    w = rng.standard_normal(SHAPE) * np.geomspace(0.05, 5.0, 4)[:, None, None]
    w[0], w[:, 1], w[2, :, 1] = 0.0, 0.0, 0.0
    return w


@pytest.mark.parametrize("psi", CONVEX + NONCONVEX + LABELLED, ids=repr)
def test_manifold_hessian_is_the_second_difference_along_the_manifold(psi):
    """<d, H d> = d^2/dt^2 psi(curve(t)) + <grad, curve''> terms that vanish: retractions here are of second order."""
    rng = np.random.default_rng(0)
    w = point(psi, rng)
    product = psi.manifold_hessian(w)
    for _ in range(4):
        d, e = (psi.tangent(w, rng.standard_normal(w.shape)) for _ in range(2))
        assert np.linalg.norm(d) > 0
        np.testing.assert_allclose(np.vdot(e, product(d)), np.vdot(d, product(e)), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(psi.tangent(w, product(d)), product(d), atol=1e-13)
        # along the curve, the gradient of psi on the manifold: brought back to the tangent space at w
        h = 1e-6

        def gradient(t, d=d):
            moved = along(psi, w, d, t)
            assert psi.structure(moved) == psi.structure(w)
            return psi.subdifferential_residual(moved, np.zeros_like(w))

        slope = psi.tangent(w, (gradient(h) - gradient(-h)) / (2 * h))
        np.testing.assert_allclose(product(d), slope, atol=1e-7 * max(1.0, np.abs(slope).max()))
    assert not np.any(product(rng.standard_normal(w.shape))[(psi.tangent(w, np.ones_like(w)) == 0) & (w == 0)]) or (
        psi.needs_matrix
    )


def along(psi, w, d, t):
    """A point of the manifold near w + t d: truncated to the rank for matrices."""
    if not psi.needs_matrix:
        return w + t * d
    u, s, vh = np.linalg.svd(psi.matrix(w + t * d), full_matrices=False)
    rank = psi.structure(w).rank
    flat = (u[:, :rank] * s[:rank]) @ vh[:rank]
    return psi._unmatrix(np, flat, w)


@pytest.mark.parametrize("psi", [*CONVEX[:4], *NONCONVEX], ids=repr)
def test_hessians_agree_with_the_default(psi):
    rng = np.random.default_rng(1)
    w, d = point(psi, rng), rng.standard_normal(SHAPE)
    default = regularizers.Regularizer.manifold_hessian(psi, w)(d)
    np.testing.assert_allclose(psi.manifold_hessian(w)(d), default, atol=1e-6)


@pytest.mark.parametrize("psi", CONVEX + NONCONVEX, ids=repr)
def test_hessians_are_alike_in_both_libraries(psi):
    rng = np.random.default_rng(2)
    w, d = point(psi, rng), rng.standard_normal(SHAPE)
    mine = psi.manifold_hessian(torch.as_tensor(w))(torch.as_tensor(d))
    np.testing.assert_allclose(mine.numpy(), psi.manifold_hessian(w)(d), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("psi", CONVEX + LABELLED[:2], ids=repr)
def test_cvxpy_expressions_have_the_value_of_psi(psi):
    w = np.random.default_rng(3).standard_normal((7,) if psi in LABELLED else SHAPE)
    x = cp.Variable(w.size)
    x.value = w.ravel()
    assert float(psi.cvxpy_expression(x, w.shape).value) == pytest.approx(float(psi.value(w)), rel=1e-12)


@pytest.mark.parametrize("psi", NONCONVEX + LABELLED[2:], ids=repr)
def test_cvxpy_takes_no_nonconvex_psi(psi):
    with pytest.raises(ValueError, match=rf"{type(psi).__name__}.* is not convex"):
        psi.cvxpy_expression(cp.Variable(24), SHAPE)


def test_labels_and_views():
    """Groups by labels are those of axes, for every psi that takes them."""
    rng = np.random.default_rng(4)
    z, diag = rng.standard_normal((4, 3)), rng.uniform(2.0, 4.0, (4, 3))
    labels = tuple(np.repeat(np.arange(4), 3))
    for make in (lambda **g: SparseGroupLasso(0.5, 0.3, **g), lambda **g: GroupMCP(0.5, 4.0, **g)):
        by_axes, by_labels, by_view = make(dims=(1,)), make(labels=labels), make(dims=(1,), view=(4, 3))
        for other in (by_labels, by_view):
            assert float(other.value(z.ravel())) == pytest.approx(float(by_axes.value(z)), rel=1e-14)
            np.testing.assert_allclose(other.prox(z.ravel(), 0.7), by_axes.prox(z, 0.7).ravel(), rtol=1e-13)
            np.testing.assert_allclose(
                other.metric_prox(z.ravel(), diag.ravel(), 0.7), by_axes.metric_prox(z, diag, 0.7).ravel(), rtol=1e-12
            )
            assert other.structure(z.ravel()).count == by_axes.structure(z).count
        steps = rng.uniform(0.5, 2.0, 4)
        np.testing.assert_allclose(
            by_labels.prox(z.ravel(), steps), by_axes.prox(z, steps[:, None]).ravel(), rtol=1e-13
        )


@pytest.mark.parametrize(("arguments", "message"), [
    ({"labels": (0, 1), "dims": (1,)}, "dims and labels exclude each other"),
    ({"labels": (0, 1), "view": (2,)}, "labels and view exclude each other"),
    ({"dims": (2,), "view": (2, 3)}, "dims must name axes"),
])  # fmt: skip
def test_groupings_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupLasso(0.1, **arguments)


# -- nobody asks which class it is ------------------------------------------------------------------------------------

CLASSES = {name for name in dir(regularizers) if name[0].isupper()} - {"Regularizer"} | {"Grouped", "Separable"}
FIELDS = {"labels", "view", "dims", "size_scaled", "l1_ratio", "gamma", "l2", "row_dims", "column_dims", "metric_prox"}
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name != "regularizers" and path.name != "fused.py"
]  # fmt: skip


def questions(source):
    """Lines that ask whether something is of a class of regularizer, or has a field that only some have."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = {name.id for each in node.args[1:] for name in ast.walk(each) if isinstance(name, ast.Name)}
            if node.func.id in ("isinstance", "issubclass") and names & CLASSES:
                yield node.lineno
            words = {each.value for each in node.args[1:2] if isinstance(each, ast.Constant)}
            if node.func.id in ("getattr", "hasattr") and words & FIELDS:
                yield node.lineno
        if isinstance(node, ast.Compare):
            names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            if "type" in names and names & CLASSES:
                yield node.lineno
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name) and node.cls.id in CLASSES:
            yield node.lineno


def test_no_question_about_the_class_of_a_regularizer():
    found = [f"{path.relative_to(PACKAGE)}:{line}" for path in SOURCES for line in questions(path.read_text("utf-8"))]
    assert not found and len(SOURCES) > 50


@pytest.mark.parametrize("line", [
    "isinstance(psi, L1)", "isinstance(psi, (int, GroupLasso))", "issubclass(kind, Grouped)", "type(psi) is MCP",
    "type(psi) in (L1, None)", "getattr(psi, 'labels', None)", "hasattr(psi, 'metric_prox')",
    "match psi:\n    case SCAD():\n        pass",
])  # fmt: skip
def test_such_questions_are_found(line):
    assert list(questions(line))


def test_checks_of_arguments_are_none():
    assert not list(questions("isinstance(psi, Regularizer) and isinstance(x, Tensor) and hasattr(x, 'full_tensor')"))
