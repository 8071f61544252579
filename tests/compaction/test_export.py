"""The small model in other formats: `torch.export`, and ONNX as another runtime computes it."""

import numpy as np
import pytest
import torch
from blocks import network

from ramda_theory import extras
from ramda_theory.model import compact


@pytest.mark.parametrize("seed", [0, 6])
def test_exported_programs_compute_the_same(seed):
    model, x = network(seed)
    small = compact(model, x)
    program = small.export()
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), small.model.eval()(x), rtol=0, atol=0)


def test_onnx_computes_the_same_for_any_batch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.ReLU()),
        *(torch.nn.Conv2d(12, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        torch.nn.Linear(8, 5),
    ).eval()
    with torch.no_grad():
        model[3].weight[:, :5] = 0.0
        model[7].weight[:, 2:4] = 0.0
    small = compact(model, torch.randn(2, 3, 10, 10))
    assert small.model[0].out_channels == 7
    path = small.save_onnx(tmp_path / "folder" / "small.onnx", dynamic_shapes=({0: torch.export.Dim("batch")},))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 10, 10)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-4, atol=1e-6)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    model, x = network(0)
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(extras.MissingExtra, match=r"onnx is not installed: pip install 'ramda_theory\[onnx\]'"):
        compact(model, x).save_onnx(tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()
