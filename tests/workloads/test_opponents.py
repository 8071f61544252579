"""The opponents against independent computations: a gated model by autograd, Bregman iterations and pruning by hand."""

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ramda_theory.kernels import using
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm
from ramda_theory.workloads.opponents.bregman import AdaBreg, LinBreg
from ramda_theory.workloads.opponents.d_gating import DGating
from ramda_theory.workloads.opponents.pat import PAT
from ramda_theory.workloads.opponents.pruning import Pruned

PSI = GroupLasso(0.05)


def problem(seed=0):
    """A random least squares problem in a 5 x 4 matrix."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(30, 5, generator=generator).double(), torch.randn(30, 4, generator=generator).double()
    w = torch.nn.Parameter(torch.randn(5, 4, generator=generator).double())
    return w, lambda x: ((a @ x - b) ** 2).mean()


def run(optimizer, w, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()


@pytest.mark.parametrize("depth", [2, 3])
def test_d_gating_is_sgd_on_a_gated_model_with_the_smooth_penalty(depth):
    w, loss = problem()
    omega = w.detach().clone().requires_grad_()
    gates = [torch.ones(1, 4).double().requires_grad_() for _ in range(depth - 1)]
    run(DGating([{"params": [w], "regularizer": PSI}], lr=0.05, momentum=0.9, depth=depth, cutoff=0.0), w, loss, 25)
    reference = torch.optim.SGD([omega, *gates], lr=0.05, momentum=0.9)
    for _ in range(25):
        reference.zero_grad()
        penalty = (omega**2).sum(0, keepdim=True) + sum(gate**2 for gate in gates)
        objective = loss(omega * torch.stack(gates).prod(0)) + 0.05 * 5**0.5 / depth * penalty.sum()
        objective.backward()
        reference.step()
    assert torch.allclose(w, omega * torch.stack(gates).prod(0), rtol=1e-10)


def test_d_gating_finds_the_group_lasso_solution_and_its_zero_groups():
    from ramda_theory.optim import ProxSGD

    psi = GroupLasso(0.07)
    w, loss = problem()
    run(DGating([{"params": [w], "regularizer": psi}], lr=0.05, momentum=0.9), w, loss, 1500)
    x, loss = problem()
    with using("eager"):
        run(ProxSGD([x], lr=0.3, momentum=0.0, regularizer=psi), x, loss, 600)
    zero = (x == 0).all(0)
    assert 0 < int(zero.sum()) < 4
    assert torch.equal((w == 0).all(0), zero)
    assert torch.allclose(w, x, atol=1e-5)


def test_linbreg_is_the_written_iteration_and_begins_sparse():
    w, loss = problem()
    psi = GroupLasso(0.3)
    optimizer = LinBreg([{"params": [w], "regularizer": psi}], lr=0.1, momentum=0.5, delta=2.0, start=0.5, seed=1)
    zero = (w == 0).all(0)
    assert 0 < int(zero.sum()) < 4
    x = w.detach().numpy().copy()
    run(optimizer, w, loss, 12)
    lam, norms = 0.3 * 5**0.5, np.linalg.norm(x, axis=0)
    v = x / 2.0 + lam * x / np.where(norms > 0, norms, 1.0)
    m = np.zeros_like(x)
    for _ in range(12):
        at = torch.from_numpy(x).requires_grad_()
        loss(at).backward()
        m = 0.5 * m + 0.5 * at.grad.numpy()
        v -= 0.1 * m
        z = 2.0 * v
        norms = np.linalg.norm(z, axis=0)
        x = z * np.maximum(0.0, 1.0 - 2.0 * lam / np.maximum(norms, 1e-300))
    assert np.allclose(w.detach().numpy(), x, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("psi", [L1(0.1), PSI, NuclearNorm(0.1)])
def test_a_bregman_start_is_a_fixed_point_without_gradients(psi):
    for cls in (LinBreg, AdaBreg):
        w, _ = problem()
        optimizer = cls([{"params": [w], "regularizer": psi}], start=1.0)
        before = w.detach().clone()
        w.grad = torch.zeros_like(w)
        optimizer.step()
        assert torch.allclose(w, before, atol=1e-12)


def test_adabreg_without_a_regularizer_is_adam():
    w, loss = problem()
    x, _ = problem()
    run(AdaBreg([w], lr=0.01), w, loss, 20)
    run(torch.optim.Adam([x], lr=0.01), x, loss, 20)
    assert torch.allclose(w, x, rtol=1e-6)


@pytest.mark.parametrize("adaptive", [True, False])
def test_pruning_takes_the_smallest_groups_of_all_parameters_and_keeps_them_at_zero(adaptive):
    small, large = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(6, 2))
    groups = [{"params": [small, large], "regularizer": PSI}]
    optimizer = Pruned(groups, share=0.5, at=3, lr=0.01, adaptive=adaptive)
    for step in range(1, 6):
        small.grad, large.grad = torch.randn(3, 4), torch.randn(6, 2)
        if step == 3:
            dense = [each.detach().clone() for each in (small, large)]
        optimizer.step()
        zero = int((small == 0).sum() + (large == 0).sum())
        assert (zero == 0) if step < 3 else (12 <= zero <= 17), step
        if step == 3:
            gone = {(i, j) for i, w in enumerate((small, large)) for j in range(w.shape[1]) if not w[:, j].any()}
            kept = {(0, j) for j in range(4)} | {(1, j) for j in range(2)}
            size = {key: float(dense[key[0]][:, key[1]].square().mean().sqrt()) for key in kept}
            assert max(size[key] for key in gone) < min(size[key] for key in kept - gone) + 0.05
    dense_w, x = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    optimizer = Pruned([dense_w], share=0.5, at=99, lr=0.01, adaptive=adaptive)
    plain, m, by_hand = torch.optim.AdamW([x], lr=0.01, weight_decay=0.0), 0.0, 1.0
    for t in range(6):
        dense_w.grad = x.grad = torch.full((3, 2), 0.1 * t)
        optimizer.step()
        plain.step()
        m = 0.9 * m + 0.1 * 0.1 * t
        by_hand -= 0.01 * m
    assert torch.allclose(dense_w, x if adaptive else torch.tensor(by_hand), atol=1e-6)


def test_pat_is_a_proximal_map_of_growing_weight_on_the_weights_of_adamw():
    pytest.importorskip("torchao")
    w, loss = problem()
    kernel = torch.nn.Parameter(torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1)).double())
    psi, lr = GroupLasso(1.0), 0.05
    channels = GroupLasso(1.0, dims=(0, 2, 3))
    optimizer = PAT([{"params": [w], "regularizer": psi}, {"params": [kernel], "regularizer": channels}], lr=lr)
    latent = [each.detach().clone().requires_grad_() for each in (w, kernel)]
    at = [each.detach().clone().requires_grad_() for each in (w, kernel)]
    adam = torch.optim.AdamW(latent, lr=lr, weight_decay=0.0)

    def objective(x, k):
        return loss(x) + ((k - 0.3) ** 2).mean()

    for t in range(1, 15):
        optimizer.zero_grad()
        objective(w, kernel).backward()
        optimizer.step()
        for own, each in zip(latent, torch.autograd.grad(objective(*at), at), strict=True):
            own.grad = each
        adam.step()
        at = [
            each.prox(own.detach(), t * lr).requires_grad_() for each, own in zip((psi, channels), latent, strict=True)
        ]
        assert torch.allclose(w, at[0], atol=1e-12)
        assert torch.allclose(kernel, at[1], atol=1e-12)
    plain, loss = problem()
    x, _ = problem()
    run(PAT([plain], lr=lr), plain, loss, 3)
    run(torch.optim.AdamW([x], lr=lr, weight_decay=0.0), x, loss, 3)
    assert torch.equal(plain, x)
    assert 0 < int((w == 0).all(0).sum() + (kernel == 0).flatten(2).all(2).all(0).sum()) < 8


def test_pat_calls_a_closure_at_w_and_reads_the_weight_at_each_step():
    pytest.importorskip("torchao")
    ends = []
    for with_closure in (False, True):
        w, loss = problem()
        optimizer = PAT([{"params": [w], "regularizer": GroupLasso(1.0)}], lr=0.05)

        def closure(w=w, loss=loss, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(w)
            value.backward()
            return value

        for _ in range(12):
            expected = float(loss(w))
            if with_closure:
                assert float(optimizer.step(closure)) == expected
            else:
                closure()
                optimizer.step()
        ends.append(w.detach().clone())
    assert torch.equal(*ends)
    optimizer.param_groups[0]["regularizer"] = GroupLasso(100.0)
    optimizer.step(closure)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.deepcopy(optimizer)
    assert not w.any()
    with pytest.raises(RuntimeError, match="all its parameters when it is made"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})


def test_their_state_is_plain_data_and_resumes_to_the_bit(tmp_path):
    for make in (
        lambda groups: DGating(groups),
        lambda groups: LinBreg(groups),
        lambda groups: AdaBreg(groups),
        lambda groups: Pruned(groups, share=0.5, at=3, lr=0.01, adaptive=True),
        *([PAT] if find_spec("torchao") else []),
    ):
        whole, loss = problem()
        optimizer = make([{"params": [whole], "regularizer": PSI}])
        run(optimizer, whole, loss, 4)
        torch.save({"w": whole.detach(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
        run(optimizer, whole, loss, 3)
        w, loss = problem()
        other = make([{"params": [w], "regularizer": PSI}])
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        w.data.copy_(state["w"])
        other.load_state_dict(state["optimizer"])
        run(other, w, loss, 3)
        assert torch.equal(w, whole)


def test_a_regularizer_without_groups_is_refused():
    w, _ = problem()
    groups = [{"params": [w], "regularizer": NuclearNorm(0.1)}]
    for make in (DGating, lambda groups: Pruned(groups, 0.5, 3, 0.01, True)):
        with pytest.raises(ValueError, match="needs a regularizer with groups, got NuclearNorm"):
            make(groups)
    for psi in (NuclearNorm(0.1), GroupLasso(0.1, size_scaled=False), GroupLasso(0.1, dims=(0, 1))):
        with pytest.raises(ValueError, match=r"PAT needs GroupLasso\(size_scaled=True\) of the slices along one axis"):
            PAT([{"params": [w], "regularizer": psi}])
