"""The data that packages install: each workload a few steps on them; skipped, with the reason, where one is missing."""

import numpy as np
import pytest

from ramda_theory.experiments.workload import Plan, train_workload
from ramda_theory.kernels import using
from ramda_theory.workloads import installed
from ramda_theory.workloads.formats.idx import read_pair


def needs(place, package):
    return pytest.mark.skipif(not place.exists(), reason=f"apt-get install {package}")


FASHION = needs(installed.FASHION_MNIST, "dataset-fashion-mnist")
ENGLISH = needs(installed.DICTIONARY, "dict-gcide")
SPEECH = needs(installed.TRANSCRIPTS, "asterisk-core-sounds-en asterisk-core-sounds-en-wav")


@FASHION
def test_fashion_mnist_is_whole():
    images, labels = read_pair(installed.fashion_mnist(), "t10k", "fashion-mnist")
    assert images.shape == (10_000, 28, 28) and np.bincount(labels).tolist() == [1000] * 10


@ENGLISH
def test_english_text_is_cut_into_parts_that_share_nothing():
    parts = installed.english(16)
    sizes = {name: len(part) // installed.BLOCK for name, part in parts.items()}
    assert sizes["train"] > 16 * sizes["test"] / 2 and sizes["validation"] == sizes["test"] > 0
    share = [np.mean(np.isin(part, np.frombuffer(b"etaoin ", np.uint8))) for part in parts.values()]
    assert min(share) > 0.3


@SPEECH
def test_prompts_have_transcripts():
    pairs = installed.spoken_prompts()
    assert len(pairs) > 400 and all(path.is_file() and text for path, text in pairs)
    assert {path.stem: text for path, text in pairs}["activated"] == "Activated."


@pytest.mark.parametrize(
    "name",
    [
        "logistic-mnist",
        pytest.param("mlp-fashion-mnist", marks=FASHION),
        pytest.param("vgg19-cifar10", marks=FASHION),
        pytest.param("transformer-xl-wikitext103", marks=ENGLISH),
        pytest.param("tacotron2-ljspeech", marks=SPEECH),
    ],
)
def test_workloads_run_without_a_download(name):
    # RMDA's step with the nuclear norm is one singular value decomposition per matrix
    optimizer = "RMDA" if name.startswith("mlp") else "RAMDA"
    with using("eager"):
        result = train_workload(Plan(name, optimizer=optimizer, epochs=1, milestones=(), batch=8, limit_batches=2))
    assert result.history[0]["loss"] > 0


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "FASHION_MNIST", tmp_path)
    with pytest.raises(ValueError, match=r"give --data, or apt-get install dataset-fashion-mnist .*MIT"):
        train_workload(Plan("vgg19-cifar10"))
