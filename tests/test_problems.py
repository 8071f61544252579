"""The smooth parts f: values, exact and stochastic gradients, Lipschitz constants, Hessians, and errors at the door."""

import math
import subprocess
import sys

import numpy as np
import pytest

from ramda_theory.problems import (
    PROBLEMS,
    binary_logistic,
    breast_cancer,
    digits,
    factorisation,
    group_lasso,
    lasso,
    least_squares,
    low_rank,
    mcp,
    multinomial_logistic,
    teacher,
)
from ramda_theory.problems.base import Problem
from ramda_theory.problems.matrix_product import Factorisation
from ramda_theory.problems.network import TanhNetwork
from ramda_theory.problems.regression import LeastSquares
from ramda_theory.regularizers import L1, GroupLasso


def data(samples: int = 40, features: int = 6, seed: int = 3) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((samples, features)) * rng.uniform(0.5, 2.0, features)


@pytest.fixture(params=PROBLEMS, scope="module")
def problem(request):
    return PROBLEMS[request.param]()


def point_of(problem: Problem, seed: int = 1, scale: float = 0.5) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(problem.initial.shape)


def scalar_terms(name: str) -> tuple[Problem, list]:
    """A small problem of each kind and, written entry by entry from its formula, f_i as functions of w."""
    rng, x = data(8, 3)
    if name == "least_squares":
        y = rng.standard_normal(8)
        terms = [lambda w, i=i: 0.5 * (sum(x[i, j] * w[j] for j in range(3)) - y[i]) ** 2 for i in range(8)]
        return least_squares(x, y, L1(0.1)), terms
    if name == "multinomial":
        classes = np.array([0, 2, 1, 2, 0, 1, 2, 0])

        def likelihood(w, i):
            scores = [sum(x[i, j] * w[j, k] for j in range(3)) for k in range(3)]
            return math.log(sum(math.exp(score) for score in scores)) - scores[classes[i]]

        terms = [lambda w, i=i: likelihood(w, i) for i in range(8)]
        return multinomial_logistic(x, classes, GroupLasso(0.1, dims=(1,))), terms
    if name == "binary":
        labels = np.array([4, 7, 7, 4, 7, 4, 4, 7])
        terms = [
            lambda w, i=i: math.log1p(math.exp((-1 if labels[i] == 7 else 1) * sum(x[i, j] * w[j] for j in range(3))))
            for i in range(8)
        ]
        return binary_logistic(x, labels, L1(0.1)), terms
    if name == "factorisation":
        M = rng.standard_normal((4, 3))
        seen = rng.random((4, 3)) < 0.7
        cells = [(i, j) for i in range(4) for j in range(3) if seen[i, j]]
        terms = [
            lambda w, i=i, j=j: 0.5 * (sum(w[i, k] * w[4 + j, k] for k in range(2)) - M[i, j]) ** 2 for i, j in cells
        ]
        return Factorisation(M, seen, GroupLasso(0.1), rng.standard_normal((7, 2))), terms
    y = rng.standard_normal(8)
    terms = [
        lambda w, i=i: 0.5 * (sum(math.tanh(sum(x[i, j] * w[j, k] for j in range(3))) for k in range(2)) - y[i]) ** 2
        for i in range(8)
    ]
    return TanhNetwork(x, y, GroupLasso(0.1, dims=(1,)), rng.standard_normal((3, 2))), terms


@pytest.mark.parametrize("name", ["least_squares", "multinomial", "binary", "factorisation", "network"])
def test_every_term_matches_its_formula_written_with_scalars(name):
    problem, terms = scalar_terms(name)
    w = point_of(problem, seed=5)
    assert problem.samples == len(terms)
    assert problem.value(w) == pytest.approx(sum(term(w) for term in terms) / len(terms), rel=1e-13)
    for i, term in enumerate(terms):
        gradient = problem.batch_gradient(w, np.array([i]))
        for index in np.ndindex(w.shape):
            bump = np.zeros(w.shape)
            bump[index] = 1e-5
            slope = (term(w + bump) - term(w - bump)) / 2e-5
            assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_gradient_is_the_slope_of_the_value(problem):
    rng, w = np.random.default_rng(7), point_of(problem)
    value, gradient = problem.value_and_gradient(w)
    assert value == pytest.approx(problem.value(w), rel=1e-13)
    np.testing.assert_allclose(problem.gradient(w), gradient, rtol=1e-12, atol=1e-15)
    assert gradient.shape == w.shape and gradient.dtype == np.float64
    for _ in range(5):
        d = rng.standard_normal(w.shape)
        slope = (problem.value(w + 1e-5 * d) - problem.value(w - 1e-5 * d)) / 2e-5
        assert float(np.vdot(gradient, d)) == pytest.approx(slope, rel=1e-6, abs=1e-8 * np.linalg.norm(gradient))


