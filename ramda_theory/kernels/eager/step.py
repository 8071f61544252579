"""A step of any method with torch's operations: one body for numbers and tensors, masked or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach  # type: ignore[attr-defined]

from ramda_theory.kernels.eager.joint import check_joint, is_joint, joint_minimizer
from ramda_theory.kernels.eager.solve import Records, minimizer
from ramda_theory.kernels.eager.tensor_list import apart, cube_root, square_root, together
from ramda_theory.kernels.eager.warm_start import WarmStart
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.sharding import local, local_gradient
from ramda_theory.kernels.work import Work, host_scalars

Scalar = Tensor | float


def step(
    recurrence: Recurrence,
    work: Work,
    mask: Tensor | None = None,
    record: Records | None = None,
) -> None:
    """One step of the parameters of a group, in place.

    Parameters
    ----------
    recurrence : Recurrence
    work : Work
    mask : Tensor, optional
        Flag; where true nothing changes.
    record : dict, optional
        Where to leave how well each subproblem was solved.
    """
    on_host = host_scalars(work.options, work.steps)
    for chunk in chunks(work, on_host):
        _step(recurrence, chunk, on_host, mask, record)


def chunks(work: Work, on_host: bool) -> Iterator[Work]:
    """The work cut into what one ``torch._foreach`` call can take: of one device, dtype and step.

    ``foreach=False`` yields one tensor at a time, so that temporaries are no larger than the largest tensor; by
    default that is so unless every parameter is a plain tensor on an accelerator.  Numbers on a device are each
    tensor's own.  A psi whose groups span tensors takes all of them at once.
    """
    if is_joint(work.options):
        check_joint(work)
        yield work
        return
    foreach = work.options["foreach"]
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(work.params, differentiable=False)
    members: dict[Any, list[int]] = defaultdict(list)
    for i, (parameter, t) in enumerate(zip(work.params, work.steps, strict=True)):
        together = foreach and on_host
        members[(parameter.device, parameter.dtype, t.item(), _sum(work, i)) if together else i].append(i)
    for positions in members.values():
        yield work.select(positions)


def _sum(work: Work, i: int) -> float:
    return work.weight_sums[i].item() if work.weight_sums else 0.0


def _step(
    recurrence: Recurrence,
    work: Work,
    on_host: bool,
    mask: Tensor | None,
    record: Records | None,
) -> None:
    """Tensors that share t and alpha."""
    options = work.options
    own_options = _options(recurrence, options, on_host)
    lr = own_options[0]
    old_sum = scalar(work.weight_sums[0], on_host) if work.weight_sums else 0.0
    t = scalar(work.steps[0], on_host) + 1.0
    weight_sum, scale, numbers = recurrence.numbers(t, old_sum, own_options)
    for step in work.steps:
        masked_copy_(step, t, mask)
    if recurrence.sums and not isinstance(lr, Tensor) and lr == 0:
        return
    for own in work.weight_sums:
        masked_copy_(own, weight_sum, mask)

    # Prologue: the state anew, and the subproblem.
    weights = read_weights(work)
    state = [[local(tensor) for tensor in array] for array in work.arrays]
    *changed, base, linear, diag = _prologue(recurrence, gradients(work, mask), weights, state, numbers)
    for old, new in zip(state[: recurrence.changing], changed, strict=False):
        for target, value in zip(old, apart(new), strict=True):
            masked_copy_(target, value, mask)
    if not isinstance(lr, Tensor) and lr == 0:
        return
    still = zero_lr(lr, mask)

    # Solve, and write W = (1 - c) W + c What.
    c = 1.0 - scalar(options["momentum"], on_host) if recurrence.averages else 1.0
    about: dict[str, Any] = {"proximal": not recurrence.metric, "t": t, "options": options, "record": record}
    joint = None
    if is_joint(options):
        metric = apart(diag) if recurrence.metric else diag
        joint = joint_minimizer(apart(base), apart(linear), metric, scale, weights, **about)
    for i, (parameter, w) in enumerate(zip(work.params, weights, strict=True)):
        if joint is not None:
            point = joint[i]
        else:
            metric = apart(diag)[i] if recurrence.metric else diag
            warm = WarmStart(work.states[i], still) if work.states else None
            begin: dict[str, Any] = {"parameter": parameter, "start": w, "warm": warm}
            point = minimizer(apart(base)[i], apart(linear)[i], metric, scale, **begin, **about)
        if recurrence.averages:
            point = torch.lerp(w, point, c.to(w.dtype) if isinstance(c, Tensor) else c)
        masked_copy_(w, point, still)
        if (own := local(parameter)) is not w and parameter is not work.weights[i]:
            own.copy_(w)


def _prologue(
    recurrence: Recurrence, grads: Sequence[Tensor], weights: Sequence[Tensor], state: list[list[Tensor]], numbers: Any
) -> Any:
    """The recurrence's prologue of tensors that share the numbers."""
    dtype = weights[0].dtype
    numbers = tuple(number.to(dtype) if isinstance(number, Tensor) else number for number in numbers)
    arrays = [together(tensors) for tensors in (*state, *[state[-1]] * (3 - len(state)))]
    return recurrence.prologue(together(grads), together(weights), *arrays, numbers, cube_root, square_root)


