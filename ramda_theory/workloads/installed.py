"""Real data that packages install: Fashion-MNIST, English text and speech from Debian, digits from scikit-learn."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DICTIONARY = Path("/usr/share/dictd/gcide.dict.dz")
SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
BLOCK = 1 << 16
"""Bytes of a block of the dictionary."""


class NotInstalled(ValueError):
    """A package with data that a workload falls back to without ``--data`` is missing."""

    def __init__(self, place: Path, package: str, what: str) -> None:
        super().__init__(f"there is no {place}: give --data, or apt-get install {package} ({what})")


def fashion_mnist() -> Path:
    """The folder of Debian's Fashion-MNIST."""
    if not (FASHION_MNIST / "train-images-idx3-ubyte.gz").is_file():
        raise NotInstalled(FASHION_MNIST, "dataset-fashion-mnist", "Fashion-MNIST, 30 MB, MIT")
    return FASHION_MNIST


def english(one_in: int = 1) -> dict[str, np.ndarray]:
    """The text of the GCIDE dictionary as bytes, every ``one_in``-th block of it.

    The entries are in alphabetical order, so that validation and test are blocks taken evenly from the whole text:
    one of twenty each.
    """
    if not DICTIONARY.is_file():
        raise NotInstalled(DICTIONARY, "dict-gcide", "an English dictionary, 40 MB of text, GPL-2+")
    with gzip.open(DICTIONARY) as file:
        whole = np.frombuffer(file.read(), np.uint8)
    blocks = whole[: len(whole) // BLOCK * BLOCK].reshape(-1, BLOCK)[::one_in]
    place = np.arange(len(blocks)) % 20
    return {
        "train": blocks[(place != 5) & (place != 15)].ravel(),
        "validation": blocks[place == 5].ravel(),
        "test": blocks[place == 15].ravel(),
    }


def spoken_prompts() -> list[tuple[Path, str]]:
    """Recordings (8 kHz, one speaker) and transcripts of Asterisk's English prompts, without tones and single signs."""
    if not TRANSCRIPTS.is_file() or not SOUNDS.is_dir():
        missing = SOUNDS if TRANSCRIPTS.is_file() else TRANSCRIPTS
        packages = "asterisk-core-sounds-en asterisk-core-sounds-en-wav"
        raise NotInstalled(missing, packages, "26 minutes of speech with transcripts, CC BY-SA 3.0")
    found = []
    for line in gzip.decompress(TRANSCRIPTS.read_bytes()).decode("utf-8", "replace").splitlines():
        name, _, text = line.partition(":")
        path = SOUNDS / f"{name.strip()}.wav"
        if not line.startswith(";") and len(re.findall("[a-zA-Z]", text)) > 2 and "[" not in text and path.is_file():
            found.append((path, text.strip()))
    return found
