"""Layers of compacted models: norms that still count the channels that left, attention with fewer heads, factors."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CountedLayerNorm(nn.Module):
    """Layer norm over channels of which some, constant ones, have been removed: they still count in mean and variance.

    With n channels in all, of which those removed held constants of sum s and sum of squares q:
    m = (sum x + s) / n,  v = (sum (x - m)^2 + q - 2 m s + k m^2) / n,  k the number of those removed.

    Parameters
    ----------
    like : torch.nn.LayerNorm
        The layer in whose place it stands: weight and bias are its own.
    count : int
        n.
    removed : int
        k.
    total, squares : float
        s and q.
    """

    def __init__(self, like: nn.LayerNorm, count: int, removed: int, total: float, squares: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = like.weight, like.bias, like.eps
        self.count, self.removed, self.total, self.squares = count, removed, total, squares

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = (wide.sum(-1, keepdim=True) + self.total) / self.count
        centred = wide - mean
        rest = self.squares - 2.0 * self.total * mean + self.removed * mean**2
        variance = (centred.square().sum(-1, keepdim=True) + rest) / self.count
        out = (centred * torch.rsqrt(variance + self.eps)).to(x.dtype)
        out = out if self.weight is None else out * self.weight
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"{self.count - self.removed} of {self.count} channels, eps={self.eps}"


class CountedRMSNorm(nn.Module):
    """Root mean square norm over channels of which some, constant ones, have been removed: they still count.

    Parameters
    ----------
    like : torch.nn.Module
        The norm in whose place it stands.
    count : int
        Number of channels in all.
    squares : float
        Sum of squares of the removed constants.
    """

    def __init__(self, like: nn.Module, count: int, squares: float) -> None:
        super().__init__()
        self.weight: Any = like.weight
        self.eps, self.count, self.squares = rms_eps(like), count, squares

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        mean = (wide.square().sum(-1, keepdim=True) + self.squares) / self.count
        out = (wide * torch.rsqrt(mean + eps)).to(x.dtype)
        return out if self.weight is None else out * self.weight

    def extra_repr(self) -> str:
        return f"of {self.count} channels, eps={self.eps}"


class CountedGroupNorm(nn.Module):
    """Group norm in which each group still counts its removed, constant channels.

    Parameters
    ----------
    like : torch.nn.GroupNorm
        The layer in whose place it stands.
    groups : list of int
        The group of each remaining channel, from 0 on.
    count : int
        Channels of every group before.
    removed : list of int
        Removed channels of each group.
    totals, squares : list of float
        Sums, and sums of squares, of the removed constants of each group.
    """

    def __init__(
        self,
        like: nn.GroupNorm,
        groups: list[int],
        count: int,
        removed: list[int],
        totals: list[float],
        squares: list[float],
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.count = like.weight, like.bias, like.eps, count
        self.groups, self.removed, self.totals, self.squares = groups, removed, totals, squares

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        flat = wide.flatten(2) if wide.ndim > 2 else wide[..., None]
        places = flat.shape[-1]
        index = torch.tensor(self.groups, device=x.device)
        removed, totals, squares = (flat.new_tensor(each) for each in (self.removed, self.totals, self.squares))

        def per_group(per_channel: Tensor) -> Tensor:
            return per_channel.new_zeros(len(x), len(self.removed)).index_add(1, index, per_channel)

        mean = (per_group(flat.sum(-1)) + places * totals) / (places * self.count)
        centred = flat - mean[:, index, None]
        rest = squares - 2.0 * totals * mean + removed * mean**2
        variance = (per_group(centred.square().sum(-1)) + places * rest) / (places * self.count)
        out = (centred * torch.rsqrt(variance + self.eps)[:, index, None]).reshape(x.shape).to(x.dtype)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        out = out if self.weight is None else out * self.weight.reshape(shape)
        return out if self.bias is None else out + self.bias.reshape(shape)

    def extra_repr(self) -> str:
        return f"{len(self.groups)} of {len(self.removed) * self.count} channels in {len(self.removed)} groups"


class FewerHeads(nn.Module):
    """`torch.nn.MultiheadAttention` whose heads together are narrower or wider than its inputs.

    Parameters
    ----------
    like : torch.nn.MultiheadAttention
        The module in whose place it stands; parameters keep their names.
    num_heads, head_dim : int
    """

    def __init__(self, like: nn.MultiheadAttention, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.dropout, self.batch_first = like.dropout, like.batch_first
        self.in_proj_weight, self.in_proj_bias = like.in_proj_weight, like.in_proj_bias
        self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = (
            like.q_proj_weight, like.k_proj_weight, like.v_proj_weight)  # fmt: skip
        self.out_proj = like.out_proj
        self._qkv_same_embed_dim = False  # nn.Transformer's fused inference path assumes heads that fill the width

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.ndim == 3
        inputs = [query, key, value] if batched else [each[None] for each in (query, key, value)]
        if batched and not self.batch_first:
            inputs = [each.transpose(0, 1) for each in inputs]
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(each, weight, bias).reshape(*each.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for each, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            shares = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            heads, shown = shares @ v, shares.mean(1) if average_attn_weights else shares
        else:
            heads, shown = F.scaled_dot_product_attention(q, k, v, mask, dropout), None
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return out[0], None if shown is None else shown[0]
        return (out if self.batch_first else out.transpose(0, 1)), shown

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """Both masks as one to add, (batch, heads, queries, keys) or what broadcasts to it."""
        mask = None
        for each, shape in ((padding, (-1, 1, 1, k.shape[2])), (attention, (-1, 1, q.shape[2], k.shape[2]))):
            if each is None:
                continue
            if each.dtype == torch.bool:
                each = torch.zeros_like(each, dtype=q.dtype).masked_fill(each, -math.inf)
            if each.ndim == 3:  # one per batch entry and head
                raise ValueError("attn_mask must be the same for all heads: which of them left is not its business")
            each = each.reshape(shape)
            mask = each if mask is None else mask + each
        return mask


class LowRankLinear(nn.Module):
    """A linear layer as two factors: x -> up (down x) + bias.

    Parameters
    ----------
    like : torch.nn.Linear
        The layer in whose place it stands.
    rank : int
    """

    def __init__(self, like: nn.Linear, rank: int) -> None:
        super().__init__()
        rows, columns = like.weight.shape
        self.down, self.up = (
            nn.Parameter(like.weight.new_zeros(shape), like.weight.requires_grad)
            for shape in ((rank, columns), (rows, rank))
        )
        self.bias = like.bias

    @property
    def in_features(self) -> int:
        return self.down.shape[1]

    @property
    def out_features(self) -> int:
        return self.up.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={len(self.down)}"


class PlainRMSNorm(nn.Module):
    """The root mean square norm of another library as one operation of the graph.

    Parameters
    ----------
    like : torch.nn.Module
        Its weight is used.
    """

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        self.weight: Any = like.weight
        self.eps = rms_eps(like)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rms_eps(module: nn.Module) -> Any:
    """The number that a root mean square norm adds."""
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module of another library computes what torch's RMSNorm does: by its name, then by trying it."""
    if "RMSNorm" not in type(module).__name__ or isinstance(module, (nn.RMSNorm, CountedRMSNorm)):
        return False
    weight: Any = getattr(module, "weight", None)
    if [name for name, _ in module.named_parameters()] != ["weight"] or weight.ndim != 1 or rms_eps(module) is None:
        return False
    if has_hooks(module):
        return False
    x = torch.linspace(-1.5, 2.0, 3 * len(weight), dtype=weight.dtype, device=weight.device).reshape(3, -1) ** 3
    with torch.no_grad():
        try:
            own = module(x)
        except Exception:
            return False
        return torch.allclose(own, PlainRMSNorm(module)(x), rtol=1e-5, atol=1e-6)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module's calls run code of others."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


REPLACEMENTS: dict[str, Any] = {
    cls.__name__: cls for cls in (CountedLayerNorm, CountedRMSNorm, CountedGroupNorm, FewerHeads, LowRankLinear)
}
"""Classes that may stand in a compacted model in place of another, by name."""
