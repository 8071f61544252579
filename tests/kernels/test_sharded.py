"""Kernels on pieces of sharded parameters give what the eager engine gives for the whole, on every process alike."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import sharded
import torch
import torch.multiprocessing as mp
from engine import INTERPRETED
from sharded import CLASSES

from ramda_theory.optim import RAMDA

SEVERAL_GPUS = find_spec("triton") is not None and torch.cuda.device_count() > 1
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not (INTERPRETED or SEVERAL_GPUS),
    reason="torch without distributed, triton is missing, or a single GPU",
)
interpreted = pytest.mark.skipif(not INTERPRETED, reason="kernels are compiled here")


def run(folder, part, world):
    """What the processes computed."""
    if not INTERPRETED and torch.cuda.device_count() < world:
        pytest.skip(f"needs {world} GPUs")
    mp.spawn(sharded.work, (world, str(folder), part), nprocs=world)
    return torch.load(folder / f"{part}.pt", weights_only=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def results(folder):
    return run(folder, "first", 2)


@pytest.fixture(scope="module")
def more(folder):
    return run(folder, "second", 2)


def compare(found, expected, tolerance=5e-6):
    found = found.to(expected.device)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.float().abs().max()))
    assert torch.equal(found == 0, expected == 0)


def check_weights(weights, name):
    expected = sharded.train(CLASSES[name], "eager")
    for parameter, found in weights.items():
        # Two numbers of bfloat16 that are next to one another differ by 2^-8.
        compare(found, expected[parameter], 2**-8 if parameter == "half precision" else 5e-6)
    for parameter in ("entries", "whole groups", "cut groups", "cut rows", "cut filters"):
        assert 0 < int((expected[parameter] == 0).sum()) < expected[parameter].numel()


@pytest.mark.parametrize("name", sharded.FIRST)
def test_as_the_eager_engine_on_one_process(results, name):
    """Five steps, with a restart after the third; groups cut or not, uneven, empty, in several tiles."""
    check_weights(results["weights", name], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sharded.OTHERS)
def test_other_methods(more, name):
    check_weights(more["weights", name], name)


def test_a_network_under_fsdp(results):
    for found, expected in zip(results["network"], sharded.train_network("eager"), strict=True):
        compare(found, expected, 2e-5)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_nan_on_one_process_stops_all(results, policy):
    """Nothing changes anywhere, and the next step is taken by all."""
    raises = policy == "raise"
    for process in results["nonfinite", policy]:
        assert process == [(raises, True, int(not raises)), (False, False, int(not raises))]


@interpreted
@pytest.mark.parametrize("name", sharded.FIRST)
def test_launches_and_sums_of_a_step(results, name):
    """Two launches and a sum for an update, of which a metric that is one number needs one; the finite check apart."""
    from ramda_theory.kernels.triton.shared import UPDATES

    updates = UPDATES if CLASSES[name]._recurrence.metric else 1
    look, numbers, begin, write = 1, 1, 1, 1
    for parameter, expected in {
        "entries": (look + numbers + write, 0),
        "whole groups": (look + numbers + write, 0),
        "cut groups": (look + numbers + begin + 2 * updates + write, updates),
    }.items():
        assert results["counted", name, parameter] == [expected] * 2


@interpreted
@pytest.mark.parametrize("size", [4, 64, 512])
def test_updates_suffice(size):
    """Of 6000 groups of a size, whose metric and data span up to ten orders of magnitude, none is left unsettled."""
    from ramda_theory.kernels.recurrences import RAMDA as RECURRENCE
    from ramda_theory.kernels.triton import cut_groups, numbers
    from ramda_theory.kernels.triton.shared import GROUPS, UPDATES
    from ramda_theory.kernels.triton.translate import translated

    rng = np.random.default_rng(size)
    decades, each = (0, 2, 4, 6, 8, 10), 200
    reach = np.repeat(decades, each)[:, None] / 2
    d, b = 10 ** rng.uniform(-reach, reach, (2, len(reach), size))
    size_b = np.linalg.norm(b, axis=1)
    lam = size_b * 10 ** rng.uniform(-9, 0, len(reach))
    b, d, lam = (torch.tensor(array, dtype=torch.float32) for array in (b, d, lam))
    rho = root = torch.linalg.vector_norm(b.double() / d, dim=1)
    low = torch.zeros_like(rho)
    for _ in range(150):
        rho = (low + root) / 2
        above = torch.linalg.vector_norm(b / (rho[:, None] * d.double() + lam[:, None]), dim=1) > 1
        low, root = torch.where(above, rho, low), torch.where(above, root, rho)

    count, worst = len(lam), 0
    row = torch.zeros(count, numbers.NUMBERS.value)
    row[:, numbers.LAM.value], row[:, numbers.GROWTH.value] = lam, 1.0
    owners, grid = torch.arange(count, dtype=torch.int32), (-(-count // GROUPS),)
    for factor in (0.0, 1e-3, 0.5, 10.0, 1e3):
        norms = (factor * root).float()
        kept = norms.data_ptr() + 4 * torch.arange(count)
        table = torch.zeros(cut_groups.PLANES.value, count)
        told = table, owners, kept, row, count
        cut_groups.first_norms[grid](*told, METRIC=True, GROUPS=GROUPS)
        updates = 0
        while table[cut_groups.OPEN.value].any():
            reciprocal = 1 / (table[0][:, None] * d + lam[:, None])
            first = (b * reciprocal) ** 2
            terms = b * b, first, first * (d * reciprocal), first * (d * reciprocal) ** 2
            table[1:5] = torch.stack([term.sum(1) for term in terms])
            cut_groups.next_norms[grid](
                *told, PROLOGUE=translated(RECURRENCE.prologue), METRIC=True, LAST=True, GROUPS=GROUPS
            )
            updates += 1
            assert updates <= UPDATES
        worst = max(worst, updates)
        point = torch.linalg.vector_norm(b / (norms[:, None] * d.double() + lam[:, None]), dim=1)
        assert float((point - 1).abs().max()) < 1e-5
    assert worst > UPDATES // 2  # else fewer would do


def test_explain_step(results):
    first, other = results["explained"]
    assert first == other
    assert first[0] == ("triton", "")
    assert all(engine == "eager" for engine, _ in first[1:])
    words = ("no slices", "NuclearNorm", "GroupMCP", "float64", "not contiguous")
    for (_, reason), word in zip(first[1:], words, strict=True):
        assert word in reason


@pytest.mark.slow
def test_gradients_that_are_cut_or_lie_otherwise_and_plans_made_anew(more):
    alike, *others = more["gradients"]
    for other in others:
        assert torch.equal(other, alike)


@pytest.mark.slow
def test_a_checkpoint_goes_on_on_other_processes(more, folder):
    expected = sharded.train(RAMDA, "eager", names=sharded.SAVED)
    for weights in (more["checkpoint"], run(folder, "from disk", 3), more["from one process"]):
        for name, found in weights.items():
            compare(found, expected[name])


@pytest.mark.slow
def test_meshes_of_two_axes(folder):
    expected = sharded.train(RAMDA, "eager", names=sharded.ON_TWO_AXES)
    for weights in run(folder, "two axes", 4).values():
        for name, found in weights.items():
            compare(found, expected[name])
