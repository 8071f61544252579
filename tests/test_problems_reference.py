"""Reference solutions: planted ones are exact, computed ones agree with known facts and with CVXPY."""

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
    teacher,
)
from ramda_theory.problems.base import Problem
from ramda_theory.problems.matrix_product import Factorisation
from ramda_theory.problems.reference import (
    ProximalGradientRun,
    conjugate_gradients,
    find_reference,
    newton_direction,
    polish,
)
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

PLANTED = {"lasso": lasso, "group-lasso": group_lasso, "low-rank": low_rank, "mcp": mcp}


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(8)


# -- planted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("name", PLANTED)
def test_planted_solution_has_the_prescribed_margin(name, margin):
    problem = PLANTED[name](seed=3, margin=margin)
    solution = problem.solution()
    assert solution.certified and solution.stationarity <= 1e-13
    assert solution.margin == pytest.approx(margin, abs=1e-12)
    assert solution.origin.startswith("planted")
    assert solution.objective == pytest.approx(problem.objective(problem.known_point), rel=1e-15)
    np.testing.assert_array_equal(solution.point, problem.known_point)


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("make", [lasso, group_lasso, low_rank])
def test_planted_solution_is_exact_at_any_conditioning(make, condition):
    problem = make(condition=condition)
    assert problem.solution().stationarity <= 1e-11
    assert problem.lipschitz == pytest.approx(1.0, rel=1e-9)
    product = problem.hessian(problem.initial)
    hessian = np.array([product(e.reshape(problem.initial.shape)).ravel() for e in np.eye(problem.initial.size)])
    assert np.linalg.eigvalsh(hessian)[0] == pytest.approx(1.0 / condition, rel=1e-6)


def test_planted_lasso_satisfies_the_optimality_conditions_entry_by_entry():
    problem = lasso(seed=6, nonzeros=7, margin=0.3)
    w, gradient = problem.known_point, problem.gradient(problem.known_point)
    active = w != 0
    assert active.sum() == 7 == problem.solution().structure.count
    assert np.all((np.abs(w[active]) >= 0.5) & (np.abs(w[active]) <= 1.5))
    np.testing.assert_allclose(gradient[active], -0.1 * np.sign(w[active]), atol=1e-14)
    assert np.abs(gradient[~active]).max() == pytest.approx(0.07, rel=1e-12)


def test_planted_group_lasso_satisfies_the_optimality_conditions_group_by_group():
    problem = group_lasso(seed=6, groups=12, group_size=4, nonzeros=3, margin=0.3)
    w, gradient = problem.known_point, problem.gradient(problem.known_point)
    norms = np.linalg.norm(w, axis=1)
    active = norms > 0
    assert active.sum() == 3 == problem.solution().structure.count
    np.testing.assert_allclose(gradient[active], -0.05 * 2 * w[active] / norms[active, None], atol=1e-14)
    assert np.linalg.norm(gradient[~active], axis=1).max() == pytest.approx(0.07, rel=1e-12)


def test_planted_low_rank_solution_has_its_rank_and_subgradient():
    problem = low_rank(seed=6, rank=2, margin=0.3)
    u, s, vh = np.linalg.svd(problem.known_point)
    assert problem.solution().structure.rank == 2 and s[1] >= 1 - 1e-12 and s[2] < 1e-14
    rest = -problem.gradient(problem.known_point) / 0.1 - u[:, :2] @ vh[:2]
    assert np.abs(u[:, :2].T @ rest).max() < 1e-13 and np.abs(rest @ vh[:2].T).max() < 1e-13
    assert np.linalg.norm(rest, 2) == pytest.approx(0.7, rel=1e-12)


def test_planted_mcp_is_a_strict_local_minimum_of_a_nonconvex_objective(rng):
    problem = mcp(seed=6, nonzeros=9)
    w, knot = problem.known_point, 5.0 * 0.2
    size = np.abs(w[w != 0])
    assert np.sum(size > 1.19 * knot) == 5 and np.sum(size < 0.81 * knot) == 4
    for _ in range(200):
        d = rng.standard_normal(w.shape)
        d *= (w != 0) | (rng.random(w.shape) < 0.2)
        assert problem.objective(w + 1e-3 * d / np.linalg.norm(d)) > problem.objective(w)
    product = problem.hessian(w)
    lowest = np.linalg.eigvalsh(np.array([product(e) for e in np.eye(w.size)]))[0]
    assert lowest < problem.regularizer.weak_convexity  # F is not convex


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PLANTED)
def test_search_from_the_start_finds_the_planted_solution(name, seed):
    problem = PLANTED[name](seed=seed)
    found, planted = find_reference(problem), problem.solution()
    np.testing.assert_allclose(found.point, planted.point, atol=1e-9)
    assert found.certified and found.structure == planted.structure
    assert found.objective == pytest.approx(planted.objective, rel=1e-13)


