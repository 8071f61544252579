"""The methods once more, as loops over Python floats written from the paper's recurrences (arXiv:2403.14398, Section 2
and Table 6); nothing here knows the package or an array library.

A point is a list of floats, the groups of psi are lists of indices (``None``: an entry each), ``weight`` is lambda.
"""

from __future__ import annotations

import math


def norm(values) -> float:
    return math.sqrt(math.fsum(v * v for v in values))


def minimiser(b: list[float], d: list[float], scale: float, weight: float, groups=None) -> list[float]:
    """argmin 1/2 <x, d x> - <b, x> + scale psi(x): soft thresholds, or the group's scalar equation by bisection."""
    if groups is None:
        return [math.copysign(max(abs(bi) - scale * weight, 0.0), bi) / di for bi, di in zip(b, d, strict=True)]
    x = [0.0] * len(b)
    for group in groups:
        lam = scale * weight * math.sqrt(len(group))
        if norm(b[i] for i in group) <= lam:
            continue
        low, high = 0.0, norm(b[i] / d[i] for i in group)
        for _ in range(200):
            rho = 0.5 * (low + high)
            if rho in (low, high):
                break
            if math.fsum((b[i] / (rho * d[i] + lam)) ** 2 for i in group) > 1.0:
                low = rho
            else:
                high = rho
        for i in group:
            x[i] = high * b[i] / (high * d[i] + lam)
    return x


def constant(gradients):
    """The gradient function of step t = 1, 2, ... that looks up arrays."""
    return lambda w, t: gradients[t - 1].ravel().tolist()


def prox(z: list[float], scale: float, weight: float, groups=None) -> list[float]:
    """argmin 1/2 ||x - z||^2 + scale psi(x); for a group, shrink its norm."""
    if groups is None:
        return minimiser(z, [1.0] * len(z), scale, weight)
    x = [0.0] * len(z)
    for group in groups:
        size, lam = norm(z[i] for i in group), scale * weight * math.sqrt(len(group))
        for i in group:
            x[i] = z[i] * (1.0 - lam / size) if size > lam else 0.0
    return x


def ramda(w, gradient, settings, weight=0.0, groups=None, metric="cbrt"):
    """Algorithm 1 from W_0 = w with settings (eta_t, c_t, eps); metric "sqrt t" is RMDA.  Yields (W_t, What_t)."""
    n = range(len(w))
    anchor, v, u, alpha = list(w), [0.0] * len(w), [0.0] * len(w), 0.0
    for t, (eta, c, eps) in enumerate(settings, start=1):
        g = gradient(w, t)
        s = eta * math.sqrt(t)
        alpha = alpha + s
        v = [v[i] + s * g[i] for i in n]
        u = [u[i] + s * g[i] ** 2 for i in n]
        p = [math.cbrt(u[i]) + eps if metric == "cbrt" else math.sqrt(t) for i in n]
        w_hat = minimiser([p[i] * anchor[i] - v[i] for i in n], p, alpha, weight, groups)
        w = [(1.0 - c) * w[i] + c * w_hat[i] for i in n]
        yield w, w_hat


def prox_sgd(w, gradient, settings, weight=0.0, groups=None):
    """m = (1-c) m + c G, W = prox_{eta psi}(W - eta m)."""
    n, m = range(len(w)), [0.0] * len(w)
    for t, (eta, c, _) in enumerate(settings, start=1):
        g = gradient(w, t)
        m = [(1.0 - c) * m[i] + c * g[i] for i in n]
        w = prox([w[i] - eta * m[i] for i in n], eta, weight, groups)
        yield w, w


def nsgd(w, gradient, settings, weight=0.0, groups=None, tau=1.0):
    """z <- z - a (G + (z - x)/tau), x = prox_{tau psi}(z), from a z whose proximal point is w."""
    n, z = range(len(w)), list(w)
    for group in [[i] for i in n] if groups is None else groups:
        size = norm(w[i] for i in group)
        for i in group:
            z[i] = w[i] * (1.0 + tau * weight * math.sqrt(len(group)) / size) if size > 0 else 0.0
    for t, (a, _, _) in enumerate(settings, start=1):
        g = gradient(w, t)
        z = [z[i] - a * (g[i] + (z[i] - w[i]) / tau) for i in n]
        w = prox(z, tau, weight, groups)
        yield w, w


def rda(w, gradient, settings, weight=0.0, groups=None):
    """argmin <V, W> + alpha psi(W) + sqrt(t)/2 ||W - W^0||^2, V and alpha the sums of eta G and eta; then (5)."""
    n, anchor, v, alpha = range(len(w)), list(w), [0.0] * len(w), 0.0
    for t, (eta, c, _) in enumerate(settings, start=1):
        g = gradient(w, t)
        v = [v[i] + eta * g[i] for i in n]
        alpha += eta
        w_hat = minimiser([math.sqrt(t) * anchor[i] - v[i] for i in n], [math.sqrt(t)] * len(w), alpha, weight, groups)
        w = [(1.0 - c) * w[i] + c * w_hat[i] for i in n]
        yield w, w_hat


def prox_gen(w, gradient, settings, weight=0.0, groups=None, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0, metric=None):
    """AdamW's moments and decay, then (6) in the metric sqrt(vhat) + eps, or in a given one (a function of t)."""
    n, m, v = range(len(w)), [0.0] * len(w), [0.0] * len(w)
    forgotten = 1.0
    for t, (eta, _, _) in enumerate(settings, start=1):
        g = gradient(w, t)
        rho = beta1(t) if callable(beta1) else beta1
        forgotten *= rho
        m = [rho * m[i] + (1.0 - rho) * g[i] for i in n]
        v = [beta2 * v[i] + (1.0 - beta2) * g[i] ** 2 for i in n]
        w = [(1.0 - eta * decay) * w[i] for i in n]
        p = [math.sqrt(v[i] / (1.0 - beta2**t)) + eps for i in n] if metric is None else metric(t)
        # (6) without the division by eta: <m, W> + 1/(2 eta) <W - W', P (W - W')> + psi(W)
        b = [p[i] / eta * w[i] - m[i] / (1.0 - forgotten) for i in n]
        w = minimiser(b, [p[i] / eta for i in n], 1.0, weight, groups)
        yield w, w


def proximal_gradient(w, gradient, settings, weight=0.0, groups=None, accelerate=True):
    """Y_{k+1} = W_k + (t_k - 1)/t_{k+1} (W_k - W_{k-1}), t back to 1 when <Y_k - W_k, W_k - W_{k-1}> > 0."""
    n, y, momentum = range(len(w)), list(w), 1.0
    for k, (eta, _, _) in enumerate(settings, start=1):
        g = gradient(y, k)
        new = prox([y[i] - eta * g[i] for i in n], eta, weight, groups)
        if math.fsum((y[i] - new[i]) * (new[i] - w[i]) for i in n) > 0:
            momentum = 1.0
        after = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        pull = (momentum - 1.0) / after if accelerate else 0.0
        y = [new[i] + pull * (new[i] - w[i]) for i in n]
        w, momentum = new, after
        yield w, w
