"""The ground the mathematics stands on: totals that neither overflow nor cancel, torch habits, a light import."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, to_numpy
from examples import EXAMPLES, example_point

from ramda_theory.arrays import inner, is_host, largest, namespace, norm, real, sum_of_roots, to_host, total
from ramda_theory.regularizers import GroupLasso


def test_import_is_light():
    """Importing the core loads none of the heavy libraries."""
    code = """
import json, sys
import ramda_theory.regularizers, ramda_theory.subproblem
print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))
"""
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "cvxpy", "matplotlib", "scipy", "sklearn", "numba"} & set(loaded)


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_norm_at_any_scale(backend):
    for scale in (1e-300, 1e-160, 1.0, 1e160, 1e300):
        x = backend.array([[3.0 * scale, 0.0], [0.0, -4.0 * scale]])
        assert float(norm(namespace(x=x), x)) == pytest.approx(5 * scale, rel=1e-15)
        assert to_numpy(GroupLasso(1.0, (0, 1)).group_norms(x))[0, 0] == pytest.approx(5 * scale, rel=1e-15)
    empty = backend.array(np.zeros((0, 3)))
    xp = namespace(x=empty)
    assert float(norm(xp, empty)) == float(largest(xp, empty)) == float(inner(xp, empty, empty)) == 0
    assert np.isnan(float(norm(xp, backend.array([np.nan, 1.0])))) and np.isinf(
        float(norm(xp, backend.array([np.inf])))
    )


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_totals_are_float64(backend):
    """1e8 + 1 - 1e8 = 1, which float32 sums to 0."""
    x = backend.array([1e8, 1.0, -1e8])
    xp = namespace(x=x)
    assert float(total(xp, x)) == 1.0
    assert list(to_numpy(total(xp, backend.array([[1e8, 1e8], [1.0, 1.0], [-1e8, -1e8]]), (0,)))[0]) == [1.0, 1.0]
    assert total(xp, x, ()).shape == x.shape
    assert float(inner(xp, x, backend.array([1.0, 1.0, 1.0]))) == 1.0
    huge = backend.array([1e30, 1e30]) if backend.dtype == "float32" else backend.array([1e150, 1e150])
    assert np.isfinite(float(inner(xp, huge, huge)))


def test_real_numbers():
    assert real("x", np.float32(2)) == 2.0 and type(real("x", torch.tensor([3]))) is float
    with pytest.raises(ValueError, match="x must be finite and > 0, got 0"):
        real("x", 0, minimum=0.0, strict=True)
    with pytest.raises(ValueError, match="x must be finite, got inf"):
        real("x", np.inf)


def test_hosts():
    assert is_host(np.ones(2)) and is_host(torch.ones(2)) and not is_host(torch.ones(2, device="meta"))
    assert to_host(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).dtype == np.float32


@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
@pytest.mark.filterwarnings("error")
def test_tensors_that_require_grad(regularizer):
    """Parameters go anywhere plain tensors go, without a warning, and give the same numbers."""
    w = torch.tensor(example_point(regularizer, np.random.default_rng(0)))
    parameter = torch.nn.Parameter(w.clone())
    diag = torch.full_like(w, 4.0)
    pairs = [(regularizer.prox(parameter), regularizer.prox(w)), (regularizer.value(parameter), regularizer.value(w))]
    pairs.append((regularizer.critical_weight(parameter), regularizer.critical_weight(w)))
    both = (regularizer.subdifferential_distance, regularizer.nondegeneracy_margin)
    pairs.extend((act(parameter, parameter), act(w, w)) for act in both)
    if regularizer.has_metric_prox(diag):
        pairs.append((regularizer.metric_prox(parameter, diag), regularizer.metric_prox(w, diag)))
    for got, expected in pairs:
        assert torch.allclose(got.detach(), expected, rtol=1e-14, atol=1e-15)
    assert regularizer.structure(parameter) == regularizer.structure(w)
    assert regularizer.prox_structure(parameter)[1] == regularizer.prox_structure(w)[1]
    with torch.no_grad():
        assert not regularizer.prox(parameter).requires_grad


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 1001, 1500, 10**6])
def test_sums_of_roots_are_right_to_the_last_digits(count):
    expected = math.fsum(math.sqrt(k) for k in range(1, count + 1))
    assert sum_of_roots(count) == pytest.approx(expected, rel=1e-15, abs=0)


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(ValueError, match="x must be finite"):
        real("x", 10**400)
