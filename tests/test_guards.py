"""Single lines that no other test would miss: step lengths, branches of references, guards against 0, shapes, cuts."""

import numpy as np
import pytest
import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from ramda_theory.kernels.sharding import local_gradient
from ramda_theory.problems.base import Problem
from ramda_theory.regularizers import L1, MCP, GroupLasso, GroupMCP
from ramda_theory.subproblem import Subproblem
from ramda_theory.subproblem.bisection import bisection_reference
from ramda_theory.subproblem.first_order import step_sizes


class Quartic(Problem):
    """f(w) = sum w^4 / 4, whose Hessian is 3 w^2, without a Hessian of its own."""

    def __init__(self):
        super().__init__("quartic", L1(0.1), np.array([1.0, -2.0, 0.5]), None, True, None)

    def value_and_gradient(self, w):
        return float(np.sum(w**4) / 4), w**3

    def batch_gradient(self, w, batch):
        return w**3


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_the_difference_of_a_hessian_does_not_depend_on_the_length_of_the_direction(length):
    problem = Quartic()
    d = length * np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(problem.hessian(problem.initial)(d), 3 * problem.initial**2 * d, rtol=1e-6)


def test_bisection_of_group_mcp_on_its_flat_branch_is_the_minimum_on_a_grid():
    psi, metric, b = GroupMCP(0.5, 3.0, dims=(0,), size_scaled=False), np.array([1.0, 2.0]), np.array([4.0, 3.0])
    found = np.asarray(bisection_reference(Subproblem(np.zeros(2), -b, metric, 1.0, psi)), dtype=float)
    x = np.stack(np.meshgrid(np.linspace(0, 5, 501), np.linspace(0, 5, 501), indexing="ij"))
    norms = np.minimum(np.sqrt(np.sum(x**2, axis=0)), 1.5)
    q = np.sum(0.5 * metric[:, None, None] * x**2 - b[:, None, None] * x, axis=0) + 0.5 * norms - norms**2 / 6
    best = x[:, *np.unravel_index(np.argmin(q), q.shape)]
    assert np.linalg.norm(best) > 1.5
    np.testing.assert_allclose(found, best, atol=0.01)


@pytest.mark.parametrize(("psi", "factor"), [(L1(0.1), 1.0), (MCP(0.1, 3.0), 0.5)])
def test_steps_of_algorithm_2_are_halved_for_nonconvex_psi(psi, factor):
    problem = Subproblem(np.zeros(3), np.ones(3), np.array([1.0, 4.0, 2.0]), 1.0, psi)
    assert step_sizes(problem, "global")[0] == factor / 4
    np.testing.assert_array_equal(step_sizes(problem, "group")[1], factor / np.array([1.0, 4.0, 2.0]))


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_norms_of_groups_that_are_zero_tiny_huge_or_not_finite(library):
    w = np.array([[0.0, 3e-200, 3e200, np.inf, np.nan], [0.0, 4e-200, 4e200, 1.0, 1.0]])
    found = np.asarray(GroupLasso(1.0).group_norms(library(w))).ravel()
    np.testing.assert_allclose(found, [0.0, 5e-200, 5e200, np.inf, np.nan], rtol=1e-14)


def test_groups_without_entries_have_a_weight():
    psi, empty = GroupLasso(0.5), np.zeros((0, 3))
    assert psi.group_weights(empty) == 0.5
    assert float(psi.critical_weight(empty)) == 0.0 and float(psi.nondegeneracy_margin(empty, empty)) == 1.0


@pytest.mark.parametrize("shape", [(2, 2), (4, 2), (7,)])
def test_views_take_arrays_of_their_size_only(shape):
    psi = GroupLasso(0.1, view=(2, 3))
    psi.check_shape((6,))
    for ask in (lambda: psi.check_shape(shape), lambda: psi.structure(np.ones(shape))):
        with pytest.raises(ValueError, match=r"cannot be seen as \(2, 3\)"):
            ask()


def test_a_gradient_is_cut_as_its_parameter():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        whole = torch.arange(12.0).reshape(4, 3)
        parameter = DTensor.from_local(whole[:2], mesh, [Shard(0)], run_check=False)
        gradient = DTensor.from_local(whole, mesh, [Replicate()], run_check=False)
        assert torch.equal(local_gradient(gradient, parameter), whole[:2])
        assert local_gradient(whole, whole) is whole
    finally:
        torch.distributed.destroy_process_group()
