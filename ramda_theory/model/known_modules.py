"""Modules of transformers and timm, by the names of their classes: neither is imported.

Heads are read from the module and its config, and held against the shapes of the projections: where they do not agree,
nothing is guessed.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn

from ramda_theory.model.registry import Axes, Heads, Meaning, Slices, register_module

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_attn_heads")
"""What modules and configs call the number of heads of queries."""
SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size", "dim_per_head")
"""What they call the features of a head."""
MAKING = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"),
)
"""Names of the projections that make queries, keys and values."""
READING = ("o_proj", "out_proj", "output_proj", "projection_layer", "proj", "projection", "o", "out_lin", "dense")
"""Names of the projection that reads the heads."""
INSIDE = ("self", "attention")
"""Names of the module that makes the heads, where another (``output.dense``) reads them."""


def number(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """The first of ``names`` that the module, or else its config, has as an integer."""
    for source in (module, getattr(module, "config", None)):
        for name in names:
            if isinstance(value := getattr(source, name, None), int) and value > 0:
                return value
    return None


def linear(module: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Those children of the names that are plain linear maps with a whole weight."""
    children = {name: getattr(module, name, None) for name in names}
    return {name: child for name, child in children.items() if isinstance(child, nn.Linear) and child.weight.ndim == 2}


def separate_heads(module: nn.Module) -> Heads | None:
    """Projections of queries, keys and values of their own; fewer heads of keys and values than of queries too.

    A group of the query projection, and of the one that reads the heads, is a head of queries; of the other two, a head
    of keys or of values.
    """
    made = next((three for names in MAKING if len(three := linear(module, names)) == 3), None)
    if made is None:
        return None
    (query_name, query), (key_name, key), (value_name, value) = made.items()
    kind = type(module).__name__
    heads = number(module, COUNTS)
    if heads is None:
        return f"heads of {kind} not known: it says no number of heads"
    size = number(module, SIZES[:3]) or query.out_features // heads
    shared = key.out_features // size
    if (
        query.out_features != heads * size
        or shared * size != key.out_features
        or not shared
        or heads % shared
        or value.out_features % shared
    ):
        return (
            f"heads of {kind} not known: {query_name}, {key_name}, {value_name} make {query.out_features}, "
            f"{key.out_features}, {value.out_features} features, which are no {heads} heads of {size}"
        )
    found: dict[str, Slices] = {
        f"{query_name}.weight": rows(query, heads),
        f"{key_name}.weight": rows(key, shared),
        f"{value_name}.weight": rows(value, shared),
    }
    width = heads * value.out_features // shared
    for name, read in itertools.islice(linear(module, READING).items(), 1):
        if read.in_features != width:
            return f"heads of {kind} not known: {name} reads {read.in_features} features, the heads make {width}"
        found[f"{name}.weight"] = columns(read, heads)
    return found


