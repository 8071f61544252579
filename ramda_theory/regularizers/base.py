"""The contract of a regularizer psi: everything a solver, a method or a diagnostic may ask of it."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, namespace, norm, real, to_float64
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.regularizers.prox_sequence import ProxSequence
from ramda_theory.structure import GroupSupport, Structure


@dataclass(frozen=True)
class Regularizer(ABC):
    """A regularizer psi with its proximal maps, its subdifferential and its active manifolds.

    Instances are immutable, compare by value and convert to plain data (`to_dict`, `from_dict`).

    A subclass, decorated with ``dataclass(frozen=True)``, needs the abstract methods and nothing else; defining it
    registers its name, so that checkpoints that name it can be read.  ``metric_prox`` and the methods that have a body
    here make it faster, or checkable, if it has them.

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
    needs_matrix: ClassVar[bool] = False  # rather than entries or groups of them
    norm: ClassVar[bool] = (
        False  # psi is one: psi*(u) is 0 where `critical_weight` of u is at most weight, else infinite
    )
    remembers: ClassVar[bool] = False  # its `prox_sequence` is faster than `prox` from one step to the next
    sum_of_group_norms: ClassVar[bool] = False  # exactly: psi(w) = sum_g weight_g ||w_g||, and nothing else

    _registry: ClassVar[dict[str, type[Regularizer]]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        known = Regularizer._registry.get(cls.__name__)
        own = __name__.rpartition(".")[0]  # what is defined beside this file keeps its name
        if known is not None and known.__module__ != cls.__module__ and known.__module__.rpartition(".")[0] == own:
            raise TypeError(f"a regularizer named {cls.__name__!r} exists in {known.__module__}: choose another name")
        Regularizer._registry[cls.__name__] = cls
        if "kernel" not in vars(cls) and cls.kernel is not Regularizer.kernel and any(map(cls._overrides, vars(cls))):
            cls.kernel = Regularizer.kernel  # type: ignore[method-assign]  # its parent's solves another problem

    @classmethod
    def _overrides(cls, name: str) -> bool:
        """Whether the class has a method or property of this name in the place of its parent's."""
        value = vars(cls)[name]
        own = not name.startswith("__") and (callable(value) or hasattr(value, "__get__"))
        return own and any(name in vars(parent) for parent in cls.__mro__[1:])

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", real("weight", self.weight, minimum=0.0))

    @property
    def weak_convexity(self) -> float:
        """Smallest rho >= 0 for which psi + rho/2 ||.||^2 is convex."""
        return 0.0

    @property
    def strong_convexity(self) -> float:
        """Largest m >= 0 known for which psi - m/2 ||.||^2 is convex."""
        return 0.0

    # -- the function and its proximal maps -------------------------------------------------------------------------

    @abstractmethod
    def value(self, w: Array) -> Array:
        """psi(w).

        Parameters
        ----------
        w : array
            Of any real floating dtype.

        Returns
        -------
        float64 array, 0-d
        """

    @abstractmethod
    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """The proximal map argmin_x 1/2 ||x - z||^2 + step psi(x): a global minimiser, for nonconvex psi too.

        Parameters
        ----------
        z : array
            The point that is mapped.
        step : float or array
            Factor of psi, >= 0: one number, or one per piece in the shape of `group_max`.

        Returns
        -------
        array
            Like ``z``, with exact zeros.
        """

    def prox_structure(self, z: Array, step: Array | float = 1.0) -> tuple[Array, Structure | None]:
        """`prox` and the structure its thresholding produced.

        Parameters
        ----------
        z : array
            The point that is mapped.
        step : float or array
            As in `prox`.

        Returns
        -------
        point : array
            What `prox` gives.
        structure : Structure or None
            None where exact zeros tell it (`structure`).
        """
        return self.prox(z, step), None

    def prox_sequence(self, basis: Array | None = None, *, exact: bool = False) -> ProxSequence:
        """The proximal map as a solver asks for it again and again, at arrays that are close to one another.

        Parameters
        ----------
        basis : array, optional
            `ProxSequence.basis` of an earlier sequence.
        exact : bool
            Whether every call must keep within its slack.

        Returns
        -------
        ProxSequence
        """
        return ProxSequence(self)

    # metric_prox(linear, diag, scale=1.0) = argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x) is defined by those
    # classes that can compute it exactly, and by no other.

    def has_metric_prox(self, diag: Array, scale: Array | float = 1.0) -> bool:
        """Whether ``metric_prox`` is exact for the subproblem with this metric and this factor of psi.

        Parameters
        ----------
        diag : array
            Diagonal of the metric P, positive.
        scale : float
            Factor of psi, alpha of (4) of arXiv:2403.14398.

        Returns
        -------
        bool
        """
        return self.has_exact_method

    @property
    def has_exact_method(self) -> bool:
        """Whether ``metric_prox`` exists; `has_metric_prox` says for which metrics."""
        return hasattr(self, "metric_prox")

    @property
    def exact_in_every_metric(self) -> bool:
        """Whether ``metric_prox`` exists and is exact for every positive diagonal."""
        return self.has_exact_method

    # -- the pieces psi separates into, and the arrays it takes -------------------------------------------------------

    def check_shape(self, shape: tuple[int, ...]) -> None:  # noqa: B027 (most psi take any shape)
        """Refuse shapes of arrays for which psi is not defined; by default, none.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Raises
        ------
        ValueError
            If an axis that psi names is missing, or a grouping is of another size.
        """

    def describe_pieces(self, shape: tuple[int, ...]) -> str:
        """What psi sees in an array of this shape, in words.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Returns
        -------
        str
            Such as "entries", or "64 groups of 10".
        """
        return "entries"

    @property
    def tied_to_shape(self) -> bool:
        """Whether psi carries a grouping that fits arrays of one size only (labels, a view)."""
        return False

    def for_slices(self, dims: tuple[int, ...], shape: tuple[int, ...], view: tuple[int, ...]) -> Regularizer:
        """psi for an array of ``shape`` whose groups are the slices over ``dims`` of the array seen in ``view``.

        A psi without groups stays as it is; one that needs a matrix takes the first axis of ``shape`` as its rows.

        Parameters
        ----------
        dims : tuple of int
            Axes of the view that a group extends over.
        shape : tuple of int
            Of the array.
        view : tuple of int
            Shape, of as many entries in C order, in which ``dims`` name axes.

        Returns
        -------
        Regularizer
            Of the same class and weight.
        """
        return self

    @property
    def as_groups(self) -> Any:
        """This psi if its pieces are groups of entries, with `group_norms` and `spread`; else None."""
        return None

    @property
    def as_matrices(self) -> Any:
        """This psi if its pieces are the singular values of a matrix that it sees (`matrix`, `array`); else None."""
        return None

    @property
    def joint_shapes(self) -> tuple[tuple[int, ...], ...] | None:
        """Shapes of the arrays that one vector of this psi holds, one after the other; None if it takes one array."""
        return None

    def of_part(self, shape: tuple[int, ...], kept: Mapping[int, np.ndarray]) -> Regularizer:
        """The same penalty of what remains when zeros have been cut out of an array.

        Parameters
        ----------
        shape : tuple of int
            Of the array before.
        kept : mapping from int to int array
            Axis -> the indices along it that remain.

        Returns
        -------
        Regularizer

        Raises
        ------
        ValueError
            If what remains has no such penalty.
        """
        return self

    def of_parts(self, kept: Sequence[Mapping[int, np.ndarray]]) -> Regularizer:
        """`of_part` of a psi that takes several arrays together.

        Parameters
        ----------
        kept : sequence of mapping from int to int array
            For every array: axis -> the indices along it that remain.

        Returns
        -------
        Regularizer

        Raises
        ------
        ValueError
            If it takes one array, or what remains has no such penalty.
        """
        raise ValueError(f"{type(self).__name__} takes one array, not {len(kept)}")

    def piece_axes(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Axes along which a piece extends, where the pieces are slices of the array; None where they are not.

        An array may be cut between slices, and every part be treated by itself.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Returns
        -------
        tuple of int or None
            Empty where every entry is a piece.
        """
        return None

    def group_support(self, w: Array) -> GroupSupport | None:
        """Which groups of ``w`` are nonzero, from exact zeros; None if psi has no groups.

        Parameters
        ----------
        w : array
            Of any real floating dtype.

        Returns
        -------
        GroupSupport or None
        """
        return None

    def group_max(self, diag: Array) -> Array:
        """Largest entry of ``diag`` in each piece psi separates into (the whole array if it does not separate).

        Parameters
        ----------
        diag : array
            Diagonal of a metric.

        Returns
        -------
        array
            One number per piece, in the shape that `prox` takes as ``step``.
        """
        return namespace(diag=diag).max(diag)

    def spread(self, per_group: Array, like: Array) -> Array:
        """One number per piece laid out so that it multiplies the entries of an array.

        Parameters
        ----------
        per_group : array
            In the shape that `group_max` gives.
        like : array
            The array whose pieces these are.

        Returns
        -------
        array
            Of a shape that broadcasts against ``like``.
        """
        return per_group

    # -- first-order conditions -------------------------------------------------------------------------------------

    @abstractmethod
    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Element of least norm of g + scale d psi(w), with d psi the limiting subdifferential.

        Parameters
        ----------
        w, g : arrays of one shape
            A point and the gradient of the smooth part there.
        scale : float
            Factor of psi.

        Returns
        -------
        float64 array of the shape of ``w``
            0 where w is stationary.

        Raises
        ------
        ValueError
            If the shapes differ.
        """

    def subdifferential_distance(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Min over s in scale d psi(w) of ||g + s||, exact: the left side of (7) of arXiv:2403.14398 for g = grad q(w).

        Parameters
        ----------
        w, g : arrays of one shape
            A point and the gradient of the smooth part there.
        scale : float
            Factor of psi.

        Returns
        -------
        float64 array, 0-d

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        xp = namespace(w=w, g=g)
        return norm(xp, self.subdifferential_residual(w, g, scale))

    @abstractmethod
    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - the largest ratio of -g to its bound over the inactive (zero) pieces.

        Its sign tells whether the nondegeneracy that Theorem 3 of arXiv:2403.14398 asks for, -g in the relative
        interior of d psi(w), holds.  The margin looks at inactive pieces only: `subdifferential_distance` says whether
        the active ones are stationary.

        Parameters
        ----------
        w, g : arrays of one shape
            A point and the gradient of the smooth part there.

        Returns
        -------
        float64 array, 0-d
            1 if no piece is inactive, 0 when -g lies on the relative boundary of d psi(w), negative outside.

        Raises
        ------
        ValueError
            If the shapes differ.
        """

    @abstractmethod
    def critical_weight(self, g: Array) -> Array:
        """Smallest weight for which 0 is stationary: where a regularization path starts.

        Parameters
        ----------
        g : array
            Gradient of the smooth part at 0.

        Returns
        -------
        float64 array, 0-d
        """

    def conjugate(self, u: Array) -> float | None:
        """psi*(u) = sup_w <u, w> - psi(w); by default that of a norm.

        Parameters
        ----------
        u : array
            Of any real floating dtype.

        Returns
        -------
        float or None
            Perhaps infinite; None where it is not known.
        """
        if not self.norm:
            return None
        return 0.0 if float(self.critical_weight(u)) <= self.weight else math.inf

    def surely_zero(self, g: np.ndarray, radius: Callable[[np.ndarray], float]) -> np.ndarray:
        """Entries that are zero wherever 0 lies in g' + d psi(w) for a g' near g; by default none is known.

        Parameters
        ----------
        g : float64 array
            A gradient.
        radius : callable
            Flat indices B -> a bound on ||(g' - g)_B||.

        Returns
        -------
        bool array of the shape of ``g``
        """
        return np.zeros(g.shape, dtype=bool)

    def piece_sizes(self, w: Array, g: Array) -> tuple[Array, Array] | None:
        """Norm of every piece of w, and ratio of every piece of g to the bound within which the piece is zero.

        Parameters
        ----------
        w, g : arrays of one shape
            A point and the gradient of the smooth part there.

        Returns
        -------
        sizes, ratios : float64 array
            A number per piece, flat; None where a piece has no such ratio.
        """
        return None

    # -- structure --------------------------------------------------------------------------------------------------

    @abstractmethod
    def structure(self, w: Array) -> Structure:
        """Active manifold at ``w``, read from exact zeros and never from a threshold (waits for a device).

        Parameters
        ----------
        w : array
            Of any real floating dtype.

        Returns
        -------
        Structure
            Compares equal to another of the same manifold.
        """

    def tangent(self, w: Array, direction: Array) -> Array:
        """Part of ``direction`` tangent at ``w`` to its active manifold; by default, that of the nonzero entries.

        Parameters
        ----------
        w, direction : arrays of one shape
            A point and any direction.

        Returns
        -------
        array
            Like ``direction``: its orthogonal projection.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        xp = namespace(w=w, direction=direction)
        same_shape(w=w, direction=direction)
        return xp.where(w == 0, xp.zeros_like(direction), direction)

    def keeping_structure(self, w: Array, direction: Array) -> Array:
        """Part of ``direction`` along which a short straight move from ``w`` makes no zero piece nonzero.

        Parameters
        ----------
        w, direction : arrays of one shape
            A point and any direction.

        Returns
        -------
        array
            Like ``direction``.
        """
        return Regularizer.tangent(self, w, direction)

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """The map d -> (Hessian of psi along its active manifold at ``w``) d.

        Here a central difference of the gradient of psi along the manifold, good to about 1e-9; exact where a class
        says so.

        Parameters
        ----------
        w : array
            Of any real floating dtype.

        Returns
        -------
        callable
            Symmetric; takes an array like ``w``, of which the tangent part counts, and gives a tangent one (float64).
        """
        xp = namespace(w=w)
        w = to_float64(xp, w)
        active = xp.abs(w[w != 0])
        reach = float(xp.min(active)) if math.prod(active.shape) else 1.0
        reach *= float(xp.finfo(xp.float64).eps) ** (1 / 3)

        def product(direction: Array) -> Array:
            d = self.tangent(w, to_float64(xp, direction))
            length = float(norm(xp, d))
            if length == 0:
                return d
            h, no_gradient = reach / length, xp.zeros_like(w)
            ahead, behind = (self.subdifferential_residual(w + each * d, no_gradient) for each in (h, -h))
            return self.tangent(w, (ahead - behind) / (2.0 * h))

        return product

    # -- other ways to solve, and to check --------------------------------------------------------------------------

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """psi of a flat CVXPY variable, from the formula it is published with.

        Parameters
        ----------
        x : cvxpy.Variable
            The entries of an array of ``shape``, in C order.
        shape : tuple of int
            Of the array.

        Returns
        -------
        cvxpy.Expression
            Convex, with a scalar value.

        Raises
        ------
        ValueError
            If psi is not convex, or has no formula for CVXPY.
        """
        why = "states no formula for CVXPY" if self.convex else "is not convex"
        raise ValueError(f"cvxpy solves convex subproblems only, got {self!r}, which {why}")

    def kernel(self) -> KernelSpec | None:
        """What a compiled engine needs to solve the subproblem in a metric; None if only Python can.

        A subclass that overrides any method has none, unless it states its own.

        Returns
        -------
        KernelSpec or None
        """
        return None

    # -- plain data -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` rebuilds an equal regularizer.

        Returns
        -------
        dict
            Of numbers, strings and lists: ``torch.load(weights_only=True)`` reads it.
        """
        data: dict[str, Any] = {"name": type(self).__name__}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                data[field.name] = list(value) if isinstance(value, tuple) else value
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Regularizer:
        """Rebuild a regularizer from `to_dict`'s data.

        Parameters
        ----------
        data : dict
            The name of a class and its arguments.

        Returns
        -------
        Regularizer

        Raises
        ------
        ValueError
            If no regularizer of that name is defined, or it has no such argument.
        """
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        name = arguments.pop("name", None)
        if name in FORMER:
            return FORMER[name](**arguments)
        known = Regularizer._registry
        if name not in known or inspect.isabstract(known[name]):
            names = sorted(each for each, cls in known.items() if not inspect.isabstract(cls))
            raise ValueError(
                f"name must be one of {names}, got {name!r}: if that is a regularizer of your own, import the module "
                "that defines it first"
            )
        takes = {field.name for field in fields(known[name])}
        if unknown := sorted(set(arguments) - takes):
            raise ValueError(f"{name} has no argument {unknown[0]!r}; it takes {sorted(takes)}")
        found: Any = known[name]
        regularizer: Regularizer = found(**arguments)
        return regularizer


FORMER: dict[str, Callable[..., Regularizer]] = {}
"""Names that earlier versions wrote, and what makes a regularizer of their arguments."""
