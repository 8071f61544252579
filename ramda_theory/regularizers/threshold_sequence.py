"""Soft-thresholding of the singular values of a sequence of matrices of low rank, from one basis to the next."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, is_host, namespace, to_float64
from ramda_theory.regularizers.matrix_products import shrink_by_products
from ramda_theory.regularizers.prox_sequence import ProxSequence
from ramda_theory.regularizers.singular_values import GRAM_LIMIT, eigh, svd
from ramda_theory.regularizers.whole_basis import shrink_in_basis
from ramda_theory.structure import Rank

WIDEST = 0.5
"""A basis of more columns than this share of the shorter side costs more than a decomposition."""
MANY = 256
"""Of fewer singular vectors, all are found anew as fast as by products from those before."""
GROWTH = 0.1
"""Of rounding, at most, in a column that a polynomial makes less of than of others."""
PASSES, DEGREE = 6, 4
"""Subspace iterations before a decomposition, and of what degree those are that a single product did not spare."""
PATIENCE = 30.0
"""Times the slack: what may be left to the next call."""
RESOLVED = 30.0
"""Times eps ||Z||^2: squares of singular values above this are found from products in the precision of Z."""
COARSE = 1e-5
"""Below this share of ||Z||, too many singular values are lost in float32's rounding for its decomposition to help."""
LEEWAY = 1e-5
"""Relative: singular values this little above the threshold are not looked for."""
ORDINARY = 16
"""Largest entries of 2^-16 to 2^16 are taken as they are: squares of singular values, and more, are made of them."""
HUGE = 1e100
"""Above all singular values of such a matrix, and its square is a number."""


Found = tuple[Array, int, float]
"""X, its rank, and the norm of E."""