# -- computed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "pixels", "ratio", "smallest"), [(5e-3, 28, 0.942, 0.065), (1.01e-3, 37, 0.969, None)]
)
def test_digits_optimum(weight, pixels, ratio, smallest):
    problem = digits(weight)
    solution = problem.solution()
    assert solution.certified and problem.stationarity(solution.point) <= 1e-10
    norms = np.linalg.norm(solution.point, axis=1)
    assert solution.structure.count == np.count_nonzero(norms) == pixels
    dual = np.linalg.norm(problem.gradient(solution.point), axis=1) / (weight * np.sqrt(10))
    assert dual[norms == 0].max() == pytest.approx(ratio, abs=5e-4)
    assert solution.margin == pytest.approx(1 - ratio, abs=5e-4)
    np.testing.assert_allclose(dual[norms > 0], 1.0, atol=1e-7)
    if smallest is not None:
        assert norms[norms > 0].min() == pytest.approx(smallest, abs=5e-4)
    assert problem.solution() is solution


def test_breast_cancer_optimum():
    problem = breast_cancer()
    solution = problem.solution()
    assert solution.certified and solution.structure.count == 12 and solution.margin > 0.03
    trial = np.random.default_rng(0)
    for _ in range(50):  # convex: no point is lower
        assert problem.objective(solution.point + 0.01 * trial.standard_normal(30)) > solution.objective


@pytest.mark.parametrize("make", [factorisation, teacher])
def test_nonconvex_references_say_what_they_reached(make):
    problem = make()
    solution = problem.solution()
    assert solution.stationarity == problem.stationarity(solution.point)
    assert solution.certified == (solution.stationarity <= 1e-10)
    assert solution.certified and "proximal gradient from the initial point" in solution.origin
    assert solution.objective < problem.objective(problem.initial)
    np.testing.assert_array_equal(make().solution().point, solution.point)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_factorisation_finds_the_rank_and_the_student_as_many_inputs_as_the_teacher_has(seed):
    assert factorisation(seed=seed).solution().structure.count == 2
    problem = teacher(seed=seed)
    solution = problem.solution()
    assert solution.structure.count == 4
    assert problem.value(solution.point) < 0.05 * problem.value(np.zeros_like(solution.point))


def test_reference_that_is_not_reached_is_not_certified():
    reference = find_reference(digits(), max_iter=20)
    assert not reference.certified and reference.stationarity > 1e-6
    assert reference.origin == "accelerated proximal gradient from the initial point, 20 steps"


def test_weight_above_the_critical_one_gives_zero():
    problem = breast_cancer()
    critical = float(problem.regularizer.critical_weight(problem.gradient(problem.initial)))
    above, below = breast_cancer(1.001 * critical).solution(), breast_cancer(0.999 * critical).solution()
    assert above.structure.count == 0 and above.certified and above.stationarity == 0
    assert below.structure.count == 1 and below.certified


def test_reference_points_cannot_be_changed():
    for name in ("lasso", "breast-cancer"):
        with pytest.raises(ValueError, match="read-only"):
            PROBLEMS[name]().solution().point[0] = 1.0


# -- against CVXPY --------------------------------------------------------------------------------------------------


def cvxpy_minimum(objective) -> float:
    import cvxpy as cp

    program = cp.Problem(cp.Minimize(objective))
    program.solve(solver="CLARABEL")
    assert program.status == "optimal"
    return program.value


def test_binary_logistic_agrees_with_cvxpy(rng):
    import cvxpy as cp

    x = rng.standard_normal((60, 8))
    labels = np.where(x[:, 0] - x[:, 1] + rng.standard_normal(60) > 0, 1, -1)
    solution = binary_logistic(x, labels, L1(0.05)).solution()
    w = cp.Variable(8)
    loss = cp.sum(cp.logistic(-cp.multiply(labels, x @ w))) / 60
    assert solution.certified
    assert solution.objective == pytest.approx(cvxpy_minimum(loss + 0.05 * cp.norm1(w)), rel=1e-7)
    np.testing.assert_allclose(solution.point, w.value, atol=1e-4)


