"""The data sets of the workloads: what they are called, where they are published, their size, licence and checksums."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A data set as it is published.

    Parameters
    ----------
    title : str
    layout : str
        The files that a workload reads, relative to ``--data``.
    size, licence, source : str
    files : tuple of (url, checksum)
        What ``ramda-theory data`` downloads, checksums as "algorithm:hex"; empty where that is not allowed.
    """

    title: str
    layout: str
    size: str
    licence: str
    source: str
    files: tuple[tuple[str, str], ...] = ()

    def how(self, name: str, folder: str | Path) -> str:
        """How to get it, in half a sentence."""
        return f"ramda-theory data {name} --data {folder}" if self.files else f"get it from {self.source}"


def idx(base: str, *checksums: str) -> tuple[tuple[str, str], ...]:
    """The four files of MNIST and those that copy its layout, with their MD5 sums."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple((f"{base}{name}-ubyte.gz", f"md5:{each}") for name, each in zip(names, checksums, strict=True))


IDX_LAYOUT = "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, each as it is or with .gz"

CATALOGUE: dict[str, Entry] = {
    "mnist": Entry(
        "MNIST",
        IDX_LAYOUT,
        "11 MB",
        "CC BY-SA 3.0, as usually given",
        "yann.lecun.com/exdb/mnist",
        idx(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion-mnist": Entry(
        "Fashion-MNIST",
        IDX_LAYOUT,
        "30 MB",
        "MIT",
        "github.com/zalandoresearch/fashion-mnist, or Debian's package dataset-fashion-mnist",
        idx(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "cifar10": Entry(
        "CIFAR-10, python version",
        "cifar-10-batches-py/data_batch_1 ... data_batch_5 and test_batch",
        "163 MB",
        "none stated; cite Krizhevsky 2009",
        "www.cs.toronto.edu/~kriz/cifar.html",
        (("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),),
    ),
    "cifar100": Entry(
        "CIFAR-100, python version",
        "cifar-100-python/train and test",
        "161 MB",
        "none stated; cite Krizhevsky 2009",
        "www.cs.toronto.edu/~kriz/cifar.html",
        (("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),),
    ),
    "imagenet": Entry(
        "ImageNet (ILSVRC 2012)",
        "train/CLASS/*.JPEG and val/CLASS/*.JPEG, a folder per class",
        "144 GB",
        "non-commercial research, on registration",
        "image-net.org",
    ),
    "wikitext103": Entry(
        "WikiText-103, word level",
        "wikitext-103/wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens",
        "181 MB, 517 MB unpacked",
        "CC BY-SA 3.0 and GFDL",
        "the Salesforce WikiText page",
        (
            (
                "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-103-v1.zip",
                "sha1:0aec09a7537b58d4bb65362fee27650eeaba625a",
            ),
        ),
    ),
    "ljspeech": Entry(
        "LJSpeech 1.1",
        "LJSpeech-1.1/metadata.csv and LJSpeech-1.1/wavs/*.wav",
        "2.6 GB",
        "public domain",
        "keithito.com/LJ-Speech-Dataset",
        (
            (
                "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            ),
        ),
    ),
}
"""Key on the command line -> data set."""
