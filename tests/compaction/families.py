"""Networks of many kinds with zeros planted in them, for tests of compaction: small, of random weights, in float64."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """Every parameter and statistic drawn anew, so that no default hides a fault; evaluation mode, float64."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.ndim:
                scale = 1.0 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        for module in model.modules():
            if getattr(module, "running_var", None) is not None:
                module.running_var.abs_().add_(0.5)
    return model


def plant(*tensors: torch.Tensor) -> None:
    """Zeros."""
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()


def plant_at(axis: int, index: list[int], *tensors: torch.Tensor) -> None:
    """Zeros at some indices along an axis."""
    with torch.no_grad():
        for tensor in tensors:
            tensor.index_fill_(axis, torch.tensor(index), 0.0)


def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="bottleneck", num_labels=5)
    model = randomized(ResNetForImageClassification(config), 0)
    stages = model.resnet.encoder.stages
    for layer in stages[0].layers:  # the stream's channel 1: nobody reads it
        plant(layer.layer[0].convolution.weight[:, 1])
    plant(stages[1].layers[0].layer[0].convolution.weight[:, 1], stages[1].layers[0].shortcut.convolution.weight[:, 1])
    for layer in stages[1].layers:
        plant(layer.layer[1].convolution.weight[:, 0], layer.layer[0].convolution.weight[2])
    plant(model.classifier[1].weight[:, 3], stages[1].layers[1].layer[0].convolution.weight[:, 3])
    return model, {"pixel_values": torch.randn(2, 3, 32, 32, dtype=torch.float64)}


class VGG19(nn.Module):
    """The plain network of sixteen convolutions and three linear layers, with batch norm."""

    def __init__(self, width: int, classes: int, features: int) -> None:
        super().__init__()
        layers, channels = [], 3
        for factor, count in ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4)):
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, width * factor, 3, padding=1),
                    nn.BatchNorm2d(width * factor),
                    nn.ReLU(True),
                ]
                channels = width * factor
            layers.append(nn.MaxPool2d(2))
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels, features), nn.ReLU(True), nn.Dropout()),
            *(nn.Linear(features, features), nn.ReLU(True), nn.Dropout(), nn.Linear(features, classes)),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def vgg19():
    model = randomized(VGG19(4, 5, 12), 1)
    convolutions = [module for module in model.features if isinstance(module, nn.Conv2d)]
    for first, second in pairwise(convolutions):
        plant(second.weight[:, : second.in_channels // 4], first.weight[-1])
    plant(model.classifier[3].weight[:, 5:], model.classifier[3].weight[0])
    return model, (torch.randn(2, 3, 32, 32, dtype=torch.float64),)


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20,
                        max_position_embeddings=16, num_labels=3)  # fmt: skip
    model = randomized(BertForSequenceClassification(config), 2)
    first, second = model.bert.encoder.layer
    head = slice(6, 12)
    plant(first.attention.self.value.weight[head], first.attention.self.value.bias[head])
    plant(second.attention.output.dense.weight[:, :6], second.attention.output.dense.weight[:, 18:])
    plant(first.output.dense.weight[:, 3:7], second.intermediate.dense.weight[4])
    return model, {"input_ids": torch.randint(0, 40, (2, 7))}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=2, n_head=4, use_cache=False)
    model = randomized(GPT2LMHeadModel(config), 3)
    first, second = model.transformer.h
    plant(first.attn.c_proj.weight[6:12], second.attn.c_attn.weight[:, 48:54], second.attn.c_attn.bias[48:54])
    plant(first.mlp.c_proj.weight[10:40], second.mlp.c_fc.weight[:, 7])
    stream = [5, 11]  # the embeddings, all who write and all who read
    plant_at(1, stream, model.transformer.wpe.weight, model.transformer.wte.weight)
    for block in (first, second):
        plant_at(1, stream, block.attn.c_proj.weight, block.mlp.c_proj.weight)
        plant_at(0, stream, block.attn.c_proj.bias, block.mlp.c_proj.bias)
        plant_at(0, stream, block.attn.c_attn.weight, block.mlp.c_fc.weight)
    return model, {"input_ids": torch.randint(0, 40, (2, 7))}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    sizes = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "max_position_embeddings": 32}
    config = LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, use_cache=False)
    model = randomized(LlamaForCausalLM(config), 4)
    for norm in [module for module in model.modules() if isinstance(module, LlamaRMSNorm)]:
        norm.forward = ExactNorm(norm)  # its own rounds to float32, which would hide what is to be seen
    first, second = model.model.layers
    plant(first.self_attn.o_proj.weight[:, :12], second.self_attn.v_proj.weight[6:])
    plant(first.mlp.down_proj.weight[:, 4:9], second.mlp.gate_proj.weight[3], second.mlp.up_proj.weight[5])
    stream = [0, 7, 23]
    plant_at(1, stream, model.model.embed_tokens.weight)
    for layer in (first, second):
        plant_at(0, stream, layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight)
    return model, {"input_ids": torch.randint(0, 40, (2, 7))}


class ExactNorm:
    """The forward of LlamaRMSNorm without its cast to float32."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, x):
        return F.rms_norm(x, self.norm.weight.shape, self.norm.weight, self.norm.variance_epsilon)


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20, image_size=16,
                       patch_size=8, num_labels=3)  # fmt: skip
    model = randomized(ViTForImageClassification(config), 5)
    first, second = (module for module in model.modules() if type(module).__name__ == "ViTLayer")
    linears = [[m for m in layer.modules() if isinstance(m, nn.Linear)] for layer in (first, second)]
    (*_, v, out, _, down), (*_, last_out, last_up, last_down) = linears
    plant(v.weight[6:12], v.bias[6:12], out.weight[:, 18:], down.weight[:, :6])
    plant(last_out.weight[:, :12], last_up.weight[3], last_down.weight[:, 7])
    return model, {"pixel_values": torch.randn(2, 3, 16, 16, dtype=torch.float64)}