@pytest.mark.parametrize("samples", [60, 12])  # more and fewer samples than unknowns
def test_lasso_agrees_with_cvxpy(rng, samples):
    import cvxpy as cp

    A, y = rng.standard_normal((samples, 20)), rng.standard_normal(samples)
    solution = least_squares(A, y, L1(0.1)).solution()
    w = cp.Variable(20)
    minimum = cvxpy_minimum(cp.sum_squares(A @ w - y) / (2 * samples) + 0.1 * cp.norm1(w))
    assert solution.certified and 0 < solution.structure.count < 20
    assert solution.objective == pytest.approx(minimum, rel=1e-7)
    np.testing.assert_allclose(solution.point, w.value, atol=1e-4)


def test_group_lasso_agrees_with_cvxpy(rng):
    import cvxpy as cp

    A, y = rng.standard_normal((50, 24)), rng.standard_normal(50)
    solution = least_squares(A, y, GroupLasso(0.06, dims=(1,)), shape=(8, 3)).solution()
    w = cp.Variable(24)
    groups = sum(cp.norm2(w[3 * g : 3 * g + 3]) for g in range(8))
    minimum = cvxpy_minimum(cp.sum_squares(A @ w - y) / 100 + 0.06 * np.sqrt(3) * groups)
    assert solution.certified and 0 < solution.structure.count < 8
    assert solution.objective == pytest.approx(minimum, rel=1e-7)
    np.testing.assert_allclose(solution.point.ravel(), w.value, atol=1e-4)


def test_matrix_regression_agrees_with_cvxpy(rng):
    import cvxpy as cp

    A, y = rng.standard_normal((50, 20)), rng.standard_normal(50)
    solution = least_squares(A, y, NuclearNorm(0.15), shape=(5, 4)).solution()
    w = cp.Variable((5, 4))
    loss = cp.sum_squares(A @ cp.vec(w, order="C") - y) / 100
    minimum = cvxpy_minimum(loss + 0.15 * cp.normNuc(w))
    assert solution.certified and 0 < solution.structure.rank < 4
    assert solution.objective == pytest.approx(minimum, rel=1e-6)
    np.testing.assert_allclose(solution.point, w.value, atol=1e-3)


# -- the machinery --------------------------------------------------------------------------------------------------

REGULARIZERS = [
    L1(0.3),
    ElasticNet(0.3, 0.7),
    MCP(0.3, 3.0),
    SCAD(0.3, 3.7),
    GroupLasso(0.3, dims=(1,)),
    GroupLasso(0.3, dims=(0,), size_scaled=False),
    SparseGroupLasso(0.3, 0.4, dims=(1,)),
    GroupMCP(0.3, 6.0, dims=(1,)),
]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=repr)
def test_curvature_is_the_slope_of_the_gradient_of_psi_on_the_manifold(regularizer, rng):
    # Columns and rows of very different length, so that every branch of MCP, SCAD and GroupMCP occurs.
    w = rng.standard_normal((6, 5)) * np.geomspace(0.05, 5.0, 6)[:, None]
    w[2], w[:, 3] = 0.0, 0.0
    active = regularizer.tangent(w, np.ones_like(w)) == 1
    assert 0 < active.sum() < w.size
    zero, product = np.zeros_like(w), regularizer.manifold_hessian(w)
    for _ in range(5):
        d = np.where(active, rng.standard_normal(w.shape), 0.0)
        h = 1e-7
        ends = [regularizer.subdifferential_residual(w + sign * h * d, zero) for sign in (1, -1)]
        assert regularizer.structure(w + h * d) == regularizer.structure(w)
        np.testing.assert_allclose(product(d)[active], ((ends[0] - ends[1]) / (2 * h))[active], atol=1e-6)


def test_curvature_of_labelled_groups_equals_that_of_axes(rng):
    w, d = rng.standard_normal((2, 4, 3))
    w[1] = d[1] = 0
    labelled = GroupLasso(0.3, labels=np.repeat(np.arange(4), 3).tolist())
    expected = GroupLasso(0.3, dims=(1,)).manifold_hessian(w)(d)
    np.testing.assert_allclose(labelled.manifold_hessian(w.ravel())(d.ravel()), expected.ravel(), rtol=1e-13)
    np.testing.assert_array_equal(labelled.tangent(w.ravel(), np.ones(w.size)), (w != 0).ravel())


@pytest.mark.parametrize(
    "regularizer",
    [SparseGroupLasso(0.02, 0.5, dims=(1,)), GroupMCP(0.03, 8.0, dims=(1,)), ElasticNet(0.05, 0.1), SCAD(0.05, 3.7)],
    ids=repr,
)
def test_every_pattern_regularizer_gets_a_certified_reference(regularizer, rng):
    A = rng.standard_normal((50, 24))
    solution = least_squares(A, rng.standard_normal(50), regularizer, shape=(8, 3)).solution()
    assert solution.certified and solution.structure.count > 0
    assert solution.margin >= 0


