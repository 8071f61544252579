"""Tacotron 2 (Shen et al. 2018, arXiv:1712.05884): characters to mel frames through location-sensitive attention."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """Widths as published, by default.

    Parameters
    ----------
    symbols, mels : int
        Characters, and bands of a frame.
    encoder, prenet, attention, decoder, align, postnet : int
        Channels of the encoder, units of prenet and LSTMs, width of the attention, channels of the postnet.
    location_filters, location_kernel : int
        Of the convolution over earlier attention.
    """

    symbols: int = 148
    mels: int = 80
    encoder: int = 512
    prenet: int = 256
    attention: int = 1024
    decoder: int = 1024
    align: int = 128
    postnet: int = 512
    location_filters: int = 32
    location_kernel: int = 31


def convolution(inputs: int, outputs: int, kernel: int = 5) -> nn.Sequential:
    """A convolution along time with its batch norm."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm1d(outputs))


class Attention(nn.Module):
    """score_j = v^T tanh(W q + M h_j + L (f * earlier)_j), over characters j."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.query = nn.Linear(sizes.attention, sizes.align, bias=False)
        self.memory = nn.Linear(sizes.encoder, sizes.align, bias=False)
        self.score = nn.Linear(sizes.align, 1, bias=False)
        kernel = sizes.location_kernel
        self.location = nn.Conv1d(2, sizes.location_filters, kernel, padding=kernel // 2, bias=False)
        self.place = nn.Linear(sizes.location_filters, sizes.align, bias=False)

    def forward(self, query: Tensor, keys: Tensor, earlier: Tensor, padding: Tensor) -> Tensor:
        """Shares (n, characters); earlier (n, 2, characters) are the last shares and their sum so far."""
        place = self.place(self.location(earlier).transpose(1, 2))
        score = self.score(torch.tanh(self.query(query)[:, None] + keys + place))[:, :, 0]
        shares: Tensor = score.masked_fill(padding, -1e4).softmax(dim=1)
        return shares


class Tacotron2(nn.Module):
    """``forward(text, text_lengths, mel)`` gives frames before and after the postnet and logits of "here it ends".

    Parameters
    ----------
    sizes : Sizes
    dropout : float
        0.5 in the prenet (also outside training, as published), the encoder and the postnet; 0.1 in the LSTMs, both
        scaled by ``dropout``, 1 as published.
    """

    def __init__(self, sizes: Sizes, dropout: float = 1.0) -> None:
        super().__init__()
        self.sizes, self.strong, self.light = sizes, 0.5 * dropout, 0.1 * dropout
        self.embedding = nn.Embedding(sizes.symbols, sizes.encoder)
        self.convolutions = nn.ModuleList(convolution(sizes.encoder, sizes.encoder) for _ in range(3))
        self.encoder = nn.LSTM(sizes.encoder, sizes.encoder // 2, batch_first=True, bidirectional=True)
        self.prenet = nn.ModuleList(
            nn.Linear(inputs, sizes.prenet, bias=False) for inputs in (sizes.mels, sizes.prenet)
        )
        self.attention_cell = nn.LSTMCell(sizes.prenet + sizes.encoder, sizes.attention)
        self.attention = Attention(sizes)
        self.decoder_cell = nn.LSTMCell(sizes.attention + sizes.encoder, sizes.decoder)
        self.frame = nn.Linear(sizes.decoder + sizes.encoder, sizes.mels)
        self.gate = nn.Linear(sizes.decoder + sizes.encoder, 1)
        widths = [sizes.mels, *[sizes.postnet] * 4, sizes.mels]
        self.postnet = nn.ModuleList(convolution(a, b) for a, b in itertools.pairwise(widths))

    def encode(self, text: Tensor, lengths: Tensor) -> Tensor:
        """Characters (n, longest) as features (n, longest, encoder)."""
        x = self.embedding(text).transpose(1, 2)
        for layer in self.convolutions:
            x = F.dropout(F.relu(layer(x)), self.strong, self.training)
        packed = nn.utils.rnn.pack_padded_sequence(
            x.transpose(1, 2), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        result: Tensor = nn.utils.rnn.pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True, total_length=text.shape[1]
        )[0]
        return result

    def forward(self, text: Tensor, text_lengths: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Text (n, characters), mel (n, frames, mels); the frame before is the true one (teacher forcing)."""
        memory = self.encode(text, text_lengths)
        keys = self.attention.memory(memory)
        n, longest = text.shape
        padding = torch.arange(longest, device=text.device) >= text_lengths[:, None]
        before = torch.cat([mel.new_zeros(n, 1, self.sizes.mels), mel[:, :-1]], dim=1)
        for layer in self.prenet:
            before = F.dropout(F.relu(layer(before)), self.strong, True)
        sizes, zeros = self.sizes, memory.new_zeros
        first = (zeros(n, sizes.attention), zeros(n, sizes.attention))
        second = (zeros(n, sizes.decoder), zeros(n, sizes.decoder))
        context, shares, total = zeros(n, sizes.encoder), zeros(n, longest), zeros(n, longest)
        outputs = []
        for frame in before.unbind(1):
            first = self.attention_cell(torch.cat([frame, context], dim=1), first)
            query = F.dropout(first[0], self.light, self.training)
            shares = self.attention(query, keys, torch.stack([shares, total], dim=1), padding)
            total = total + shares
            context = torch.einsum("nc,nce->ne", shares, memory)
            second = self.decoder_cell(torch.cat([query, context], dim=1), second)
            outputs.append(torch.cat([F.dropout(second[0], self.light, self.training), context], dim=1))
        decoded = torch.stack(outputs, dim=1)
        frames, gate = self.frame(decoded), self.gate(decoded)[:, :, 0]
        x = frames.transpose(1, 2)
        for number, layer in enumerate(self.postnet, 1):
            x = layer(x)
            x = F.dropout(torch.tanh(x) if number < len(self.postnet) else x, self.strong, self.training)
        return frames, frames + x.transpose(1, 2), gate
