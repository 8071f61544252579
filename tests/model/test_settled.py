"""`StructureTracker.settled`: which groups are stated, from what, and that asking changes nothing."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from ramda_theory.model import StructureTracker, coupled_param_groups, structured_param_groups
from ramda_theory.model.settled import WINDOW, measured, stated_weights
from ramda_theory.optim import RAMDA, ProxSGD, StageSchedule
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm


def linear_problem(weight=0.3, noise=0.0, seed=0):
    """A regression of six inputs, of which two matter; batches of it; ProxSGD on it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(240, 6, generator=generator, dtype=torch.float64)
    truth = torch.zeros(2, 6, dtype=torch.float64)
    truth[:, :2] = torch.tensor([[1.0, -2.0], [1.5, 1.0]])
    y = x @ truth.T + noise * torch.randn(240, 2, generator=generator, dtype=torch.float64)
    torch.manual_seed(seed)
    net = nn.Linear(6, 2, bias=False, dtype=torch.float64)
    optimizer = ProxSGD(structured_param_groups(net, GroupLasso(weight)), lr=0.2, momentum=0.0)
    return net, optimizer, list(zip(x.split(40), y.split(40), strict=True))


def test_mean_gradient_and_error_are_those_of_the_samples():
    net, optimizer, batches = linear_problem(noise=1.0)
    (check,), count = measured(
        list(stated_weights(optimizer.param_groups)), lambda b: mse_loss(net(b[0]), b[1]), batches
    )
    gradients = []
    for x, y in batches:
        net.zero_grad()
        mse_loss(net(x), y).backward()
        gradients.append(net.weight.grad.numpy().copy())
    mean, bound = np.mean(gradients, axis=0), 0.3 * np.sqrt(2)
    error = np.sqrt(np.var(gradients, axis=0, ddof=1).sum(axis=0) / len(batches)) / bound
    assert count == len(batches)
    np.testing.assert_allclose(check.ratios, np.linalg.norm(mean, axis=0) / bound, rtol=1e-12)
    np.testing.assert_allclose(check.errors, error, rtol=1e-9)
    np.testing.assert_allclose(check.sizes, np.linalg.norm(net.weight.detach().numpy(), axis=0), rtol=1e-12)


def test_a_run_that_has_converged_is_settled_as_its_minimiser_and_not_before_three_checks():
    net, optimizer, batches = linear_problem(noise=0.1)
    tracker = StructureTracker(optimizer)
    for check in range(WINDOW + 8):
        for x, y in batches:
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
        tracker.record()
        found = tracker.settled(lambda b: mse_loss(net(b[0]), b[1]), batches, remaining=10)
        if check < WINDOW - 1:
            assert found.share == 0.0
    assert found.layers[0].states.tolist() == ["nonzero"] * 2 + ["zero"] * 4
    assert found.layers[0].counts == (4, 2, 0) and found.batches == 6 and "100.0% settled" in str(found)


def three_checks(net, optimizer, batches, columns, **arguments):
    """The last of three statements, with the columns' entries set to these before each."""
    tracker = StructureTracker(optimizer)
    for values in columns:
        with torch.no_grad():
            net.weight.zero_()
            for column, value in values.items():
                net.weight[:, column] = value
        tracker.record()
        found = tracker.settled(lambda b: mse_loss(net(b[0]), b[1]), batches, **arguments)
    return found.layers[0].states.tolist()


def test_what_moves_flips_or_is_pulled_out_of_zero_is_undecided():
    net, optimizer, batches = linear_problem(weight=0.05)
    moves = [{2: 1.0, 3: 1.0, 4: 1.0}, {2: 0.9, 3: 1.0}, {2: 0.8, 3: 1.0, 4: 1.0}]
    states = three_checks(net, optimizer, batches, moves, remaining=10)
    assert states[0] == states[1] == "undecided"  # zero, but the gradient says that they should not be
    assert states[2] == "undecided"  # at a tenth a call it is zero in eight
    assert states[3] == "nonzero"
    assert states[4] == "undecided"  # it came and went
    assert three_checks(net, optimizer, batches, moves, remaining=2)[2] == "nonzero"
    assert three_checks(net, optimizer, batches, moves, remaining=2, safety=5.0)[2] == "undecided"