def test_batches_average_to_the_gradient(problem):
    w = point_of(problem)
    rng, full = np.random.default_rng(2), problem.gradient(w)
    order = rng.permutation(problem.samples)
    np.testing.assert_allclose(problem.batch_gradient(w, order), full, rtol=1e-10, atol=1e-13)
    parts = np.array_split(order, 7)
    weighted = sum(len(part) * problem.batch_gradient(w, part) for part in parts) / problem.samples
    np.testing.assert_allclose(weighted, full, rtol=1e-10, atol=1e-13)
    single = [problem.batch_gradient(w, np.array([i])) for i in (3, 5)]
    repeated = problem.batch_gradient(w, np.array([3, 5, 3]))
    np.testing.assert_allclose(repeated, (2 * single[0] + single[1]) / 3, rtol=1e-10, atol=1e-13)


def test_nothing_handed_in_is_changed(problem):
    w, batch = point_of(problem), np.arange(0, problem.samples, 3)
    before, indices = w.copy(), batch.copy()
    for _ in range(2):  # nor is anything inside: the second round answers the same
        answers = problem.value(w), problem.gradient(w), problem.batch_gradient(w, batch), problem.hessian(w)(before)
        again = problem.value(w), problem.gradient(w), problem.batch_gradient(w, batch), problem.hessian(w)(before)
        for first, second in zip(answers, again, strict=True):
            np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(w, before)
    np.testing.assert_array_equal(batch, indices)


def test_objective_and_stationarity_are_those_of_the_sum(problem):
    w = point_of(problem)
    psi = problem.regularizer
    assert problem.objective(w) == pytest.approx(problem.value(w) + float(psi.value(w)), rel=1e-14)
    assert problem.stationarity(w) == float(psi.subdifferential_distance(w, problem.gradient(w)))


def test_hessian_is_the_slope_of_the_gradient(problem):
    rng, w = np.random.default_rng(4), point_of(problem)
    product = problem.hessian(w)
    for _ in range(3):
        d, e = rng.standard_normal((2, *w.shape))
        slope = (problem.gradient(w + 1e-5 * d) - problem.gradient(w - 1e-5 * d)) / 2e-5
        np.testing.assert_allclose(product(d), slope, atol=1e-6 * np.linalg.norm(slope))
        assert float(np.vdot(product(d), e)) == pytest.approx(float(np.vdot(d, product(e))), rel=1e-5, abs=1e-7)
    assert not product(np.zeros_like(w)).any()


def test_default_hessian_agrees_with_the_exact_ones():
    for problem in (digits(), breast_cancer(), lasso(), low_rank()):
        w, d = point_of(problem, scale=0.1), point_of(problem, seed=9)
        exact = problem.hessian(w)(d)
        np.testing.assert_allclose(Problem.hessian(problem, w)(d), exact, atol=1e-8 * np.linalg.norm(exact))


def test_lipschitz_constant_bounds_random_pairs(problem):
    if problem.lipschitz is None:
        assert problem.name == "factorisation"
        return
    rng = np.random.default_rng(11)
    for scale in (1e-6, 1e-2, 1.0, 10.0):
        for _ in range(20):
            x = rng.uniform(0, 2) * rng.standard_normal(problem.initial.shape)
            d = scale * rng.standard_normal(problem.initial.shape)
            change = np.linalg.norm(problem.gradient(x + d) - problem.gradient(x))
            assert change <= problem.lipschitz * np.linalg.norm(d) + 1e-13


