"""``ramda-theory train --compact`` writes the small model of the run and its table."""

import torch

from ramda_theory.cli import main
from ramda_theory.model import load_compact
from ramda_theory.workloads.digits import network


def test_train_writes_the_small_model(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--model", "mlp", "--weight", "1e-3", "--epochs", "2", "--quiet", "--compact", "--out", str(out)]
    assert main(["train", "--optimizer", "ProxSGD", *options]) == 0
    told = capsys.readouterr().out
    text = (out / "compact.txt").read_text()
    assert text.strip() in told and "largest relative difference in float64" in text
    small = load_compact(out / "compact.safetensors", lambda: network("mlp", 0))
    before, after = (sum(p.numel() for p in model.parameters()) for model in (network("mlp", 0), small))
    assert f"parameters: {after} of {before}" in text and after <= before
    assert small(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_one_run_only(tmp_path, capsys):
    assert main(["train", "--compact", "--compare", "--out", str(tmp_path)]) == 2
    assert "--compact is of one run: leave out --compare" in capsys.readouterr().err
