"""Options of the optimizers: checked before anything is stored, and written to checkpoints as plain data."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ramda_theory.arrays import real
from ramda_theory.regularizers import Regularizer
from ramda_theory.subproblem import (
    ADMM,
    ALS,
    SOLVERS,
    Accelerated,
    ConstantTolerance,
    Exact,
    GeometricTolerance,
    NewtonRaphson,
    PolynomialTolerance,
    ProximalGradient,
)

SOLVER_CLASSES = (Exact, ADMM, ALS, Accelerated, ProximalGradient, NewtonRaphson)
TOLERANCE_CLASSES = (PolynomialTolerance, GeometricTolerance, ConstantTolerance)
NONFINITE = ("raise", "skip", "ignore")
PLAIN_KEYS = ("regularizer", "solver", "tolerance")
"""Options that are objects in a parameter group and plain data in a checkpoint."""

Check = Callable[[Any], Any]
"""What is given for an option -> what is stored; raises where it is not allowed."""


def number(
    name: str, *, minimum: float = 0.0, strict: bool = False, below: float | None = None, tensor: bool = True
) -> Check:
    """A check for a real number in [minimum, below) (or above ``minimum``), or a tensor that holds one.

    Such a tensor stays one, to be changed in place; without ``tensor`` its number is taken.
    """

    def check(value: Any) -> Any:
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element, got shape {tuple(value.shape)}")
        if isinstance(value, Tensor) and not value.is_floating_point():  # set to 0.1 in place it would become 0
            raise TypeError(f"Tensor {name} must have a real floating dtype, got {value.dtype}")
        checked = real(name, value, minimum=minimum, strict=strict)
        if below is not None and checked >= below:
            raise ValueError(f"{name} must be < {below:g}, got {value!r}")
        return value if isinstance(value, Tensor) and tensor else checked

    return check


def one_of(name: str, *allowed: Any) -> Check:
    """A check for one of a few values."""

    def check(value: Any) -> Any:
        if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in allowed):
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        return value

    return check


def betas(value: Any) -> tuple[float, float]:
    """A check for AdamW's pair of averaging coefficients."""
    try:
        first, second = value
    except (TypeError, ValueError) as error:
        raise TypeError(f"betas must be a pair of numbers, got {value!r}") from error
    return number("betas[0]", below=1.0, tensor=False)(first), number("betas[1]", below=1.0, tensor=False)(second)


def regularizer(value: Any) -> Regularizer | None:
    """A check for psi."""
    if value is not None and not isinstance(value, Regularizer):
        raise TypeError(f"regularizer must be a Regularizer or None, got {value!r}")
    return value


def solver(value: Any) -> Any:
    """A check for a subproblem solver: a name, or a configured solver that a checkpoint can describe."""
    names = sorted(set(SOLVERS) - {"cvxpy"})
    if value is None or isinstance(value, SOLVER_CLASSES) or (isinstance(value, str) and value in names):
        return value
    classes = ", ".join(cls.__name__ for cls in SOLVER_CLASSES)
    raise ValueError(f"solver must be None, one of {names} or an instance of {classes}, got {value!r}")


def tolerance(value: Any) -> Any:
    """A check for the sequence eps_t of (7); a number stands for a constant."""
    if value is None or isinstance(value, TOLERANCE_CLASSES):
        return value
    if isinstance(value, (int, float)):
        return ConstantTolerance(real("tolerance", value, minimum=0.0))
    raise TypeError(f"tolerance must be None, a number or a tolerance sequence, got {value!r}")


def positive_integer(name: str) -> Check:
    """A check for a positive integer."""

    def check(value: Any) -> int:
        try:
            checked = operator.index(value)
        except TypeError as error:
            raise TypeError(f"{name} must be an integer, got {value!r}") from error
        if checked < 1:
            raise ValueError(f"{name} must be at least 1, got {checked}")
        return checked

    return check


