"""Runs of workloads: a user's own, killed and resumed, on two processes, refused where they must be."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import files
import pytest
import torch
from work_shared import EPOCHS, work

from ramda_theory.cli import main
from ramda_theory.experiments.entrants import ENTRANTS
from ramda_theory.experiments.workload import Plan, Run, table, train_workload
from ramda_theory.kernels import using
from ramda_theory.workloads import WORKLOADS, Settings, Workload, find_workload

HERE = Path(__file__).parent
TOY = str(HERE / "toy_workload.py")


@pytest.fixture(autouse=True)
def eager():
    """The compiled steps have tests of their own, and take long to compile."""
    with using("eager"):
        yield


@pytest.fixture(autouse=True)
def no_figures(monkeypatch, request):
    """Figures take longer than these runs; the tests that look at one draw it."""
    if "figure" not in request.node.name:
        monkeypatch.setattr("ramda_theory.experiments.workload_figure.plot_run", lambda result, path: None)


@pytest.fixture
def still(tmp_path):
    """The toy without dropout, whose random numbers differ between processes."""
    path = tmp_path / "still.py"
    path.write_text((HERE / "toy_workload.py").read_text().replace("DROPOUT = 0.3", "DROPOUT = 0.0"))
    return str(path)


def timeless(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "evaluating", "waiting")} for row in history]


def same(a, b):
    """Whether two states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def saved(folder):
    state = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)
    return {key: state[key] for key in ("model", "optimizer", "schedule", "tracker")}


@pytest.mark.parametrize("optimizer", ENTRANTS)
def test_every_optimizer_trains_a_workload_of_ones_own(optimizer):
    result = train_workload(Plan(TOY, optimizer=optimizer))
    losses = [row["loss"] for row in result.history]
    assert min(losses[1:]) < losses[0]
    assert (result.level == "group_sparsity") == ENTRANTS[optimizer].structured or result.plan.weight == 0
    assert optimizer in table(result) and 0 <= result.final["waiting"] < 1


def test_a_run_leaves_its_numbers_a_figure_and_a_log(tmp_path):
    result = train_workload(Plan(TOY, epochs=3), out=tmp_path, log_to=("csv",))
    assert json.loads((tmp_path / "train.json").read_text())["data"]["history"] == result.history
    assert (tmp_path / "train.png").stat().st_size > 5_000
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("epoch,loss,metric,metric_hat")


def test_the_plan_takes_what_the_workload_says_and_what_the_caller_says_instead():
    workload = find_workload(TOY)
    plan = Plan(TOY, epochs=12).settled(workload)
    assert (plan.lr, plan.averaging, plan.weight, plan.batch, plan.milestones) == (3e-2, 0.1, 1e-3, 12, (4, 8))
    plan = Plan(TOY, optimizer="ProxSGD", lr=0.2, weight=0.5, milestones=(1,)).settled(workload)
    assert (plan.lr, plan.weight, plan.milestones) == (0.2, 0.5, (1,))
    assert Plan(TOY, optimizer="AdamW", weight=0.5).settled(workload).weight == 0.0


@pytest.mark.parametrize("optimizer", ["RAMDA", "ProxAdamW"])
def test_an_extended_run_is_the_long_one_to_the_bit(optimizer, tmp_path):
    plan = {"workload": TOY, "optimizer": optimizer, "milestones": (2, 4)}
    train_workload(Plan(epochs=8, **plan), out=tmp_path / "whole")
    train_workload(Plan(epochs=3, **plan), out=tmp_path / "cut")
    with pytest.raises(ValueError, match="holds a run already"):
        train_workload(Plan(epochs=8, **plan), out=tmp_path / "cut")
    longer = train_workload(Plan(epochs=8, **plan | {"milestones": None}), out=tmp_path / "cut", resume=True)
    assert same(saved(tmp_path / "cut"), saved(tmp_path / "whole"))
    whole = json.loads((tmp_path / "whole" / "train.json").read_text())["data"]["history"]
    assert timeless(longer.history) == timeless(whole)


