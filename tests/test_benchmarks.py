"""The benchmark of step times: its table, its file, and that rows are told apart."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import nuclear, steps
from benchmarks.interleaved import Runner, compare
from ramda_theory.regularizers import L1, MCP, GroupLasso, NuclearNorm, Reshaped, SparseGroupLasso


class Sleeper:
    """An optimizer whose steps do nothing, but are counted, and take so long by a clock of their own."""

    def __init__(self, params, clock, seconds):
        self.params, self.clock, self.seconds, self.seen = params, clock, seconds, []

    def step(self):
        self.clock[0] += self.seconds
        self.seen.append(float(self.params[0].grad.sum()))

    def zero_grad(self, set_to_none=True):
        self.params[0].grad = None


def test_ratios_are_of_the_two_optimizers_steps(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    pool = [[torch.full((2,), float(k))] for k in range(4)]
    slow, fast = (
        Runner(lambda params, s=seconds: Sleeper(params, clock, s), [torch.zeros(2)], pool, fresh)
        for seconds, fresh in ((0.3, True), (0.1, False))
    )
    times = compare(slow, fast, repeats=3, warm_up=5, seconds=100.0)
    assert times == pytest.approx((300.0, 100.0, 3.0, 3.0, 3.0, 3.0))
    assert slow.optimizer.seen[:5] == [0.0, 2.0, 4.0, 6.0, 0.0]  # the pool in turn
    assert slow.params[0].grad is None
    assert fast.params[0].grad is not None


@pytest.mark.parametrize(
    "psi",
    [
        L1(1.0),
        MCP(1.0, 10.0),
        GroupLasso(1.0),
        SparseGroupLasso(1.0, 0.5),
        Reshaped(GroupLasso(1.0, dims=(1, 2)), (10, 4, 50)),
    ],
)
def test_half_of_the_pieces_are_zero(psi):
    mean = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    weighted = steps.half_zero(psi, mean)
    assert type(weighted) is type(psi)
    assert steps.zero_share(weighted, weighted.prox(mean, 1.0)) == pytest.approx(0.5, abs=0.03)


def test_half_of_the_singular_values_are_zero():
    mean = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    psi = steps.half_zero(NuclearNorm(1.0), mean)
    assert int(torch.linalg.matrix_rank(psi.prox(mean, 1.0))) == 20


def test_the_table_has_a_row_for_every_combination():
    rows = list(steps.matrices(quick=True))
    assert len(rows) == 4 * 7 + 8
    assert len({(row.optimizer, row.psi_name, row.variant) for row in rows}) == len(rows)
    assert all(row.at_most is not None for row in rows)
    assert len(list(steps.matrices(quick=False))) == len(rows) + 8


def test_the_command_prints_and_writes_its_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(steps, "WIDTH", 12)
    out = tmp_path / "steps.json"
    monkeypatch.setattr(steps, "large", lambda: iter(()))
    assert steps.main(["--quick", "--only", "ProxSGD L1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    (row,) = written["rows"]
    assert (row["optimizer"], row["psi"], row["at_most"]) == ("ProxSGD", "L1", 3.5)
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["verdict"] == ("met" if row["ratio"] <= 3.5 else "missed")
    printed = capsys.readouterr().out
    assert row["verdict"] in printed
    assert "of 1 met" in printed


def test_a_folder_that_does_not_exist_is_an_error_at_once(capsys):
    with pytest.raises(SystemExit):
        steps.main(["--out", "/nowhere/steps.json"])
    assert "no folder" in capsys.readouterr().err


def test_the_benchmark_of_gpus_runs_dry_without_one(tmp_path):
    """Interpreted, in a process of its own; a part of it, since that is slow."""
    pytest.importorskip("triton")
    out = tmp_path / "gpu.json"
    code = f"""
import sys
from benchmarks import gpu
gpu.OPTIMIZERS = {{"ProxAdamW": gpu.OPTIMIZERS["ProxAdamW"]}}
gpu.KINDS = ("sparse group",)
sys.exit(gpu.main(["--dry", "--only", "64-256", "--out", {str(out)!r}]))
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    written = json.loads(out.read_text())
    assert (written["dry"], written["equal"]) == (True, 1)
    assert [(row["optimizer"], row["psi"]) for row in written["rows"]] == [
        ("AdamW foreach", "none"),
        ("ProxAdamW", "sparse group"),
    ]
    assert all(0 < row["low"] <= row["ratio"] <= row["high"] for row in written["rows"])


def test_the_benchmark_of_gpus_times_nothing_that_is_wrong(monkeypatch):
    gpu = pytest.importorskip("benchmarks.gpu")
    monkeypatch.setattr(gpu, "TOLERANCE", -1.0)
    monkeypatch.setattr(gpu.kernels, "using", lambda engine: contextlib.nullcontext())
    with pytest.raises(SystemExit, match="differs from float64"):
        gpu.check_equality("cpu", dry=True)


def test_the_nuclear_norms_benchmark_prints_and_writes_both_parts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(nuclear, "SEQUENCES", (((12, 10), 60.0),))
    monkeypatch.setattr(nuclear, "WIDTHS", (20, 12, 8, 10))
    generator = torch.Generator().manual_seed(0)
    data = "noise", torch.randn(200, 20, generator=generator), torch.randint(0, 10, (200,), generator=generator)
    monkeypatch.setattr(nuclear, "images", lambda: data)
    out = tmp_path / "nuclear.json"
    assert nuclear.main(["--repeats", "2", "--steps", "1", "3", "--out", str(out)]) == 0
    solvers, *perceptron = json.loads(out.read_text())["rows"]
    assert solvers["rank"] == solvers["accelerated_rank"] and solvers["worst_residual"] <= 1
    assert 10 <= solvers["spread"] <= 400
    assert [(row["optimizer"], row["steps"]) for row in perceptron if row["optimizer"] == "RMDA"] == [
        ("RMDA", 3), ("RMDA", 5)
    ]  # fmt: skip
    assert all(row["worst_residual"] <= 1 for row in perceptron if row["iterations"])
    assert {row["optimizer"]: row["at_most"] for row in perceptron} == {
        "RAMDA": 0.8, "RMDA": 0.1, "ProxSGD": 0.1, "ProxAdamW": None
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "12 x 10" in printed and "ProxAdamW" in printed


@pytest.mark.parametrize("spread", [60.0, 1e3])
def test_sequences_of_subproblems_have_the_spread_and_the_rank_they_are_asked_for(spread):
    *_, problem = nuclear.sequence((30, 24), spread, 2)
    assert float(problem.metric.max() / problem.metric.min()) == pytest.approx(spread, rel=1.0)
    assert 2 <= nuclear.solve(problem).structure.count <= 16
