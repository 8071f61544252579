"""Algorithm 1 with the group LASSO in float64, one group at a time, each equation by bisection: nothing is shared."""

import math

import numpy as np


def labels(shape, dims):
    """The number of the group that every entry is in, when groups span the axes ``dims``."""
    kept = [axis for axis in range(len(shape)) if axis not in {dim % len(shape) for dim in dims}]
    index = np.indices(shape)
    return sum(index[axis] * math.prod([shape[k] for k in kept[i + 1 :]]) for i, axis in enumerate(kept)) + 0 * index[0]


def minimizer(linear, metric, threshold, group):
    """argmin <linear, x> + 1/2 <x, metric x> + sum_g threshold sqrt(n_g) ||x_g||, as flat arrays."""
    x = np.zeros_like(linear)
    for g in np.unique(group):
        own = group == g
        b, d, lam = -linear[own], metric[own], threshold * math.sqrt(own.sum())
        if math.sqrt(math.fsum(b * b)) <= lam:
            continue  # 0 is the minimiser: ||b|| <= lam
        # x = r b / (r d + lam) with r = ||x||, that is ||b / (r d + lam)|| = 1
        low, high = 0.0, math.sqrt(math.fsum((b / d) ** 2))
        for _ in range(200):
            r = 0.5 * (low + high)
            low, high = (r, high) if math.fsum((b / (r * d + lam)) ** 2) > 1 else (low, r)
        x[own] = low * b / (low * d + lam)
    return x


def algorithm_1(start, gradients, weight, dims, lr=0.05, averaging=0.1, eps=1e-6):
    """(W, What) after one stage; ``averaging`` is c, or one c per step."""
    w, group = np.asarray(start, dtype=np.float64).ravel(), labels(np.shape(start), dims).ravel()
    anchor, grad_sum, grad_sq_sum, weight_sum, w_hat = w, np.zeros_like(w), np.zeros_like(w), 0.0, w
    averaging = [averaging] * len(gradients) if isinstance(averaging, float) else averaging
    for t, (gradient, c) in enumerate(zip(gradients, averaging, strict=True), start=1):
        g, s = np.asarray(gradient, dtype=np.float64).ravel(), lr * math.sqrt(t)
        grad_sum, grad_sq_sum, weight_sum = grad_sum + s * g, grad_sq_sum + s * g * g, weight_sum + s
        metric = np.cbrt(grad_sq_sum) + eps
        w_hat = minimizer(grad_sum - metric * anchor, metric, weight_sum * weight, group)
        w = (1 - c) * w + c * w_hat
    return w.reshape(np.shape(start)), w_hat.reshape(np.shape(start))