def test_killed_without_warning_and_resumed_ends_at_the_same_bits(tmp_path):
    """kill -9 between checkpoints: the epochs since the last are done again."""
    script = (
        "from ramda_theory.experiments.workload import Plan, train_workload\n"
        "from ramda_theory.kernels import using\n"
        "with using('eager'):\n"
        f"    train_workload(Plan({TOY!r}, epochs=4000, milestones=(2, 4)), out={str(tmp_path / 'cut')!r}, "
        "checkpoint_seconds=0.0)\n"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], cwd=HERE.parents[1])
    path, begun = tmp_path / "cut" / "checkpoint.pt", time.monotonic()
    while not path.exists() and time.monotonic() < begun + 120:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(torch.load(path, weights_only=True)["history"])
    epochs = done + 3
    train_workload(Plan(TOY, epochs=epochs, milestones=(2, 4)), out=tmp_path / "cut", resume=True)
    train_workload(Plan(TOY, epochs=epochs, milestones=(2, 4)), out=tmp_path / "whole")
    assert same(saved(tmp_path / "cut"), saved(tmp_path / "whole"))


def test_threads_change_nothing(tmp_path):
    for workers in (0, 3):
        train_workload(Plan(TOY, epochs=2), out=tmp_path / str(workers), workers=workers)
    assert same(saved(tmp_path / "0"), saved(tmp_path / "3"))


