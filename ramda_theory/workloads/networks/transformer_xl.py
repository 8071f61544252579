"""Transformer-XL (Dai et al. 2019, arXiv:1901.02860): relative positions, memory of the piece before, adaptive softmax.

transformers no longer has it; this one is written from the paper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RelativeAttention(nn.Module):
    """Attention whose scores are (q + u)^T k + (q + v)^T r of the distance between query and key.

    Parameters
    ----------
    width, heads, head : int
        Model width, number of heads, width of a head.
    dropout : float
    """

    def __init__(self, width: int, heads: int, head: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head = heads, head
        self.qkv = nn.Linear(width, 3 * heads * head, bias=False)
        self.distance = nn.Linear(width, heads * head, bias=False)
        self.out = nn.Linear(heads * head, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """x (n, length, width), memory (n, remembered, width), positions (all of them, width), far ones first."""
        n, length, _ = x.shape
        seen = torch.cat([memory, x], dim=1)
        query, key, value = self.qkv(seen).unflatten(-1, (3, self.heads, self.head)).unbind(2)
        query = query[:, -length:]
        distance = self.distance(positions).unflatten(-1, (self.heads, self.head))
        content = torch.einsum("nihd,njhd->nhij", query + u, key)
        relative = shift(torch.einsum("nihd,jhd->nhij", query + v, distance))
        score = (content + relative) / math.sqrt(self.head)
        later = torch.ones(length, seen.shape[1], dtype=torch.bool, device=x.device).triu(1 + memory.shape[1])
        share = self.dropout(score.masked_fill(later, -math.inf).softmax(dim=-1))
        mixed = torch.einsum("nhij,njhd->nihd", share, value).reshape(n, length, -1)
        result: Tensor = self.norm(x + self.dropout(self.out(mixed)))
        return result


def shift(scores: Tensor) -> Tensor:
    """Row i of scores over distances (farthest first) moved left by length - 1 - i: from distances to keys."""
    n, heads, length, keys = scores.shape
    padded = F.pad(scores, (1, 0)).reshape(n, heads, keys + 1, length)
    return padded[:, :, 1:].reshape(n, heads, length, keys)


class Layer(nn.Module):
    """Attention, then two linear maps with ReLU; norms after the sums, as published."""

    def __init__(self, width: int, heads: int, head: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = RelativeAttention(width, heads, head, dropout)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, u: Tensor, v: Tensor) -> Tensor:
        x = self.attention(x, memory, positions, u, v)
        result: Tensor = self.norm(x + self.dropout(self.outer(self.dropout(F.relu(self.inner(x))))))
        return result


class TransformerXL(nn.Module):
    """A language model; ``forward(tokens, targets)`` is the negative log likelihood of every target, (n, length).

    Parameters
    ----------
    symbols : int
        Size of the vocabulary, numbered by falling frequency.
    width, layers, heads, head, inner : int
        Model width, layers, heads, width of a head, width of the feed-forward layers.
    memory : int
        Positions remembered from earlier pieces; what they are, `forget` forgets.
    cutoffs : sequence of int
        Where the clusters of the adaptive softmax end; empty for a plain softmax.
    dropout : float

    Notes
    -----
    Embedding and output weights are one matrix.  Parameters are initialised with deviation 0.02.
    """

    def __init__(
        self,
        symbols: int,
        width: int = 512,
        layers: int = 16,
        heads: int = 8,
        head: int = 64,
        inner: int = 2048,
        memory: int = 192,
        cutoffs: Sequence[int] = (),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.remembered = width, memory
        self.edges = (0, *(cutoff for cutoff in cutoffs if cutoff < symbols), symbols)
        self.embedding = nn.Embedding(symbols, width)
        self.layers = nn.ModuleList(Layer(width, heads, head, inner, dropout) for _ in range(layers))
        self.u, self.v = nn.Parameter(torch.empty(heads, head)), nn.Parameter(torch.empty(heads, head))
        self.output_bias = nn.Parameter(torch.zeros(symbols))
        clusters = len(self.edges) - 2
        self.cluster_weight = nn.Parameter(torch.empty(clusters, width)) if clusters else None
        self.cluster_bias = nn.Parameter(torch.zeros(clusters)) if clusters else None
        self.dropout = nn.Dropout(dropout)
        self.memory: list[Tensor] | None = None
        for name, parameter in self.named_parameters():
            if "bias" not in name and "norm" not in name:
                nn.init.normal_(parameter, 0.0, 0.02)
            elif "bias" in name:
                nn.init.zeros_(parameter)

    def forget(self) -> None:
        """Empty the memory, before another text."""
        self.memory = None

    def positions(self, count: int, like: Tensor) -> Tensor:
        """Sines and cosines of the distances count - 1, ..., 0."""
        distance = torch.arange(count - 1, -1, -1, device=like.device, dtype=torch.float32)
        rate = 10000.0 ** (-torch.arange(0, self.width, 2, device=like.device, dtype=torch.float32) / self.width)
        angle = distance[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(like.dtype)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Tokens and targets (n, length) of int64."""
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.width))
        known = self.memory
        if known is None or known[0].shape[0] != len(tokens):
            known = [x.new_zeros(len(tokens), 0, self.width)] * len(self.layers)
        positions = self.dropout(self.positions(known[0].shape[1] + tokens.shape[1], x))
        kept = []
        for layer, memory in zip(self.layers, known, strict=True):
            kept.append(torch.cat([memory, x.detach()], dim=1)[:, -self.remembered :] if self.remembered else memory)
            x = layer(x, memory, positions, self.u, self.v)
        self.memory = kept
        return self.surprise(self.dropout(x), targets)

    def surprise(self, x: Tensor, targets: Tensor) -> Tensor:
        """Negative log probabilities: of the frequent words directly, of the others through their cluster."""
        weight, first = self.embedding.weight, self.edges[1]
        flat, wanted = x.reshape(-1, self.width), targets.reshape(-1)
        head_weight, head_bias = weight[:first], self.output_bias[:first]
        if self.cluster_weight is not None and self.cluster_bias is not None:
            head_weight = torch.cat([head_weight, self.cluster_weight])
            head_bias = torch.cat([head_bias, self.cluster_bias])
        head = F.linear(flat, head_weight, head_bias).log_softmax(dim=-1)
        likelihood = head.gather(1, wanted.clamp(max=first - 1)[:, None])[:, 0]
        for cluster, (low, high) in enumerate(itertools.pairwise(self.edges[1:])):
            rows = ((wanted >= low) & (wanted < high)).nonzero()[:, 0]
            tail = F.linear(flat[rows], weight[low:high], self.output_bias[low:high]).log_softmax(dim=-1)
            inside = tail.gather(1, (wanted[rows] - low)[:, None])[:, 0]
            likelihood = likelihood.index_put((rows,), (head[rows, first + cluster] + inside).to(likelihood.dtype))
        return -likelihood.reshape(targets.shape)
