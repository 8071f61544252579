"""Algorithm 2 as published, and its accelerated form: proximal gradient steps on the subproblem."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ramda_theory.arrays import Array, inner, norm, to_float64
from ramda_theory.subproblem.problem import Candidate, Subproblem


@dataclass(frozen=True)
class ProximalGradient:
    """Algorithm 2: Z_j = prox_{alpha theta psi}(Z_{j-1} - theta (V + P (Z_{j-1} - W^0))).

    Parameters
    ----------
    step : {"global", "group"}
        theta = 1/max P over all entries, as published, or over each group (each entry, if psi is a sum over entries),
        which the separable problem allows.  Halved for nonconvex psi.
    stopping : {"residual", "relative_decrease"}
        Stop when the residual (9), an upper bound on that of (7), is within the tolerance; or, as the authors'
        code does, when the scaled objective Q/alpha decreases by less than ``rtol (|Q/alpha| + 1)`` after at least
        two iterations, whatever the residual.
    rtol : float
        Used by "relative_decrease" only.
    """

    step: str = "global"
    stopping: str = "residual"
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        if self.step not in ("global", "group"):
            raise ValueError(f"step must be 'global' or 'group', got {self.step!r}")
        if self.stopping not in ("residual", "relative_decrease"):
            raise ValueError(f"stopping must be 'residual' or 'relative_decrease', got {self.stopping!r}")

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        xp = problem.xp
        theta, theta_entries = step_sizes(problem, self.step)
        metric = to_float64(xp, problem.metric)
        z = to_float64(xp, start)
        value = self._scaled_objective(problem, z)
        structure, iteration = None, 0
        while iteration < max_iter:
            iteration += 1
            # Z_j = prox_{alpha theta psi}( Z_{j-1} - theta (V + P (Z_{j-1} - W^0)) )
            forward = z - theta_entries * problem.gradient(z)
            z_next, structure = problem.regularizer.prox_structure(forward, problem.weight_sum * theta)
            # s_j = grad q(Z_j) - grad q(Z_{j-1}) - (Z_j - Z_{j-1})/theta, where grad q(Z) = V + P (Z - W^0)
            s = (metric - 1.0 / theta_entries) * (z_next - z)
            z = z_next
            if self.stopping == "residual":
                if float(norm(xp, s)) <= tolerance:
                    break
            else:
                previous, value = value, self._scaled_objective(problem, z)
                if iteration >= 2 and previous - value < self.rtol * (abs(value) + 1.0):
                    break
        return Candidate(z, iteration, structure)

    def _scaled_objective(self, problem: Subproblem, z: Array) -> float:
        if self.stopping == "residual":
            return math.nan
        return float(problem.objective(z)) / (problem.weight_sum or 1.0)


@dataclass(frozen=True)
class Accelerated:
    """Proximal gradient with momentum capped by the strong convexity min P / max P, restarted when it points uphill.

    The momentum is FISTA's (Beck & Teboulle 2009) up to (1 - sqrt q)/(1 + sqrt q), q = min P / max P (Nesterov 2004),
    and starts afresh when <y - x_next, x_next - x> > 0 (O'Donoghue & Candes 2015).

    Parameters
    ----------
    step : {"global", "group"}
        As in `ProximalGradient`.
    """

    step: str = "global"

    def __post_init__(self) -> None:
        ProximalGradient(step=self.step)

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        if not problem.regularizer.convex:
            raise ValueError(f"accelerated needs a convex regularizer, got {problem.regularizer!r}")
        xp = problem.xp
        theta, theta_entries = step_sizes(problem, self.step)
        metric = to_float64(xp, problem.metric)
        root = math.sqrt(float(xp.min(metric * theta_entries)))
        cap = (1.0 - root) / (1.0 + root)
        x = y = to_float64(xp, start)
        t, structure, iteration = 1.0, None, 0
        while iteration < max_iter:
            iteration += 1
            forward = y - theta_entries * problem.gradient(y)
            x_next, structure = problem.regularizer.prox_structure(forward, problem.weight_sum * theta)
            # s = grad q(x_next) - grad q(y) - (x_next - y)/theta  is in dQ(x_next)
            s = (metric - 1.0 / theta_entries) * (x_next - y)
            # Q may rise on the way, which (7) does not allow at its end.
            if float(norm(xp, s)) <= tolerance and problem.increase(x_next, start) <= 0:
                return Candidate(x_next, iteration, structure)
            if float(inner(xp, y - x_next, x_next - x)) > 0:
                t = 1.0
            t_next = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * t * t))
            y = x_next + min((t - 1.0) / t_next, cap) * (x_next - x)
            x, t = x_next, t_next
        return Candidate(x, iteration, structure)


def step_sizes(problem: Subproblem, step: str) -> tuple[Array | float, Array | float]:
    """theta as `prox` takes it (a scalar or one per piece) and laid out over the entries."""
    xp, regularizer = problem.xp, problem.regularizer
    factor = 1.0 if regularizer.convex else 0.5
    metric = to_float64(xp, problem.metric)
    if step == "global":
        theta = factor / float(xp.max(metric))
        return theta, theta
    if not regularizer.separable:
        raise ValueError(f"step='group' needs a regularizer that separates into groups, got {regularizer!r}")
    theta = factor / regularizer.group_max(metric)
    return theta, regularizer.spread(theta, metric)
