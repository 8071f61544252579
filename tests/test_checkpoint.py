"""Checkpoints whose parts disagree, that are cut off or of another version are refused, saying what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import METHODS, assert_same, go

from ramda_theory.methods import NoisyGradient
from ramda_theory.problems import lasso


def parts(path):
    with np.load(path) as data:
        return dict(data)


def saved(tmp_path, method="RAMDA inexact", steps=20):
    path = tmp_path / "run.npz"
    go(METHODS[method], steps=steps, checkpoint=path)
    return path, parts(path)


def with_head(arrays, key="head", **changes):
    head = json.loads(str(arrays[key]))
    for name, value in changes.items():
        if value is None:
            del head[name]
        else:
            head[name] = value | head[name] if name == "state" else value
    return arrays | {key: np.asarray(json.dumps(head))}


def without(arrays, key):
    return {name: array for name, array in arrays.items() if name != key}


SPOILT = {
    "fewer steps": (
        lambda a: with_head(a, t=19, settings=json.loads(str(a["head"]))["settings"]),
        "of another run|disagree",
    ),
    "negative steps": (lambda a: with_head(a, t=-1), "holds -1 steps"),
    "time": (lambda a: with_head(a, seconds=-1.0), "took -1.0 seconds"),
    "shape": (lambda a: a | {"state.grad_sum": np.ones(3)}, r"grad_sum of its state is float64\[3\], the run's is"),
    "dtype": (lambda a: a | {"state.w": a["state.w"].astype(np.float32)}, r"w of its state is float32"),
    "NaN": (lambda a: a | {"state.w_hat": np.full_like(a["state.w_hat"], np.nan)}, "w_hat of its state holds NaN"),
    "missing array": (lambda a: without(a, "state.anchor"), "its state lacks anchor"),
    "unknown array": (
        lambda a: a | {"state.velocity": a["state.w"]},
        "its state has velocity, a Dual",
    ),
    "unknown number": (lambda a: with_head(a, state={"beta": 1.0}), "its state has beta"),
    "array for a number": (lambda a: a | {"state.step": np.ones(2)}, "step of its state is an array"),
    "number for an array": (
        lambda a: with_head(without(a, "state.grad_sq_sum"), state={"grad_sq_sum": 1.0}),
        "grad_sq_sum of its state is 1.0, not an array",
    ),
    "epochs": (lambda a: with_head(a, "record.head", steps_per_epoch=5), "has 5 steps per epoch, its gradients 6"),
    "late measurement": (lambda a: a | {"record.metrics": a["record.metrics"] + 9}, "but measurements of the steps"),
    "order": (lambda a: a | {"record.metrics": a["record.metrics"][::-1]}, "out of order"),
    "inner": (lambda a: a | {"record.inner": a["record.inner"] + 1}, "but inner solutions of the steps from 2 to 21"),
    "no head": (lambda a: without(a, "head"), "not a checkpoint of this version: it lacks 'head'"),
    "no settings": (lambda a: with_head(a, settings=None), "not a checkpoint of this version: it lacks 'settings'"),
    "no record": (lambda a: without(a, "record.head"), "not a checkpoint of this version: it lacks 'head'"),
    "another kind": (lambda a: a | {"head": np.asarray("[1]")}, "not a checkpoint, or is damaged"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_parts_that_disagree_are_named(name, tmp_path):
    path, arrays = saved(tmp_path)
    spoil, message = SPOILT[name]
    np.savez(path, **spoil(arrays))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        go(METHODS["RAMDA inexact"], checkpoint=path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    np.savez(path, **arrays)
    assert_same(go(METHODS["RAMDA inexact"], checkpoint=path), go(METHODS["RAMDA inexact"]))


@pytest.mark.parametrize("name", METHODS)
def test_the_record_of_a_longer_run_does_not_go_with_the_state_of_a_shorter(name, tmp_path):
    path, short = saved(tmp_path, name, 10)
    go(METHODS[name], steps=20, checkpoint=path)
    longer = parts(path)
    record = {key: array for key, array in longer.items() if key.startswith("record.")}
    np.savez(path, **(short | record))
    with pytest.raises(ValueError, match="it holds 10 steps, but the structures of 20 points w_hat"):
        go(METHODS[name], checkpoint=path)


@given(share=st.floats(0, 1, exclude_max=True))
def test_files_cut_off_anywhere_are_refused(tmp_path_factory, share):
    path, _ = saved(tmp_path_factory.mktemp("run"), steps=5)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"run\.npz is not a checkpoint, or is damaged .*; remove it to begin anew"):
        go(METHODS["RAMDA inexact"], checkpoint=path)


def test_noise_is_that_of_its_seed_and_step_alone():
    """Other seeds and other steps give other noise, of mean 0 and the standard deviation asked for."""
    problem = lasso()
    w = problem.initial
    full = problem.gradient(w)
    draws = {(seed, t): NoisyGradient(0.5, seed)(problem, w, t) - full for seed in range(4) for t in range(1, 200)}
    assert np.array_equal(draws[2, 7], NoisyGradient(0.5, 2)(problem, w, 7) - full)
    values = np.array(list(draws.values()))
    assert len({draw.tobytes() for draw in draws.values()}) == len(draws)
    count = values.size
    assert abs(values.mean()) < 5 * 0.5 / count**0.5
    assert abs(values.std() - 0.5) < 5 * 0.5 / (2 * count) ** 0.5
    correlation = np.corrcoef(values[:, :1].ravel()[:-1], values[:, :1].ravel()[1:])[0, 1]
    assert abs(correlation) < 5 / len(values) ** 0.5
