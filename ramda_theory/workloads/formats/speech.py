"""Recordings with transcripts: WAV files, LJSpeech's metadata, and the mel spectrogram of Tacotron 2."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.workloads.formats.missing import MissingData

if TYPE_CHECKING:
    from torch import Tensor

SYMBOLS = "_~ !'(),-.:;?abcdefghijklmnopqrstuvwxyz\"0123456789"
"""Padding first; every other character of a transcript is left out."""


@dataclass(frozen=True)
class Spectrogram:
    """How a recording becomes frames: log mel magnitudes.

    Parameters
    ----------
    rate : int
        Samples per second.
    window, hop : int
        Samples per frame, and between frames.
    mels : int
        Bands.
    top : float
        Highest frequency in Hz.
    """

    rate: int = 22050
    window: int = 1024
    hop: int = 256
    mels: int = 80
    top: float = 8000.0

    def __call__(self, samples: Tensor) -> Tensor:
        """log max(mel |STFT|, 1e-5), shape (frames, mels), of samples in [-1, 1]."""
        import torch

        bank = mel_bank(self.rate, self.window, self.mels, self.top)
        spectrum = torch.stft(
            samples, self.window, self.hop, window=torch.hann_window(self.window), center=True, return_complex=True
        )
        return (bank @ spectrum.abs()).clamp(min=1e-5).log().T.contiguous()


@cache
def mel_bank(rate: int, window: int, mels: int, top: float) -> Tensor:
    """Triangles of unit area on the mel scale of Slaney, linear below 1 kHz, then logarithmic; (mels, window/2 + 1)."""
    import torch

    def to_mel(hertz: np.ndarray) -> np.ndarray:
        log = 15.0 + 27.0 * np.log(np.maximum(hertz, 1000.0) / 1000.0) / np.log(6.4)
        return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, log)

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((np.maximum(mel, 15.0) - 15.0) / 27.0))

    edges = to_hertz(np.linspace(0.0, float(to_mel(np.asarray(top))), mels + 2))
    bins = np.linspace(0.0, rate / 2.0, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


def read_wav(path: Path, rate: int, data_set: str) -> np.ndarray:
    """Samples in [-1, 1], float32, of a mono recording of 16 bits."""
    folder = path.parents[1]
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            frames, whole = file.getnframes(), file.readframes(file.getnframes())
    except FileNotFoundError as error:
        raise MissingData(data_set, folder, f"there is no {path}") from error
    except (wave.Error, EOFError) as error:
        raise MissingData(data_set, folder, f"{path} is no WAV file ({error})") from error
    if kind != (1, 2, rate):
        channels, width, own = kind
        found = f"{path} has {channels} channels of {8 * width} bits at {own} Hz, not 1 of 16 bits at {rate} Hz"
        raise MissingData(data_set, folder, found)
    if len(whole) != 2 * frames or not frames:
        raise MissingData(data_set, folder, f"{path} says {frames} samples but has {len(whole) // 2}")
    return np.frombuffer(whole, "<i2").astype(np.float32) / 32768.0


def read_metadata(folder: Path) -> list[tuple[Path, str]]:
    """Recordings and their normalised transcripts from LJSpeech's ``metadata.csv`` (three fields between bars)."""
    place = folder if (folder / "metadata.csv").is_file() else folder / "LJSpeech-1.1"
    path = place / "metadata.csv"
    if not path.is_file():
        raise MissingData("ljspeech", folder, f"there is no {path}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("|")
        if len(fields) != 3 or not fields[0] or not fields[2].strip():
            raise MissingData("ljspeech", folder, f"{path}, line {number}, has not three fields between bars")
        recording = place / "wavs" / f"{fields[0]}.wav"
        if not recording.is_file():
            raise MissingData("ljspeech", folder, f"there is no {recording}")
        found.append((recording, fields[2]))
    if not found:
        raise MissingData("ljspeech", folder, f"{path} is empty")
    return found


def spell(text: str) -> np.ndarray:
    """The characters of a transcript as numbers into `SYMBOLS`, lower case, ended by "~"."""
    return np.asarray([SYMBOLS.index(c) for c in text.lower() if c in SYMBOLS[2:]] + [1], dtype=np.int64)
