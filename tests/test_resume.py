"""Runs stopped anywhere and resumed are the runs that were never stopped; other runs' checkpoints are refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import BATCHES, METHODS, PROBLEM, SCHEDULE, STEPS, Interrupting, Stop, assert_same, go

from ramda_theory.checkpoint import describe, held_interrupt
from ramda_theory.methods import RAMDA, RMDA, FullGradient, NoisyGradient, ProxGen, SampledGradient, Schedule
from ramda_theory.problems import PROBLEMS, lasso, least_squares
from ramda_theory.regularizers import L1
from ramda_theory.subproblem import PolynomialTolerance


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
def test_stopped_by_an_exception_at_any_step_and_resumed(name, error, tmp_path):
    """Also in the first step, in the first of a stage and in the last."""
    whole = go(METHODS[name])
    gradients = Interrupting(BATCHES, (1, 2, 7, 12, 13, 14, 24, 25, 30, 36), error)
    path, stops = tmp_path / "run.npz", 0
    while True:
        try:
            result = go(METHODS[name], gradients=gradients, checkpoint=path)
            break
        except error:
            stops += 1
    assert stops == 10
    assert_same(result, whole)


@settings(max_examples=25)
@given(
    stops=st.lists(st.integers(0, STEPS), max_size=4),
    name=st.sampled_from(sorted(METHODS)),
    every=st.integers(1, STEPS),
)
def test_stopped_after_any_steps_and_resumed(tmp_path_factory, stops, name, every):
    """Runs of fewer steps, continued; measured by the step, as a run measures its own last step besides."""
    path = tmp_path_factory.mktemp("run") / "run.npz"
    whole = go(METHODS[name], measure_every=1)
    for steps in sorted(stops):
        go(METHODS[name], steps, measure_every=1, checkpoint=path, checkpoint_every=every)
    assert_same(go(METHODS[name], measure_every=1, checkpoint=path, checkpoint_every=every), whole)


@pytest.mark.parametrize("where", ["restart", "step", "measure", "structure"])
def test_stopped_by_an_exception_anywhere_in_a_step(where, tmp_path, monkeypatch):
    """A step is recorded whole or not at all, whichever part of it fails."""
    whole = go(METHODS["RAMDA"])
    calls = 0

    def failing(function):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls in (2, 5, 7):
                raise Stop
            return function(*args, **kwargs)

        return wrapper

    owner, name = {
        "restart": (RAMDA, "restart"),
        "step": (RAMDA, "step"),
        "measure": (sys.modules["ramda_theory.run"], "measure"),
        "structure": (L1, "structure"),
    }[where]
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name)))
        for _ in range(4):
            try:
                result = go(METHODS["RAMDA"], checkpoint=path)
                break
            except Stop:
                continue
    if where == "restart":  # two stages: only the second call failed
        assert calls == 3
    assert_same(result, whole)


@pytest.fixture
def ctrl_c():
    """Python's own handling of Ctrl-C, which a process that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_at_any_moment(tmp_path):
    """Signals at random moments, each of which ends the run: the pieces make up the whole."""
    method, steps = METHODS["RAMDA"], 2000
    whole = go(method, steps=steps, measure_every=3)
    path, interrupted, rng = tmp_path / "run.npz", 0, np.random.default_rng(0)
    for _ in range(1000):
        timer = threading.Timer(float(rng.uniform(0.005, 0.03)), os.kill, (os.getpid(), signal.SIGINT))
        try:
            try:
                timer.start()
                result = go(method, steps=steps, measure_every=3, checkpoint=path)
            finally:
                timer.cancel()
                timer.join()
            break
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted >= 3
    assert_same(result, whole)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_step_under_way(tmp_path):
    """The step in which the signal comes is finished and saved; then Ctrl-C is raised, and works again as ever."""
    events = []

    class Signalling(Interrupting):
        def __call__(self, problem, w, t):
            if t == 4:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            events.append(t)
            return self.gradients(problem, w, t)

    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        go(METHODS["RAMDA"], gradients=Signalling(BATCHES, ()), checkpoint=path)
    assert events == [1, 2, 3, 4]
    with np.load(path) as data:
        assert json.loads(str(data["head"]))["t"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    events.clear()
    with pytest.raises(KeyboardInterrupt):  # nothing to protect without a checkpoint: at once
        go(METHODS["RAMDA"], gradients=Signalling(BATCHES, ()))
    assert events == [1, 2, 3]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_left_to_others(tmp_path):
    """Another handler stays in charge, and threads do not touch handlers."""
    mine = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        handler = signal.getsignal(signal.SIGINT)
        with held_interrupt(True) as pending:
            assert signal.getsignal(signal.SIGINT) is handler and pending == []
    finally:
        signal.signal(signal.SIGINT, mine)
    results = []
    thread = threading.Thread(target=lambda: results.append(go(METHODS["RAMDA"], checkpoint=tmp_path / "run.npz")))
    thread.start()
    thread.join()
    assert_same(results[0], go(METHODS["RAMDA"]))


def test_a_finished_run_is_not_repeated(tmp_path):
    path = tmp_path / "run.npz"
    first = go(METHODS["RAMDA"], checkpoint=path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    never = Interrupting(BATCHES, range(1, STEPS + 1))
    again = go(METHODS["RAMDA"], gradients=never, checkpoint=path)
    assert_same(again, first)
    assert again.record.metrics["seconds"].tolist() == first.record.metrics["seconds"].tolist()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_checkpoints_on_the_way(tmp_path):
    """Saved every so many steps: a process that is killed loses no more than those."""
    path, seen = tmp_path / "run.npz", []

    class Watching(Interrupting):
        def __call__(self, problem, w, t):
            if path.exists():
                with np.load(path) as data:
                    seen.append(json.loads(str(data["head"]))["t"])
            return self.gradients(problem, w, t)

    go(METHODS["RAMDA"], steps=12, gradients=Watching(BATCHES, ()), checkpoint=path, checkpoint_every=5)
    assert seen == [5] * 5 + [10] * 2
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_same_run_goes_on(tmp_path):
    """Other data, psi, method, settings or seed: another run, even where names and shapes agree."""
    path = tmp_path / "run.npz"
    go(METHODS["RAMDA"], steps=10, checkpoint=path)
    before = path.read_bytes()
    others = {
        "problem": {"problem": lasso(seed=1)},
        "problem is": {"problem": lasso(weight=0.11), "method": METHODS["RAMDA"]},
        "method": {"method": RAMDA(L1(0.2))},
        "method is": {"method": RMDA(PROBLEM.regularizer)},
        "method is 'RAMDA": {"method": METHODS["RAMDA inexact"]},
        "schedule": {"schedule": dataclasses.replace(SCHEDULE, lr=0.06)},
        "schedule is": {"schedule": dataclasses.replace(SCHEDULE, tolerance=PolynomialTolerance(0.2))},
        "gradients": {"gradients": SampledGradient(30, seed=3)},
        "gradients is": {"gradients": FullGradient()},
    }
    for name, change in others.items():
        with pytest.raises(ValueError, match=f"of another run: its {name}"):
            go(**({"method": METHODS["RAMDA"]} | change), checkpoint=path)
    with pytest.raises(ValueError, match=r"steps must be at least the 10 steps that checkpoint .* holds, got 9"):
        go(METHODS["RAMDA"], steps=9, checkpoint=path)
    assert path.read_bytes() == before
    assert_same(go(METHODS["RAMDA"], checkpoint=path), go(METHODS["RAMDA"]))


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        go(METHODS["RAMDA"], gradients=Interrupting(BATCHES, (1,)), checkpoint=tmp_path / "file" / "run.npz")
    with pytest.raises(IsADirectoryError):
        go(METHODS["RAMDA"], gradients=Interrupting(BATCHES, (1,)), checkpoint=tmp_path)


def test_functions_are_told_apart_by_the_settings_they_gave(tmp_path):
    path = tmp_path / "run.npz"
    go(METHODS["RAMDA"], steps=10, schedule=Schedule(lambda t: 0.1 / t), checkpoint=path)
    with pytest.raises(ValueError, match="of another run: its settings of step 10"):
        go(METHODS["RAMDA"], schedule=Schedule(lambda t: 0.1 / t**2), checkpoint=path)
    go(METHODS["RAMDA"], schedule=Schedule(lambda t: 0.1 / t), checkpoint=path)


def test_descriptions_see_whole_arrays():
    """A metric of many entries that differs in one, and data that differ in one number."""
    one, other = np.ones(5000), np.ones(5000)
    other[2500] = 2.0
    problem = PROBLEM
    texts = [describe(problem, ProxGen(None, metric=m), SCHEDULE, BATCHES)["method"] for m in (one, other, one.copy())]
    assert texts[0] == texts[2] != texts[1]
    rng = np.random.default_rng(0)
    A, y = rng.standard_normal((30, 4)), rng.standard_normal(30)
    B = A.copy()
    B[3, 2] += 1e-3
    texts = [describe(least_squares(a, y, L1(0.1)), METHODS["RAMDA"], SCHEDULE, BATCHES)["problem"] for a in (A, B)]
    assert texts[0] != texts[1]
    for name, make in PROBLEMS.items():
        pair = [describe(make(), METHODS["RAMDA"], SCHEDULE, BATCHES) for _ in range(2)]
        assert pair[0] == pair[1], name
        assert all(isinstance(value, str) for value in pair[0].values())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        go(METHODS["RAMDA"], checkpoint=path)
    assert path.read_bytes() == content
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        go(METHODS["RAMDA"], checkpoint=path)


def test_noise_runs_resume_too(tmp_path):
    path, noise = tmp_path / "run.npz", NoisyGradient(0.2, seed=4)
    whole = go(METHODS["RAMDA"], gradients=noise)
    with pytest.raises(Stop):
        go(METHODS["RAMDA"], gradients=Interrupting(noise, (20,)), checkpoint=path)
    assert_same(go(METHODS["RAMDA"], gradients=noise, checkpoint=path), whole)


def test_a_crash_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    go(METHODS["RAMDA"], steps=10, checkpoint=path)
    before = path.read_bytes()

    def broken(file, **arrays):
        file.write(b"PK half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", broken)
        with pytest.raises(OSError, match="no space"):
            go(METHODS["RAMDA"], checkpoint=path)
    assert path.read_bytes() == before
    assert_same(go(METHODS["RAMDA"], checkpoint=path), go(METHODS["RAMDA"]))
