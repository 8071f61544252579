"""Compacted models on disk: the same bits again, and clear words about files that are something else."""

import json

import pytest
import torch
from blocks import network
from safetensors.torch import save_file
from torch import nn

from ramda_theory.model import compact, load_compact


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_there_and_back(tmp_path, seed):
    model, x = network(seed)
    small = compact(model, x)
    path = small.save(tmp_path / "folder" / "small.safetensors")
    loaded = load_compact(path, lambda: network(seed)[0])
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), small.model.eval()(x))
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in small.model.named_parameters()]


def test_files_of_something_else(tmp_path):
    model, x = network(1)
    path = compact(model, x).save(tmp_path / "small")
    with pytest.raises(ValueError, match=r"the model is not the one that was compacted|is of another model"):
        load_compact(path, lambda: nn.Linear(2, 2))
    other = tmp_path / "other"
    other.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no compacted model"):
        load_compact(other, lambda: model)
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="its format is None"):
        load_compact(other, lambda: model)
    edits = {"replaced": {"0": {"class": "os.system"}}, "shapes": {}, "numbers": {}}
    head = {"format": "ramda_theory compacted model 1", "edits": json.dumps(edits), "tied": "{}"}
    save_file({"weight": torch.zeros(2)}, other, metadata=head)
    with pytest.raises(ValueError, match="replaced by what is none of CountedLayerNorm"):
        load_compact(other, lambda: model)


def test_a_factory_of_another_width_is_noticed(tmp_path):
    def make(width):
        return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2))

    model = make(16)
    with torch.no_grad():
        model[2].weight[:, :9] = 0.0
    path = compact(model, torch.randn(3, 5)).save(tmp_path / "small")
    load_compact(path, lambda: make(16))
    with pytest.raises(ValueError, match=r"0\.weight was \(16, 5\), model_factory's is \(15, 5\)"):
        load_compact(path, lambda: make(15))
