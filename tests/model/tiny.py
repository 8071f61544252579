"""Small models of transformers with random weights, in float64, and inputs for them."""

from __future__ import annotations

import torch

TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def build(name: str, seed: int = 0, **changes):
    """A model by name, in evaluation mode."""
    import transformers as tf

    text = {**TEXT, "attn_implementation": "eager", **changes}
    mixture = {**text, "experts_implementation": "eager", "num_key_value_heads": 2, "num_experts_per_tok": 2}
    makers = {
        "bert": lambda: tf.BertModel(tf.BertConfig(**text)),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=32, **changes)
        ),
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(num_key_value_heads=2, **text)),
        "phi3": lambda: tf.Phi3Model(tf.Phi3Config(num_key_value_heads=2, pad_token_id=0, **text)),
        "gpt_neox": lambda: tf.GPTNeoXModel(tf.GPTNeoXConfig(**text)),
        "distilbert": lambda: tf.DistilBertModel(
            tf.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=4, hidden_dim=24)
        ),
        "t5": lambda: tf.T5Model(
            tf.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
        ),
        "vit": lambda: tf.ViTModel(
            tf.ViTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=8,
                patch_size=4,
            )
        ),
        "mixtral": lambda: tf.MixtralModel(
            tf.MixtralConfig(num_local_experts=3, **mixture)
        ),
        "gpt_oss": lambda: tf.GptOssModel(
            tf.GptOssConfig(num_local_experts=3, head_dim=4, **mixture)
        ),
        "deepseek_v3": lambda: tf.DeepseekV3Model(
            tf.DeepseekV3Config(
                n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
                first_k_dense_replace=1, moe_intermediate_size=8, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
                qk_nope_head_dim=4, v_head_dim=4, num_key_value_heads=4, **text,
            )
        ),
    }  # fmt: skip
    torch.manual_seed(seed)
    model = makers[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "bias" in key:
                parameter.zero_()  # a head that is all zero then gives zero
            elif parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.double().eval()


def inputs(name: str, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch."""
    generator = torch.Generator().manual_seed(seed)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)}
    ids = torch.randint(1, 40, (2, 6), generator=generator)
    return {"input_ids": ids, "decoder_input_ids": ids.flip(1)} if name == "t5" else {"input_ids": ids}


@torch.no_grad()
def output(model, batch) -> torch.Tensor:
    """The first tensor that the model gives."""
    return model(**batch)[0].clone()
