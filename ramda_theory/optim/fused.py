"""The fused step of RAMDA: which tensors the compiled loops take, and what they are told about them.

What the loops do not take, the plain path does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.kernels.nonfinite import nonfinite_somewhere
from ramda_theory.kernels.sharding import meshes
from ramda_theory.optim import calls
from ramda_theory.optim.calls import Kind, Report, Sizes, loops
from ramda_theory.optim.lists import Lists, Work, may_look
from ramda_theory.optim.solving import is_exact
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, Regularizer

Layout = tuple[bool, tuple[int, ...], tuple[int, ...]]
"""Whether a tensor is contiguous (its strides decide nothing then), its shape, its strides."""


class FusedStep:
    """Steps the parameters that the compiled loops take, by one call for all, and leaves the others.

    Looking at tensors takes as long as stepping small ones.  What was found out about a parameter group is kept until
    one of its tensors is another one, or somewhere else.

    Attributes
    ----------
    report : Report
        How the last step found the norms of the groups.
    """

    def __init__(self) -> None:
        self.report = Report(0, 0, 0, 0)
        self._known: dict[int, Taken] = {}

    def __call__(
        self,
        work: Sequence[Work],
        state: dict[Tensor, Any],
        forget: Callable[[], None],
        check: bool = False,
        recording: bool = False,
    ) -> list[Work] | None:
        """One step; the parameters that are left.

        Parameters
        ----------
        work : list
            Parameter groups, with lists of parameters, gradients, weights, W^0, V, U, t, alpha.
        state : dict
            The optimizer's.  A parameter's gets ``norms`` of its groups: they decide the last bits of W, so a run that
            is resumed bit for bit needs them.
        forget : callable
            Called before a refusal: removes the state that was made for this step.
        check : bool
            Whether to refuse gradients, those of the others too, that are not finite: then the result is None.
        recording : bool
            Whether the step is to say how well it solved its subproblems, which the loops cannot.

        Raises
        ------
        RuntimeError
            With ``fused=True``, before anything has changed, if the loops leave any.
        """
        taken, left = self._divided(work, forget, recording)
        if check and left:
            # What is shared with other processes is decided with them, about all gradients.
            alone = not meshes([gradient for _, lists in left for gradient in lists[1]])
            looked_at: Sequence[Work] = left if alone else work
            if nonfinite_somewhere([parameter for _, lists in looked_at for parameter in lists[0]]):
                forget()
                return None
            check = alone
        if taken:
            norms: dict[Tensor, Tensor] = {}
            for group, (options, lists) in taken:
                norms |= group.begin(options, lists, state)
            report = _run([group for group, _ in taken], check)
            if report is None:
                forget()
                return None
            for parameter, new in norms.items():
                state[parameter]["norms"] = new
            self.report = report
            if report.failed:
                raise RuntimeError("the equation of a group was not solved; its weights are NaN")
        return left

    def _divided(
        self, work: Sequence[Work], forget: Callable[[], None], recording: bool
    ) -> tuple[list[tuple[Taken, Work]], list[Work]]:
        """What the loops take, and what they leave."""
        taken: list[tuple[Taken, Work]] = []
        left: list[Work] = []
        for index, (options, lists) in enumerate(work):
            psi = options["regularizer"]
            reason = "its inexactness is recorded" if recording else obstacle(options, lists[6])
            known = None if reason else self._known.get(index)
            if known is not None and known.still_holds(psi, lists):
                taken.append((known, (options, lists)))
                continue
            self._known.pop(index, None)
            sizes = [None if reason else sizes_of(psi, *each) for each in zip(*lists, strict=True)]
            _leave_doubles(lists[2], sizes, [w for group, _ in taken for w in group.weights])
            others = [i for i, size in enumerate(sizes) if size is None]
            if others and options["fused"]:
                forget()
                shape = tuple(lists[0][others[0]].shape)
                reason = reason or "not float32 on the CPU, of an unusual layout, or in the memory of another"
                raise RuntimeError(f"fused=True cannot step a parameter of shape {shape} ({reason}); fused=None can")
            if others:
                left.append((options, [[tensors[i] for i in others] for tensors in lists]))
            if len(others) < len(sizes):
                own = [[each for each, size in zip(tensors, sizes, strict=True) if size] for tensors in lists]
                group = Taken(psi, own, [size for size in sizes if size])
                taken.append((group, (options, own)))
                if not others:
                    self._known[index] = group
        return taken, left


def _leave_doubles(weights: Sequence[Tensor], sizes: list[Sizes | None], before: Sequence[Tensor]) -> None:
    """Take ``sizes`` from weights that share the memory of other ones: threads must not meet there."""
    seen = {w.data_ptr() for w in before}
    for i, w in enumerate(weights):
        if sizes[i] is not None and w.data_ptr() in seen:
            sizes[i] = None
        elif sizes[i] is not None:
            seen.add(w.data_ptr())


def _run(groups: Sequence[Taken], check: bool) -> Report | None:
    """One call for all ``groups``."""
    kinds = tuple([kind for group in groups for kind in group.kinds])
    addresses = np.concatenate([group.addresses for group in groups])
    rates = np.concatenate([group.rates for group in groups])
    report = calls.run(kinds, addresses, rates, check)
    if report is not None:
        # Autograd must notice that W has changed.
        torch.autograd.graph.increment_version([w for group in groups for w in group.weights])
    return report


class Taken:
    """What the loops are told about the tensors of a parameter group.

    Parameters
    ----------
    psi : Regularizer, optional
    lists : list
        Parameters, gradients, weights, W^0, V, U, t, alpha.
    sizes : list of Sizes
        One per parameter, from `sizes_of`.

    Attributes
    ----------
    kinds, addresses, rates
        As `calls.run` takes them; those of gradients and norms, eta and the like are set by `begin`.
    weights : list of Tensor
    """

    def __init__(self, psi: Regularizer | None, lists: Lists, sizes: Sequence[Sizes]) -> None:
        self.weights = lists[2]
        self._psi, self._sizes = psi, sizes
        self._tensors = [tensor for tensors in lists[2:] for tensor in tensors]
        self._pointers = [tensor.data_ptr() for tensor in self._tensors]
        scaled = [_scaled(psi, size) for size in sizes]
        self._grouped = isinstance(psi, GroupLasso) and psi.weight > 0
        self.kinds: tuple[Kind, ...] = tuple([(size, self._grouped) for size in sizes])
        self._numbers = (0.0, 0.0, 0.0, 0.0)
        self.rates = np.array([(0.0, 0.0, 0.0, 0.0, *each) for each in scaled])
        w, anchors, v, u, steps, weight_sums = np.array(self._pointers).reshape(6, len(sizes))
        nothing = np.zeros_like(w)
        self.addresses = np.stack([w, nothing, anchors, v, u, nothing, steps, weight_sums], axis=1)
        self._layouts = [_layout(w) for w in self.weights]
        self._strides = [w.stride() for w in self.weights]
        self._norms: list[tuple[Tensor | None, int]] = [(None, 0)] * len(sizes)

    def still_holds(self, psi: Regularizer | None, lists: Lists) -> bool:
        """Whether it is all as it was, but for gradients, which the loops must take too."""
        tensors = [tensor for tensors in lists[2:] for tensor in tensors]
        return (
            psi is self._psi
            and len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            # Who gives a tensor other memory, as `module.half()` does, may have changed anything about it.
            and [tensor.data_ptr() for tensor in tensors] == self._pointers
            # A view of the same memory; of one that only has another shape, gradients have another shape too.
            and [w.stride() for w in lists[2]] == self._strides
            and all(_alike(gradient, *layout) for gradient, layout in zip(lists[1], self._layouts, strict=True))
        )

    def begin(self, options: dict[str, Any], lists: Lists, state: dict[Tensor, Any]) -> dict[Tensor, Tensor]:
        """Take the gradients and the numbers of a step; norms of groups that ``state`` does not have yet."""
        sign, eta = -1.0 if options["maximize"] else 1.0, max(float(options["lr"]), 0.0)
        numbers = sign, eta, options["eps"], 1.0 - float(options["momentum"])
        if numbers != self._numbers:
            self._numbers = self.rates[:, :4] = numbers
        self.addresses[:, 1] = [gradient.data_ptr() for gradient in lists[1]]
        new: dict[Tensor, Tensor] = {}
        if self._grouped:
            for i, (parameter, sizes) in enumerate(zip(lists[0], self._sizes, strict=True)):
                known, address = self._norms[i]
                norms: Tensor | None = state[parameter].get("norms")
                if norms is not None and norms is known and norms.data_ptr() == address:
                    continue
                if norms is None or not _alike(norms, True, (sizes[0] * sizes[2],), (1,)):
                    norms = new[parameter] = group_norms(parameter, sizes)
                address = norms.data_ptr()
                self._norms[i] = norms, address
                self.addresses[i, 5] = address
        return new


# -- what the loops take ----------------------------------------------------------------------------------------------


def obstacle(options: dict[str, Any], steps: Sequence[Tensor]) -> str | None:
    """Why the loops cannot step a parameter group; None if they can."""
    psi = options["regularizer"]
    if options["fused"] is False:
        return "fused=False"
    if options["on_nonfinite"] == "skip":
        return "on_nonfinite='skip' masks the step"
    if not may_look(options, steps):
        return "it is compiled or captured, or its numbers are on a device"
    if type(psi) not in (type(None), L1, ElasticNet, GroupLasso) or (psi is not None and psi.tied_to_shape):
        return f"no loops for {psi!r}"
    if not is_exact(psi, options["solver"]):
        return f"no loops for the solver {options['solver']!r}"
    return None if loops() else "numba is not there, or has no folder to write to"


def sizes_of(
    psi: Regularizer | None,
    parameter: Tensor,
    gradient: Tensor,
    w: Tensor,
    anchor: Tensor,
    grad_sum: Tensor,
    grad_sq_sum: Tensor,
    step: Tensor,
    weight_sum: Tensor,
) -> Sizes | None:
    """How the loops see a parameter, if it and what belongs to it let them."""
    if w is not parameter or not _plain(w) or w.is_inference():
        return None
    if not (_is_number(step, torch.float32) and _is_number(weight_sum, torch.float64)):
        return None
    layout = _layout(w)
    if not all(_alike(tensor, *layout) for tensor in (gradient, anchor, grad_sum, grad_sq_sum)):
        return None
    return _axis_sizes(*layout[1:], psi.dims if isinstance(psi, GroupLasso) else ())


def _is_number(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.dtype is dtype and tensor.is_cpu and tensor.numel() == 1 and tensor.data_ptr() != 0


def _plain(tensor: Tensor) -> bool:
    """Whether this is a float32 tensor in the memory of the CPU, and nothing that only looks like one."""
    return (
        tensor.dtype is torch.float32
        and tensor.is_cpu
        and type(tensor) in (Tensor, Parameter)
        and tensor.data_ptr() != 0  # nothing: an empty one, a symbol of zeros, or its memory was given away
        and not tensor.is_neg()
    )


def _layout(tensor: Tensor) -> Layout:
    return tensor.is_contiguous(), tensor.shape, tensor.stride()


def _alike(tensor: Tensor, contiguous: bool, shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the loops can go through a tensor as through one of this layout."""
    if not _plain(tensor) or tensor.shape != shape:
        return False
    return tensor.is_contiguous() if contiguous else tensor.stride() == stride