COMMON: dict[str, Check] = {
    "lr": number("lr"),
    "regularizer": regularizer,
    "maximize": one_of("maximize", True, False),
    "on_nonfinite": one_of("on_nonfinite", *NONFINITE),
    "foreach": one_of("foreach", None, True, False),
    "capturable": one_of("capturable", True, False),
}
"""Checks of the options that every optimizer here has."""

SOLVING: dict[str, Check] = {
    "solver": solver,
    "tolerance": tolerance,
    "max_iter": positive_integer("max_iter"),
}
"""Checks of the options of optimizers whose subproblem has a metric."""


def checked_group(group: dict[str, Any], defaults: dict[str, Any], checks: dict[str, Check]) -> dict[str, Any]:
    """A copy of a parameter group with every option checked, and every parameter against its regularizer.

    Raises
    ------
    TypeError, ValueError
        Naming the option, its value and what is allowed; also for an unknown option whose name resembles a known one.
    """
    group = dict(group)
    for key in group:
        if key not in checks and key != "params" and (close := difflib.get_close_matches(key, checks, 1, 0.8)):
            raise ValueError(f"unknown option {key!r} in a parameter group: did you mean {close[0]!r}?")
    merged = {**defaults, **group}
    checked = {key: check(merged[key]) for key, check in checks.items()}
    check_together(checked, defaults["on_nonfinite"])
    group.update({key: checked[key] for key in group if key in checked})
    if not isinstance(group["params"], (Tensor, set)):
        group["params"] = list(group["params"])
    check_fit({**checked, "params": group["params"]}, checks)
    return group


def check_loaded(group: dict[str, Any], own: list[Tensor], first: dict[str, Any], checks: dict[str, Check]) -> None:
    """Check the options of a loaded group, for the parameters ``own``; ``first`` is the first of the loaded groups."""
    for key, check in {**checks, "lr": scheduled_lr}.items():
        if key in group:
            group[key] = check(group[key])
    if group["on_nonfinite"] != first["on_nonfinite"]:
        raise ValueError(
            f"on_nonfinite must be the same in every group, got {first['on_nonfinite']!r} and {group['on_nonfinite']!r}"
        )
    check_together(group, group["on_nonfinite"])
    check_fit({**group, "params": own}, checks)


def check_together(options: dict[str, Any], on_nonfinite: str) -> None:
    """Refuse options of a group that exclude each other; ``on_nonfinite`` is that of all groups."""
    if options["capturable"] and options["on_nonfinite"] == "raise":
        raise ValueError(
            "capturable=True cannot wait for the gradients as on_nonfinite='raise' does: use 'skip' or 'ignore'"
        )
    if options["foreach"] and options.get("fused"):
        raise ValueError("foreach and fused cannot both be True: choose one, or None for what suits the parameters")
    if options["on_nonfinite"] != on_nonfinite:
        raise ValueError(
            f"on_nonfinite is decided for all parameters together: it must be {on_nonfinite!r} "
            f"in every group, got {options['on_nonfinite']!r}"
        )


def check_fit(group: dict[str, Any], checks: dict[str, Check]) -> None:
    """Refuse a regularizer that does not fit the parameters of its group or its solver."""
    psi = group["regularizer"]
    if psi is not None and "solver" in checks:
        check_solver(psi, group["solver"])
    if psi is not None and psi.joint_shapes is not None:
        shapes = tuple(tuple(parameter.shape) for parameter in parameters(group["params"]))
        if shapes != psi.joint_shapes:
            raise ValueError(
                f"the groups of {type(psi).__name__} span parameters of shapes {psi.joint_shapes}, got {shapes}"
            )
    for parameter in parameters(group["params"]):
        check_parameter(parameter, psi)
        if "eps" in checks:
            check_eps(parameter, group["eps"])


def scheduled_lr(value: Any) -> Any:
    """A check for a lr that schedulers may have set, whose rounding may take it a little below 0; that counts as 0."""
    if isinstance(value, (int, float)) and not value >= 0:
        check_lrs([{"lr": value}])
        return value
    return number("lr")(value)