def test_lipschitz_constants_of_the_linear_models_are_attained():
    rng, x = data()
    top = np.linalg.svd(x)[2][0]
    labels = np.arange(40) % 2
    zero = np.zeros(6)
    for problem in (least_squares(x, rng.standard_normal(40), L1(0.1)), binary_logistic(x, labels, L1(0.1))):
        assert np.linalg.norm(problem.hessian(zero)(top)) == pytest.approx(problem.lipschitz, rel=1e-11)
    two_classes = multinomial_logistic(x, labels, L1(0.1))  # probabilities 1/2, 1/2 at zero
    d = np.outer(top, [1.0, -1.0]) / math.sqrt(2)
    assert np.linalg.norm(two_classes.hessian(np.zeros((6, 2)))(d)) == pytest.approx(two_classes.lipschitz, rel=1e-11)


def test_lipschitz_constant_of_the_network_bounds_its_hessian():
    problem = teacher(samples=60, features=4, relevant=2, hidden=2)
    for seed in range(10):
        w = point_of(problem, seed)
        product = problem.hessian(w)
        hessian = np.array([product(e.reshape(w.shape)).ravel() for e in np.eye(w.size)])
        assert np.abs(np.linalg.eigvalsh((hessian + hessian.T) / 2)).max() < problem.lipschitz


def test_logistic_losses_do_not_overflow():
    rng, x = data()
    for problem in (
        multinomial_logistic(x, np.arange(40) % 3, L1(0.1)),
        binary_logistic(x, np.arange(40) % 2, L1(0.1)),
    ):
        w = 1e4 * rng.standard_normal(problem.initial.shape)
        value, gradient = problem.value_and_gradient(w)
        assert np.isfinite(value) and value > 1e3 and np.all(np.isfinite(gradient))
        # f grows linearly out there: <grad f(w), w> = f(w) up to the rounding of both
        assert float(np.vdot(gradient, w)) == pytest.approx(value, rel=1e-3)


def test_digits_agree_with_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss

    problem, images = digits(), load_digits()
    w = point_of(problem)
    scores = images.data / 16 @ w
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert problem.value(w) == pytest.approx(log_loss(images.target, probabilities), rel=1e-12)
    assert problem.samples == 1797 and problem.initial.shape == (64, 10) and not problem.initial.any()
    assert problem.value(problem.initial) == pytest.approx(math.log(10), rel=1e-14)


def test_names_attributes_and_starts(problem):
    assert PROBLEMS[problem.name]().name == problem.name
    assert problem.convex == (problem.name not in ("factorisation", "teacher"))
    assert problem.regularizer.convex == (problem.name != "mcp")
    assert problem.initial.dtype == np.float64 and not problem.initial.flags.writeable
    assert problem.initial.any() == (problem.name in ("factorisation", "teacher"))
    assert problem.name in repr(problem)


@pytest.mark.parametrize("name", sorted(set(PROBLEMS) - {"digits", "breast-cancer"}))
def test_one_seed_one_problem(name):
    first, same, other = PROBLEMS[name](seed=4), PROBLEMS[name](seed=4), PROBLEMS[name](seed=5)
    w = point_of(first)
    np.testing.assert_array_equal(first.gradient(w), same.gradient(w))
    np.testing.assert_array_equal(first.initial, same.initial)
    assert not np.allclose(first.gradient(w), other.gradient(w))


@pytest.mark.parametrize("name", PROBLEMS)
def test_weight_is_the_regularizers(name):
    assert PROBLEMS[name](weight=0.037).regularizer.weight == 0.037
    with pytest.raises(ValueError, match="weight"):
        PROBLEMS[name](weight=-1.0)
    with pytest.raises(TypeError, match="weight"):
        PROBLEMS[name](weight="a")


def test_sizes_are_what_was_asked_for():
    assert lasso(samples=30, features=30, nonzeros=0).initial.shape == (30,)
    assert group_lasso(samples=40, groups=5, group_size=8).initial.shape == (5, 8)
    assert low_rank(samples=70, rows=7, columns=9).initial.shape == (7, 9)
    assert mcp(samples=90, features=12, nonzeros=3).samples == 90
    problem = factorisation(rows=7, columns=5, components=3, observed=0.5)
    assert problem.initial.shape == (12, 3) and problem.samples == 18
    assert teacher(samples=9, features=5, relevant=2, hidden=4).initial.shape == (5, 4)


