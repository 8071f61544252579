"""`StructureTracker` against structures kept as they are, and through files and checkpoints."""

import io
import itertools
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from ramda_theory.model.groups import structured_param_groups
from ramda_theory.model.report import structure_report
from ramda_theory.model.tracker import StructureTracker
from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import L1, MCP, SCAD, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso


class ProximalPoint(torch.optim.SGD):
    """An optimizer whose w_hat is prox(w)."""

    @contextmanager
    def structured_point(self):
        kept = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]
        with torch.no_grad():
            for group in self.param_groups:
                if group["regularizer"] is not None:
                    for p in group["params"]:
                        p.copy_(group["regularizer"].prox(p.detach()))
        yield
        with torch.no_grad():
            for p, own in kept:
                p.copy_(own)


PSI = {"0": GroupLasso(0.3), "1": L1(0.3), "2": NuclearNorm(0.7), "3": MCP(0.3, 1.5), "4": SCAD(0.2, 3.0),
       "5": SparseGroupLasso(0.3, 0.5), "6": GroupMCP(0.2, 3.0)}  # fmt: skip
SHAPES = {"0": (4, 13), "1": (3, 5), "2": (5, 4), "3": (7, 3), "4": (6, 6), "5": (3, 9), "6": (4, 10)}


def setup(psi=None, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(*(nn.Linear(columns, rows, bias=False) for rows, columns in SHAPES.values()))
    return net, ProximalPoint(structured_param_groups(net, PSI if psi is None else psi), lr=0.1)


def shake(net, generator, size=0.3):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator))


def structures(net):
    """The structure of w and of w_hat, straight from the regularizers."""
    found = {"w": [], "w_hat": []}
    for (name, psi), layer in zip(PSI.items(), net, strict=True):
        weight = layer.weight.detach()
        suits = structured_param_groups(net, psi, include=name)[0]["regularizer"]
        found["w"].append(suits.structure(weight))
        found["w_hat"].append(suits.structure(suits.prox(weight)))
    return found


def test_flips_levels_and_patterns_are_those_of_the_structures():
    net, optimizer = setup()
    tracker, generator, seen = StructureTracker(optimizer), torch.Generator().manual_seed(1), []
    assert tracker.points == ("w", "w_hat") and tracker.names == tuple(f"{k}.weight" for k in range(7))
    for _ in range(12):
        shake(net, generator)
        tracker.record()
        seen.append(structures(net))
        report = structure_report(optimizer)
        for point in tracker.points:
            for mine, reported in zip(tracker.layers(-1, point), report.layers[point], strict=True):
                if mine.name == "2.weight":
                    assert mine == reported
                assert mine.counts[:6] == reported.counts[:6]
    assert tracker.times == list(range(1, 13)) and len(tracker) == 12
    for point in tracker.points:
        flips = [0] + [sum(a.distance(b) for a, b in zip(old[point], new[point], strict=True))
                       for old, new in itertools.pairwise(seen)]  # fmt: skip
        assert tracker.flips(point).tolist() == flips and sum(flips) > 0
        for record, each in enumerate(seen):
            for name, structure in zip(tracker.names, each[point], strict=True):
                if name != "2.weight":
                    np.testing.assert_array_equal(tracker.pattern(name, record, point), structure.pattern)
    kinds = {name: set(np.unique([tracker.pattern(name, r) for r in range(12)])) for name in tracker.names[3:5]}
    assert kinds == {"3.weight": {-2, -1, 0, 1, 2}, "4.weight": {-3, -2, -1, 0, 1, 2, 3}}  # all branches were met


def test_curves():
    net, optimizer = setup()
    tracker, generator = StructureTracker(optimizer), torch.Generator().manual_seed(1)
    expected = {level: [] for level in ("group_sparsity", "low_rank_level", "entry_sparsity")}
    for _ in range(5):
        shake(net, generator)
        tracker.record()
        with optimizer.structured_point():
            zeros = {name: net.get_parameter(name).detach().numpy() == 0 for name in tracker.names}
            rank = int(torch.linalg.matrix_rank(net[2].weight))
        grouped = [zeros[f"{k}.weight"] for k in (0, 5, 6)]
        in_zero_groups = sum(zero.all(axis=0).sum() * len(zero) for zero in grouped)
        expected["group_sparsity"].append(in_zero_groups / sum(zero.size for zero in grouped))
        expected["low_rank_level"].append(1 - rank / 4)
        every = np.concatenate([zero.ravel() for zero in zeros.values()])
        expected["entry_sparsity"].append(every.mean())
    for level, values in expected.items():
        np.testing.assert_allclose(tracker.curve(level), values, rtol=1e-15)
        assert max(values) > 0
    with pytest.raises(ValueError, match="level must be one of"):
        tracker.curve("sparsity")
    with pytest.raises(ValueError, match=r"point must be one of \('w', 'w_hat'\), got 'what'"):
        tracker.curve(point="what")
    with pytest.raises(ValueError, match="name must be one of"):
        tracker.pattern("7.weight")
    with pytest.raises(ValueError, match=r"2\.weight has a rank"):
        tracker.pattern("2.weight")