class ThresholdSequence(ProxSequence):
    """The nuclear norm's proximal map by subspace iteration from the basis of the call before.

    With Q the basis of the left singular vectors, Rayleigh-Ritz on Q^T Z = U' S V^T gives singular triplets; those with
    S > tau make X = Q U' (S - tau) V^T.  Then Z - X = E + N, where E = Z V - Q U' S is how far they are from singular
    and N / tau is a subgradient of the nuclear norm at X if nothing above tau is left in Z - Q Q^T Z, which a Cholesky
    factorization of tau^2 I minus its Gram matrix tells (`confirmed`).  Where the rank is not low, the basis is that of
    all singular vectors, and products make up for what they have changed (`shrink_in_basis`).  Where there is no basis
    yet, E stays large, they have changed too much, or the test fails, the Gram matrix of Z is decomposed.  On
    accelerators float32 matrices are thresholded by products alone (`shrink_by_products`).

    Parameters
    ----------
    regularizer : NuclearNorm
    basis : array, shape (shorter side, columns), optional
        That of an earlier sequence.
    exact : bool
        Iterate until the error is within the slack, or decompose.  Otherwise an error some times as large is left to
        the next call, where it is made up for on the way.
    """

    def __init__(self, regularizer: Any, basis: Array | None = None, *, exact: bool = False) -> None:
        super().__init__(regularizer)
        self.basis, self._exact = basis, exact
        self._fresh, self._outdated = True, False
        self._confirm: tuple[Array, Array, float] | None = None
        self.decompositions = 0

    def __call__(self, z: Array, step: float, slack: float) -> tuple[Array, Rank, float]:
        """As in `ProxSequence`; ``step`` times the weight is the threshold tau."""
        xp = namespace(z=z)
        matrix = self.regularizer.matrix(z)
        rows, columns = matrix.shape
        short = matrix if rows <= columns else matrix.T
        threshold = float(step) * self.regularizer.weight
        if threshold > 0 and z.dtype == xp.float32 and not is_host(z):
            x, trace = shrink_by_products(short, threshold)
            error = 16.0 * float(xp.finfo(z.dtype).eps) * float(xp.linalg.vector_norm(z))
            x = self.regularizer.array(x if rows <= columns else x.T, z)
            return x, Rank(round(float(trace)), rows, columns), error
        exponent = unusual_exponent(xp, matrix)
        if exponent:  # powers of two, so nothing is rounded
            short = short * 2.0**-exponent
            threshold, slack = threshold * 2.0**-exponent, slack * 2.0**-exponent
        threshold = min(threshold, HUGE)
        found = self._from_basis(xp, short, threshold, slack) if threshold > 0 else None
        if found is None:
            found = self._decomposed(xp, short, threshold, slack)
        x, rank, error = found
        if exponent:
            x, error = x * 2.0**exponent, error * 2.0**exponent
        x = self.regularizer.array(x if rows <= columns else x.T, z)
        return x, Rank(rank, rows, columns), error

    def confirmed(self) -> bool:
        """As in `ProxSequence`."""
        if self._confirm is None:
            return True
        (q, short, threshold), self._confirm = self._confirm, None
        xp = namespace(q=q)
        rest = short - q @ (q.T @ short)
        gram = rest @ rest.T
        level = (threshold * (1.0 + LEEWAY)) ** 2
        if positive_definite(xp, level * xp.eye(gram.shape[0], dtype=gram.dtype, device=gram.device) - gram):
            return True
        self.basis = None
        return False

    def _from_basis(self, xp: ModuleType, z: Array, threshold: float, slack: float) -> Found | None:
        """By subspace iteration; None where a decomposition is called for."""
        self._confirm = None
        q = self.basis
        if q is None or q.shape[0] != z.shape[0] or not q.shape[1]:
            return None
        if q.shape[0] == q.shape[1]:
            found = shrink_in_basis(xp, z, xp.astype(q, z.dtype), threshold, slack, guess=True)
            if found is not None:
                self.basis = self._columns(q, found[1])
            self._outdated = found is None
            return found
        if q.shape[1] > WIDEST * z.shape[0]:
            return None
        q = xp.astype(q, z.dtype)
        if self._fresh:
            q, _ = xp.linalg.qr(q)
            self._fresh = False
        for number in range(1, PASSES + 1):
            c = q.T @ z
            unresolved = threshold**2 < RESOLVED * float(xp.finfo(c.dtype).eps * xp.linalg.vector_norm(c) ** 2)
            fine = to_float64(xp, c) if self._exact or unresolved else c
            values, turn = eigh(xp, fine @ fine.T)
            q, c = q @ xp.astype(turn, z.dtype), xp.astype(turn.T @ fine, z.dtype)
            rank = int(xp.count_nonzero(values > threshold**2))
            if rank == len(values) or not 0 < float(values[0]) < math.inf:
                return None
            if len(values) > room_for(rank + rank // 4):  # the rank has fallen: what is not needed costs time
                first = len(values) - room_for(rank)
                q, c, values = q[:, first:], c[first:], values[first:]
            image = (c @ z.T).T  # in this order it is faster
            singular = xp.sqrt(values[len(values) - rank :])
            kept, right = q[:, q.shape[1] - rank :], c[c.shape[0] - rank :]
            off = (image[:, image.shape[1] - rank :] - kept * xp.astype(singular**2, z.dtype)) / xp.astype(
                singular, z.dtype
            )
            error = float(xp.linalg.vector_norm(off))
            near = error <= slack or (not self._exact and number > 1 and error <= PATIENCE * slack)
            if not near and number == PASSES:
                return None
            if near and self._exact:
                self.basis = q
            else:
                degree = DEGREE if self._exact or (not near and number > 1) else 1
                q = self.basis = filtered(xp, z, q, image, values, degree)
            if near:
                break
        x = (kept * xp.astype(1.0 - threshold / singular, z.dtype)) @ right
        self._confirm = kept, z, threshold
        return x, rank, error

    @staticmethod
    def _columns(q: Array, rank: int) -> Array | None:
        """What is to be kept of singular vectors in ascending order: the largest, all, or nothing."""
        columns = room_for(rank)
        if columns <= WIDEST * q.shape[0]:
            return q[:, q.shape[1] - columns :]
        return q if q.shape[0] >= MANY else None

    def _decomposed(self, xp: ModuleType, z: Array, threshold: float, slack: float) -> Found:
        """By the eigenvectors of the Gram matrix, in the precision that the slack allows, or an SVD."""
        self.decompositions += 1
        self._fresh = False
        size = float(xp.linalg.vector_norm(z))
        # What rounding does to Z Z^T moves what is made of a singular value s by so much of ||Z||^2 / s.
        rounding = 4.0 * float(xp.finfo(z.dtype).eps) * size**2
        error = rounding / threshold if threshold else math.inf
        double = z if error <= slack else to_float64(xp, z)
        coarse = error > slack and z.dtype != double.dtype and threshold > COARSE * size
        refined = self._refined(xp, z, threshold, slack) if coarse else None
        if refined is not None:
            x, q, rank = refined
        elif threshold > GRAM_LIMIT * size or self._enough(double, size, threshold, slack):
            values, q = eigh(xp, double @ double.T)
            singular = xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))
            rank = int(xp.count_nonzero(singular > threshold))
            top, kept = singular[len(values) - rank :], q[:, q.shape[1] - rank :]
            x = (kept * (1.0 - threshold / top)) @ (kept.T @ double)
        else:
            u, s, vh = svd(xp, double)
            rank = int(xp.count_nonzero(s > threshold))
            q = xp.flip(u, axis=1)
            x = (u[:, :rank] * (s[:rank] - threshold)) @ vh[:rank]
        basis = self._columns(q, rank)
        if self._exact and self._outdated and basis is q:
            basis = None  # the next matrix would be as far away: not worth the try
        self.basis = None if basis is None else xp.astype(basis, z.dtype)
        return xp.astype(x, z.dtype), rank, error if error <= slack else 0.0

    @staticmethod
    def _enough(z: Array, size: float, threshold: float, slack: float) -> bool:
        """Whether the Gram matrix of Z tells X within the slack, and its rank."""
        eps = float(namespace(z=z).finfo(z.dtype).eps)
        return RESOLVED * eps * size**2 <= threshold**2 and 4.0 * eps * size**2 <= threshold * slack

    def _refined(self, xp: ModuleType, z: Array, threshold: float, slack: float) -> tuple[Array, Array, int] | None:
        """X, a basis of ascending singular vectors, and the rank, in float32 but for the small singular values.

        The rows of C = Q^T Z, Q from the Gram matrix in float32, are orthogonal but for rounding, relatively about
        r = 8 eps ||Z||_2^2 / (s_i s_j), which moves X by tau r.  Where that is above the slack, rows are turned by what
        float64 says of them alone; where they are too many, products make up for it.  None where that does not help.
        """
        values, q = eigh(xp, z @ z.T)
        most = float(values[-1])
        if not (threshold > 0 and slack > 0 and 0 < most < math.inf):
            return None
        cut = 8.0 * float(xp.finfo(z.dtype).eps) * threshold * most / slack  # of s_i s_j
        singular = xp.sqrt(xp.clip(values, min=0.0))
        low = int(xp.count_nonzero((singular * xp.min(singular) < cut) | (singular < 2.0 * threshold)))
        if low > WIDEST * z.shape[0]:
            found = shrink_in_basis(xp, z, q, threshold, slack)
            return None if found is None or found[1] <= WIDEST * z.shape[0] else (found[0], q, found[1])
        c = q.T @ z
        singular = xp.linalg.vector_norm(c, axis=1)
        if low:
            part = to_float64(xp, c[:low])
            turn = xp.astype(eigh(xp, part @ part.T)[1], z.dtype)
            q[:, :low], c[:low] = q[:, :low] @ turn, turn.T @ c[:low]
            singular = xp.linalg.vector_norm(c, axis=1)
        rank = int(xp.count_nonzero(singular > threshold))
        if rank < len(values) // 2:
            top = singular[len(values) - rank :]
            return (q[:, len(values) - rank :] * (1.0 - threshold / top)) @ c[len(values) - rank :], q, rank
        factor = threshold / xp.where(singular > threshold, singular, xp.full_like(singular, threshold))
        return z - (q * factor) @ c, q, rank


