"""The contract of a regularizer psi: everything a solver, a method or a diagnostic may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, norm, real
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.structure import Structure


@dataclass(frozen=True)
class Regularizer(ABC):
    """A regularizer psi with its proximal maps, its subdifferential and its active manifolds.

    Instances are immutable, compare by value and convert to plain data (`to_dict`, `from_dict`).

    Parameters
    ----------
    weight : float
        lambda >= 0, the factor that multiplies the regularizer.

    Notes
    -----
    Arrays are NumPy arrays or torch tensors of any real floating dtype and layout; results have the dtype of the
    input, totals (`value`, distances, margins) are 0-d float64 arrays.  Nothing here checks for NaN: a NaN entry
    yields NaN in its own piece, never a zero.
    """

    weight: float

    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = True  # into pieces, each with a step size of its own

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", real("weight", self.weight, minimum=0.0))

    @property
    def weak_convexity(self) -> float:
        """Smallest rho >= 0 for which psi + rho/2 ||.||^2 is convex."""
        return 0.0

    # -- the function and its proximal maps -------------------------------------------------------------------------

    @abstractmethod
    def value(self, w: Array) -> Array:
        """psi(w), a 0-d float64 array."""

    @abstractmethod
    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """argmin_x 1/2 ||x - z||^2 + step psi(x); ``step`` is a scalar or one per piece (see `group_max`)."""

    def prox_structure(self, z: Array, step: Array | float = 1.0) -> tuple[Array, Structure | None]:
        """`prox` and the structure its thresholding produced; None where exact zeros tell it (`structure`)."""
        return self.prox(z, step), None

    # metric_prox(linear, diag, scale=1.0) = argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x) is defined by those
    # classes that can compute it exactly, and by no other.

    def has_metric_prox(self, diag: Array, scale: Array | float = 1.0) -> bool:
        """Whether ``metric_prox`` is exact for this metric."""
        return hasattr(self, "metric_prox")

    def group_max(self, diag: Array) -> Array:
        """Largest entry of ``diag`` in each piece psi separates into (the whole array if it does not separate)."""
        return namespace(diag=diag).max(diag)

    def spread(self, per_group: Array, like: Array) -> Array:
        """One number per piece laid out so that it multiplies the entries of ``like``."""
        return per_group

    # -- first-order conditions -------------------------------------------------------------------------------------

    @abstractmethod
    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Element of least norm of g + scale d psi(w), with d psi the limiting subdifferential; shape of ``w``."""

    def subdifferential_distance(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Min over s in scale d psi(w) of ||g + s||, exact; a 0-d float64 array."""
        xp = namespace(w=w, g=g)
        return norm(xp, self.subdifferential_residual(w, g, scale))

    @abstractmethod
    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - the largest ratio of -g to its bound over the inactive (zero) pieces; a 0-d float64 array.

        1 if no piece is inactive, 0 when -g lies on the relative boundary of d psi(w), negative outside.  The margin
        looks at inactive pieces only: `subdifferential_distance` says whether the active ones are stationary.
        """

    @abstractmethod
    def critical_weight(self, g: Array) -> Array:
        """Smallest weight for which 0 is stationary at gradient ``g``; a 0-d float64 array."""

    # -- structure --------------------------------------------------------------------------------------------------

    @abstractmethod
    def structure(self, w: Array) -> Structure:
        """Active manifold at ``w``, read from exact zeros (waits for a device)."""

    # -- compiled engines ---------------------------------------------------------------------------------------------

    def kernel(self) -> KernelSpec | None:
        """What a compiled engine needs to solve the subproblem in a metric; None if only Python can."""
        return None

    # -- plain data -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data (numbers, strings, lists) from which `from_dict` rebuilds an equal regularizer."""
        data: dict[str, Any] = {"name": type(self).__name__}
        for field in fields(self):
            value = getattr(self, field.name)
            data[field.name] = list(value) if isinstance(value, tuple) else value
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Regularizer:
        """Rebuild a regularizer from `to_dict`'s data; an unknown name or field is an error."""
        from ramda_theory.regularizers import BY_NAME

        arguments = dict(data)
        name = arguments.pop("name", None)
        if name not in BY_NAME:
            raise ValueError(f"name must be one of {sorted(BY_NAME)}, got {name!r}")
        known = {field.name for field in fields(BY_NAME[name])}
        if unknown := sorted(set(arguments) - known):
            raise ValueError(f"{name} has no argument {unknown[0]!r}; it takes {sorted(known)}")
        return BY_NAME[name](**arguments)


def same_shape(**arrays: Array) -> None:
    """Raise ValueError unless all named arrays have one shape."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("shapes must agree, got " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))


def soft_threshold(xp: ModuleType, z: Array, threshold: Array | float) -> Array:
    """sign(z) max(|z| - threshold, 0), with a NaN kept as NaN and no negative zero."""
    return xp.where(xp.abs(z) <= threshold, xp.zeros_like(z), xp.where(z > 0, z - threshold, z + threshold))


def signs(w: np.ndarray) -> np.ndarray:
    """Sign of every entry as int8; a NaN is no zero and counts as positive."""
    return np.where(np.isnan(w), 1, np.sign(w)).astype(np.int8)


def margin(xp: ModuleType, ratios: Array, inactive: Array) -> Array:
    """1 - max of the nonnegative ``ratios`` over the ``inactive`` pieces, 1 if there is none."""
    return 1.0 - largest(xp, xp.where(inactive, ratios, xp.zeros_like(ratios)))