def test_levels_without_anything_to_tell_are_nan():
    _, optimizer = setup({"1": L1(0.1)})
    tracker = StructureTracker(optimizer)
    tracker.record()
    assert np.isnan(tracker.curve()).all() and np.isnan(tracker.curve("low_rank_level")).all()


def script(tracker, weight, supports):
    """Record one given support of columns after another."""
    for support in supports:
        with torch.no_grad():
            weight.zero_()
            weight[:, list(support)] = 1.0
        tracker.record()


@pytest.mark.parametrize(("supports", "every", "time", "held"), [
    ([(0,), (1,), (1,), (1,)], 1, 2, 3),
    ([(1,), (1,), (1,)], 1, 1, 3),
    ([(1,), (0,), (1,), (1,), (0,), (1,)], 1, 6, 1),  # the same structure earlier does not count: it was left
    ([(1,), (0,), (0, 1), (1,), (1,), (1,)], 2, 4, 3),
    ([(1,)], 1, 1, 1),
])  # fmt: skip
def test_identification_against_the_runs_own_end(supports, every, time, held):
    net = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(structured_param_groups(net, GroupLasso(0.1)), lr=0.1)
    tracker = StructureTracker(optimizer, every=every)
    assert tracker.points == ("w",)
    with pytest.raises(ValueError, match="no record yet"):
        tracker.identification()
    script(tracker, net.weight, supports)
    found = tracker.identification()
    assert (found.time, found.held_for, found.steps) == (time, held, len(supports))
    assert tracker.times == list(range(every, len(supports) + 1, every))


def test_a_change_of_rank_alone_is_a_change():
    net = nn.Linear(3, 3, bias=False)
    tracker = StructureTracker(torch.optim.SGD(structured_param_groups(net, NuclearNorm(0.1)), lr=0.1))
    for rank in (3, 1, 2, 2):
        with torch.no_grad():
            net.weight.copy_(torch.diag(torch.tensor([1.0] * rank + [0.0] * (3 - rank))))
        tracker.record()
    assert tracker.flips().tolist() == [0, 2, 1, 0]
    assert (tracker.identification().time, tracker.identification().held_for) == (3, 2)