@lru_cache(maxsize=4096)
def _axis_sizes(shape: tuple[int, ...], stride: tuple[int, ...], dims: tuple[int, ...]) -> Sizes | None:
    """`Sizes` of a tensor in which the axes ``dims`` are reduced; None where the loops cannot go through it."""
    sizes, position, entries = [1, 1, 1, 1], 3, 1
    if any(not -len(shape) <= dim < len(shape) for dim in dims):
        return None
    reduced = {dim % len(shape) for dim in dims}
    for axis in sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: stride[a]):
        if stride[axis] != entries:
            return None  # gaps, or entries that share memory
        entries *= shape[axis]
        if (axis in reduced) != (position in (1, 3)):
            position -= 1
        if position < 0:
            return None
        sizes[position] *= shape[axis]
    outer, rows, kept, size = sizes
    native: Any = loops()
    if not entries or (rows > 1 and size > native.WIDTH) or (dims and outer * kept < 4):
        return None  # with few groups, the copies of one that solving it alone takes are no small part of the tensor
    return outer, rows, kept, size


def _scaled(psi: Regularizer | None, sizes: Sizes) -> tuple[float, float]:
    """lam_g and l2 of psi; -1 and 0 where it is nothing."""
    if psi is None:
        return -1.0, 0.0
    if isinstance(psi, GroupLasso):
        return psi.weight * (math.sqrt(sizes[1] * sizes[3]) if psi.size_scaled else 1.0) or -1.0, 0.0
    return psi.weight, psi.l2 if isinstance(psi, ElasticNet) else 0.0


def group_norms(w: Tensor, sizes: Sizes) -> Tensor:
    """||W_g|| of every group, where its equation is solved from at first."""
    w = torch.as_strided(w.detach(), sizes, [math.prod(sizes[k + 1 :]) for k in range(4)])
    return torch.linalg.vector_norm(w, dim=(1, 3)).reshape(-1)
