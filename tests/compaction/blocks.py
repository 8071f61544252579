"""Random networks of every kind that compaction knows, and random groups of zeros in them."""

import random

import torch
import torch.nn.functional as F
from families import randomized
from torch import nn

ACTIVATIONS = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.ELU,
    nn.Softplus,
    nn.Identity,
)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Concatenation(nn.Module):
    def __init__(self, dim, *parts):
        super().__init__()
        self.parts, self.dim = nn.ModuleList(parts), dim

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], self.dim)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Linear(channels, 3), nn.Linear(3, channels)

    def forward(self, x):
        spatial = tuple(range(2, x.ndim))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean(spatial)))))
        return x * gate.reshape(*gate.shape, *(1 for _ in spatial))


class Glu(nn.Module):
    def __init__(self, layer, dim):
        super().__init__()
        self.layer, self.dim = layer, dim

    def forward(self, x):
        return F.glu(self.layer(x), self.dim)


class SwiGlu(nn.Module):
    """Two halves of one layer, by `chunk`."""

    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * inner), nn.Linear(inner, width, bias=False)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Twice(nn.Module):
    """A shared module."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Attention(nn.Module):
    """Heads written out, or by scaled_dot_product_attention; keys and values may be shared between heads."""

    def __init__(self, width, heads, shared, dim, by_hand, bias):
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.by_hand = heads, heads // shared, dim, by_hand
        self.q = nn.Linear(width, heads * dim, bias=bias)
        self.k, self.v = (nn.Linear(width, self.kv_heads * dim, bias=bias) for _ in range(2))
        self.out = nn.Linear(heads * dim, width, bias=bias)

    def forward(self, x):
        batch, time = x.shape[:2]
        q = self.q(x).view(batch, time, self.heads, self.dim).transpose(1, 2)
        k, v = (each(x).view(batch, time, self.kv_heads, self.dim).transpose(1, 2) for each in (self.k, self.v))
        if self.by_hand:
            repeats = q.shape[1] // k.shape[1]
            k, v = (each.repeat_interleave(repeats, dim=1) for each in (k, v))
            found = torch.softmax(q @ k.transpose(-2, -1) / self.dim**0.5, -1) @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(found.transpose(1, 2).reshape(batch, time, self.heads * self.dim))


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Tied(nn.Module):
    """Embedding, a body, and a head that is the embedding again."""

    def __init__(self, tokens, width, body):
        super().__init__()
        self.embedding, self.body = nn.Embedding(tokens, width), body
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.body(self.embedding(x)))


def image_network(draw: random.Random) -> tuple[nn.Module, torch.Tensor]:
    n = draw.choice((1, 2, 2, 3))
    conv, norm = (getattr(nn, f"{name}{n}d") for name in ("Conv", "BatchNorm"))
    pool, adaptive = (getattr(nn, f"{name}{n}d") for name in ("MaxPool", "AdaptiveAvgPool"))
    width = draw.choice((6, 8))

    def normed(channels):
        return draw.choice((norm(channels), norm(channels), nn.GroupNorm(2, channels), nn.GroupNorm(channels, channels),
                            nn.Identity()))  # fmt: skip

    def act():
        return draw.choice((*ACTIVATIONS, lambda: nn.PReLU(), lambda: nn.Dropout(0.3)))()

    def layer(inputs, outputs, **options):
        mode = draw.choice(("zeros", "zeros", "reflect", "replicate")) if n < 3 else "zeros"
        bias = draw.random() < 0.6
        return conv(inputs, outputs, 3, padding=1, padding_mode=mode, bias=bias, **options)

    def block():
        kind = draw.choice(
            ("plain", "residual", "dense", "depthwise", "grouped", "gate", "glu", "shared", "bottleneck", "pad")
        )
        if kind == "plain":
            return [layer(width, width), normed(width), act()]
        if kind == "residual":
            return [
                Residual(nn.Sequential(layer(width, width), normed(width), act(), layer(width, width), normed(width))),
                act(),
            ]
        if kind == "dense":
            return [Concatenation(1, nn.Identity(), layer(width, 4)), act(), conv(width + 4, width, 1)]
        if kind == "depthwise":
            return [conv(width, width, 3, padding=1, groups=width), normed(width), act(), conv(width, width, 1)]
        if kind == "grouped":
            return [
                conv(width, width, 1),
                act(),
                conv(width, width, 3, padding=1, groups=2),
                act(),
                conv(width, width, 1),
            ]
        if kind == "gate":
            return [layer(width, width), Gate(width)]
        if kind == "glu":
            return [Glu(conv(width, 2 * width, 1), 1), conv(width, width, 1)]
        if kind == "shared":
            return [Twice(conv(width, width, 1)), act()]
        if kind == "pad":
            return [*([nn.ConstantPad2d(1, 0.5)] if n == 2 else []), conv(width, width, 3, padding=int(n != 2)), act()]
        return [Residual(nn.Sequential(conv(width, 4, 1), act(), layer(4, 4), act(), conv(4, width, 1)))]

    layers = [layer(2, width), act()]
    for _ in range(draw.choice((1, 2, 3))):
        layers += block()
    size = {1: 8, 2: 6, 3: 4}[n]
    if draw.random() < 0.5:
        layers += [pool(2), nn.Flatten(), nn.Linear(width * (size // 2) ** n, 6), act(), nn.Linear(6, 3)]
    else:
        layers += [adaptive(1), nn.Flatten(1), nn.Linear(width, 6, bias=False), act(), nn.Linear(6, 3)]
    return nn.Sequential(*layers), torch.randn(2, 2, *(size,) * n, dtype=torch.float64)


def sequence_network(draw: random.Random) -> tuple[nn.Module, torch.Tensor]:
    width = draw.choice((8, 12))

    def normed():
        return draw.choice((nn.LayerNorm(width), nn.LayerNorm(width, bias=False), nn.RMSNorm(width), nn.Identity()))

    def act():
        return draw.choice(ACTIVATIONS)()

    def block():
        kind = draw.choice(("mlp", "swiglu", "attention", "attention", "module", "lstm", "gru", "concat", "rnn"))
        if kind == "mlp":
            return [Residual(nn.Sequential(normed(), nn.Linear(width, 10), act(), nn.Linear(10, width)))]
        if kind == "swiglu":
            return [Residual(nn.Sequential(normed(), SwiGlu(width, 6)))]
        if kind == "attention":
            shared = draw.choice((1, 2))
            heads = Attention(width, 4, shared, draw.choice((2, 3)), draw.random() < 0.5, draw.random() < 0.5)
            return [Residual(nn.Sequential(normed(), heads))]
        if kind == "module":
            return [normed(), Residual(SelfAttention(width, 4))]
        if kind == "concat":
            return [Concatenation(2, nn.Linear(width, 5), nn.Linear(width, 4)), act(), nn.Linear(9, width)]
        inner, both, layers = draw.choice((5, 7)), draw.random() < 0.3, draw.choice((1, 1, 2))
        cls = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        layer = cls(width, inner, layers, bias=draw.random() < 0.7, batch_first=True, bidirectional=both)
        return [Recurrent(layer), nn.Linear(inner * (1 + both), width)]

    body = [each for _ in range(draw.choice((1, 2, 3))) for each in block()]
    if draw.random() < 0.4:
        return Tied(11, width, nn.Sequential(*body, normed())), torch.randint(0, 11, (2, 5))
    layers = [nn.Linear(3, width), act(), *body, normed(), nn.Linear(width, 4)]
    return nn.Sequential(*layers), torch.randn(2, 5, 3, dtype=torch.float64)


def zero_groups(model: nn.Module, draw: random.Random) -> None:
    """Zero slices: of single weights, and of all that share a width, at the same places."""
    widths: dict[int, list[int]] = {}
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim < 2:
                if draw.random() < 0.3:
                    tensor[draw.randrange(len(tensor))] = 0.0
                continue
            for axis in (0, 1):
                n = tensor.shape[axis]
                chosen = widths.setdefault(n, [draw.randrange(n) for _ in range(max(1, n // 4))])
                if draw.random() < 0.75 or "hh" in name:
                    tensor.index_fill_(axis, torch.tensor(chosen), 0.0)
                if draw.random() < 0.3:
                    tensor.index_fill_(axis, torch.tensor([draw.randrange(n)]), 0.0)
        for module in model.modules():  # whole heads and gates, which single rows seldom make
            if isinstance(module, Attention) and draw.random() < 0.7:
                head = slice(module.dim, 2 * module.dim)
                module.v.weight[head] = 0.0
                if module.v.bias is not None:
                    module.v.bias[head] = 0.0
            if isinstance(module, nn.MultiheadAttention) and draw.random() < 0.7:
                module.out_proj.weight[:, : module.head_dim] = 0.0


def network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A random network with zeros, and inputs."""
    draw = random.Random(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, x = (image_network if seed % 2 else sequence_network)(draw)
    model = randomized(model, seed)
    zero_groups(model, draw)
    return model, x
