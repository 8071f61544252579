"""The Hessian of F along the active manifold of a point, as a matrix, and its least eigenvalue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ramda_theory.problems import Problem
from ramda_theory.regularizers import NuclearNorm
from ramda_theory.structure import numerical_rank


def manifold_curvature(problem: Problem, w: np.ndarray, gradient: np.ndarray) -> tuple[float, float]:
    """Least and largest eigenvalue of the Hessian of F along the active manifold of psi at ``w``.

    Parameters
    ----------
    problem : Problem
    w, gradient : float64 array
        A point, and grad f there.

    Returns
    -------
    least, largest : float
        Infinity and 0 where the manifold is a point.

    Notes
    -----
    On matrices of rank r the gradient's normal part N bends F too: for a tangent d = U M V^T + A V^T + U B^T the
    Riemannian Hessian of f adds N B S^-1 V^T + U S^-1 A^T N, which is tangent.
    """
    psi = problem.regularizer
    basis = _tangent_basis(problem, w)
    if not len(basis):
        return np.inf, 0.0
    smooth, penalty = problem.hessian(w), psi.manifold_hessian(w)
    bend = _bend(matrices, w, gradient) if (matrices := psi.as_matrices) is not None else None
    images = []
    for d in basis:
        image = smooth(d) + penalty(d) + (bend(d) if bend is not None else 0.0)
        images.append(image.ravel())
    flat = np.array([d.ravel() for d in basis])
    matrix = flat @ np.array(images).T
    eigenvalues = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))
    return float(eigenvalues[0]), float(np.max(np.abs(eigenvalues)))


def _tangent_basis(problem: Problem, w: np.ndarray) -> list[np.ndarray]:
    psi = problem.regularizer
    if psi.as_matrices is None:
        active = np.flatnonzero(psi.tangent(w, np.ones_like(w)))
        return [unit.reshape(w.shape) for unit in np.eye(w.size)[active]]
    units = np.eye(w.size).reshape(w.size, *w.shape)
    projected = np.array([psi.tangent(w, unit).ravel() for unit in units])
    u, s, _ = np.linalg.svd(projected)
    return [column.reshape(w.shape) for column in u[:, s > 0.5].T]


def _bend(psi: NuclearNorm, w: np.ndarray, gradient: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What the normal part N of the gradient adds to the Hessian at w = U S V^T."""
    matrix, g = psi.matrix(w), psi.matrix(gradient)
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    rank = numerical_rank(s, matrix.shape, float(np.finfo(np.float64).eps))
    u, s, v = u[:, :rank], s[:rank], vh[:rank].T
    normal = g - u @ (u.T @ g)
    normal = normal - (normal @ v) @ v.T

    def product(d: np.ndarray) -> np.ndarray:
        d = psi.matrix(d)
        a, b = d @ v - u @ (u.T @ d @ v), d.T @ u - v @ (v.T @ d.T @ u)
        change = (normal @ b / s) @ v.T + u @ ((a.T @ normal) / s[:, None])
        return np.asarray(psi._unmatrix(np, change, w))

    return product