def test_bits_are_packed():
    net = nn.Linear(4096, 2, bias=False)
    tracker = StructureTracker(torch.optim.SGD(structured_param_groups(net, GroupLasso(0.1)), lr=0.1))
    for _ in range(3):
        tracker.record()
    assert tracker.state_dict()["records"]["w.bits"].shape == (3, 4096 // 8)


def same(a, b):
    assert (a.times, a.names, a.points) == (b.times, b.names, b.points)
    for point in a.points:
        np.testing.assert_array_equal(a.flips(point), b.flips(point))
        for record in range(len(a)):
            assert a.layers(record, point) == b.layers(record, point)
            for name in set(a.names) - {"2.weight"}:
                np.testing.assert_array_equal(a.pattern(name, record, point), b.pattern(name, record, point))


@pytest.mark.parametrize("way", ["state_dict", "file"])
def test_a_resumed_tracker_is_the_one_that_went_on(tmp_path, way):
    net, optimizer = setup()
    whole, generator = StructureTracker(optimizer, every=2, unit="epoch"), torch.Generator().manual_seed(1)
    first = StructureTracker(optimizer, every=2, unit="epoch")
    for _ in range(5):
        shake(net, generator)
        whole.record()
        first.record()
    resumed = StructureTracker(optimizer, every=2, unit="epoch")
    if way == "file":
        path = first.save(tmp_path / "new folder" / "tracker.npz")
        assert os.listdir(path.parent) == ["tracker.npz"]
        resumed.load(path)
    else:
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
    same(resumed, first)
    for _ in range(4):
        shake(net, generator)
        whole.record()
        resumed.record()
    same(resumed, whole)
    assert resumed.times == [2, 4, 6, 8]


def test_with_ramda_w_hat_is_sparse_long_before_w():
    torch.manual_seed(0)
    net = nn.Linear(10, 3, dtype=torch.float64)
    x = torch.randn(200, 10, dtype=torch.float64)
    labels = (x[:, :3] @ torch.randn(3, 3, dtype=torch.float64)).argmax(dim=1)  # the first three features matter
    optimizer = RAMDA(structured_param_groups(net, GroupLasso(0.03)), lr=1e-2, momentum=0.9)
    tracker = StructureTracker(optimizer)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
        tracker.record()
    assert tracker.pattern("weight").ravel().tolist() == [1] * 3 + [0] * 7
    assert tracker.curve()[-1] == 0.7 and tracker.curve(point="w")[-1] == 0.0
    found = tracker.identification()
    assert 1 < found.time < 200 and found.time + found.held_for == 301
    report = structure_report(optimizer)
    assert (report.total("w").zero_groups, report.total("w_hat").zero_groups) == (0, 7)
    optimizer.adopt_structured_point()
    assert structure_report(net).total().zero_groups == 7


def test_an_empty_tracker_goes_through_files_too(tmp_path):
    _, optimizer = setup()
    other = StructureTracker(optimizer)
    other.load(StructureTracker(optimizer).save(tmp_path / "empty.npz"))
    assert len(other) == 0 and other.flips().tolist() == [] and other.curve().tolist() == []


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("times"), "state must have the keys"),
    (lambda s: s.update(more=1), "state must have the keys"),
    (lambda s: s.update(unit="epoch"), "state is of other unit: 'epoch', here 'step'"),
    (lambda s: s["weights"].reverse(), "state is of other weights"),
    (lambda s: s.update(points=["w"]), "state is of other points"),
    (lambda s: s.update(times=[2, 1, 3]), "times must increase"),
    (lambda s: s.update(calls=2), "times must increase .* calls = 2"),
    (lambda s: s.update(times=[1, 2]), "records must have the shapes"),
    (lambda s: s["records"].pop("w.bits"), "records must have the shapes"),
])  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    net, optimizer = setup()
    tracker, generator = StructureTracker(optimizer), torch.Generator().manual_seed(1)
    for _ in range(3):
        shake(net, generator)
        tracker.record()
    state = tracker.state_dict()
    change(state)
    fresh = StructureTracker(optimizer)
    with pytest.raises(ValueError, match=message):
        fresh.load_state_dict(state)
    assert len(fresh) == 0
    fresh.record()
    assert fresh.times == [1]


def test_a_failed_record_leaves_no_half(monkeypatch):
    _, optimizer = setup()
    tracker = StructureTracker(optimizer)
    tracker.record()

    @contextmanager
    def broken():
        raise RuntimeError("no point")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "structured_point", broken)
        with pytest.raises(RuntimeError, match="no point"):
            tracker.record()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))], "param_names": ["new"],
                               "regularizer": L1(0.1)})  # fmt: skip
    with pytest.raises(RuntimeError, match="regularized parameters have changed"):
        tracker.record()
    assert tracker.times == [1] and [len(tracker.flips(point)) for point in tracker.points] == [1, 1]


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"every": 0}, ValueError, "every must be at least 1, got 0"),
    ({"every": 1.5}, TypeError, "integer"),
    ({"unit": 3}, TypeError, "unit must be a word"),
])  # fmt: skip
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        StructureTracker(setup()[1], **arguments)


def test_something_must_be_regularized():
    with pytest.raises(ValueError, match="nothing is regularized"):
        StructureTracker(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))


def test_the_figure_shows_the_curves(tmp_path):
    net, optimizer = setup()
    tracker, generator = StructureTracker(optimizer, unit="epoch"), torch.Generator().manual_seed(1)
    with pytest.raises(ValueError, match="no record yet"):
        tracker.plot(tmp_path / "none.png")
    for _ in range(6):
        shake(net, generator)
        tracker.record()
    path = tracker.plot(tmp_path / "structure.png")
    assert path.read_bytes().startswith(b"\x89PNG") and os.listdir(tmp_path) == ["structure.png"]
    axes = Figure().subplots(2, 1)
    assert tracker.plot(axes) is None
    sparsity = {line.get_label(): line.get_ydata() for line in axes[0].get_lines()}
    flips = {line.get_label(): line.get_ydata() for line in axes[1].get_lines()}
    np.testing.assert_array_equal(sparsity["group sparsity of $w$"], tracker.curve("group_sparsity", "w"))
    np.testing.assert_array_equal(sparsity["group sparsity of $\\hat{w}$"], tracker.curve("group_sparsity", "w_hat"))
    np.testing.assert_array_equal(sparsity["low rank level of $\\hat{w}$"], tracker.curve("low_rank_level", "w_hat"))
    np.testing.assert_array_equal(flips["flips of $w$"], tracker.flips("w"))
    assert len(sparsity) == 4 and len(flips) == 2 and axes[1].get_xlabel() == "epoch"
