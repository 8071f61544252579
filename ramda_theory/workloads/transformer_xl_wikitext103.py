"""Transformer-XL base on WikiText-103, group LASSO over input features (Table 4)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.workloads.examples import Batch, Stream
from ramda_theory.workloads.formats.text import read_wikitext
from ramda_theory.workloads.installed import english
from ramda_theory.workloads.workload import Data, Settings, Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ramda_theory.workloads.networks.transformer_xl import TransformerXL

CUTOFFS = (19997, 39997, 199997)
"""Of the adaptive softmax over 267,735 words."""

SETTINGS = {
    "RAMDA": Settings(5e-3, 0.1, 1.25e-7),
    "RMDA": Settings(25.0, 0.1, 1.65e-7),
    "ProxSGD": Settings(10.0, 0.1, 2.5e-7),
    "ProxAdamW": Settings(2.5e-4, weight=1.75e-7),
    "AdamW": Settings(2.5e-4),
}
SCALED = {
    "RAMDA": Settings(3e-2, 0.1, 1e-6),
    "RMDA": Settings(1.0, 0.1, 1e-6),
    "ProxSGD": Settings(1.0, 0.1, 1e-6),
    "ProxAdamW": Settings(3e-3, weight=1e-6),
    "PAT": Settings(3e-3, weight=1e-4),
    "AdamW": Settings(3e-3),
}


def pieces(folder: Path | None, length: int, scaled: bool) -> Data:
    """WikiText-103's words from a folder; without one the bytes of an English dictionary (scaled: 1 block in 16)."""
    import torch

    parts: dict[str, np.ndarray]
    if folder is None:
        parts, symbols = english(16 if scaled else 1), 256
    else:
        parts, words = read_wikitext(folder)
        symbols = len(words)
    facts = {"symbols": symbols, "unit": "byte" if folder is None else "word"}
    return {name: Stream(torch.from_numpy(tokens.astype(np.int32)), length, facts) for name, tokens in parts.items()}


def network(data: Data, scaled: bool) -> TransformerXL:
    """The published base model, or two layers of width 128."""
    from ramda_theory.workloads.networks.transformer_xl import TransformerXL

    symbols = data["train"].facts["symbols"]
    if scaled:
        return TransformerXL(symbols, width=128, layers=2, heads=4, head=32, inner=512, memory=128, dropout=0.0)
    return TransformerXL(symbols, cutoffs=CUTOFFS)


def surprise(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log likelihood."""
    loss: Tensor = model(*batch).mean()
    return loss


def total_surprise(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Sum of the negative log likelihoods, and their number."""
    return model(*batch).sum(), batch[1].numel()


def forget(model: nn.Module) -> None:
    """Empty the memory."""
    model.forget()  # type: ignore[operator]


def workload(size: str) -> Workload:
    """At the paper's size, or scaled."""
    scaled = size == "scaled"
    return Workload(
        "transformer-xl-wikitext103",
        ("Transformer-XL of 2 layers, width 128" if scaled else "Transformer-XL base")
        + " on WikiText-103 (without --data: the bytes of an English dictionary)",
        model=partial(network, scaled=scaled),
        data=partial(pieces, length=128 if scaled else 192, scaled=scaled),
        loss=surprise,
        score=total_surprise,
        metric="perplexity",
        display=lambda mean: math.exp(min(mean, 50.0)),
        higher_is_better=False,
        why="attention and feed-forward weights by input feature; not the embedding, which is the output layer too",
        settings=SCALED if scaled else SETTINGS,
        batch=16 if scaled else 64,
        epochs=3 if scaled else 48,
        milestones=(1, 2) if scaled else (12, 24, 36),
        reset=forget,
        clip=0.25,
        cost="462,000 weights"
        if scaled
        else "192 million weights; 48 epochs are the paper's 400,000 steps; 6,200 to 7,000 s per epoch on V100s in its "
        "Table 4; c is not given for this workload, 0.1 is ours",
        needs_data="wikitext103",
    )
