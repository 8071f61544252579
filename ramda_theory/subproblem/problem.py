"""The subproblem (4) of a method: linear term + diagonal metric + weighted psi, and how to judge a point of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from types import ModuleType
from typing import NamedTuple

from ramda_theory.arrays import Array, inner, namespace, norm, real, to_float64, total
from ramda_theory.regularizers import Regularizer
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.structure import Structure


@dataclass(frozen=True)
class Subproblem:
    """minimise Q(x) = weight_sum psi(x) + <grad_sum, x> + 1/2 <x - anchor, metric (x - anchor)>.

    This is (4) of arXiv:2403.14398.

    ProxGen's subproblem (6), multiplied by eta, is the same object: ``Subproblem(w, eta * m, metric, eta, psi)``.

    Parameters
    ----------
    anchor, grad_sum, metric : arrays of one shape
        W^0, V and the diagonal of P; all finite, ``metric`` positive.
    weight_sum : float
        alpha >= 0, the factor of psi.
    regularizer : Regularizer
        psi.

    Raises
    ------
    TypeError, ValueError
        If the arrays differ in shape or library, hold NaN or Inf, or ``metric`` is not positive.

    Notes
    -----
    Every residual and tolerance is that of the unscaled Q, as in (7).
    """

    anchor: Array
    grad_sum: Array
    metric: Array
    weight_sum: float
    regularizer: Regularizer

    def __post_init__(self) -> None:
        xp = self.xp
        same_shape(anchor=self.anchor, grad_sum=self.grad_sum, metric=self.metric)
        for name in ("anchor", "grad_sum", "metric"):
            array = getattr(self, name)
            # A sum is finite only if all its terms are, and quicker than looking at each.
            if not (bool(xp.isfinite(xp.sum(array))) or bool(xp.all(xp.isfinite(array)))):
                raise ValueError(f"{name} must be finite, it holds NaN or Inf")
        if math.prod(self.metric.shape) and not bool(xp.min(self.metric) > 0):
            raise ValueError(
                f"metric must be positive everywhere, its smallest entry is {float(xp.min(self.metric)):g}"
            )
        if not isinstance(self.regularizer, Regularizer):
            raise TypeError(f"regularizer must be a Regularizer, got {self.regularizer!r}")
        object.__setattr__(self, "weight_sum", real("weight_sum", self.weight_sum, minimum=0.0))

    @classmethod
    def unchecked(
        cls, anchor: Array, grad_sum: Array, metric: Array, weight_sum: Array | float, regularizer: Regularizer
    ) -> Subproblem:
        """A subproblem whose data nobody looks at, since looking waits for a device; ``weight_sum`` may be there too.

        Parameters
        ----------
        anchor, grad_sum, metric, weight_sum, regularizer
            As above.

        Returns
        -------
        Subproblem
        """
        problem = object.__new__(cls)
        values = (anchor, grad_sum, metric, weight_sum, regularizer)
        for field, value in zip(fields(cls), values, strict=True):
            object.__setattr__(problem, field.name, value)
        return problem

    @property
    def xp(self) -> ModuleType:
        """Array namespace of the data."""
        return namespace(anchor=self.anchor, grad_sum=self.grad_sum, metric=self.metric)

    @cached_property
    def linear(self) -> Array:
        """grad_sum - metric * anchor: Q(x) = <linear, x> + 1/2 <x, metric x> + weight_sum psi(x) + constant."""
        xp = self.xp
        return to_float64(xp, self.grad_sum) - to_float64(xp, self.metric) * to_float64(xp, self.anchor)

    def objective(self, x: Array) -> Array:
        """Q(x) of (4).

        Parameters
        ----------
        x : array
            A point, of the shape of the data.

        Returns
        -------
        float64 array, 0-d

        Raises
        ------
        ValueError
            If ``x`` has another shape.
        """
        xp, offset = self.xp, self._offset(x)
        quadratic = inner(xp, self.grad_sum, x) + 0.5 * total(xp, to_float64(xp, self.metric) * offset**2)
        return quadratic + self.weight_sum * self.regularizer.value(x)

    def gradient(self, x: Array) -> Array:
        """Gradient grad_sum + metric (x - anchor) of the smooth part of Q.

        Parameters
        ----------
        x : array
            A point, of the shape of the data.

        Returns
        -------
        float64 array of the shape of ``x``

        Raises
        ------
        ValueError
            If ``x`` has another shape.
        """
        return to_float64(self.xp, self.grad_sum) + to_float64(self.xp, self.metric) * self._offset(x)

    def residual(self, x: Array) -> Array:
        """min over s in dQ(x) of ||s||, the left side of (7), unscaled and exact (not an upper bound).

        Parameters
        ----------
        x : array
            A point, of the shape of the data.

        Returns
        -------
        float64 array, 0-d
            0 at the stationary points of Q and nowhere else.
        """
        return self.regularizer.subdifferential_distance(x, self.gradient(x), self.weight_sum)

    def error_bound(self, x: Array) -> Array:
        """||s||_{P^-1} >= ||x - x*||_P for the s of least norm in dQ(x): a certificate of the error, for convex psi.

        Q is then strongly convex with constant 1 in the norm of P, whose dual is that of P^-1; x* is its minimiser.

        Parameters
        ----------
        x : array
            A point, of the shape of the data.

        Returns
        -------
        float64 array, 0-d
            The bound ||s||_{P^-1}.

        Raises
        ------
        ValueError
            If psi is not convex.
        """
        if not self.regularizer.convex:
            raise ValueError(f"the error bound needs a convex regularizer, got {self.regularizer!r}")
        xp = self.xp
        s = self.regularizer.subdifferential_residual(x, self.gradient(x), self.weight_sum)
        return norm(xp, s / xp.sqrt(to_float64(xp, self.metric)))

    def increase(self, x: Array, start: Array) -> float:
        """Q(x) - Q(start) minus its rounding error, computed from x - start, where equal leading digits cancel.

        Parameters
        ----------
        x : array
            A candidate What_t, of the shape of the data.
        start : array
            W_{t-1}, of the shape of the data.

        Returns
        -------
        float
            At most 0 where the objective condition Q(What_t) <= Q(W_{t-1}) of (7) holds as far as the dtype of the
            data can tell: storing x in it moves psi by a few units of its precision (the nuclear norm of a rounded
            matrix of low rank).
        """
        return float(self.increase_there(x, start))

    def increase_there(self, x: Array, start: Array) -> Array:
        """`increase` as an array, which nobody waits for.

        Parameters
        ----------
        x, start : arrays
            As above.

        Returns
        -------
        float64 array, 0-d
        """
        xp = namespace(anchor=self.anchor, x=x, start=start)
        rounding = 8 * float(xp.finfo(self.anchor.dtype).eps)
        x, start = to_float64(xp, x), to_float64(xp, start)
        step = x - start
        constant, curved = (
            to_float64(xp, self.grad_sum),
            to_float64(xp, self.metric) * (0.5 * (x + start) - self.anchor),
        )
        psi, psi_start = self.regularizer.value(x), self.regularizer.value(start)
        change = inner(xp, constant + curved, step) + self.weight_sum * (psi - psi_start)
        magnitude = inner(xp, xp.abs(constant) + xp.abs(curved), xp.abs(step)) + self.weight_sum * (psi + psi_start)
        return change - rounding * magnitude

    @cached_property
    def magnitude(self) -> float:
        """Size of the terms that cancel in `gradient` at a solution: ||grad_sum|| + ||metric anchor|| + ||linear||."""
        xp = self.xp
        if self.anchor.dtype == xp.float32:
            at_anchor = self.metric * self.anchor
            sizes = (xp.linalg.vector_norm(term) for term in (self.grad_sum, at_anchor, self.grad_sum - at_anchor))
            quick = float(sum(sizes))
            if 1e-15 < quick < 1e15:  # squares neither vanish nor overflow
                return quick
        return float(self.magnitude_there())

    def magnitude_there(self) -> Array:
        """`magnitude` as an array, which nobody waits for.

        Returns
        -------
        float64 array, 0-d
        """
        xp = self.xp
        terms = (self.grad_sum, to_float64(xp, self.metric) * self.anchor, self.linear)
        return sum(norm(xp, term) for term in terms)

    def default_tolerance(self) -> float:
        """The eps_t of (7) that the data's dtype warrants: machine epsilon to the power 2/3 times `magnitude`.

        Returns
        -------
        float
            In the units of `residual`.
        """
        return self.tolerance_at(self.magnitude)

    def tolerance_at(self, magnitude: float) -> float:
        """`default_tolerance`, the size of what cancels being known.

        Parameters
        ----------
        magnitude : float
            As above.

        Returns
        -------
        float
        """
        return float(self.xp.finfo(self.anchor.dtype).eps ** (2 / 3) * magnitude)

    def _offset(self, x: Array) -> Array:
        xp = namespace(anchor=self.anchor, x=x)
        same_shape(anchor=self.anchor, x=x)
        return to_float64(xp, x) - to_float64(xp, self.anchor)


class Candidate(NamedTuple):
    """What a solver hands to `solve` for judgement; ``structure`` only where exact zeros do not tell it."""

    point: Array
    iterations: int
    structure: Structure | None = None
    dual: Array | None = None
    basis: Array | None = None


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Attributes
    ----------
    point : array
        The (approximate) minimiser of Q.
    structure : Structure
        Its active manifold; for the nuclear norm, the rank the solver's own thresholding produced.
    residual : float
        min ||s|| over s in dQ(point), evaluated afresh at ``point`` and not taken from the solver.
    iterations : int
        Iterations of the solver (0 for a closed form).
    status : str
        "solved": residual <= tolerance and, where a start was given, Q(point) <= Q(start).  "max_iter": the residual
        is above the tolerance.  "no_descent": the residual is small but Q(point) > Q(start).
    tolerance : float
        eps_t that ``residual`` was held against.
    descent : bool or None
        Whether Q(point) <= Q(start), as far as the dtype can tell; None without a start.
    dual : array or None
        An element of d psi(point) that the solver ended with ("admm", "als"), from which it can go on; None otherwise.
    """

    point: Array
    structure: Structure
    residual: float
    iterations: int
    status: str
    tolerance: float = math.nan
    descent: bool | None = None
    dual: Array | None = None