def test_a_seed_leaves_the_callers_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    train_workload(Plan(TOY, epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_processes_give_the_losses_of_one(tmp_path, still):
    plan = Plan(still, epochs=EPOCHS, milestones=(2,))
    one = train_workload(plan, out=tmp_path / "one")
    train_workload(Plan(still, epochs=1, milestones=(2,)), out=tmp_path / "cut")
    torch.multiprocessing.spawn(work, (2, str(tmp_path), still), nprocs=2)
    for name in ("shard False", "shard True", "cut"):
        two = json.loads((tmp_path / name / "train.json").read_text())["data"]
        for mine, theirs in zip(one.history, two["history"], strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=2e-4)
            assert theirs["level_hat"] == pytest.approx(mine["level_hat"], abs=0.1)
        assert two["history"][0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight": 0.5}, "its weight is 0.001, not 0.5"),
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"batch": 24}, "its batch is 12, not 24"),
        ({"epochs": 1}, "epochs must be at least the 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, says, tmp_path):
    train_workload(Plan(TOY, epochs=2), out=tmp_path)
    with pytest.raises(ValueError, match=says):
        train_workload(Plan(TOY, **{"epochs": 2} | change), out=tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut", "junk", "other", "code"])
def test_what_is_no_checkpoint_is_refused(damage, tmp_path):
    path = tmp_path / "checkpoint.pt"
    if damage == "cut":
        train_workload(Plan(TOY, epochs=1), out=tmp_path)
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "junk":
        path.write_bytes(b"junk")
    else:
        torch.save({"other": {"a": 1}, "code": files.write_wav}[damage], path)
    with pytest.raises(ValueError, match="is not a checkpoint of a workload"):
        train_workload(Plan(TOY, epochs=2), out=tmp_path, resume=True)


def test_the_command_line_runs_a_file_and_refuses_in_one_line(tmp_path, capsys):
    base = ["train", "--workload", TOY, "--epochs", "2", "--quiet"]
    assert main([*base, "--out", str(tmp_path / "a"), "--seeds", "0", "1", "--device", "cpu"]) == 0
    written = capsys.readouterr().out
    assert (tmp_path / "a" / "seed1" / "train.json").exists() and written.count("group sparsity") >= 2
    bad = tmp_path / "bad.py"
    bad.write_text("raise RuntimeError('no')\n")
    empty = tmp_path / "empty.py"
    empty.write_text("WORKLOAD = 3\n")
    for arguments, says in (
        (["--workload", "vgg"], "workload must be one of logistic-mnist"),
        (["--workload", str(tmp_path / "none.py")], "there is no file"),
        (["--workload", str(bad)], "cannot be run: RuntimeError: no"),
        (["--workload", str(empty)], "must define WORKLOAD"),
        (["--workload", TOY, "--optimizer", "Adam"], "optimizer must be one of RAMDA"),
        (["--workload", TOY, "--batch", "500"], "batch must be at most the 72 training samples"),
        (["--workload", TOY, "--momentum", "1.5"], "averaging"),
        (["--workload", TOY, "--resume"], "nothing to resume"),
        (["--workload", TOY, "--model", "mlp"], "--model is for the digits"),
        (["--workload", TOY, "--log-to", "paper"], "log_to must be among csv, tensorboard"),
        (["--workload", "vgg19-cifar10", "--data", str(tmp_path)], "there is no"),
        (["--data", str(tmp_path)], "--data needs --workload"),
        (["--amp", "bf16"], "--amp needs --workload"),
        (["--seeds", "1", "2"], "--seeds needs"),
        (["--known", "x.json"], "--known needs --workload"),
        (["--workload", TOY, "--known", "x.json"], "--known needs --compare"),
        (["--compare", "--seeds", "1", "1"], "seeds must differ"),
        (["--compare", "--optimizer", "RMDA"], "--optimizer is of one run"),
        (["--compare", "--lr", "1"], "--lr is of one run"),
        (["--compare", "--weight", "0"], "--weight is of one run"),
        (["--compare", "--momentum", "0"], "--momentum is of one run"),
        (["--compare", "--batch", "8"], "--batch is of one run"),
        (["--compare", "--milestones"], "--milestones is of one run"),
        (["--compare", "--gamma", "1"], "--gamma is of one run"),
        (["--compare", "--memory", "1"], "--memory is of one run"),
        (["--compare", "--seed", "1"], "--seed is of one run"),
    ):
        assert main(["train", "--out", str(tmp_path / "b"), *arguments]) == 2
        message = capsys.readouterr().err
        assert says in message and message.count("\n") == 1, message


def test_the_listing_names_every_workload_and_its_settings(capsys):
    assert main(["workloads"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^{name}$", text, re.M) for name in WORKLOADS)
    assert "RAMDA: lr 0.01, averaging 0.01, weight 8e-07" in text and "ProxAdamW: lr 0.00025, weight 1.75e-07" in text


def test_tensorboard_gets_every_epoch_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_workload(Plan(TOY, epochs=3), out=tmp_path, log_to=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_data_without_a_split_are_refused(missing):
    workload = find_workload(TOY)
    parts = dict(workload.data(None))
    del parts[missing]
    own = Workload("own", "", workload.model, lambda folder: parts, workload.loss, workload.score)
    with pytest.raises(ValueError, match=f"must give Examples under '{missing}'"):
        own.splits(None)


def test_settings_are_checked():
    for wrong in ({"lr": 0.0}, {"lr": 1.0, "averaging": 0.0}, {"lr": 1.0, "weight": -1.0}):
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            Settings(**wrong)


PUBLISHED = {
    "mnist": files.write_mnist,
    "cifar10": files.write_cifar10,
    "imagenet": lambda folder: files.write_images(folder, sizes=[(40, 40)] * 26),
    "wikitext103": files.write_wikitext,
    "ljspeech": files.write_ljspeech,
}
RUNS = {
    "logistic-mnist": "mnist",
    "mlp-fashion-mnist": "mnist",
    "vgg19-cifar10": "cifar10",
    "resnet50-cifar10": "cifar10",
    "resnet50-imagenet": "imagenet",
    "transformer-xl-wikitext103": "wikitext103",
    "tacotron2-ljspeech": "ljspeech",
    "vit-mim-cifar10": "cifar10",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "resnet50-cifar10")) for n in RUNS])
def test_every_workload_runs_a_few_steps_on_files_as_published(name, tmp_path):
    if name.startswith(("resnet", "vit")):
        pytest.importorskip("transformers")
    folder = tmp_path / "data"
    folder.mkdir()
    PUBLISHED[RUNS[name]](folder)
    # RMDA's step with the nuclear norm is one singular value decomposition per matrix
    optimizer = "RMDA" if name.startswith(("mlp", "vit")) else "RAMDA"
    plan = Plan(name, optimizer=optimizer, epochs=2, milestones=(1,), batch=4, limit_batches=2)
    result = train_workload(plan, data=folder, out=tmp_path / "out")
    assert result.level == ("low_rank_level" if name.startswith(("mlp", "vit")) else "group_sparsity")
    assert len(result.history) == 2 and result.final["milliseconds"] > 0
    with pytest.raises(ValueError, match=r"there is no|is expected in"):
        train_workload(plan, data=tmp_path / "out")


def test_mixed_precision_keeps_weights_and_state_in_float32(tmp_path):
    plan = Plan(TOY, epochs=1, amp="bf16").settled(find_workload(TOY))
    from ramda_theory.experiments.processes import join

    run = Run(plan, find_workload(TOY), None, join("cpu"))
    for _ in run.epoch():
        pass
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    states = [
        value
        for parameter, state in run.optimizer.state.items()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    ]
    assert states and {value.dtype for value in states} == {torch.float32}  # step weights are summed in float64
    exact = train_workload(Plan(TOY, epochs=1))
    assert run.history[0]["loss"] == pytest.approx(exact.history[0]["loss"], rel=2e-2)
    assert run.history[0]["loss"] != exact.history[0]["loss"]


def test_a_contest_tunes_alike_repeats_nothing_and_draws_a_figure(tmp_path, capsys, monkeypatch):
    from ramda_theory.experiments import workload_compare

    command = ["train", "--workload", TOY, "--compare", "--epochs", "3", "--seeds", "0", "1", "--out", str(tmp_path)]
    command += ["--optimizers", "RAMDA", "DGating", "PrunedAdamW", "AdamW", "--quiet"]
    monkeypatch.setattr("ramda_theory.experiments.workload_figure.plot_run", lambda result, path: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert main(command) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "compare_toy_workload.json").read_text())["data"]["rows"]
    assert [row["optimizer"] for row in rows] == ["RAMDA", "DGating", "PrunedAdamW", "AdamW"]
    assert [row["tried"][0] for row in rows] == [1e-3, 1e-3, 0.5, 1e-3]
    assert {3.33e-4, 3e-3} <= set(rows[3]["tried"]) and 0 < len(rows[0]["tried"]) <= 5
    assert all([run["plan"]["seed"] for run in row["runs"]] == [0, 1] for row in rows)
    assert rows[2]["level"]["mean"] >= rows[2]["weight"] - 1e-9
    assert (tmp_path / "compare_toy_workload.png").stat().st_size > 5_000
    monkeypatch.setattr(workload_compare, "train_workload", None)
    assert main(command) == 0
    assert capsys.readouterr().out == printed
    record = tmp_path / "compare_toy_workload.json"
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert main([*command, "--known", str(record)]) == 0
    assert json.loads((tmp_path / "again" / record.name).read_text())["data"]["rows"] == rows
    assert capsys.readouterr().out.splitlines()[:4] == printed.splitlines()[:4]
    assert not (tmp_path / "again" / "runs").exists()
    assert main([*command, "--known", str(record), "--seeds", "0", "1", "2"]) == 2  # would have to run a third
    levels = {result.plan.optimizer: result.level for result in workload_compare.recorded(record)}
    assert levels["RAMDA"] == "group_sparsity" and levels["AdamW"] is None


@pytest.mark.parametrize("wrong", ["", "[]", '{"data": {}}', '{"data": {"tuning": [3], "rows": [], "metric": "m"}}'])
def test_a_record_of_something_else_is_refused(wrong, tmp_path, capsys):
    (tmp_path / "x.json").write_text(wrong)
    command = ["train", "--workload", TOY, "--compare", "--out", str(tmp_path / "out"), "--quiet", "--known"]
    for name in ("x.json", "none.json"):
        assert main([*command, str(tmp_path / name)]) == 2
        message = capsys.readouterr().err
        assert name in message and message.count("\n") == 1
    assert not (tmp_path / "out" / "compare_toy_workload.json").exists()


@pytest.mark.slow
def test_a_table_of_the_paper_is_shown_beside_what_is_measured(tmp_path, capsys, monkeypatch):
    from paper_checks import networks

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    (tmp_path / "data").mkdir()
    files.write_wikitext(tmp_path / "data")
    command = ["table_4", "--limit-batches", "1", "--seeds", "0", "--data", str(tmp_path / "data")]
    assert networks.main([*command, "--methods", "AdamW", "--out", str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.splitlines()[3].startswith("AdamW")
    assert networks.main([*command, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table_4: transformer-xl-wikitext103, scaled"
    assert [line.split()[0] for line in lines[3:8]] == list(networks.TABLES["table_4"].published)
    found = json.loads((tmp_path / "out" / "table_4" / "table_4.json").read_text())["data"]
    assert len(found["rows"]) == 5 and found["paper"]["RAMDA"] == [26.97, 36.2]
    assert all(1 <= len(row["tried"]) <= 13 for row in found["rows"])


@pytest.mark.parametrize(
    "wrong", [["--limit-batches", "0"], ["--seeds", "0", "0"], ["--seeds", "-1"], ["table_7"], ["--methods", "AdaBreg"]]
)
def test_a_table_of_the_paper_refuses_what_it_cannot_run(wrong, tmp_path, monkeypatch):
    from paper_checks import networks

    monkeypatch.setattr(networks, "measured", None)
    with pytest.raises(SystemExit, match="2"):
        networks.main([*wrong, "--out", str(tmp_path)])


def test_the_most_structured_run_that_is_good_enough_is_chosen():
    from ramda_theory.experiments.workload import WorkloadResult
    from ramda_theory.experiments.workload_tuning import further_weights, tuned

    def result(optimizer, weight, validation, level):
        final = {"diverged": "no"} if validation is None else {"validation": validation, "level": level}
        return WorkloadResult(Plan("x", optimizer=optimizer, weight=weight), "m", final=final)

    results = [result("RAMDA", 1, 0.90, 0.1), result("RAMDA", 2, 0.89, 0.5), result("RAMDA", 3, 0.80, 0.9)]
    results += [result("RMDA", 1, 0.75, 0.2), result("RMDA", 2, 0.70, 0.9)]
    assert [plan.weight for plan in tuned(results, True)] == [2, 1]
    assert [(plan.optimizer, plan.weight) for plan in further_weights(results, True)] == [("RMDA", 0.333)]
    results += [result("ProxSGD", 3, 0.89, 0.0), result("PrunedAdamW", 0.5, 0.7, 0.5), result("PAT", 1, None, None)]
    tried = [(plan.optimizer, plan.weight) for plan in further_weights(results, True)]
    assert tried == [("RMDA", 0.333), ("ProxSGD", 9), ("PrunedAdamW", 0.25), ("PAT", 0.333)]
    results += [result("RMDA", 0.333, 0.751, 0.0), result("ProxSGD", 9, 0.5, 0.9), result("PAT", 0.333, None, None)]
    tried = [(plan.optimizer, plan.weight) for plan in further_weights(results, True)]
    assert tried == [("PrunedAdamW", 0.25), ("PAT", 0.111)]  # a smaller weight made no difference to RMDA
    results = [result("RAMDA", 1, 10.0, 0.1), result("RAMDA", 2, 10.1, 0.5), result("RAMDA", 3, 11.0, 0.9)]
    assert tuned(results, False)[0].weight == 2


def test_pruning_has_the_learning_rate_of_dense_training():
    vgg = find_workload("vgg19-cifar10", "scaled")
    for name in ("MSGD", "AdamW"):
        dense, pruned = (Plan("vgg19-cifar10", optimizer=prefix + name).settled(vgg) for prefix in ("", "Pruned"))
        assert dense.lr == pruned.lr == {"MSGD": 0.1, "AdamW": 1e-3}[name]


def test_learning_rates_without_a_weight_are_tried_until_the_best_lies_between_two_others():
    from ramda_theory.experiments.workload import WorkloadResult
    from ramda_theory.experiments.workload_tuning import further_rates, tuned

    def result(lr, validation):
        return WorkloadResult(Plan("x", optimizer="AdamW", lr=lr, weight=0.0), "m", final={"validation": validation})

    results = [result(1e-3, 2.0)]
    assert [plan.lr for plan in further_rates(results, False)] == [3.33e-4, 3e-3]
    results += [result(3.33e-4, 2.5), result(3e-3, 1.9)]
    assert [plan.lr for plan in further_rates(results, False)] == [9e-3]
    results += [result(9e-3, 2.2)]
    assert further_rates(results, False) == [] and tuned(results, False)[0].lr == 3e-3


def test_every_chosen_weight_lies_inside_the_figure(tmp_path, monkeypatch):
    from ramda_theory.experiments import workload_figure

    def row(optimizer, test):
        return {"optimizer": optimizer, "runs": [{"final": {"test": test, "level": 0.5}}]}

    once = {"plan": {"optimizer": "RAMDA", "weight": 1.0, "lr": 1.0}, "final": {"validation": 6.0, "level": 0.5}}
    data = {"tuning": [once], "rows": [row("RAMDA", 5.0), row("RMDA", 7.0)], "level": None}
    drawn = []
    monkeypatch.setattr(workload_figure, "save_png", lambda figure, path: drawn.append(figure))
    workload_figure.plot_contest(data | {"metric": "perplexity", "higher_is_better": False}, tmp_path / "x")
    low, high = drawn[0].axes[0].get_ylim()
    assert low < 5.0 and high > 7.0
    assert drawn[0].axes[0].get_title() == "every seed (test)"  # nothing was tuned


def test_every_optimizer_has_a_look_of_its_own():
    from ramda_theory.experiments.workload_figure import DENSE, entrant_style

    looks = {name: entrant_style(name) for name in ENTRANTS}
    assert len({(look["color"], marker) for look, marker in looks.values()}) == len(ENTRANTS)
    assert {name for name, (look, _) in looks.items() if look["color"] == DENSE} == {"MADGRAD", "MDA", "MSGD", "AdamW"}


def test_with_rates_those_of_all_are_tuned_first_and_weights_at_the_best_of_them():
    from ramda_theory.experiments.workload import WorkloadResult
    from ramda_theory.experiments.workload_figure import best_tried
    from ramda_theory.experiments.workload_tuning import further_rates, further_weights

    def result(lr, weight, validation):
        return WorkloadResult(
            Plan("x", optimizer="RAMDA", lr=lr, weight=weight), "m", final={"validation": validation, "level": weight}
        )

    results = [result(1.0, 0.1, 5.0)]
    assert further_rates(results, False) == []
    assert [plan.lr for plan in further_rates(results, False, all_of_them=True)] == [0.333, 3.0]
    results += [result(0.333, 0.1, 6.0), result(3.0, 0.1, 4.0), result(9.0, 0.1, 7.0)]
    assert further_rates(results, False, all_of_them=True) == []
    assert [(plan.lr, plan.weight) for plan in further_weights(results, False)] == [(3.0, 0.3)]
    results += [result(3.0, 0.3, 4.9)]  # not good enough, yet the largest weight: nothing more
    assert further_weights(results, False) == []
    data = {
        "tuning": [{"plan": asdict(each.plan), "final": each.final} for each in results],
        "higher_is_better": False,
    }
    assert [final["validation"] for final in best_tried(data, "RAMDA")] == [4.0, 4.9]


def toy(folder, old, new):
    """The toy workload with a change."""
    path = folder / "changed.py"
    text = Path(TOY).read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return str(path)


def contest(workload, out, *optimizers):
    short = "--epochs", "1", "--limit-batches", "1", "--seeds", "0", "--quiet"
    return ["train", "--workload", workload, "--compare", *short, "--out", str(out), "--optimizers", *optimizers]


@pytest.mark.parametrize(
    "old, new",
    [("batch[1])\n\n\ndef score", "batch[1]) * math.inf\n\n\ndef score"), (".sum(), len", ".sum() * math.nan, len")],
)
def test_a_contest_in_which_all_diverge_ends_with_a_table_and_a_figure(old, new, tmp_path, capsys, monkeypatch):
    """By the loss of an epoch, or by the metric after it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    workload = toy(tmp_path, old, new)
    Path(workload).write_text("import math\n" + Path(workload).read_text())
    assert main(contest(workload, tmp_path / "out", "AdamW", "MSGD")) == 0
    assert "MSGD" in capsys.readouterr().out and (tmp_path / "out" / "compare_changed.png").exists()
    rows = json.loads((tmp_path / "out" / "compare_changed.json").read_text())["data"]["rows"]
    assert all("diverged" in row["runs"][0]["final"] for row in rows)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (["--seeds", "0", "0"], "seeds must differ"),
        (["--optimizers", "RAMDA", "RAMDA"], "optimizers must differ"),
        (["--optimizer", "RMDA"], "--optimizer is of one run"),
        (["--lr", "1"], "--lr is of one run"),
        (["--momentum", "0"], "--momentum is of one run"),
        (["--weight", "0"], "--weight is of one run"),
        (["--seed", "1"], "--seed is of one run"),
        (["--shard"], "--shard is of one run"),
        (["--workers", "0"], "--workers is of one run"),
        (["--log-to", "csv"], "--log-to is of one run"),
    ],
)
def test_a_contest_refuses_what_it_would_not_heed(wrong, words, tmp_path, capsys):
    assert main([*contest(TOY, tmp_path, "RAMDA"), *wrong]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_contest_of_nobody_says_so(tmp_path, capsys, monkeypatch):
    workload = toy(tmp_path, "epochs=6,", "epochs=6, regularizer=L1,")
    Path(workload).write_text("from ramda_theory.regularizers import L1\n" + Path(workload).read_text())
    assert main(contest(workload, tmp_path, "DGating")) == 2
    assert "DGating need a regularizer with groups, toy has none" in capsys.readouterr().err
    unknown = toy(tmp_path, "settings=SETTINGS, ", "")
    assert main(contest(unknown, tmp_path, "RMDA")) == 2
    assert "toy has settings neither of RMDA nor of RAMDA" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(contest(TOY, tmp_path, "RAMDA")) == 2
    assert "leave out torchrun" in capsys.readouterr().err


def test_an_unfinished_run_is_kept_when_data_are_missing_and_begun_anew_when_it_is_of_another(tmp_path):
    from ramda_theory.experiments.workload_compare import run_or_load
    from ramda_theory.workloads.registry import find_workload

    missing = toy(
        tmp_path, "def data(folder):\n", "def data(folder):\n    if folder:\n        raise ValueError('no data')\n"
    )
    plan = Plan(missing, epochs=2, limit_batches=1).settled(find_workload(missing))
    out = tmp_path / "runs" / plan.name
    train_workload(replace(plan, epochs=1), out=out)
    (out / "train.json").unlink()
    before = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match="no data"):
        run_or_load(plan, tmp_path, tmp_path, "cpu")
    assert (out / "checkpoint.pt").read_bytes() == before
    assert len(run_or_load(plan, tmp_path, None, "cpu").history) == 2
    for other in (replace(plan, batch=6), replace(plan, batch=6, epochs=1)):
        assert len(run_or_load(other, tmp_path, None, "cpu").history) == other.epochs
    (out / "train.json").unlink()
    (out / "checkpoint.pt").write_bytes(b"cut")
    assert len(run_or_load(plan, tmp_path, None, "cpu").history) == 2


@pytest.mark.parametrize(
    "module, name", [("optim.base", "NonFiniteGradient"), ("experiments.workload_run", "TrainingDiverged")]
)
def test_a_run_that_diverges_is_a_result_of_a_contest(tmp_path, monkeypatch, module, name):
    from ramda_theory.experiments import workload_compare
    from ramda_theory.experiments.workload_compare import Contest, run_or_load, summary, table
    from ramda_theory.workloads.registry import find_workload

    def diverge(plan, **_):
        raise getattr(importlib.import_module(f"ramda_theory.{module}"), name)("the learning rate is too large")

    monkeypatch.setattr(workload_compare, "train_workload", diverge)
    plan = Plan(TOY, optimizer="ProxSGD", epochs=1).settled(find_workload(TOY))
    for _ in range(2):  # run, then found
        result = run_or_load(plan, tmp_path, None, "cpu")
        assert result.final == {"diverged": "the learning rate is too large"}
        monkeypatch.setattr(workload_compare, "train_workload", None)
    assert "ProxSGD" in table([summary([result], [result])], "accuracy")
    contest = Contest(Plan(TOY, epochs=1), ("ProxSGD",), (0,), tune=False)
    assert [each.weight for each in contest.begin(find_workload(TOY))] == [1e-3]
