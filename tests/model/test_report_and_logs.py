"""What a report and a tracker say after a restart, at the end, and to logs; weights at the critical one; adoption."""

import csv
import json
import warnings

import pytest
import torch
from torch import nn

from ramda_theory.model import StructureTracker, structure_report, structured_param_groups
from ramda_theory.model.critical import critical_weights
from ramda_theory.optim import RAMDA, ProxSGD, StageSchedule
from ramda_theory.regularizers import L1, GroupLasso


def start(weight=2e-2, cls=RAMDA, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 1))
    return net, cls(structured_param_groups(net, GroupLasso(weight)), lr=1e-2, **options)


def train(net, optimizer, steps, first=0, after=()):
    for t in range(first, first + steps):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        (net(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
        for each in after:
            each()


@pytest.mark.parametrize("memory", [0, 5])
def test_right_after_a_restart_the_stage_that_ended_is_shown(memory):
    net, optimizer = start()
    twin_net, twin = start()
    tracker, other = StructureTracker(optimizer), StructureTracker(twin)
    for end in (40, 80):
        train(net, optimizer, 40, first=end - 40)
        optimizer.restart(memory)
        tracker.record()  # the artefact: w_hat is w now
        train(twin_net, twin, 40, first=end - 40)
        other.record()
        twin.restart(memory)
    assert other.curve("group_sparsity")[0] > 0
    assert (tracker.curve("group_sparsity") == other.curve("group_sparsity")).all()
    assert (tracker.flips() == other.flips()).all()
    train(net, optimizer, 1, first=80)
    tracker.record()
    with optimizer.structured_point():
        now = structure_report(net).total().group_sparsity
    assert tracker.curve("group_sparsity")[-1] == now  # a step later it speaks for itself


def test_the_report_says_where_the_averaging_is():
    net, optimizer = start()
    train(net, optimizer, 40)
    assert "w is an average (averaging weight 0.1)" in str(structure_report(optimizer))
    optimizer.restart()
    assert optimizer.stage_is_fresh
    report = structure_report(optimizer)
    assert report.total("w_hat").zero_groups == 0
    assert "a stage has just begun (restart)" in report.notes[0] and report.notes[0] in report.table()
    train(net, optimizer, 1, first=40)
    assert not optimizer.stage_is_fresh
    optimizer.param_groups[0]["momentum"] = optimizer.param_groups[1]["momentum"] = 0.0
    train(net, optimizer, 60, first=41)
    report = structure_report(optimizer)
    total = report.total()
    assert total.zero_group_entries > 0
    assert report.notes[0] == (
        f"w has the structure of w_hat (averaging weight 1): {total.zero_entries} of 108 regularized weights are zero, "
        f"{total.zero_group_entries} of them in zero groups"
    )
    assert "only the model tells: structure_report(model)" in report.table()
    prox = start(cls=ProxSGD)[1]
    assert "averaging" not in str(structure_report(prox)) or "w_hat" in str(structure_report(prox))


def test_a_report_as_a_data_frame_and_as_html():
    pandas = pytest.importorskip("pandas")
    net, optimizer = start()
    train(net, optimizer, 40)
    report = structure_report(optimizer)
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 2 * 3
    assert frame["name"].tolist() == ["0.weight"] * 2 + ["2.weight"] * 2 + ["total"] * 2
    assert frame["point"].tolist() == ["w", "w_hat"] * 3
    row = frame[(frame["name"] == "total") & (frame["point"] == "w_hat")].iloc[0]
    assert row["zero_groups"] == report.total("w_hat").zero_groups > 0
    html = report._repr_html_()
    assert html.count("<tr>") == 1 + 6 and html.count("<th>") == 7 and "parameters lie in zero groups" in html
    assert "&lt;" in type(report)({"w": (type(report.layers["w"][0])("<b>", 1, 0),)}, 1, None)._repr_html_()


def test_adopting_before_averaging_has_reached_one_says_how_far_it_goes():
    net, optimizer = start()
    train(net, optimizer, 20)
    before = torch.cat([p.detach().ravel() for p in net.parameters()])
    with pytest.warns(
        UserWarning, match=r"adopted point w_hat is [\d.]+% of the norm of w .*averaging weight 0\.1"
    ) as told:
        optimizer.adopt_structured_point()
    after = torch.cat([p.detach().ravel() for p in net.parameters()])
    share = f"{float((after - before).norm() / before.norm()):.1%}"
    assert share in str(told[0].message)
    net, optimizer = start(momentum=0.0)
    train(net, optimizer, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.adopt_structured_point()


# -- logs -------------------------------------------------------------------------------------------------------------


class Writer:
    def __init__(self):
        self.seen = []

    def add_scalar(self, name, value, step):
        self.seen.append((step, name, value))


class Run:
    def __init__(self):
        self.seen = []

    def log(self, values, step=None):
        self.seen.append((step, values))


def test_every_kind_of_log_gets_the_same_numbers(tmp_path):
    net, optimizer = start()
    tracker = StructureTracker(optimizer, every=2)
    writer, run, calls = Writer(), Run(), []
    for target in (writer, run, lambda call, scalars: calls.append((call, scalars)), tmp_path / "log.csv"):
        tracker.log_to(target)
    train(net, optimizer, 30, after=[tracker.record])
    assert calls == run.seen and [call for call, _ in calls] == tracker.times
    assert writer.seen == [(call, name, value) for call, scalars in calls for name, value in scalars.items()]
    for point in ("w", "w_hat"):
        assert [s[f"structure/{point}/group_sparsity"] for _, s in calls] == tracker.curve(
            "group_sparsity", point
        ).tolist()
        assert [s[f"structure/{point}/flips"] for _, s in calls] == tracker.flips(point).tolist()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == [{"call": c, **s} for c, s in calls]


def test_a_csv_log_is_gone_on_with_where_the_tracker_is(tmp_path):
    net, optimizer = start()
    tracker = StructureTracker(optimizer)
    tracker.log_to(tmp_path / "log.csv")
    train(net, optimizer, 10, after=[tracker.record])
    whole = (tmp_path / "log.csv").read_text()
    state = tracker.state_dict()
    train(net, optimizer, 5, first=10, after=[tracker.record])  # lost with the process
    longer = StructureTracker(optimizer)
    longer.load_state_dict(state)
    longer.log_to(tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == whole
    longer.record()
    assert (tmp_path / "log.csv").read_text().splitlines()[-1].startswith("11,")
    StructureTracker(optimizer).log_to(tmp_path / "log.csv")  # a new run begins anew
    assert (tmp_path / "log.csv").read_text() == ""


def test_tensorboard_takes_it(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    net, optimizer = start()
    tracker = StructureTracker(optimizer)
    with SummaryWriter(str(tmp_path)) as writer:
        tracker.log_to(writer)
        train(net, optimizer, 5, after=[tracker.record])
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("structure/w_hat/group_sparsity")
    assert [event.value for event in events] == pytest.approx(tracker.curve("group_sparsity").tolist())


def test_what_is_no_log_is_refused():
    tracker = StructureTracker(start()[1])
    with pytest.raises(ValueError, match=r"must end in \.csv, got log\.txt"):
        tracker.log_to("log.txt")
    with pytest.raises(TypeError, match=r"a \.csv path, a SummaryWriter, a wandb run or a function, got 3"):
        tracker.log_to(3)


# -- critical weights -------------------------------------------------------------------------------------------------


def test_a_weight_at_the_critical_one_is_warned_of_by_name():
    net, optimizer = start()
    assert critical_weights(optimizer.param_groups) == {}
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    (net(x) - x[:, :1]).square().mean().backward()
    found = critical_weights(optimizer.param_groups)
    for name, layer in (("0.weight", net[0]), ("2.weight", net[2])):
        by_hand = float((layer.weight.grad.double().norm(dim=0) / layer.weight.shape[0] ** 0.5).max())
        assert found[name][1] == pytest.approx(by_hand)
    between = (found["0.weight"][1] + found["2.weight"][1]) / 2
    dying = min(found, key=lambda name: found[name][1])
    with pytest.warns(UserWarning, match=rf"above the critical one, .* {dying} \(weight") as told:
        structured_param_groups(net, GroupLasso(between))
    assert len([name for name in found if name in str(told[0].message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structured_param_groups(net, GroupLasso(0.9 * found[dying][1]))
        structured_param_groups(net, {"0": L1(1e-9)})


def test_the_first_step_of_a_schedule_warns():
    net, optimizer = start(weight=10.0)
    schedule = StageSchedule(optimizer, [3])
    with pytest.warns(UserWarning, match=r"a whole layer becomes zero, for 0\.weight .*, 2\.weight"):
        train(net, optimizer, 1, after=[schedule.step])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(net, optimizer, 1, after=[schedule.step])
    json.dumps(schedule.state_dict())
