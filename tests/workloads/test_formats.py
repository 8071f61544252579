"""Readers of the published formats: what is right is read, what is wrong is named in one line, and nothing is run."""

import gzip
import os
import pickle
from pathlib import Path

import files
import numpy as np
import pytest
import torch

from ramda_theory.workloads.catalogue import CATALOGUE
from ramda_theory.workloads.classification import cifar_images, grey_images
from ramda_theory.workloads.formats.cifar import read_cifar
from ramda_theory.workloads.formats.idx import read_idx, read_pair
from ramda_theory.workloads.formats.missing import MissingData
from ramda_theory.workloads.formats.speech import SYMBOLS, Spectrogram, mel_bank, read_metadata, read_wav, spell
from ramda_theory.workloads.formats.text import read_wikitext
from ramda_theory.workloads.resnet_imagenet import folders

SHORT = files.idx(np.zeros(59, np.uint8))


def refused(call, *words) -> str:
    with pytest.raises(MissingData) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (*words, "licence", "expected in")), message
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read(tmp_path, zipped):
    images, labels = read_pair(files.write_mnist(tmp_path, zipped=zipped), "t10k", "mnist")
    assert images.shape == (20, 28, 28) and labels.tolist() == [i % 10 for i in range(20)]
    suffix = ".gz" if zipped else ""
    whole = (tmp_path / f"t10k-images-idx3-ubyte{suffix}").read_bytes()
    whole = gzip.decompress(whole) if zipped else whole
    assert images[3, 4, 5] == whole[16 + 3 * 784 + 4 * 28 + 5]


def test_a_part_is_held_out_and_the_test_is_the_published_one(tmp_path):
    data = grey_images(files.write_mnist(tmp_path, 200, 20), "mnist")
    assert [len(data[name]) for name in ("train", "validation", "test")] == [180, 20, 20]
    assert torch.bincount(data["validation"].tensors[1]).tolist() == [2] * 10
    images, labels = data["train"].fetch(np.arange(3), None)
    assert images.shape == (3, 1, 28, 28) and images.dtype == torch.float32 and labels.dtype == torch.int64
    raw = data["train"].tensors[0][:3].double() / 255
    assert torch.allclose(images.double(), (raw - 0.1307) / 0.3081, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "train-images-idx3-ubyte.gz").unlink(), "there is no train-images"),
        (lambda f: cut(f / "train-images-idx3-ubyte.gz"), "damaged"),
        (lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(b"junk"), "damaged"),
        (lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"junk")), "no IDX file"),
        (lambda f: regzip(f / "train-images-idx3-ubyte.gz", lambda whole: whole[:-1]), "says 47040 bytes"),
        (lambda f: regzip(f / "train-images-idx3-ubyte.gz", lambda whole: whole[:8]), "bytes of data but has"),
        (lambda f: regzip(f / "train-labels-idx1-ubyte.gz", lambda whole: whole[:-1] + b"\x0a"), "a label is 10"),
        (
            lambda f: regzip(f / "train-labels-idx1-ubyte.gz", lambda w: files.idx(np.zeros(59, np.uint8))),
            "do not belong",
        ),
    ],
)
def test_bad_idx_files_are_named(tmp_path, damage, says):
    damage(files.write_mnist(tmp_path))
    refused(
        lambda: grey_images(tmp_path, "mnist"), says, "MNIST", "11 MB", f"ramda-theory data mnist --data {tmp_path}"
    )


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def regzip(path: Path, change) -> None:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def test_an_empty_folder_is_named_by_every_reader(tmp_path):
    for call in (
        lambda: grey_images(tmp_path, "fashion-mnist"),
        lambda: cifar_images(tmp_path, "cifar10"),
        lambda: cifar_images(tmp_path, "cifar100"),
        lambda: folders(tmp_path),
        lambda: read_wikitext(tmp_path),
        lambda: read_metadata(tmp_path),
    ):
        refused(call, "there is no", str(tmp_path))


def test_cifar_is_read(tmp_path):
    parts = read_cifar(files.write_cifar10(tmp_path), "cifar10")
    assert parts["train"][0].shape == (100, 3, 32, 32) and parts["test"][1].tolist() == [i % 10 for i in range(20)]
    same = read_cifar(tmp_path / "cifar-10-batches-py", "cifar10")
    assert np.array_equal(same["train"][0], parts["train"][0])
    data = cifar_images(tmp_path, "cifar10")
    assert data["train"].fetch(np.arange(2), np.full((2, 3), 0.7))[0].shape == (2, 3, 32, 32)


