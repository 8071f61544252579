"""Small files in the published formats, filled with noise."""

import gzip
import pickle
import wave
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(5)


def idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_mnist(folder: Path, train: int = 60, test: int = 20, zipped: bool = True) -> Path:
    for kind, count in (("train", train), ("t10k", test)):
        pair = {
            "images-idx3": RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            "labels-idx1": (np.arange(count) % 10).astype(np.uint8),
        }
        for name, array in pair.items():
            whole = idx(array)
            path = folder / f"{kind}-{name}-ubyte{'.gz' * zipped}"
            path.write_bytes(gzip.compress(whole) if zipped else whole)
    return folder


def batch(count: int, key: bytes, classes: int) -> dict:
    labels = [int(i % classes) for i in range(count)]
    return {b"data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8), key: labels, b"batch_label": b"noise"}


def write_cifar10(folder: Path, count: int = 20) -> Path:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (place / name).write_bytes(pickle.dumps(batch(count, b"labels", 10), protocol=2))
    return folder


def write_images(folder: Path, sizes=((40, 50), (64, 64), (50, 40))) -> Path:
    from PIL import Image

    for part in ("train", "val"):
        for number, name in enumerate(("ant", "bee")):
            (folder / part / name).mkdir(parents=True)
            for index, size in enumerate(sizes):
                pixels = np.full((*size, 3), 60 + 120 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


def write_wikitext(folder: Path) -> Path:
    place = folder / "wikitext-103"
    place.mkdir()
    for name, text in (("train", "a b b c <unk>\n b a\n" * 300), ("valid", "b d\n" * 80), ("test", "c a\n" * 80)):
        (place / f"wiki.{name}.tokens").write_text(text, encoding="utf-8")
    return folder


def write_wav(path: Path, seconds: float = 0.4, rate: int = 22050, channels: int = 1) -> None:
    samples = (8000 * np.sin(np.arange(int(seconds * rate)) * 0.1)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).tobytes())


def write_ljspeech(folder: Path, count: int = 40) -> Path:
    place = folder / "LJSpeech-1.1"
    (place / "wavs").mkdir(parents=True)
    lines = []
    for i in range(count):
        write_wav(place / "wavs" / f"LJ{i:03}.wav", 0.2 + 0.005 * i)
        lines.append(f"LJ{i:03}|Number {i}|number {i}.")
    (place / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder
