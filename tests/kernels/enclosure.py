"""Where W and What must lie after every step: `ramda_theory.methods` in float64, with bounds on an engine's rounding.

All methods minimise <-b, x> + 1/2 <x, P x> + scale psi(x).  An engine has b up to delta * terms, with ``terms`` the sum
of the absolute values of what is added up in b (the rounding of P x is no larger), plus P times the uncertainty of the
point that the step starts from.  What follows for x needs none of psi's formulas:

- entry by entry the minimiser increases with b: it lies between those of b - error and b + error, also where it jumps;
- for groups and convex psi, ||x - x'||_P <= ||b - b'||_{P^-1} in every group;
- a piece is certainly zero (not zero) if it is so for |b| + error (for |b| - error).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ramda_theory import methods
from ramda_theory.methods import Settings
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD

BETAS, ADAM_EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Pieces:
    """How an array falls into the pieces of psi: entries, or groups along ``dims`` of the array seen as ``view``."""

    entries: bool
    dims: tuple[int, ...] = ()
    view: tuple[int, ...] | None = None

    def over(self, function, array):
        """``function(array, axis, keepdims)`` of every piece, at every entry."""
        if self.entries or not array.size:
            return array
        seen = np.reshape(array, self.view or array.shape)
        each = function(seen, axis=self.dims, keepdims=True) if self.dims else seen
        return np.reshape(np.broadcast_to(each, seen.shape), array.shape)

    def norm(self, array):
        return np.abs(array) if self.entries else np.sqrt(self.over(np.sum, array * array))


@dataclass(frozen=True)
class Bounds:
    """A point in float64 and how far an engine may be from it: in every entry, and in the norm of its piece."""

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray
    radius: np.ndarray

    def excludes(self, found, pieces):
        """Where ``found`` is outside."""
        if pieces.entries:
            return (found < self.low) | (found > self.high) | np.isnan(found)
        return ~(pieces.norm(found - self.point) <= self.radius)


@dataclass(frozen=True)
class Step:
    """After one step: W and What, and which entries of What are certainly zero or certainly not."""

    w: Bounds
    w_hat: Bounds
    zero: np.ndarray
    nonzero: np.ndarray


def method_of(cls, psi, weight_decay=0.0):
    """The NumPy method that an optimizer is."""
    if cls is ProxAdamW:
        return methods.ProxGen(psi, BETAS, eps=ADAM_EPS, weight_decay=weight_decay)
    return {RAMDA: methods.RAMDA, RMDA: methods.RMDA, ProxSGD: methods.ProxSGD}[cls](psi)


class Enclosure:
    """A method taking steps beside an engine.

    Parameters
    ----------
    cls : type
        The optimizer.
    psi : Regularizer, optional
    pieces : Pieces
        Those of psi.
    start : array
        float64, as are gradients.
    delta, eps : float
        Bound on the relative error of a term of b; the unit roundoff in which W is kept.
    """

    def __init__(
        self, cls: Any, psi: Any, pieces: Pieces, start: np.ndarray, delta: float, eps: float, decay: float = 0.0
    ):
        self.cls, self.psi, self.pieces, self.delta, self.eps, self.decay = cls, psi, pieces, delta, eps, decay
        self.method, self.absolute = method_of(cls, psi, decay), method_of(cls, None, decay)
        self.state, self.shadow = self.method.init(start), self.absolute.init(np.zeros_like(start))
        zero = np.zeros_like(start)
        self.w = Bounds(start, start, start, zero)
        self.anchor = self.w
        self.averages = cls in (RAMDA, RMDA)
        self.metric: Any = None  # of the last step, and the radius in it
        self.in_metric: Any = None

    def restart(self, settings: Settings, memory: int) -> None:
        """Begin a stage."""
        self.state = self.method.restart(self.state, settings, memory)
        self.shadow = self.absolute.restart(self.shadow, settings, memory)
        if self.averages:
            self.anchor = self.w

    def step(self, gradient: np.ndarray, settings: Settings) -> Step:
        """Take a step."""
        before = self.state
        self.state, _ = self.method.step(self.state, gradient, settings)
        self.shadow, _ = self.absolute.step(self.shadow, np.abs(gradient), settings)
        if settings.lr == 0:  # the sums take part in it, W does not
            self.state = replace(self.state, w=before.w)
        b, metric, scale, terms = self._subproblem(before, settings)
        point, zero, nonzero = self._point(b, metric, scale, terms)
        if self.averages:
            self.w = self.w if settings.lr == 0 else self._average(self.w, point, settings.averaging)
        elif settings.lr > 0:
            self.w = self.anchor = point
        return Step(self.w, point if self.averages else self.w, zero, nonzero)

    def _subproblem(self, before, settings):
        """b, P, the factor of psi, and the sum of the absolute values of the terms of b."""
        if self.averages:
            metric, scale = self.state.metric, self.state.weight_sum
            linear, absolute, anchor = self.state.grad_sum, self.shadow.grad_sum, self.state.anchor
        elif self.cls is ProxSGD:
            metric, scale, anchor = np.ones_like(before.w), settings.lr, before.w
            linear, absolute = settings.lr * self.state.momentum, settings.lr * self.shadow.momentum
        else:
            metric = np.sqrt(self.state.second_moment / (1 - BETAS[1] ** self.state.step)) + ADAM_EPS
            scale, anchor = settings.lr, (1 - settings.lr * self.decay) * before.w
            linear = settings.lr * self.state.gradient_estimate
            absolute = settings.lr * self.shadow.gradient_estimate
        return metric * anchor - linear, metric, scale, metric * np.abs(anchor) + absolute

    def _point(self, b, metric, scale, terms):
        """Bounds on the minimiser; where it is certainly zero, and certainly not."""

        def minimiser(b):
            if self.psi is None or scale == 0:
                return b / metric
            if self.cls in (RMDA, ProxSGD):  # the metric is a number
                number = float(metric.flat[0]) if metric.size else 1.0
                return self.psi.prox(b / number, scale / number)
            return self.psi.metric_prox(-b, metric, scale)

        over, norm = self.pieces.over, self.pieces.norm
        error = self.delta * terms + metric * self.anchor.radius
        point = minimiser(b)
        if not self.averages or self.state.step:
            np.testing.assert_allclose(
                point, self.state.w_hat, rtol=1e-9, atol=1e-12 * (1 + np.abs(point).max(initial=0))
            )
        less = minimiser(np.sign(b) * np.maximum(np.abs(b) - error, 0.0))
        more = minimiser(b + np.where(b < 0, -1.0, 1.0) * error)
        if self.pieces.entries:
            low, high = minimiser(b - error), minimiser(b + error)
            low, high = low - self.eps * np.abs(low), high + self.eps * np.abs(high)
            return Bounds(point, low, high, np.maximum(point - low, high - point)), (low == 0) & (high == 0), less != 0
        own = norm(self.delta * terms / np.sqrt(metric))
        # ||dw||_P from ||dw||, or from ||dw|| in the metric of the step that dw comes from
        before = np.sqrt(over(np.max, metric)) * self.anchor.radius
        if not self.averages and self.metric is not None:
            before = np.minimum(before, np.sqrt(over(np.max, metric / self.metric)) * self.in_metric)
        rounding = self.eps * norm(np.sqrt(metric) * point)
        radius = (own + before + rounding) / np.sqrt(over(np.min, metric))
        if scale > 0:
            self.metric, self.in_metric = metric, own + before + rounding
        return Bounds(point, point - radius, point + radius, radius), more == 0, less != 0

    def _average(self, w: Bounds, x: Bounds, c: float) -> Bounds:
        low, high, radius = ((1 - c) * getattr(w, name) + c * getattr(x, name) for name in ("low", "high", "radius"))
        point = self.state.w
        low, high = low - 2 * self.eps * np.abs(w.low), high + 2 * self.eps * np.abs(w.high)
        return Bounds(point, low, high, radius + 2 * self.eps * self.pieces.norm(np.abs(w.point) + np.abs(x.point)))