def structured_point(recurrence: Recurrence, work: Work) -> list[Tensor]:
    """This process's pieces of What_t, from the sums as they are: the prologue of a gradient that is zero."""
    on_host = host_scalars(work.options, work.steps)
    points = []
    if is_joint(work.options):
        check_joint(work)
        t = scalar(work.steps[0], on_host) * 1.0
        _, _, numbers = recurrence.numbers(t, 0.0, _options(recurrence, work.options, on_host))
        weights = [local(w) for w in work.weights]
        state = [[local(tensor) for tensor in array] for array in work.arrays]
        *_, base, linear, diag = _prologue(recurrence, [torch.zeros_like(w) for w in weights], weights, state, numbers)
        scale, proximal = scalar(work.weight_sums[0], on_host), not recurrence.metric
        whole = apart(base), apart(linear), diag if proximal else apart(diag)
        return joint_minimizer(*whole, scale, weights, proximal=proximal, t=t, options=work.options)
    for i, parameter in enumerate(work.params):
        one = work.select([i])
        base, linear, diag = present_subproblem(recurrence, one)
        t, scale = scalar(one.steps[0], on_host) * 1.0, scalar(one.weight_sums[0], on_host)
        w = local(one.weights[0])
        about = {"proximal": not recurrence.metric, "parameter": parameter, "start": w, "t": t, "options": work.options}
        warm = WarmStart(one.states[0], keep=False) if one.states else None
        points.append(minimizer(base, linear, diag, scale, **about, warm=warm))
    return points


def present_subproblem(recurrence: Recurrence, one: Work) -> tuple[Tensor, Tensor, Any]:
    """Base, linear term and metric of a parameter's subproblem as its state has them: those of a zero gradient."""
    w = local(one.weights[0])
    return _subproblem(recurrence, one, torch.zeros_like(w), 0.0)[:3]


def coming_subproblem(recurrence: Recurrence, one: Work) -> tuple[Tensor, Tensor, Any, Scalar]:
    """Base, linear term, metric and scale that a step with the present gradient would have; nothing changes."""
    return _subproblem(recurrence, one, gradients(one, None)[0], 1.0)


def _subproblem(recurrence: Recurrence, one: Work, gradient: Tensor, further: float) -> tuple[Tensor, Tensor, Any, Any]:
    on_host = host_scalars(one.options, one.steps)
    t = scalar(one.steps[0], on_host) + further
    old_sum = scalar(one.weight_sums[0], on_host) if one.weight_sums else 0.0
    _, scale, numbers = recurrence.numbers(t, old_sum, _options(recurrence, one.options, on_host))
    state = [[local(array[0])] for array in one.arrays]
    _, _, base, linear, diag = _prologue(recurrence, [gradient], [local(one.weights[0])], state, numbers)
    return base, linear, diag, scale


def _options(recurrence: Recurrence, options: dict[str, Any], on_host: bool) -> tuple[Any, ...]:
    lr, *others = (scalar(option, on_host) for option in recurrence.options(options))
    # What rounding in a scheduler leaves below 0 counts as 0.
    return (lr.clamp(min=0) if isinstance(lr, Tensor) else max(lr, 0.0), *others)


def scalar(value: Tensor | float, on_host: bool) -> Any:
    """A number, or where it must stay a tensor, one without axes in float64."""
    if not isinstance(value, Tensor):
        return value
    return float(value) if on_host else value.reshape(()).to(torch.float64)


def zero_lr(lr: Scalar, mask: Tensor | None) -> Tensor | None:
    """Flag that the weights must stay as they are: ``mask``, or lr = 0; None if a number says which."""
    if not isinstance(lr, Tensor):
        return mask
    zero = lr == 0
    return zero if mask is None else mask | zero


def masked_copy_(target: Tensor, value: Tensor | float, mask: Tensor | None) -> None:
    """target <- value, unless ``mask`` is true."""
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=target.dtype, device=target.device)
    value = value.to(target.dtype).expand(target.shape) if value.ndim == 0 else value.reshape(target.shape)
    target.copy_(value if mask is None else torch.where(mask, target, value))


def gradients(work: Work, mask: Tensor | None) -> Sequence[Tensor]:
    """This process's pieces of the gradients of what is minimised, in float32 or wider; zeros where ``mask``."""
    found = [
        local_gradient(grad, parameter).to(w.dtype)
        for grad, parameter, w in zip(work.grads, work.params, work.weights, strict=True)
    ]
    if work.options["maximize"]:
        found = list(torch._foreach_neg(found))
    return found if mask is None else [torch.where(mask, 0.0, gradient) for gradient in found]


def read_weights(work: Work) -> list[Tensor]:
    """This process's pieces of W; a half-precision parameter that was changed from outside overrules its copy."""
    for parameter, w in zip(work.params, work.weights, strict=True):
        if parameter is not w:
            p, own = local(parameter), local(w)
            own.copy_(torch.where(p == own.to(p.dtype), own, p.to(own.dtype)))
    return [local(w) for w in work.weights]
