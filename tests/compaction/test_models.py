"""Known networks of transformers, small and with random weights: what was planted leaves, and nothing else changes."""

import families
import pytest
import torch

from ramda_theory.model import compact

pytest.importorskip("transformers")

EXPECTED = {  # parameter -> its shape in the small model
    "resnet": {"resnet.encoder.stages.1.layers.0.shortcut.convolution.weight": (15, 7, 1, 1)},
    "vgg19": {"features.3.weight": (2, 2, 3, 3), "classifier.0.weight": (5, 32)},
    "bert": {
        "bert.encoder.layer.0.attention.self.query.weight": (18, 24),
        "bert.encoder.layer.0.attention.output.dense.weight": (24, 18),
        "bert.encoder.layer.1.attention.self.value.weight": (12, 24),
        "bert.encoder.layer.0.intermediate.dense.weight": (16, 24),
        "bert.encoder.layer.1.intermediate.dense.weight": (19, 24),
    },
    "gpt2": {
        "transformer.wte.weight": (40, 22),
        "transformer.h.0.attn.c_attn.weight": (22, 54),
        "transformer.h.0.attn.c_proj.weight": (18, 22),
        "transformer.h.0.mlp.c_fc.weight": (22, 66),
    },
    "llama": {
        "model.embed_tokens.weight": (40, 21),
        "model.layers.0.self_attn.q_proj.weight": (12, 21),
        "model.layers.0.self_attn.k_proj.weight": (6, 21),
        "model.layers.0.mlp.up_proj.weight": (15, 21),
        "model.layers.1.mlp.gate_proj.weight": (18, 21),
        "model.norm.weight": (21,),
    },
    "vit": {"vit.layers.0.attention.q_proj.weight": (12, 24), "vit.layers.1.mlp.fc1.weight": (18, 24)},
}


QUICK = ("vgg19", "llama", "gpt2")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in EXPECTED])
def test_a_known_network(name):
    torch.manual_seed(0)
    model, inputs = getattr(families, name)()
    small = compact(model, inputs)
    shapes = {key: tuple(tensor.shape) for key, tensor in small.model.named_parameters()}
    assert {key: shapes[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert small.parameters[1] < small.parameters[0]
    assert small.check() <= 1e-12
