"""The nuclear norm: the regularizer of low rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, integers, largest, namespace, to_float64, to_host, total
from ramda_theory.extras import needs
from ramda_theory.regularizers.base import Regularizer
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.regularizers.prox_sequence import ProxSequence
from ramda_theory.regularizers.singular_values import project_out, shrink_singular_values, svd, svdvals
from ramda_theory.regularizers.threshold_sequence import ThresholdSequence
from ramda_theory.structure import Rank, numerical_rank


@dataclass(frozen=True)
class NuclearNorm(Regularizer):
    """weight times the sum of the singular values.

    Parameters
    ----------
    weight : float
        lambda >= 0.
    row_dims, column_dims : tuple of int
        The axes that make up the rows and the columns of the matrix.  The default is that of a matrix; for an array
        with any other number of axes both must be given and name every axis once.
    """

    separable: ClassVar[bool] = False
    needs_matrix: ClassVar[bool] = True
    norm: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    row_dims: tuple[int, ...] = (0,)
    column_dims: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "row_dims", integers("row_dims", self.row_dims))
        object.__setattr__(self, "column_dims", integers("column_dims", self.column_dims))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        self._axes(shape)

    def describe_pieces(self, shape: tuple[int, ...]) -> str:
        return "matrix {} x {}".format(*(math.prod(shape[axis] for axis in axes) for axes in self._axes(shape)))

    def for_slices(self, dims: tuple[int, ...], shape: tuple[int, ...], view: tuple[int, ...]) -> NuclearNorm:
        """The first axis of ``shape`` makes the rows, all others the columns."""
        return replace(self, row_dims=(0,), column_dims=tuple(range(1, len(shape))))

    def _axes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rank = len(shape)
        rows, columns = (
            (tuple(d % rank if -rank <= d < rank else d for d in dims)) for dims in (self.row_dims, self.column_dims)
        )
        if sorted(rows + columns) != list(range(rank)):
            raise ValueError(
                f"row_dims and column_dims must together name each of the {rank} axes of shape {tuple(shape)} "
                f"once, got {self.row_dims} and {self.column_dims}"
            )
        return rows, columns

    @property
    def as_matrices(self) -> Any:
        """This psi."""
        return self

    def matrix(self, array: Array) -> Array:
        """The matricisation of an array, whose singular values count.

        Parameters
        ----------
        array : array
            With the axes that ``row_dims`` and ``column_dims`` name.

        Returns
        -------
        array, shape (rows, columns)
            ``array`` itself where it is that matrix.

        Raises
        ------
        ValueError
            If the two do not name every axis of ``array`` once.
        """
        rows, columns = self._axes(array.shape)
        if rows == (0,) and columns == (1,):
            return array
        xp = namespace(array=array)
        size = math.prod(array.shape[axis] for axis in rows), math.prod(array.shape[axis] for axis in columns)
        return xp.reshape(xp.permute_dims(array, rows + columns), size)

    def array(self, matrix: Array, like: Array) -> Array:
        """Inverse of `matrix`.

        Parameters
        ----------
        matrix : array, shape (rows, columns)
        like : array
            Of the shape that is wanted.

        Returns
        -------
        array
            ``matrix`` itself where ``like`` is a matrix.
        """
        return self._unmatrix(namespace(matrix=matrix), matrix, like)

    def _unmatrix(self, xp: ModuleType, matrix: Array, like: Array) -> Array:
        rows, columns = self._axes(like.shape)
        if rows == (0,) and columns == (1,):
            return matrix
        order = rows + columns
        folded = xp.reshape(matrix, tuple(like.shape[axis] for axis in order))
        return xp.permute_dims(folded, tuple(int(i) for i in np.argsort(order)))

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        return self.weight * total(xp, svdvals(xp, to_float64(xp, self.matrix(w))))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """Singular values soft-thresholded by step * weight; ``step`` is a scalar, psi being one piece."""
        return self._shrink(z, step)[0]

    def prox_structure(self, z: Array, step: Array | float = 1.0) -> tuple[Array, Rank]:
        """`prox` and the number of singular values its threshold left (waits for a device)."""
        x, rank = self._shrink(z, step)
        return x, Rank(int(rank), *self.matrix(z).shape)

    def prox_sequence(self, basis: Array | None = None, *, exact: bool = False) -> ProxSequence:
        """Its proximal maps go from one basis of singular vectors to the next."""
        return ThresholdSequence(self, basis, exact=exact)

    def _shrink(self, z: Array, step: Array | float) -> tuple[Array, Array]:
        xp = namespace(z=z)
        if getattr(step, "ndim", 0):
            raise ValueError(f"step must be a scalar for the nuclear norm, got {step!r}")
        x, rank = shrink_singular_values(xp, to_float64(xp, self.matrix(z)), step * self.weight)
        return xp.astype(self._unmatrix(xp, x, z), z.dtype), rank

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """With w = U S V^T of rank r, T and N the tangent and normal part of g: T + scale weight U V^T + shrunk N."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        lam = scale * self.weight
        left, right, _ = self._factors(xp, w)
        gm = to_float64(xp, self.matrix(g))
        normal = project_out(xp, left, right, gm)
        shrunk, _ = shrink_singular_values(xp, normal, lam)
        return self._unmatrix(xp, (gm - normal) + lam * (left @ right.T) + shrunk, g)

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - ||normal part of g||_2 / weight."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        left, right, shape = self._factors(xp, w)
        if left.shape[1] == min(shape):
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        normal = project_out(xp, left, right, to_float64(xp, self.matrix(g)))
        return 1.0 - largest(xp, svdvals(xp, normal)) / self.weight

    def critical_weight(self, g: Array) -> Array:
        """Spectral norm of ``g``."""
        xp = namespace(g=g)
        return largest(xp, svdvals(xp, to_float64(xp, self.matrix(g))))

    def _factors(self, xp: ModuleType, w: Array) -> tuple[Array, Array, tuple[int, int]]:
        """Left and right singular vectors of the numerical rank of ``w``."""
        matrix = to_float64(xp, self.matrix(w))
        u, s, vh = svd(xp, matrix)
        rank = numerical_rank(to_host(s), tuple(matrix.shape), self._epsilon(xp, w))
        return u[:, :rank], vh[:rank, :].T, tuple(matrix.shape)

    @staticmethod
    def _epsilon(xp: ModuleType, w: Array) -> float:
        return float(xp.finfo(w.dtype).eps)

    def column_part(self, w: Array, direction: Array) -> Array:
        """Part of ``direction`` in the column space of ``w``: no move along it raises the rank.

        Parameters
        ----------
        w, direction : arrays of one shape
            A point and any direction.

        Returns
        -------
        array
            Like ``direction``: U U^T direction, with w = U S V^T.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        xp = namespace(w=w, direction=direction)
        same_shape(w=w, direction=direction)
        left, _, _ = self._factors(xp, w)
        part = left @ (left.T @ to_float64(xp, self.matrix(direction)))
        return xp.astype(self._unmatrix(xp, part, w), direction.dtype)

    def keeping_structure(self, w: Array, direction: Array) -> Array:
        return self.column_part(w, direction)

    def tangent(self, w: Array, direction: Array) -> Array:
        """Part of ``direction`` tangent at ``w`` to the matrices of its rank."""
        xp = namespace(w=w, direction=direction)
        same_shape(w=w, direction=direction)
        left, right, _ = self._factors(xp, w)
        d = to_float64(xp, self.matrix(direction))
        return xp.astype(self._unmatrix(xp, d - project_out(xp, left, right, d), w), direction.dtype)

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """The Riemannian Hessian on the matrices of the rank of w = U S V^T, with the metric of the entries.

        The gradient is weight U V^T.  For a tangent d = U M V^T + A V^T + U B^T (A orthogonal to U, B to V) it changes
        by weight (A S^-1 V^T + U S^-1 B^T + U K V^T), K_ij = (M_ij - M_ji) / (s_i + s_j), which is tangent as well.
        """
        xp = namespace(w=w)
        matrix = to_float64(xp, self.matrix(w))
        u, s, vh = svd(xp, matrix)
        rank = numerical_rank(to_host(s), tuple(matrix.shape), self._epsilon(xp, w))
        left, s, right = u[:, :rank], s[:rank], vh[:rank, :].T

        def product(d: Array) -> Array:
            d = to_float64(xp, self.matrix(d))
            columns, rows = d @ right, left.T @ d
            middle = rows @ right
            a, b = columns - left @ middle, rows - middle @ right.T
            turn = (middle - middle.T) / (s[:, None] + s[None, :])
            change = (a / s) @ right.T + left @ (b / s[:, None]) + left @ turn @ right.T
            return self.weight * self._unmatrix(xp, change, w)

        return product

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """weight times the nuclear norm of the matricisation."""
        with needs("experiments"):
            import cvxpy as cp

        rows, columns = self._axes(shape)
        entries = np.arange(math.prod(shape)).reshape(shape).transpose(rows + columns)
        entries = entries.reshape(math.prod(shape[axis] for axis in rows), -1)
        return self.weight * cp.normNuc(cp.reshape(x[entries.ravel()], entries.shape, order="C"))

    def structure(self, w: Array) -> Rank:
        """Numerical rank: singular values above rounding level of ``w``'s dtype."""
        xp = namespace(w=w)
        matrix = to_float64(xp, self.matrix(w))
        rank = numerical_rank(to_host(svdvals(xp, matrix)), tuple(matrix.shape), self._epsilon(xp, w))
        return Rank(rank, *matrix.shape)
