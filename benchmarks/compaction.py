"""Compacted models: what left, how equal they are, and how much faster: ``python -m benchmarks.compaction``.

Networks with random weights and planted zeros.  Parameters before and after, the largest relative difference of the
outputs in float64 on inputs that nothing was traced with, and the time of a forward pass in float32 on the CPU, both
models in turns (`torch.utils.benchmark`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ramda_theory.files import write_json
from ramda_theory.model import Compaction, compact
from ramda_theory.tables import aligned


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """784-2048-2048-10, a third of the hidden units unread: half of the weights can leave."""
    model = nn.Sequential(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10))

    with torch.no_grad():
        for layer in (model[2], model[4]):
            layer.weight[:, : round(0.36 * layer.in_features)] = 0.0
    return model, torch.randn(64, 784)


def vgg16() -> tuple[nn.Module, torch.Tensor]:
    """VGG16 with batch norm on 32 x 32 images, three channels of ten unread in every layer."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*layers)
    readers = [layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.Linear))][1:]
    with torch.no_grad():
        for layer in readers:
            layer.weight[:, : round(0.3 * layer.weight.shape[1])] = 0.0
    return model, torch.randn(8, 3, 32, 32)


class Block(nn.Module):
    """x + conv(relu(norm(conv(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.norm(self.first(x))))


def residual() -> tuple[nn.Module, torch.Tensor]:
    """Four residual blocks of width 128; 40 inner channels and 40 of the stream unread."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 128, 3, padding=1), *(Block(128) for _ in range(4))),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    )
    with torch.no_grad():
        for block in model[1:5]:
            block.first.weight[:, :40] = 0.0
            block.second.weight[:, :40] = 0.0
        model[-1].weight[:, :40] = 0.0
    return model, torch.randn(8, 3, 16, 16)


def transformer() -> tuple[nn.Module, torch.Tensor]:
    """Four encoder layers of width 256: half of the heads and of the inner units unread."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    with torch.no_grad():
        for each in model.layers:
            each.self_attn.out_proj.weight[:, :128] = 0.0
            each.linear2.weight[:, :512] = 0.0
    return model, torch.randn(8, 64, 256)


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "MLP 784-2048-2048-10": mlp,
    "VGG16, 32 x 32": vgg16,
    "residual, width 128": residual,
    "transformer, 4 x 256": transformer,
}


def settled(model: nn.Module, x: torch.Tensor) -> None:
    """Statistics of batch norm that fit the data, so that signals neither vanish nor grow; evaluation mode."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x[:8])
    model.eval()


def measure(name: str) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    model, x = MODELS[name]()
    settled(model, x)
    small: Compaction = compact(model, x[:2], low_rank=False)
    zeros = sum(int((p == 0).sum()) for p in model.parameters())
    before, after = small.parameters
    latency = small.latency(x)
    return {
        "model": name,
        "zeros": zeros / before,
        "removed": 1 - after / before,
        "flops": 1 - small.flops[1] / small.flops[0],
        "difference": small.check(torch.randn(3, *x.shape[1:])),
        "before_ms": 1e3 * latency.before,
        "after_ms": 1e3 * latency.after,
        "ratio": latency.ratio,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    head = ("model", "zeros", "removed", "flops removed", "difference", "ms before", "ms after", "times faster")
    lines = [
        (r["model"], f"{r['zeros']:.0%}", f"{r['removed']:.0%}", f"{r['flops']:.0%}", f"{r['difference']:.1e}",
         f"{r['before_ms']:.2f}", f"{r['after_ms']:.2f}", f"{r['ratio']:.2f}")
        for r in rows
    ]  # fmt: skip
    return aligned([head, *lines])


def main() -> None:
    """Measure, print, and write the numbers beside this file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the models to measure, from 0 on")
    arguments = parser.parse_args()
    names = list(
        itertools.compress(MODELS, [arguments.only is None or i in arguments.only for i in range(len(MODELS))])
    )
    rows = []
    for name in names:
        rows.append(measure(name))
        print(f"{name}: {rows[-1]['ratio']:.2f} times faster", file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.out is not None:
        write_json(arguments.out, json.loads(json.dumps({"torch": torch.__version__, "rows": rows})))


if __name__ == "__main__":
    main()
