"""Checkpoints of sharded runs: gone on with by any number of processes, whole after a kill, refused when damaged."""

import errno
import json
import pickle
import shutil
from pathlib import Path

import files
import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from work_shared import EPOCHS, begin_and_go_on

from ramda_theory.experiments import checkpoint, workload_run
from ramda_theory.experiments.pieces import DescriptionsOnly
from ramda_theory.experiments.processes import join
from ramda_theory.experiments.workload import Plan, train_workload
from ramda_theory.kernels import using

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
TOY = Path(__file__).parent / "toy_workload.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without figures, and with the engine that compiles nothing."""
    monkeypatch.setattr("ramda_theory.experiments.workload_figure.plot_run", lambda result, path: None)
    with using("eager"):
        yield


@pytest.fixture
def sharded():
    """The one process of a sharded run."""
    processes = join("cpu", True)
    yield processes
    processes.close()


def plan(epochs, toy=TOY):
    return Plan(str(toy), epochs=epochs, milestones=(2,))


def pieces(out):
    """The folder that a checkpoint names, and the only one there."""
    (found,) = out.glob("*.dcp")
    assert found.name == torch.load(out / "checkpoint.pt", weights_only=True)["pieces"]["folder"]
    return found


def history(out):
    return json.loads((out / "train.json").read_text())["data"]["history"]


def agree(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
        assert mine["level_hat"] == pytest.approx(theirs["level_hat"], abs=0.1)
    assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-5)  # the first epoch after the checkpoint


def test_any_number_of_processes_goes_on_with_a_sharded_run(tmp_path):
    toy = tmp_path / "still.py"
    toy.write_text(TOY.read_text().replace("DROPOUT = 0.3", "DROPOUT = 0.0"))
    whole = train_workload(plan(EPOCHS, toy)).history
    for world in (2, 3):
        torch.multiprocessing.spawn(begin_and_go_on, (world, str(tmp_path), str(toy)), nprocs=world)
    agree(history(tmp_path / "2 sharded"), whole)
    agree(history(tmp_path / "2 copied"), whole)
    agree(history(tmp_path / "3 sharded"), whole)
    assert len(list(pieces(tmp_path / "begun").glob("*.distcp"))) == 2
    assert len(list(pieces(tmp_path / "3 sharded").glob("*.distcp"))) == 3
    assert not list((tmp_path / "2 copied").glob("*.dcp"))
    for shard in (False, True):
        out = tmp_path / f"1 {shard}"
        shutil.copytree(tmp_path / "begun", out)
        processes = join("cpu", shard)
        agree(train_workload(plan(EPOCHS, toy), out=out, resume=True, processes=processes).history, whole)
        processes.close()


@pytest.mark.parametrize("optimizer", ["RAMDA", "ProxAdamW", "AdamW", "PrunedAdamW"])
def test_one_process_goes_on_sharded_and_whole_to_the_same_numbers(optimizer, tmp_path, sharded):
    own = {"workload": str(TOY), "optimizer": optimizer, "milestones": (2,)}
    whole = train_workload(Plan(epochs=4, **own)).history
    ways = (sharded, join("cpu"), sharded, sharded)  # the third reads one file, and the others a folder but the first
    for epochs, processes in enumerate(ways, 1):
        resume = epochs > 1
        result = train_workload(Plan(epochs=epochs, **own), out=tmp_path, resume=resume, processes=processes)
    assert [row["loss"] for row in result.history] == pytest.approx([row["loss"] for row in whole], rel=1e-5)


def test_the_file_of_a_sharded_run_holds_no_array_of_it(tmp_path, sharded):
    train_workload(plan(1), out=tmp_path, processes=sharded)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["model"] == {}
    for own in state["optimizer"]["state"].values():
        assert {"step", "weight_sum"} <= own.keys() and all(value.numel() == 1 for value in own.values())
    assert {"model.0.weight", "optimizer.0.grad_sum"} <= set(state["pieces"]["names"])


class Killed(Exception):
    pass


def test_killed_between_folder_and_file_the_old_checkpoint_is_whole(tmp_path, sharded, monkeypatch):
    def kill(path, state):
        raise Killed

    train_workload(plan(1), out=tmp_path, processes=sharded)
    before = pieces(tmp_path)
    with monkeypatch.context() as killing, pytest.raises(Killed):
        killing.setattr(workload_run, "write_checkpoint", kill)
        train_workload(plan(2), out=tmp_path, resume=True, processes=sharded)
    assert before.is_dir() and len(list(tmp_path.glob("*.dcp"))) > 1
    assert len(train_workload(plan(2), out=tmp_path, resume=True, processes=sharded).history) == 2
    assert pieces(tmp_path) != before


