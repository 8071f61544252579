"""Groups of transformers' models: what is reached, that zero groups are unread inputs or heads, and what is unknown."""

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tiny import build, inputs, output

from ramda_theory.model import structured_param_groups
from ramda_theory.regularizers import GroupLasso

LASSO = GroupLasso(0.1)


def groups_of(model, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # embeddings are most of a small model
        return structured_param_groups(model, LASSO, **arguments)


def regularizers(groups):
    return {each.names[0]: each.regularizer for each in groups.decisions if each.regularizer is not None}


@torch.no_grad()
def without(model, **zeros):
    """A copy with groups set to zero: parameter -> (regularizer, indices of groups)."""
    model = copy.deepcopy(model)
    for name, (psi, which) in zeros.items():
        weight = model.get_parameter(name.replace("__", "."))
        norms = psi.group_norms(weight)
        kept = torch.ones(norms.numel(), dtype=weight.dtype)
        kept[list(which)] = 0.0
        weight.mul_(psi.spread(kept.reshape(norms.shape), weight))
    return model


NAMES = ("bert", "gpt2", "llama", "phi3", "gpt_neox", "distilbert", "t5", "vit", "mixtral", "gpt_oss", "deepseek_v3")


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_is_reached_but_embeddings_and_routers(name):
    groups = groups_of(build(name))
    left = {each.names: each.reason for each in groups.decisions if each.regularizer is None}
    for names, reason in left.items():
        assert reason in ("bias", "norm", "embedding", "a token or position", "chooses experts") or (
            "embedding as" in reason or "sinks" in reason
        ), (names, reason)
    reached = regularizers(groups)
    matrices = [key for key, parameter in build(name).named_parameters() if parameter.ndim > 1]
    assert set(matrices) - {key for names in left for key in names} == set(reached)
    assert sum("attn" in key or "ttention" in key for key in reached) >= 4


def test_gpt2_was_reached_by_a_hair():
    model = build("gpt2")
    groups = groups_of(model)
    weights = sum(p.numel() for key, p in model.named_parameters() if "weight" in key and ".h." in key and p.ndim > 1)
    assert sum(each.parameter.numel() for each in groups.decisions if each.regularizer) == weights == 2 * 12 * 16 * 16


def test_conv1d_counts_inputs_first():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    layer = Conv1D(4, 3).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    psi = regularizers(groups_of(layer))["weight"]
    assert psi.group_norms(layer.weight.detach()).numel() == 3
    other = x.clone()
    other[:, 1] += 1.0
    pruned = without(layer, weight=(psi, [1]))
    assert torch.equal(pruned(other), pruned(x)) and not torch.equal(layer(other), layer(x))
    psi = regularizers(groups_of(layer, by="output"))["weight"]
    assert torch.equal(without(layer, weight=(psi, [2]))(x)[:, 2], layer.bias[2].expand(5))


HEADS = {  # the attention of the first layer: what makes the values, and what reads the heads
    "bert": ("encoder.layer.0.attention.self.value.weight", "encoder.layer.0.attention.output.dense.weight"),
    "gpt2": ("transformer.h.0.attn.c_attn.weight", "transformer.h.0.attn.c_proj.weight"),
    "llama": ("model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight"),
    "phi3": ("layers.0.self_attn.qkv_proj.weight", "layers.0.self_attn.o_proj.weight"),
    "gpt_neox": ("layers.0.attention.query_key_value.weight", "layers.0.attention.dense.weight"),
    "distilbert": ("transformer.layer.0.attention.v_lin.weight", "transformer.layer.0.attention.out_lin.weight"),
    "t5": ("encoder.block.0.layer.0.SelfAttention.v.weight", "encoder.block.0.layer.0.SelfAttention.o.weight"),
    "vit": ("layers.0.attention.v_proj.weight", "layers.0.attention.o_proj.weight"),
    "mixtral": ("layers.0.self_attn.v_proj.weight", "layers.0.self_attn.o_proj.weight"),
    "gpt_oss": ("layers.0.self_attn.v_proj.weight", "layers.0.self_attn.o_proj.weight"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_not_read_is_a_head_whose_values_are_zero(name):
    """Four heads of queries; the values of two of them together where the model shares heads of keys and values."""
    model, batch = build(name), inputs(name)
    groups = groups_of(model, heads=True)
    found = regularizers(groups)
    makes, reads = HEADS[name]
    assert found[reads].group_norms(model.get_parameter(reads).detach()).numel() == 4
    made = found[makes].group_norms(model.get_parameter(makes).detach()).numel()
    whole = output(model, batch)
    shared = 2 if name in ("llama", "phi3", "mixtral", "gpt_oss") else 1
    assert made == {"phi3": 8}.get(name, 4 // shared)
    first = made - 4 // shared if name == "phi3" else 0
    for head in range(4 // shared):
        unread = without(model, **{reads: (found[reads], range(shared * head, shared * (head + 1)))})
        unmade = without(model, **{makes: (found[makes], [first + head])})
        assert not torch.allclose(output(unread, batch), whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(output(unread, batch), output(unmade, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_heads_of_queries_and_keys_are_where_scores_come_from(name):
    """With the queries of a head at zero its scores are even, whatever its keys."""
    model, batch = build(name), inputs(name)
    found = regularizers(groups_of(model, heads=True))
    query, key = (
        next(each for each in found if each.endswith(f"{part}.weight"))
        for part in (("q_proj", "k_proj") if name == "llama" else ("query", "key"))
    )
    shared = 2 if name == "llama" else 1
    for head in range(4 // shared):
        without_queries = without(model, **{query: (found[query], range(shared * head, shared * (head + 1)))})
        without_keys = without(model, **{key: (found[key], [head])})
        torch.testing.assert_close(output(without_queries, batch), output(without_keys, batch), rtol=1e-12, atol=1e-12)


def test_all_projections_of_known_attention_are_cut_into_heads():
    for name in HEADS:
        groups = groups_of(build(name), heads=True)
        notes = [each.note for each in groups.decisions if each.regularizer and "ttention" in each.names[0].lower()]
        notes += [each.note for each in groups.decisions if each.regularizer and "attn" in each.names[0]]
        assert notes and "whole heads" in notes
        assert not [note for note in notes if "not known" in note]


def test_heads_that_are_not_known_say_so():
    with pytest.raises(ValueError, match=r"heads: True reaches no attention head: heads of DeepseekV3Attention not"):
        groups_of(build("deepseek_v3"), heads=True)
    model = build("llama")
    model.model.layers[0].self_attn.head_dim = 3  # does not go with the shapes any more
    table = groups_of(model, heads=True).table()
    assert (
        "heads of LlamaAttention not known: q_proj, k_proj, v_proj make 16, 8, 8 features, which are no 4 heads of 3"
        in (table)
    )


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_a_group_of_experts_is_an_input_or_an_output_of_one_expert(name):
    model = build(name)
    mlp = model.layers[0].mlp
    experts = mlp.experts
    prefix = "layers.0.mlp.experts."
    x = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 3] += 1.0
    index = torch.tensor([[1, 2]] * 5)
    weights = torch.full((5, 2), 0.5, dtype=torch.float64)

    @torch.no_grad()
    def run(model, x, expert):
        which = torch.full_like(index, expert)
        return model.get_submodule("layers.0.mlp.experts")(x, which, weights)

    found = regularizers(groups_of(model))
    psi = found[prefix + "gate_up_proj"]
    assert psi.group_norms(experts.gate_up_proj.detach()).numel() == 3 * 16
    pruned = without(model, **{prefix + "gate_up_proj": (psi, [1 * 16 + 3])})
    assert torch.equal(run(pruned, x, 1), run(pruned, other, 1))
    assert not torch.equal(run(pruned, x, 2), run(pruned, other, 2))
    psi = regularizers(groups_of(model, by="output"))[prefix + "down_proj"]
    pruned = without(model, **{prefix + "down_proj": (psi, [2 * 16 + 5])})
    assert bool((run(pruned, x, 2)[:, 5] == 0).all()) and bool((run(pruned, x, 1)[:, 5] != 0).any())


def test_tied_embeddings_are_left_alone_and_warned_of():
    with pytest.warns(UserWarning, match=r"only \d+ of \d+ weights are regularized") as caught:
        structured_param_groups(build("bert", vocab_size=4000), LASSO)
    assert "embedding" in str(caught[0].message)
    tied = next(each for each in groups_of(build("gpt2")).decisions if "lm_head.weight" in each.names)
    assert tied.reason == "shared, and embedding as transformer.wte.weight"


def test_transformers_is_not_imported():
    code = "import sys, ramda_theory.optim; assert 'transformers' not in sys.modules and 'timm' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