class Code:
    """Unpickling one runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path, protocol):
    files.write_cifar10(tmp_path)
    trace = tmp_path / "it_ran"
    bad = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    bad.write_bytes(pickle.dumps({b"data": Code(trace), b"labels": []}, protocol=protocol))
    refused(lambda: read_cifar(tmp_path, "cifar10"), "data_batch_3", "system")
    assert not trace.exists()
    pickle.loads(bad.read_bytes())
    assert trace.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "none of 0 to 9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1.0]}, "none of 0 to 9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "one label per image"),
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}, "no images"),
        ({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}, "no images"),
        ([], "no images"),
    ],
)
def test_batches_with_wrong_contents_are_named(tmp_path, content, says):
    files.write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content))
    refused(lambda: read_cifar(tmp_path, "cifar10"), "test_batch", says)


def test_image_folders_are_read_cropped_and_flipped_alike_by_the_same_numbers(tmp_path):
    pytest.importorskip("PIL")
    data = folders(files.write_images(tmp_path, sizes=[(40, 50)] * 50), size=32)
    assert (len(data["train"]), len(data["validation"]), len(data["test"])) == (98, 2, 100)
    draws = np.random.default_rng(0).random((4, 5))
    images, labels = data["train"].fetch(np.asarray([0, 1, 60, 61]), draws)
    assert images.shape == (4, 3, 32, 32) and labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(images, data["train"].fetch(np.asarray([0, 1, 60, 61]), draws)[0])
    assert torch.allclose(images[0, 0], torch.tensor((60 / 255 - 0.485) / 0.229), atol=0.02)


def test_bad_image_folders_are_named(tmp_path):
    pytest.importorskip("PIL")
    files.write_images(tmp_path)
    (tmp_path / "train" / "ant" / "0.png").write_bytes(b"no image")
    data = folders(tmp_path, size=32)
    refused(lambda: data["train"].fetch(np.asarray([0]), None), "cannot be read", "ImageNet", "image-net.org")
    (tmp_path / "val" / "cow").mkdir()
    refused(lambda: folders(tmp_path), "holds no image")
    (tmp_path / "val" / "cow" / "0.png").write_bytes(b"")
    refused(lambda: folders(tmp_path), "train has 2 classes, val 3")


def test_words_are_numbered_by_frequency_and_unknown_ones_are_unk(tmp_path):
    parts, words = read_wikitext(files.write_wikitext(tmp_path))
    assert words[0] == "b" and set(words) == {"a", "b", "c", "<unk>", "<eos>"}
    assert [words[i] for i in parts["train"][:6]] == ["a", "b", "b", "c", "<unk>", "<eos>"]
    assert [words[i] for i in parts["validation"][:3]] == ["b", "<unk>", "<eos>"]
    (tmp_path / "wikitext-103" / "wiki.test.tokens").write_bytes(b"\xff\xfe")
    refused(lambda: read_wikitext(tmp_path), "no text")


def test_recordings_and_transcripts_are_read(tmp_path):
    pairs = read_metadata(files.write_ljspeech(tmp_path, 3))
    assert [text for _, text in pairs] == ["number 0.", "number 1.", "number 2."]
    samples = read_wav(pairs[0][0], 22050, "ljspeech")
    assert samples.dtype == np.float32 and len(samples) == int(0.2 * 22050)
    assert samples[20] == pytest.approx(8000 * np.sin(2.0) / 32768, abs=2e-4)
    assert "".join(SYMBOLS[i] for i in spell("Ab, c!%")) == "ab, c!~"


def test_bad_recordings_are_named(tmp_path):
    place = files.write_ljspeech(tmp_path, 3) / "LJSpeech-1.1"
    files.write_wav(place / "wavs" / "LJ000.wav", rate=8000)
    refused(lambda: read_wav(place / "wavs" / "LJ000.wav", 22050, "ljspeech"), "8000 Hz, not 1 of 16 bits at 22050")
    (place / "wavs" / "LJ001.wav").write_bytes(b"RIFF")
    refused(lambda: read_wav(place / "wavs" / "LJ001.wav", 22050, "ljspeech"), "no WAV file")
    (place / "metadata.csv").write_text("LJ002|only two")
    refused(lambda: read_metadata(tmp_path), "line 1")
    (place / "metadata.csv").write_text("LJ999|a|a")
    refused(lambda: read_metadata(tmp_path), "LJ999.wav")


def test_the_mel_bands_are_triangles_of_unit_area_and_a_tone_falls_into_its_own():
    bank = mel_bank(22050, 1024, 80, 8000.0).double()
    width = 22050 / 1024
    assert ((bank.sum(dim=1) * width)[20:] - 1).abs().max() < 0.1  # narrow bands meet few bins
    frames = Spectrogram()(torch.sin(2 * torch.pi * 1000.0 * torch.arange(22050) / 22050))
    assert frames.shape == (22050 // 256 + 1, 80)
    band = int(frames[40].argmax())
    peak = float((bank[band] * torch.arange(513)).sum() / bank[band].sum()) * width
    assert abs(peak - 1000.0) < 60.0


def test_the_catalogue_names_a_checksum_for_every_file():
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for entry in CATALOGUE.values():
        for url, checksum in entry.files:
            algorithm, _, digest = checksum.partition(":")
            assert len(digest) == lengths[algorithm] and int(digest, 16) and url.startswith("http")


def test_a_file_of_two_axes_is_read_as_such(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (tmp_path / "x").write_bytes(files.idx(array))
    assert np.array_equal(read_idx(tmp_path / "x", "mnist"), array)
