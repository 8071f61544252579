"""Text as tokens: WikiText's word level files, and plain bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ramda_theory.workloads.formats.missing import MissingData

PARTS = {"train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.test.tokens"}


def read_wikitext(folder: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Token numbers (int32) of the three files, and the vocabulary by falling frequency in the training text.

    Lines end in "<eos>"; words that the training text lacks are "<unk>".
    """
    place = folder if (folder / PARTS["train"]).is_file() else folder / "wikitext-103"
    numbers: dict[str, int] = {}
    counts: list[int] = []
    parts: dict[str, np.ndarray] = {}
    for part, name in PARTS.items():
        path = place / name
        if not path.is_file():
            raise MissingData("wikitext103", folder, f"there is no {path}")
        found: list[int] = []
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    for word in (*line.split(), "<eos>"):
                        number = numbers.get(word)
                        if number is None:
                            if part != "train":
                                number = numbers.get("<unk>", 0)
                            else:
                                number = numbers[word] = len(counts)
                                counts.append(0)
                        if part == "train":
                            counts[number] += 1
                        found.append(number)
        except UnicodeDecodeError as error:
            raise MissingData("wikitext103", folder, f"{path} is no text ({error})") from error
        if len(found) < 2:
            raise MissingData("wikitext103", folder, f"{path} is empty")
        parts[part] = np.asarray(found, dtype=np.int32)
    order = np.argsort(-np.asarray(counts), kind="stable")
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    words = list(numbers)
    return {part: rank[found] for part, found in parts.items()}, [words[number] for number in order]