def test_noise_keeps_zeros_undecided():
    net, optimizer, batches = linear_problem(weight=0.2, noise=2.0)
    points = [{0: 0.5, 1: 0.5}] * 3
    quiet = three_checks(net, optimizer, batches, points, noise=0.0)
    loud = three_checks(net, optimizer, batches, points, noise=30.0)
    assert quiet[2:].count("zero") > 0 and loud[2:].count("zero") == 0


def test_asking_changes_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = RAMDA(structured_param_groups(net, GroupLasso(1e-2)), lr=1e-2)
    x, y = torch.randn(30, 6), torch.randint(3, (30,))
    cross_entropy(net(x), y).backward()
    optimizer.step()
    tracker = StructureTracker(optimizer)
    tracker.record()
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict(), [p.grad for p in net.parameters()]))
    generator = torch.get_rng_state()
    tracker.settled(lambda rows: cross_entropy(net(x[rows]), y[rows]), torch.arange(30).split(10))
    after = (net.state_dict(), optimizer.state_dict(), [p.grad for p in net.parameters()])
    assert torch.equal(generator, torch.get_rng_state())
    flat = [torch.utils._pytree.tree_leaves(each) for each in (before, after)]
    assert len(flat[0]) == len(flat[1])
    for a, b in zip(*flat, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_gradients_are_taken_at_the_structured_point():
    net, _, batches = linear_problem()
    optimizer = RAMDA(structured_param_groups(net, GroupLasso(0.3)), lr=0.1, momentum=0.9)
    seen = []

    def loss(batch):
        seen.append(net.weight.detach().clone())
        return mse_loss(net(batch[0]), batch[1])

    loss(batches[0]).backward()
    optimizer.step()
    with optimizer.structured_point():
        point = net.weight.detach().clone()
    StructureTracker(optimizer).settled(loss, batches)
    assert not torch.equal(point, net.weight) and all(torch.equal(each, point) for each in seen[1:])


def test_groups_that_span_parameters_and_weights_without_a_bound():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x, y = torch.randn(12, 5), torch.randint(3, (12,))
    optimizer = ProxSGD(coupled_param_groups(net, GroupLasso(1e-2), torch.randn(2, 5)), lr=0.1)
    tracker = StructureTracker(optimizer)
    found = tracker.settled(lambda rows: cross_entropy(net(x[rows]), y[rows]), torch.arange(12).split(4))
    assert [layer.name for layer in found.layers] == list(tracker.names)
    groups = structured_param_groups(net, {"0": L1(0.1), "2": NuclearNorm(0.1)})
    found = StructureTracker(ProxSGD(groups, lr=0.1)).settled(
        lambda rows: cross_entropy(net(x[rows]), y[rows]), torch.arange(12).split(4)
    )
    assert found.unstated == ("2.weight",) and found.layers[0].states.size == 20 and "2.weight" in str(found)
    optimizer = ProxSGD(structured_param_groups(net, {"0": L1(0.1), "2": L1(0.1)}), lr=0.1)
    net[0].weight.requires_grad_(False)  # frozen: it stays as it is, and has no gradient
    found = StructureTracker(optimizer).settled(
        lambda rows: cross_entropy(net(x[rows]), y[rows]), torch.arange(12).split(4)
    )
    assert [layer.name for layer in found.layers] == ["2.weight"] and found.unstated == ("0.weight",)


def test_refusals():
    net, optimizer, batches = linear_problem()
    tracker = StructureTracker(optimizer)

    def loss(batch):
        return mse_loss(net(batch[0]), batch[1])

    with pytest.raises(ValueError, match="at least two"):
        tracker.settled(loss, batches[:1])
    with pytest.raises(TypeError, match="loss must be a function"):
        tracker.settled(3.0, batches)
    with pytest.raises(ValueError, match="remaining"):
        tracker.settled(loss, batches, -1)
    with pytest.raises(RuntimeError, match="not finite in batch 0"):
        tracker.settled(lambda batch: loss(batch) * torch.inf, batches)
    with pytest.raises(ValueError, match="nothing can be stated"):
        nuclear = ProxSGD(structured_param_groups(net, NuclearNorm(0.1)), lr=0.1)
        StructureTracker(nuclear).settled(loss, batches)
    optimizer = RAMDA(structured_param_groups(net, GroupLasso(0.1)), lr=0.1)
    schedule, tracker = StageSchedule(optimizer, [1]), StructureTracker(optimizer)
    loss(batches[0]).backward()
    optimizer.step()
    tracker.settled(loss, batches)
    schedule.step()
    with pytest.raises(RuntimeError, match="before the schedule's step"):
        tracker.settled(loss, batches)
