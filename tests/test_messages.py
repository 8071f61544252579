"""What the command line says when something is in the way: an earlier run, a full disk, Ctrl-C, an old checkpoint."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys

import pytest
import torch

from ramda_theory.cli import main
from ramda_theory.experiments.train import Session

SMALL = ["train", "--model", "mlp", "--epochs", "1", "--quiet"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a run of one epoch."""
    out = tmp_path_factory.mktemp("trained")
    assert main([*SMALL, "--out", str(out)]) == 0
    return (out / "checkpoint.pt").read_bytes()


@pytest.fixture
def out(trained, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(trained)
    return tmp_path


def said(capsys) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_a_second_run_does_not_overwrite_the_first(out, trained, capsys):
    assert main([*SMALL, "--seed", "1", "--out", str(out)]) == 2
    assert f"{out} holds a run already: go on from it with --resume, or give another --out" in said(capsys)
    assert (out / "checkpoint.pt").read_bytes() == trained
    assert main([*SMALL, "--resume", "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("settings"), "of another version: it lacks 'settings'"),
        (lambda s: s["settings"].pop("memory"), "of another version: it lacks 'memory'"),
        (lambda s: s.pop("history"), "of another version: it lacks 'history'"),
        (lambda s: s["schedule"].update(count=3), "3 steps were scheduled, but 1 epochs"),
        (lambda s: s["history"].append(s["history"][0]), "epochs must be at least the 2"),
        (lambda s: s["history"].clear(), "but 0 epochs"),
        (lambda s: s["model"].popitem(), "does not fit this run: Error.* Missing key"),
        (lambda s: s["schedule"].update(gamma=0.5), "does not fit this run: the state is of a schedule with gamma 0.5"),
        (lambda s: s["optimizer"]["state"][0].update(step="x"), "'step' in the state of parameter .* real number"),
        (lambda s: s.update(tracker=None), "does not fit this run"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(spoil, message, out, capsys):
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    spoil(state)
    torch.save(state, out / "checkpoint.pt")
    assert main([*SMALL, "--resume", "--out", str(out)]) == 2
    text = said(capsys)
    assert re.search(message, text) and str(out) in text and text.count("\n") == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_checkpoints_that_are_cut_off_are_refused(share, out, trained, capsys):
    (out / "checkpoint.pt").write_bytes(trained[: int(share * len(trained))])
    assert main([*SMALL, "--resume", "--out", str(out)]) == 2
    assert "checkpoint.pt is not a checkpoint of ramda-theory train" in said(capsys)


def test_a_full_disk_is_said_in_one_line(tmp_path, capsys):
    """The operating system refuses to write more than 10 kB to a file."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        code = main([*SMALL, "--out", str(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert said(capsys) == f"ramda-theory train: {tmp_path / 'checkpoint.pt'}: File too large; " + (
        "what was written before is whole\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [SMALL, [*SMALL, "--compare"]])
def test_ctrl_c_names_no_folder_that_does_not_exist(arguments, tmp_path, monkeypatch, capsys):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "epoch", interrupted)
    monkeypatch.setattr("ramda_theory.experiments.compare.compare", interrupted)
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 130
    assert said(capsys) == "\ninterrupted; nothing was finished\n"


def test_ctrl_c_says_how_to_go_on(out, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "epoch", interrupted)
    arguments = [*SMALL, "--epochs", "2", "--milestones", "1", "--resume", "--out", str(out)]
    assert main(arguments) == 130
    assert f"what was finished is in {out}, and the same command with --resume goes on" in said(capsys)


def test_compare_is_not_resumed_by_a_flag(tmp_path, capsys):
    assert main([*SMALL, "--compare", "--resume", "--out", str(tmp_path)]) == 2
    assert "--compare goes on from the runs in --out by itself: leave out --resume" in said(capsys)


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("ramda-theory ")


def test_a_reader_who_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "ramda_theory", "workloads"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