def unusual_exponent(xp: ModuleType, z: Array) -> int:
    """The power of two by which a matrix is to be divided so that products of it are neither Inf nor 0; 0 for none."""
    most = max(float(xp.max(z)), -float(xp.min(z))) if 0 not in z.shape else 0.0  # abs would take memory, and time
    if not 0 < most < math.inf or 2.0**-ORDINARY <= most <= 2.0**ORDINARY:
        return 0
    limit = math.frexp(float(xp.finfo(z.dtype).max))[1] - 8
    return max(-limit, min(math.frexp(most)[1], limit))


def room_for(rank: int) -> int:
    """Columns of a basis for a rank: some more, for what comes up to the threshold and so that iterations converge."""
    return rank + 4 + rank // 4


def filtered(xp: ModuleType, z: Array, q: Array, image: Array, values: Array, degree: int) -> Array:
    """An orthonormal basis nearer to the largest singular vectors: T_degree(2 Z Z^T / least - I) Q.

    Chebyshev's polynomial is at most 1 on [0, least] and grows fastest beyond.  Columns are divided by what it is at
    their own value, so that none drowns the others.  Where it is so large that the rounding of other columns would grow
    beyond these, degree 1 does, and the others are kept at right angles to them.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    z : array
        The matrix.
    q, image, values : arrays
        Ritz vectors, Z Z^T times them, and their values, the least first and > 0.
    degree : int
        >= 1; a smaller one is taken where it would overflow.
    """
    scale, eps = 2.0 / float(values[0]), float(xp.finfo(z.dtype).eps)
    if degree > 1:
        # Of what is largest in Z, which the basis may know nothing of yet, per degree.
        growth = math.log(2.0 * scale * max(float(values[-1]), float(xp.linalg.vector_norm(z)) ** 2))
        degree = max(1, min(degree, int(0.8 * math.log(float(xp.finfo(z.dtype).max)) / growth)))
    most = 0.5 * (2.0 * GROWTH / eps) ** (1.0 / degree)  # T_degree there is GROWTH / eps
    rest = max(1, int(xp.count_nonzero(scale * values - 1.0 <= most)))
    large = q[:, rest:]

    def deflated(columns: Array) -> Array:
        return columns - large @ (large.T @ columns) if rest < len(values) else columns

    argument = xp.astype(scale * values[:rest] - 1.0, z.dtype)
    before, now = xp.ones_like(argument), argument
    old, new = q[:, :rest], scale * deflated(image[:, :rest]) - q[:, :rest]
    for _ in range(degree - 1):
        old, new = new, 2.0 * (deflated(z @ (scale * (z.T @ new))) - new) - old
        before, now = now, 2.0 * argument * now - before
    columns = [new / now, image[:, rest:] / xp.astype(values[rest:], z.dtype)]
    basis, _ = xp.linalg.qr(xp.concat(columns, axis=1) if rest < len(values) else columns[0])
    return basis


def positive_definite(xp: ModuleType, matrix: Array) -> bool:
    """Whether a symmetric matrix has a Cholesky factorization."""
    if xp is np:
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return False
        return True
    import torch

    return int(torch.linalg.cholesky_ex(matrix).info) == 0