def rows(layer: nn.Linear, heads: int) -> Slices:
    """Heads one after another along the outputs."""
    return Slices((heads, layer.out_features // heads, layer.in_features), (0,))


def columns(layer: nn.Linear, heads: int) -> Slices:
    """Heads one after another along the inputs."""
    return Slices((layer.out_features, heads, layer.in_features // heads), (1,))


def transformers_heads(module: nn.Module) -> Heads | None:
    """Separate projections in the module, or, as in BERT, in one inside it beside ``output.dense``."""
    if (found := separate_heads(module)) is not None:
        return found
    inside = next((child for name in INSIDE if isinstance(child := getattr(module, name, None), nn.Module)), None)
    read = getattr(getattr(module, "output", None), "dense", None)
    if inside is not None and isinstance(read, nn.Linear) and isinstance(made := separate_heads(inside), dict):
        heads = next(iter(made.values())).shape[0]
        if read.in_features % heads == 0 and read.in_features == inside_width(inside):
            return {"output.dense.weight": columns(read, heads)}
        return None
    own = any(True for child in module.children() if isinstance(child, nn.Linear))
    return f"heads of {type(module).__name__} not known" if own else None


def inside_width(module: nn.Module) -> int:
    """Features of all heads that a module with separate projections makes."""
    made = next(three for names in MAKING if len(three := linear(module, names)) == 3)
    return list(made.values())[2].out_features


def gpt2_heads(module: Any) -> Heads:
    """A projection to queries, keys and values one after another, by `Conv1D`, whose weight has its inputs first."""
    heads, size = module.num_heads, module.head_dim
    inputs, outputs = module.c_attn.weight.shape
    found = {
        "c_attn.weight": Slices((inputs, outputs // (heads * size), heads, size), (2,)),
        "c_proj.weight": Slices((heads, size, module.c_proj.weight.shape[1]), (0,)),
    }
    if hasattr(module, "q_attn"):
        found["q_attn.weight"] = Slices((inputs, heads, size), (1,))
    return found


def interleaved_heads(module: Any) -> Heads:
    """One projection whose outputs are, head by head, a query, a key and a value."""
    heads = number(module, COUNTS)
    if heads is None or module.query_key_value.out_features % (3 * heads):
        return f"heads of {type(module).__name__} not known"
    return {"query_key_value.weight": rows(module.query_key_value, heads), "dense.weight": columns(module.dense, heads)}


def concatenated_heads(module: Any) -> Heads:
    """One projection of all queries, then all keys, then all values: each of their heads is a group."""
    heads = number(module, COUNTS)
    size = number(module, SIZES)
    shared = number(module, ("num_key_value_heads",)) or heads
    if heads is None or shared is None or size is None or module.qkv_proj.out_features != (heads + 2 * shared) * size:
        return f"heads of {type(module).__name__} not known"
    return {
        "qkv_proj.weight": rows(module.qkv_proj, heads + 2 * shared),
        "o_proj.weight": columns(module.o_proj, heads),
    }


def stacked_heads(module: Any) -> Heads:
    """One projection of all queries, keys and values, a head's three together as a group (images)."""
    heads = number(module, COUNTS)
    read = next(iter(linear(module, READING).items()), None)
    if heads is None or read is None or module.qkv.out_features % (3 * heads):
        return f"heads of {type(module).__name__} not known"
    made, inputs = module.qkv.weight.shape
    return {
        "qkv.weight": Slices((3, heads, made // (3 * heads), inputs), (1,)),
        f"{read[0]}.weight": columns(read[1], heads),
    }


def experts(module: Any, shape: tuple[int, ...]) -> Meaning:
    """All experts of a mixture, (expert, out, in): a group is what reads one input, or writes one output, of one."""
    if len(shape) != 3 or number(module, ("num_experts", "num_local_experts")) != shape[0]:
        return f"unsupported: {type(module).__name__} of shape {'x'.join(map(str, shape))}"
    transposed = getattr(module, "is_transposed", False) or type(module).__name__ == "Llama4TextExperts"
    return Axes(input=(0, 1), output=(0, 2)) if transposed else Axes(input=(0, 2), output=(0, 1))


def register() -> None:
    """Register them all."""
    register_module("transformers.Conv1D", {"weight": Axes(input=0, output=1)})
    for norm in ("*RMSNorm", "*LayerNorm", "*LayerNormalization"):
        register_module(f"transformers.{norm}", {"weight|scale|gamma": "norm", "beta": "bias"})
    for embeddings in ("*Embeddings", "*Embedding"):
        register_module(
            f"transformers.{embeddings}", {".*(token|token_type|embedding|embeddings|embed)s?": "a token or position"}
        )
    register_module("transformers.*Router", {"weight": "chooses experts"})
    register_module("transformers.*Experts", {"gate_up_proj|gate_proj|up_proj|down_proj": experts})

    register_module("transformers.*Attention", heads=transformers_heads)
    for name in ("GPT2Attention", "DecisionTransformerGPT2Attention", "ImageGPTAttention"):
        register_module(f"transformers.{name}", heads=gpt2_heads)
    for name in ("GPTNeoXAttention", "BloomAttention", "PersimmonAttention"):
        register_module(f"transformers.{name}", heads=interleaved_heads)
    for name in ("Phi3Attention", "Phi4MultimodalAttention"):
        register_module(f"transformers.{name}", heads=concatenated_heads)
    for name in ("transformers.BlipAttention", "transformers.Blip2Attention", "timm.Attention"):
        register_module(name, heads=stacked_heads)
