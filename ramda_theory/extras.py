"""Optional packages: which extra brings which, and the one line that says so when it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS = {
    "cpu": ("numba",),
    "experiments": ("cvxpy", "matplotlib", "pandas", "scipy", "sklearn"),
    "export": ("safetensors",),
    "onnx": ("onnx", "onnxscript"),
    "trainers": ("accelerate", "lightning", "transformers"),
    "gpu": ("triton",),
    "workloads": ("PIL", "pooch", "tensorboard", "torchao", "transformers"),
}
"""Extra -> the packages that it brings, under the names by which they are imported."""


class MissingExtra(ImportError):
    """A package that an extra of ``ramda_theory`` would bring is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'ramda_theory[{extra}]'", name=package)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """A context for the imports of optional packages; one that is missing is named with the extra that brings it.

    Parameters
    ----------
    extra : str
        A key of `EXTRAS`.

    Raises
    ------
    MissingExtra
        Inside the context, if a package of that extra is missing.  Other failures to import stay as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS[extra]:
            raise
        raise MissingExtra(extra, package) from error


def require(extra: str) -> None:
    """Raise before the work begins if a package of an extra is missing; nothing is imported.

    Parameters
    ----------
    extra : str
        A key of `EXTRAS`.

    Raises
    ------
    MissingExtra
        Naming the first package that is missing.
    """
    for package in EXTRAS[extra]:
        if find_spec(package) is None:
            raise MissingExtra(extra, package)