def check_lrs(groups: Sequence[dict[str, Any]]) -> None:
    """Refuse a negative or NaN number lr; what rounding in a scheduler leaves below 0 counts as 0."""
    for group in groups:
        lr = group["lr"]
        if not isinstance(lr, Tensor) and not lr >= -1e-12:
            raise ValueError(f"lr must be >= 0, got {lr!r}")


def parameters(params: Any) -> Iterator[Tensor]:
    """The tensors among ``params`` in any form torch takes them; what is none is left for torch to refuse."""
    for param in [params] if isinstance(params, Tensor) else params:
        param = param[1] if isinstance(param, tuple) and len(param) == 2 else param
        if isinstance(param, Tensor):
            yield param


def check_parameter(parameter: Tensor, psi: Regularizer | None) -> None:
    """Refuse a parameter that is not dense, real and floating point, or whose shape ``psi`` cannot take."""
    if parameter.is_complex() or not parameter.is_floating_point():
        raise TypeError(f"parameters must have a real floating dtype, got {parameter.dtype}")
    if parameter.layout is not torch.strided:
        raise TypeError(f"parameters must be dense, got layout {parameter.layout}")
    if is_lazy(parameter):  # checked by its first step, when it has a shape
        return
    expanded = any(length > 1 and not step for length, step in zip(parameter.shape, parameter.stride(), strict=True))
    if expanded and parameter.numel():
        raise ValueError(f"parameters must have memory for every entry, got an expanded one: {tuple(parameter.shape)}")
    try:
        if psi is not None and psi.joint_shapes is None:  # else it takes all parameters of the group together
            psi.check_shape(tuple(parameter.shape))
    except ValueError as error:
        raise ValueError(f"{psi!r} does not fit a parameter of shape {tuple(parameter.shape)}: {error}") from error


def check_eps(parameter: Tensor, eps: float) -> None:
    """Refuse an eps that vanishes in the precision of the parameter's metric."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    if eps < torch.finfo(wide).tiny:
        raise ValueError(f"eps must be at least {torch.finfo(wide).tiny:.2g} for {parameter.dtype}, got {eps!r}")


def check_solver(psi: Regularizer, choice: Any) -> None:
    """Refuse a solver that cannot solve the subproblem of ``psi``."""
    if isinstance(choice, str):
        choice = SOLVERS[choice]
    reason = ""
    if isinstance(choice, Exact) and not psi.has_exact_method:
        reason = "it has no exact method"
    elif isinstance(choice, (ADMM, Accelerated)) and not psi.convex:
        reason = "it is not convex"
    elif isinstance(choice, ALS) and psi.as_matrices is None:
        reason = "it is not a nuclear norm"
    elif isinstance(choice, NewtonRaphson) and not psi.sum_of_group_norms:
        reason = "that solver is for GroupLasso only"
    elif getattr(choice, "step", "global") == "group" and not psi.separable:
        reason = "it does not separate into groups"
    if reason:
        raise ValueError(f"solver {choice!r} cannot be used with {psi!r}: {reason}")


def to_plain(value: Any) -> Any:
    """A regularizer, solver or tolerance as numbers, strings, lists and dicts; anything else unchanged."""
    if isinstance(value, Regularizer):
        return value.to_dict()
    if isinstance(value, SOLVER_CLASSES + TOLERANCE_CLASSES):
        return {"name": type(value).__name__, **asdict(value)}
    return value


def from_plain(key: str, value: Any) -> Any:
    """Inverse of `to_plain` for the option ``key``; objects pass through."""
    if not isinstance(value, dict):
        return value
    if key == "regularizer":
        return Regularizer.from_dict(value)
    classes: dict[str, Any] = {cls.__name__: cls for cls in (SOLVER_CLASSES if key == "solver" else TOLERANCE_CLASSES)}
    arguments = dict(value)
    name = arguments.pop("name", None)
    if name not in classes:
        raise ValueError(f"{key} must be one of {sorted(classes)}, got {name!r}")
    known = {field.name for field in fields(classes[name])}
    if unknown := sorted(set(arguments) - known):
        raise ValueError(f"{name} has no argument {unknown[0]!r}; it takes {sorted(known)}")
    return classes[name](**arguments)