def test_only_observed_entries_matter():
    _, x = data(4, 3)
    seen = np.ones((4, 3), dtype=bool)
    seen[1, 2] = False
    x[1, 2] = np.nan
    assert np.isfinite(Factorisation(x, seen, GroupLasso(0.1), np.ones((7, 2))).value(np.ones((7, 2))))


X = data()[1]
Y = np.arange(40) % 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lasso(features=201), ValueError, "features must be at most 200"),
        (lambda: lasso(features=2.5), TypeError, "features must be an integer"),
        (lambda: lasso(nonzeros=51), ValueError, "nonzeros must be at most 50"),
        (lambda: lasso(margin=1.5), ValueError, r"margin must be in \[0, 1\]"),
        (lambda: lasso(condition=0.5), ValueError, "condition"),
        (lambda: lasso(seed=-1), ValueError, "seed"),
        (lambda: lasso(weight=0.0), ValueError, "weight"),
        (lambda: lasso(wieght=0.1), TypeError, "wieght"),
        (lambda: group_lasso(groups=50), ValueError, r"groups \* group_size must be at most 200"),
        (lambda: group_lasso(nonzeros=21), ValueError, "nonzeros"),
        (lambda: low_rank(rank=16), ValueError, "rank must be at most 15"),
        (lambda: low_rank(samples=299), ValueError, r"rows \* columns"),
        (lambda: mcp(gamma=0.0), ValueError, "gamma"),
        (lambda: mcp(gamma=0.5), ValueError, "gamma must be larger"),
        (lambda: factorisation(rank=21), ValueError, "rank"),
        (lambda: factorisation(observed=0.0), ValueError, "observed"),
        (lambda: teacher(relevant=21), ValueError, "relevant must be at most 20"),
        (lambda: teacher(hidden=0), ValueError, "hidden must be at least 1"),
        (lambda: least_squares(X, Y[:3], L1(0.1)), ValueError, "y must have 40 entries"),
        (lambda: least_squares(X, Y, L1(0.1), shape=(2, 2)), ValueError, "shape must have"),
        (lambda: least_squares(X, Y, "l1"), TypeError, "regularizer must be a Regularizer"),
        (lambda: least_squares(X, Y, GroupLasso(0.1, dims=(1,))), ValueError, "dims"),
        (lambda: least_squares(0 * X, Y, L1(0.1)), ValueError, "must not be zero"),
        (lambda: least_squares(X * np.nan, Y, L1(0.1)), ValueError, "A must be finite"),
        (lambda: least_squares(X[0], Y, L1(0.1)), ValueError, "A must be a nonempty matrix"),
        (lambda: least_squares([["a"]], Y, L1(0.1)), TypeError, "A must be a matrix of real numbers"),
        (lambda: LeastSquares(X, Y, L1(0.1), known_point=np.zeros(5)), ValueError, "known_point"),
        (lambda: multinomial_logistic(X, Y - 1, L1(0.1)), ValueError, "targets must be integers 0, 1"),
        (lambda: multinomial_logistic(X, Y * 0, L1(0.1)), ValueError, "at least two classes"),
        (lambda: multinomial_logistic(X, Y * 1.0, L1(0.1)), ValueError, "targets must be integers"),
        (lambda: multinomial_logistic(X, Y[1:], L1(0.1)), ValueError, "targets must have 40 entries"),
        (lambda: binary_logistic(X, np.arange(40), L1(0.1)), ValueError, "exactly two values, got 40"),
        (lambda: binary_logistic(X, ["a", "b"] * 20, L1(0.1)), ValueError, "targets must be finite numbers"),
        (lambda: Factorisation(X, X > 0, GroupLasso(0.1), np.ones((3, 2))), ValueError, "initial must have 46 rows"),
        (lambda: Factorisation(X, X, GroupLasso(0.1), np.ones((46, 2))), ValueError, "observed must be a boolean"),
        (lambda: Factorisation(X, X > 1e9, GroupLasso(0.1), np.ones((46, 2))), ValueError, "M must have observed"),
        (lambda: TanhNetwork(X, Y, GroupLasso(0.1), np.ones((3, 2))), ValueError, "initial must have 6 rows"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_importing_problems_loads_no_heavy_library():
    code = (
        "import sys, ramda_theory.problems as p; p.lasso(); "
        "print([m for m in ('sklearn', 'scipy', 'torch', 'cvxpy', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
