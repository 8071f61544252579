"""Sharded and parallel training gives what one process gives, also from a checkpoint of another number of them."""

import processes
import pytest
import torch
import torch.multiprocessing as mp
from processes import KILL_AFTER, SHARDED

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
DOUBLE, SINGLE = torch.float64, torch.float32
TOLERANCE = {DOUBLE: 1e-10, SINGLE: 1e-5}
WORLDS = (2, 3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What 2 and 3 processes computed, the latter from the checkpoints of the former."""
    folder = tmp_path_factory.mktemp("distributed")
    found = {}
    for world in WORLDS:
        mp.spawn(processes.work, (world, str(folder)), nprocs=world)
        found[world] = torch.load(folder / f"results{world}.pt", weights_only=False)
    return found


def compare(found, expected, dtype):
    """Within the tolerance relative to the largest entry, with the same zeros in What."""
    for which, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        bound = TOLERANCE[dtype] * float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
        if which == 1:
            assert torch.equal(ours == 0, theirs == 0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("case", SHARDED)
def test_sharded_matrices(results, world, case):
    for place, dtype in processes.ways(case):
        expected = processes.train_matrix(case, "", dtype)
        compare(results[world]["matrix", case, place, dtype], expected, dtype)
    if "Nuclear" not in case and case != "RAMDA":  # else the comparison of zeros would say nothing
        assert 0 < int(torch.count_nonzero(expected[1])) < expected[1].numel()


def alone(dtype, steps=12):
    model = processes.network(dtype)
    optimizer = processes.network_optimizer(model)
    processes.train_network(model, optimizer, dtype, steps)
    return processes.points(model, optimizer)


@pytest.mark.parametrize(("kind", "dtype"), [("fsdp", DOUBLE), ("fsdp", SINGLE), ("ddp", DOUBLE)])
@pytest.mark.parametrize("world", WORLDS)
def test_networks(results, world, kind, dtype):
    (w, w_hat), (expected, expected_hat) = results[world][kind, dtype], alone(dtype)
    for pair in zip(zip(w, w_hat, strict=True), zip(expected, expected_hat, strict=True), strict=True):
        compare(*pair, dtype)
    zeros = [int((weights == 0).sum()) for weights in expected_hat]
    assert 0 < zeros[0] < expected_hat[0].numel()


@pytest.mark.parametrize("world", WORLDS)
def test_all_processes_decide_together_about_a_nonfinite_gradient(results, world):
    """NaN in one process's piece: all raise, or all skip, and nothing changes anywhere."""
    assert results[world]["nonfinite", "raise"] == [(True, True, 0)] * world
    assert results[world]["nonfinite", "skip"] == [(False, True, 1)] * world


@pytest.mark.parametrize("flatten", [False, True])
def test_checkpoint_of_two_processes_goes_on_on_three(results, flatten):
    (w, w_hat), (expected, expected_hat) = results[3]["resumed", flatten], alone(DOUBLE, KILL_AFTER + 10)
    for pair in zip(zip(w, w_hat, strict=True), zip(expected, expected_hat, strict=True), strict=True):
        compare(*pair, DOUBLE)