def test_killed_before_old_folders_are_gone_the_new_checkpoint_is_whole(tmp_path, sharded, monkeypatch):
    def kill(folder, **_):
        raise Killed

    train_workload(plan(1), out=tmp_path, processes=sharded)
    with monkeypatch.context() as killing, pytest.raises(Killed):
        killing.setattr(checkpoint.shutil, "rmtree", kill)
        train_workload(plan(2), out=tmp_path, resume=True, processes=sharded)
    assert len(list(tmp_path.glob("*.dcp"))) > 1
    assert len(train_workload(plan(3), out=tmp_path, resume=True, processes=sharded).history) == 3
    assert pieces(tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos")])
def test_a_folder_that_cannot_be_written_is_named_and_leaves_nothing(error, tmp_path, sharded, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("torch.distributed.checkpoint.FileSystemWriter.write_data", fail)
    with pytest.raises(OSError, match=str(error.args[-1])) as caught:
        train_workload(plan(1), out=tmp_path, processes=sharded)
    assert caught.value.filename.endswith(".dcp") and not list(tmp_path.glob("checkpoint*"))


def remove(folder, out):
    shutil.rmtree(folder)


def remove_data(folder, out):
    (folder / "__0_0.distcp").unlink()


def cut_data(folder, out):
    data = folder / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-100])


def spoil_data(folder, out):
    data = folder / "__0_0.distcp"
    data.write_bytes(b"x" * data.stat().st_size)


def remove_metadata(folder, out):
    (folder / ".metadata").unlink()


def cut_metadata(folder, out):
    data = folder / ".metadata"
    data.write_bytes(data.read_bytes()[:-100])


def change_metadata(folder, change):
    with open(folder / ".metadata", "rb") as file:
        found = pickle.load(file)
    change(found)
    (folder / ".metadata").write_bytes(pickle.dumps(found))


def lead_out(folder, out):
    (out / "other").write_bytes((folder / "__0_0.distcp").read_bytes())
    change_metadata(folder, lambda found: [part.__dict__.update(relative_path="../other") for part in parts(found)])


def parts(metadata):
    return metadata.storage_data.values()


def put_objects(folder, out):
    """Objects among the tensors, which torch's own reader would unpickle."""
    change_metadata(folder, lambda found: found.state_dict_metadata.update({"model.0.bias": BytesStorageMetadata()}))


def move_chunk(folder, out):
    """What nothing is written to is not left as memory happens to be."""
    change_metadata(folder, lambda found: set_chunk(found, torch.Size([3, 0])))


def set_chunk(metadata, offsets):
    metadata.state_dict_metadata["model.0.weight"].chunks[0].offsets = offsets


def lose_size(folder, out):
    change_metadata(folder, lambda found: found.state_dict_metadata["model.0.bias"].__dict__.pop("size"))


def put_code(folder, out):
    (folder / ".metadata").write_bytes(pickle.dumps(files.write_wav))


def lose_array(folder, out):
    change_metadata(folder, lambda found: found.state_dict_metadata.pop("optimizer.0.grad_sum"))


def put_other_network(folder, out):
    toy = out / "wider.py"
    toy.write_text(TOY.read_text().replace("12", "13"))
    train_workload(plan(1, toy), out=out / "other", processes=join("cpu", True))
    shutil.rmtree(folder)
    pieces(out / "other").rename(folder)


DAMAGES = {
    remove: r"no .*\.dcp",
    remove_data: r"\.dcp is damaged: there is no __0_0.distcp in it",
    cut_data: r"\.dcp is damaged: __0_0.distcp is cut short",
    spoil_data: r"\.dcp is damaged: its arrays cannot be read \(.* in process 0\)",
    remove_metadata: r"\.dcp is damaged: there is no .metadata in it",
    cut_metadata: r"\.dcp is refused or damaged: its .metadata cannot be read",
    lead_out: r"\.dcp is refused or damaged: its .metadata describes other things than whole tensors",
    put_objects: r"it asks for torch.distributed.checkpoint.metadata.BytesStorageMetadata",
    move_chunk: r"\.dcp is refused or damaged: its .metadata describes other things than whole tensors",
    lose_size: r"\.dcp is refused or damaged: its .metadata cannot be read",
    put_code: r"it asks for files.write_wav",
    lose_array: r"\.dcp lacks optimizer.0.grad_sum",
    put_other_network: r"\.dcp has model.0.bias of shape \(13,\), not \(12,\)",
}


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_refused_and_nothing_loaded(damage, shard, tmp_path, sharded, monkeypatch):
    train_workload(plan(1), out=tmp_path, processes=sharded)
    damage(pieces(tmp_path), tmp_path)
    monkeypatch.setattr(workload_run, "load_states", None)
    with pytest.raises(ValueError, match=DAMAGES[damage]) as caught:
        train_workload(plan(2), out=tmp_path, resume=True, processes=sharded if shard else join("cpu"))
    assert "\n" not in str(caught.value)


def test_a_file_names_only_folders_beside_it(tmp_path, sharded):
    train_workload(plan(1), out=tmp_path, processes=sharded)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for wrong in ({"folder": "../else.dcp"}, {"names": [1]}, {"folder": None}):
        torch.save({**state, "pieces": {**state["pieces"], **wrong}}, path)
        with pytest.raises(ValueError, match="is not a checkpoint of a workload"):
            train_workload(plan(2), out=tmp_path, resume=True, processes=sharded)


def test_no_code_runs_from_a_description(tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    path = tmp_path / "code"
    path.write_bytes(pickle.dumps(Code()))
    with open(path, "rb") as file, pytest.raises(pickle.UnpicklingError, match="no description of tensors needs"):
        DescriptionsOnly(file).load()
    assert not (tmp_path / "run").exists()
