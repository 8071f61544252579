"""Training the digits networks: settings, resuming to the same weights, the comparison."""

import json

import numpy as np
import pytest
import torch

from ramda_theory.cli import main
from ramda_theory.experiments import compare as comparing
from ramda_theory.experiments.compare import compare, tuned
from ramda_theory.experiments.train import OPTIMIZERS, UNREGULARIZED, Session, TrainResult, TrainSettings, train
from ramda_theory.workloads.digits import digit_splits, network

SMALL = {"model": "mlp", "epochs": 4, "milestones": (2, 3)}


def weights_of(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def test_the_split_holds_every_sample_once_and_every_digit_in_proportion():
    splits = digit_splits()
    assert sum(len(split.digits) for split in splits.values()) == 1797
    together = torch.cat([split.images.flatten(1) for split in splits.values()])
    pixels = together.double() @ torch.arange(1, 65, dtype=torch.float64)
    from sklearn.datasets import load_digits

    original = load_digits().data / 16.0 @ np.arange(1, 65)
    assert np.allclose(np.sort(pixels.numpy()), np.sort(original))
    for split in splits.values():
        shares = torch.bincount(split.digits).double() / len(split.digits)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_a_seed_makes_a_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second, other = network("cnn", 1), network("cnn", 1), network("cnn", 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_and_says_what_it_left(optimizer, tmp_path):
    settings = TrainSettings(optimizer, weight=1e-4, **SMALL)
    result = train(settings, out=tmp_path)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert settings.lr == OPTIMIZERS[optimizer]
    written = json.loads((tmp_path / "train.json").read_text())
    assert written["data"]["history"] == result.history
    assert (tmp_path / "train.png").stat().st_size > 10_000
    assert ("sparsity" in result.final) == (optimizer not in UNREGULARIZED)


def test_an_epoch_is_recorded_before_the_stage_that_begins_after_it():
    """A run whose milestone is later leaves the same rows; after the restart w_hat would be w, without a zero group."""
    with_it, without = (
        train(TrainSettings("RAMDA", weight=1e-3, model="mlp", epochs=3, milestones=milestones)).history
        for milestones in ((2,), (3,))
    )
    for row, other in zip(with_it[:2], without[:2], strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert with_it[1]["sparsity_hat"] > 0.1 and with_it[2] != without[2]


@pytest.mark.parametrize("optimizer", ["RAMDA", "RMDA", "ProxAdamW"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_and_resumed_ends_at_the_same_weights(optimizer, stop, tmp_path, monkeypatch):
    settings = TrainSettings(optimizer, weight=1e-4, memory=5 if optimizer != "ProxAdamW" else 0, **SMALL)
    whole = train(settings, out=tmp_path / "whole")
    epoch = Session.epoch

    def interrupted(session):
        if len(session.history) == stop:
            raise KeyboardInterrupt
        epoch(session)

    monkeypatch.setattr(Session, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=tmp_path / "cut")
    monkeypatch.setattr(Session, "epoch", epoch)
    resumed = train(settings, out=tmp_path / "cut", resume=True)
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, weights_of(tmp_path / "cut")[name]), name
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.history] == timeless


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(TrainSettings(weight=1e-4, **SMALL), out=tmp_path)
    with pytest.raises(ValueError, match=r"weight is 0\.0001, not 0\.001"):
        train(TrainSettings(weight=1e-3, **SMALL), out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="nothing to resume"):
        train(TrainSettings(weight=1e-4, **SMALL), out=tmp_path / "elsewhere", resume=True)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other data", "list", "a setting lost", "code"])
def test_what_is_no_checkpoint_is_refused(damage, tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    Session(TrainSettings(**SMALL)).save(path)
    state = torch.load(path, weights_only=True)
    if damage in ("cut", "empty", "text"):
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"junk\n"}[damage])
    else:
        del state["settings"]["gamma"]
        torch.save({"other data": {"a": 1}, "list": [1], "a setting lost": state, "code": SMALL.keys}[damage], path)
    before = path.read_bytes()
    assert main(["train", "--model", "mlp", "--epochs", "1", "--resume", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{path} is not a checkpoint of ramda-theory train" in message
    assert message.count("\n") == 1
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr("ramda_theory.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("ramda_theory.experiments.train.Session", None)
    assert main(["train", "--epochs", "1", "--out", str(tmp_path / "a" / "b")]) == 2
    assert f"cannot write to {tmp_path}/a/b: Permission denied ({tmp_path})" in capsys.readouterr().err


def test_more_epochs_need_the_stages_of_the_run_that_is_resumed(tmp_path):
    """Milestones that are left out lie at 40, 60 and 80 % of the epochs, so that more epochs move them."""
    common = {"weight": 1e-4, "model": "mlp"}
    train(TrainSettings(epochs=4, **common), out=tmp_path)
    with pytest.raises(ValueError, match=r"its milestones is \(2, 3\), not .*; give it its own with --milestones 2 3$"):
        train(TrainSettings(epochs=6, **common), out=tmp_path, resume=True)
    resumed = train(TrainSettings(epochs=6, milestones=(2, 3), **common), out=tmp_path, resume=True)
    whole = train(TrainSettings(epochs=6, milestones=(2, 3), **common), out=tmp_path / "whole")
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    with pytest.raises(ValueError, match=r"epochs must be at least the 6 that .*checkpoint.pt holds, got 5"):
        train(TrainSettings(epochs=5, milestones=(2, 3), **common), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"optimizer": "Adam"}, "optimizer must be one of"),
        ({"model": "vit"}, "model must be one of"),
        ({"weight": -1.0}, "weight"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        TrainSettings(**wrong)


def test_the_command_line_refuses_in_one_line(tmp_path, capsys):
    for arguments in (["--optimizer", "Adam"], ["--batch", "5000"], ["--momentum", "1.5"], ["--resume"]):
        assert main(["train", "--out", str(tmp_path), *arguments]) == 2
        message = capsys.readouterr().err
        assert message.startswith("ramda-theory train: ")
        assert message.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--seed", "9" * 20])
    assert "must be at least 0 and less than 2**63" in capsys.readouterr().err


def test_compare_gives_each_optimizer_its_own_learning_rate_and_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "ProcessPoolExecutor", Inline)
    rows = compare(model="mlp", seeds=(0, 1), epochs=2, weights=(1e-5, 1e-4), out=tmp_path)
    assert [row["optimizer"] for row in rows] == ["RAMDA", "RMDA", "ProxSGD", "ProxAdamW", *UNREGULARIZED]
    for row in rows:
        assert [run["settings"]["seed"] for run in row["runs"]] == [0, 1]
        assert all(run["settings"]["lr"] == OPTIMIZERS[row["optimizer"]] for run in row["runs"])
        accuracies = [run["final"]["test"] for run in row["runs"]]
        assert row["test"]["mean"] == pytest.approx(np.mean(accuracies))
        assert row["test"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    monkeypatch.setattr(comparing, "train", None)
    again = compare(model="mlp", seeds=(0, 1), epochs=2, weights=(1e-5, 1e-4), out=tmp_path)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(rows))


def test_the_sparsest_weight_within_a_point_of_the_best_is_chosen():
    def result(weight, validation, sparsity):
        settings = TrainSettings(weight=weight)
        return TrainResult(settings, final={"validation": validation, "sparsity": sparsity})

    results = [result(1e-5, 0.97, 0.1), result(1e-4, 0.965, 0.5), result(1e-3, 0.9, 1.0)]
    assert tuned(results).weight == 1e-4


class Inline:
    """An executor that runs everything here and now."""

    def __init__(self, *arguments, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def map(self, function, *iterables):
        return map(function, *iterables)

    def shutdown(self, **options):
        pass
