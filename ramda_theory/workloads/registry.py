"""Workloads by their name or by the file that defines one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ramda_theory.workloads import (
    logistic_mnist,
    mlp_fashion_mnist,
    resnet_cifar,
    resnet_imagenet,
    tacotron2_ljspeech,
    transformer_xl_wikitext103,
    vgg_cifar,
    vit_mim_cifar10,
)
from ramda_theory.workloads.workload import Workload

SIZES = ("paper", "scaled")

WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "logistic-mnist": logistic_mnist.workload,
    "mlp-fashion-mnist": mlp_fashion_mnist.workload,
    "vgg19-cifar10": partial(vgg_cifar.workload, data_set="cifar10"),
    "vgg19-cifar100": partial(vgg_cifar.workload, data_set="cifar100"),
    "resnet50-cifar10": partial(resnet_cifar.workload, data_set="cifar10"),
    "resnet50-cifar100": partial(resnet_cifar.workload, data_set="cifar100"),
    "resnet50-imagenet": resnet_imagenet.workload,
    "transformer-xl-wikitext103": transformer_xl_wikitext103.workload,
    "tacotron2-ljspeech": tacotron2_ljspeech.workload,
    "vit-mim-cifar10": vit_mim_cifar10.workload,
}
"""Name -> what makes the workload in one of the `SIZES`."""


def find_workload(name: str, size: str = "scaled") -> Workload:
    """The workload of a name, or the ``WORKLOAD`` of a Python file.

    Parameters
    ----------
    name : str
        A key of `WORKLOADS`, or the path of a file that ends in ".py"; the file is run.
    size : {"paper", "scaled"}
        Of those in `WORKLOADS`.

    Returns
    -------
    Workload

    Raises
    ------
    ValueError
        If there is no such workload, or the file cannot be run or defines none.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if name in WORKLOADS:
        return WORKLOADS[name](size)
    if not name.endswith(".py"):
        raise ValueError(f"workload must be one of {', '.join(WORKLOADS)}, or a file that ends in .py, got {name!r}")
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no file {name}")
    spec = importlib.util.spec_from_file_location(f"workload_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file fails with anything
        raise ValueError(f"{name} cannot be run: {type(error).__name__}: {error}") from error
    workload = getattr(module, "WORKLOAD", None)
    if not isinstance(workload, Workload):
        raise ValueError(f"{name} must define WORKLOAD, a ramda_theory.workloads.Workload, got {workload!r}")
    return workload