def test_polish_keeps_the_structure_and_converges_quadratically():
    problem = digits()
    optimum = problem.solution()
    start = np.where(optimum.point != 0, optimum.point * 1.02, 0.0)
    point = polish(problem, start, 1e-11)
    assert problem.regularizer.structure(point) == optimum.structure
    np.testing.assert_allclose(point, optimum.point, atol=1e-8)
    # with a pixel too many its own support is kept, and the point is not taken for a solution
    extra = start.copy()
    extra[np.flatnonzero(~optimum.structure.mask.ravel())[3]] = 1e-3
    kept = polish(problem, extra, 1e-11)
    assert problem.regularizer.structure(kept) == problem.regularizer.structure(extra)
    assert problem.stationarity(kept) > 1e-6


def test_newton_does_not_settle_on_a_saddle():
    # f(u, v) = 1/2 (u v - 1)^2 has a saddle at 0; u = -v = 1e-3 lies close to it, in the direction that climbs.
    problem = Factorisation(np.ones((1, 1)), np.ones((1, 1), dtype=bool), L1(0.0), np.full((2, 1), 0.1))
    near = np.array([[1e-3], [1e-3]])
    assert newton_direction(problem, near, problem.gradient(near)) is None
    np.testing.assert_array_equal(polish(problem, near, 1e-11), near)
    minimum = problem.solution().point
    assert float(minimum[0, 0] * minimum[1, 0]) == pytest.approx(1.0, rel=1e-9)


def test_conjugate_gradients_solve_and_refuse(rng):
    B = rng.standard_normal((12, 12))
    spd, b = B @ B.T + np.eye(12), rng.standard_normal(12)
    x = conjugate_gradients(lambda d: spd @ d, b, 1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(spd, b), rtol=1e-8)
    loose = conjugate_gradients(lambda d: spd @ d, b, 0.1)
    assert 1e-12 < np.linalg.norm(spd @ loose - b) <= 0.1 * np.linalg.norm(b)
    assert conjugate_gradients(lambda d: -d, b, 1e-6) is None
    assert not conjugate_gradients(lambda d: d, np.zeros(3), 1e-6).any()


def test_proximal_gradient_run_without_a_lipschitz_constant_never_climbs():
    problem = factorisation(seed=2)
    run = ProximalGradientRun(problem, accelerated=False)
    values = [problem.objective(run.point)]
    for _ in range(200):
        run.step()
        values.append(problem.objective(run.point))
    assert np.all(np.diff(values) <= 1e-15) and values[-1] < 0.2 * values[0]


def test_restarted_momentum_beats_plain_steps():
    problem, steps = lasso(condition=1e3), {}
    for accelerated in (True, False):
        run = ProximalGradientRun(problem, accelerated)
        while problem.stationarity(run.point) > 1e-10:
            run.step()
        steps[accelerated] = run.steps
    assert 3 * steps[True] < steps[False]  # momentum without restarts is slower than plain steps here


def test_newton_never_crosses_zero():
    problem = lasso()
    flipped = problem.known_point.copy()
    flipped[np.flatnonzero(flipped)[0]] *= -0.1
    point = polish(problem, flipped, 1e-11)
    np.testing.assert_array_equal(np.sign(point), np.sign(flipped))
    assert not np.array_equal(point, flipped) and problem.stationarity(point) > 0.01


class Sine(Problem):
    """f(w) = sum_j sin w_j, by itself: a problem without samples, as a user may write one."""

    def __init__(self, start: float) -> None:
        super().__init__("sine", L1(0.0), np.array([start]), samples=None, convex=False, lipschitz=1.0)

    def value_and_gradient(self, w):
        return float(np.sin(w).sum()), np.cos(w)

    def batch_gradient(self, w, batch):
        return np.cos(w)


def test_newton_does_not_climb():
    # The full step from -0.2 leads to -5.1, where the slope is smaller and the value higher.
    problem = Sine(-0.2)
    full = problem.initial - np.cos(problem.initial) / -np.sin(problem.initial)
    assert abs(np.cos(full[0])) < np.cos(-0.2) and problem.value(full) > problem.value(problem.initial)
    np.testing.assert_allclose(polish(problem, problem.initial, 1e-11), -np.pi / 2, atol=1e-8)
    assert problem.solution().certified
    np.testing.assert_allclose(problem.solution().point, -np.pi / 2, atol=1e-8)
