"""Tacotron 2 on LJSpeech, group LASSO over the inputs of convolutions, linear layers and LSTMs (Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.workloads.examples import Batch, Examples, hold_out
from ramda_theory.workloads.formats.speech import SYMBOLS, Spectrogram, read_metadata, read_wav, spell
from ramda_theory.workloads.installed import spoken_prompts
from ramda_theory.workloads.workload import Data, Settings, Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ramda_theory.workloads.networks.tacotron2 import Tacotron2

SETTINGS = {
    "RAMDA": Settings(2.5e-3, 0.1, 6e-7),
    "RMDA": Settings(2.5, 0.1, 1e-6),
    "ProxSGD": Settings(1.0, 0.1, 2.5e-6),
    "ProxAdamW": Settings(1e-3, weight=8e-7),
    "AdamW": Settings(1e-3),
}
PUBLISHED_SYMBOLS = 148
"""Entries of the published embedding; our transcripts use the first few."""
TELEPHONE = Spectrogram(8000, 512, 128, 40, 4000.0)
"""For the prompts, recorded at 8 kHz."""


class Utterances(Examples):
    """Recordings and transcripts; a batch is (text, its lengths, mel frames, their lengths), padded.

    Parameters
    ----------
    pairs : sequence of (Path, str)
    spectrogram : Spectrogram
    data_set : str
    longest : float
        Seconds; what is longer is cut.
    facts : dict
    """

    slow = True

    def __init__(
        self, pairs: Sequence[tuple[Path, str]], spectrogram: Spectrogram, longest: float, facts: dict[str, Any]
    ) -> None:
        self.pairs, self.spectrogram, self.longest, self.facts = list(pairs), spectrogram, longest, facts

    def __len__(self) -> int:
        return len(self.pairs)

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        texts, mels = [], []
        for row in rows:
            path, text = self.pairs[row]
            samples = read_wav(path, self.spectrogram.rate, "ljspeech")[: int(self.longest * self.spectrogram.rate)]
            mels.append(self.spectrogram(torch.from_numpy(samples)))
            texts.append(torch.from_numpy(spell(text)))
        lengths = [torch.tensor([len(each) for each in column]) for column in (texts, mels)]
        return pad_sequence(texts, True), lengths[0], pad_sequence(mels, True), lengths[1]


def recordings(folder: Path | None, scaled: bool) -> Data:
    """LJSpeech from a folder; without one Asterisk's prompts, scaled those of at most three seconds."""
    if folder is None:
        pairs, spectrogram, longest = spoken_prompts(), TELEPHONE, 3.0 if scaled else 12.0
        most = longest * 2 * spectrogram.rate  # bytes
        pairs = [pair for pair in pairs if pair[0].stat().st_size <= most]
    else:
        pairs, spectrogram, longest = read_metadata(folder), Spectrogram(), 12.0
    kept, held = hold_out(len(pairs), 0.05)
    test, validation = held[: len(held) * 5 // 6], held[len(held) * 5 // 6 :]
    facts = {"mels": spectrogram.mels, "symbols": max(PUBLISHED_SYMBOLS, len(SYMBOLS))}

    def part(rows: np.ndarray) -> Utterances:
        return Utterances([pairs[row] for row in rows], spectrogram, longest, facts)

    return {"train": part(kept), "validation": part(validation), "test": part(test)}


def network(data: Data, scaled: bool) -> Tacotron2:
    """The published model, or one an eighth as wide."""
    from ramda_theory.workloads.networks.tacotron2 import Sizes, Tacotron2

    facts = data["train"].facts
    if scaled:
        return Tacotron2(Sizes(len(SYMBOLS), facts["mels"], 64, 32, 128, 128, 32, 64, 8, 15))
    return Tacotron2(Sizes(facts["symbols"], facts["mels"]))


def errors(model: nn.Module, batch: Batch) -> Tensor:
    """Squared errors of the frames before and after the postnet and the cross entropy of the end, per utterance."""
    import torch
    from torch.nn import functional as F

    text, text_lengths, mel, lengths = batch
    before, after, gate = (each.float() for each in model(text, text_lengths, mel))
    place = torch.arange(mel.shape[1], device=mel.device)
    real = (place < lengths[:, None]).float()
    ended = (place >= lengths[:, None] - 1).float()
    squares = ((before - mel) ** 2 + (after - mel) ** 2).mean(dim=2)
    end = F.binary_cross_entropy_with_logits(gate, ended, reduction="none")
    found: Tensor = ((squares + end) * real).sum(dim=1) / lengths
    return found


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over the utterances."""
    return errors(model, batch).mean()


def score(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Sum over the utterances, and their number."""
    return errors(model, batch).sum(), len(batch[0])


def workload(size: str) -> Workload:
    """At the paper's size, or scaled."""
    scaled = size == "scaled"
    return Workload(
        "tacotron2-ljspeech",
        ("Tacotron 2 an eighth as wide" if scaled else "Tacotron 2")
        + " on LJSpeech (without --data: Asterisk's spoken prompts)",
        model=partial(network, scaled=scaled),
        data=partial(recordings, scaled=scaled),
        loss=loss,
        score=score,
        metric="validation loss",
        higher_is_better=False,
        why="convolutions by input channel, linear layers and LSTMs (weight_ih and weight_hh) by input feature",
        settings=SETTINGS,
        batch=16 if scaled else 64,
        epochs=5 if scaled else 1000,
        milestones=(2, 3) if scaled else (200, 400, 600, 800),
        clip=1.0,
        cost="476,000 weights"
        if scaled
        else "28.2 million weights; 430 s per epoch on a V100 in its Table 5; c and milestones are not given for this "
        "workload, ours are 0.1 and a fifth of the epochs each",
        needs_data="ljspeech",
    )
