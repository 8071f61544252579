"""Speed of the exact group LASSO solve beside CVXPY on the same data, as a ratio measured in one run."""

import time

import numpy as np
import pytest

from ramda_theory.regularizers import GroupLasso
from ramda_theory.subproblem import Subproblem, solve


def timed(function):
    clock = time.perf_counter()
    result = function()
    return result, time.perf_counter() - clock


@pytest.mark.slow
def test_exact_group_lasso_is_a_hundred_times_faster_than_cvxpy_at_a_smaller_residual():
    rng = np.random.default_rng(0)
    shape = (128, 128)
    metric = np.exp(rng.standard_normal(shape))
    b = rng.standard_normal(shape) * np.sqrt(metric)
    psi = GroupLasso(1.0)
    weight_sum = 0.9 * float(np.median(psi.group_norms(b))) / np.sqrt(shape[0])  # about a third of the groups are zero
    problem = Subproblem(np.zeros(shape), -b, metric, weight_sum, psi)
    solve(problem, "exact")
    exact = [timed(lambda: solve(problem, "exact")) for _ in range(7)]
    reference, seconds = timed(lambda: solve(problem, "cvxpy"))
    times = sorted(seconds for _, seconds in exact)
    ratio = seconds / times[3]
    print(
        f"\nCVXPY (Clarabel) {seconds:.2f} s, residual {reference.residual:.1e}; exact {1e3 * times[3]:.2f} ms "
        f"({1e3 * times[0]:.2f}-{1e3 * times[-1]:.2f}), residual {exact[0][0].residual:.1e}; ratio {ratio:.0f}"
    )
    assert exact[0][0].status == "solved"
    assert exact[0][0].residual < reference.residual
    assert ratio >= 100
