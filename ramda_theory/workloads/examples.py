"""Data sets that hand out batches whose random numbers depend on nothing but seed, epoch and place in the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple[Any, ...]
"""Tensors whose first axis runs over the samples."""


class Examples:
    """A data set.  Subclasses give ``__len__`` and `fetch`.

    Attributes
    ----------
    draws : int
        Uniform random numbers in [0, 1) that `fetch` takes per sample for augmentation.  They come from the caller, so
        that a sample is augmented alike by however many threads or processes.
    slow : bool
        Whether samples are read from a disk: batches are then prepared ahead, in threads.
    facts : dict
        What the model has to know: "shape", "classes", "symbols", ...
    """

    draws: int = 0
    slow: bool = False
    facts: dict[str, Any] = {}  # noqa: RUF012  (replaced, never changed)

    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        """The samples ``rows`` as a batch.

        Parameters
        ----------
        rows : array of int, shape (n,)
        draws : array of float64, shape (n, self.draws), or None
            None: no augmentation.

        Returns
        -------
        tuple of Tensor
            The first axis of each is n long.
        """
        raise NotImplementedError

    def order(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """The rows of one epoch, batch after batch; the last, partial batch is left out by the caller.

        Parameters
        ----------
        rng : numpy.random.Generator
        batch : int

        Returns
        -------
        array of int
            Shuffled, by default.
        """
        return rng.permutation(len(self))


class Tensors(Examples):
    """Samples held in memory.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one length; the first holds the inputs.
    augment : callable, optional
        ``augment(inputs, draws)``, with an attribute ``draws``.
    prepare : callable, optional
        ``prepare(inputs)``, after augmentation, such as normalisation.
    facts : dict, optional
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        augment: Any = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors must be of one length, got {sorted(lengths)}")
        self.tensors = tuple(tensors)
        self.augment, self.prepare = augment, prepare
        self.draws = 0 if augment is None else augment.draws
        self.facts = {} if facts is None else facts

    def __len__(self) -> int:
        return len(self.tensors[0])

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        import torch

        index = torch.from_numpy(np.ascontiguousarray(rows))
        inputs, *others = (tensor[index] for tensor in self.tensors)
        if self.augment is not None and draws is not None:
            inputs = self.augment(inputs, draws)
        if self.prepare is not None:
            inputs = self.prepare(inputs)
        return (inputs, *others)


class Stream(Examples):
    """Consecutive pieces of a text; a batch holds one piece of each of ``batch`` parallel strands, in order.

    Parameters
    ----------
    tokens : Tensor of int64, shape (n,)
    length : int
        Tokens in a piece; a sample is (tokens, the tokens one later).
    facts : dict, optional
    """

    def __init__(self, tokens: Tensor, length: int, facts: dict[str, Any] | None = None) -> None:
        self.tokens, self.length = tokens, length
        self.facts = {} if facts is None else facts

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.length)

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        import torch

        places = torch.from_numpy(np.ascontiguousarray(rows))[:, None] * self.length + torch.arange(self.length)
        return self.tokens[places].long(), self.tokens[places + 1].long()

    def order(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Strand b reads the pieces b n, b n + 1, ... of its n; what a model remembers of a strand stays its own."""
        pieces = len(self) // batch
        return np.arange(batch * pieces).reshape(batch, pieces).T.ravel()


def hold_out(count: int, share: float, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A fixed split of ``count`` samples: (kept, held out), each label in proportion.

    Parameters
    ----------
    count : int
    share : float
        Of the samples that are held out.
    labels : array of int, optional

    Returns
    -------
    tuple of array of int
        Sorted; the same on every machine.
    """
    order = np.random.default_rng(0).permutation(count)
    kinds = [order] if labels is None else [order[labels[order] == label] for label in np.unique(labels)]
    held = np.sort(np.concatenate([own[: round(share * len(own))] for own in kinds]))
    return np.setdiff1d(np.arange(count), held), held
