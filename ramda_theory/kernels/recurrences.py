"""The prologue of every method: state, gradient and numbers of a step -> new state and the step's subproblem.

A step of every method here is the same three things (Algorithm 1 and (6) of arXiv:2403.14398): its prologue, the
minimiser What of <linear, x> + 1/2 <x - base, diag (x - base)> + scale psi(x), and W <- (1 - c) W + c What.  The
prologues are plain arithmetic, so one text serves the compiled loops (numbers) and lists of torch tensors alike.

A *numbers* function takes t, alpha_{t-1} and the options and gives (alpha_t, scale, numbers of the step).  A prologue
takes the gradient, W_{t-1}, three arrays of state (those that change come first; what a method does not have is passed
through), the numbers, and the engine's cube and square root.  It gives the first two arrays anew, then base, linear
and diag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = Any
"""A number in the compiled loops, a list of tensors or a tensor without axes in the eager engine."""
Numbers = Sequence[Any]
Root = Callable[[Any], Any]


@dataclass(frozen=True)
class Recurrence:
    """What an engine needs to know of a method.

    Parameters
    ----------
    name : str
        Of the optimizer.
    arrays : tuple of str
        Keys of the state's arrays, in the order the prologue takes them.
    changing : int
        How many of them, from the first on, a step changes.
    options : callable
        Parameter group -> the options that ``numbers`` takes.
    numbers, prologue : callable
        As in the module's docstring.
    metric : bool
        Whether diag is an array; else it is one number, and the subproblem a proximal map.
    averages : bool
        Whether W is averaged with c = 1 - momentum; else c = 1.
    sums : bool
        Whether the state is a sum weighted by s_t, which an lr of 0 leaves as it is.
    """

    name: str
    arrays: tuple[str, ...]
    changing: int
    options: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    numbers: Callable[..., Any]
    prologue: Callable[..., Any]
    metric: bool
    averages: bool
    sums: bool


# -- RAMDA ------------------------------------------------------------------------------------------------------------


def ramda_numbers(t: Value, weight_sum: Value, o: Numbers) -> tuple[Value, Value, Numbers]:
    """s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t."""
    lr, eps = o[0], o[1]
    s = lr * t**0.5
    weight_sum = weight_sum + s
    return weight_sum, weight_sum, (s, eps)


def ramda(
    g: Value, w: Value, v: Value, u: Value, anchor: Value, n: Numbers, cbrt: Root, sqrt: Root
) -> tuple[Value, ...]:
    """V_t = V_{t-1} + s_t G_t,  U_t = U_{t-1} + s_t (G_t o G_t),  P_t = Diag(cbrt(U_t) + eps)."""
    s, eps = n[0], n[1]
    v = v + s * g
    u = u + s * (g * g)
    return v, u, anchor, v, cbrt(u) + eps


# -- RMDA -------------------------------------------------------------------------------------------------------------


def rmda_numbers(t: Value, weight_sum: Value, o: Numbers) -> tuple[Value, Value, Numbers]:
    """s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t,  beta_t = sqrt(t)."""
    beta = t**0.5
    s = o[0] * beta
    weight_sum = weight_sum + s
    return weight_sum, weight_sum, (s, beta)


def rmda(
    g: Value, w: Value, v: Value, anchor: Value, unused: Value, n: Numbers, cbrt: Root, sqrt: Root
) -> tuple[Value, ...]:
    """V_t = V_{t-1} + s_t G_t,  P_t = beta_t I."""
    s, beta = n[0], n[1]
    v = v + s * g
    return v, anchor, anchor, v, beta


# -- ProxSGD ----------------------------------------------------------------------------------------------------------


def prox_sgd_numbers(t: Value, weight_sum: Value, o: Numbers) -> tuple[Value, Value, Numbers]:
    """The coefficients mu and 1 - mu of m, the step eta, and the metric 1."""
    lr, mu = o[0], o[1]
    return weight_sum, lr, (mu, 1.0 - mu, lr, 1.0)


def prox_sgd(
    g: Value, w: Value, m: Value, unused: Value, also_unused: Value, n: Numbers, cbrt: Root, sqrt: Root
) -> tuple[Value, ...]:
    """m_t = mu m_{t-1} + (1 - mu) G_t,  W_t = prox_{eta psi}(W_{t-1} - eta m_t)."""
    mu, new, lr, one = n[0], n[1], n[2], n[3]
    m = mu * m + new * g
    return m, unused, w, lr * m, one


# -- ProxAdamW --------------------------------------------------------------------------------------------------------


def prox_adamw_numbers(t: Value, weight_sum: Value, o: Numbers) -> tuple[Value, Value, Numbers]:
    """The coefficients of m and v, eta / (1 - beta_1^t), 1 / sqrt(1 - beta_2^t), eps, and 1 - eta lambda_wd."""
    lr, beta1, beta2, eps, decay = o[0], o[1], o[2], o[3], o[4]
    rate = lr / (1.0 - beta1**t)
    correction = 1.0 / (1.0 - beta2**t) ** 0.5
    return weight_sum, lr, (beta1, 1.0 - beta1, beta2, 1.0 - beta2, rate, correction, eps, 1.0 - lr * decay)


def prox_adamw(
    g: Value, w: Value, m: Value, v: Value, unused: Value, n: Numbers, cbrt: Root, sqrt: Root
) -> tuple[Value, ...]:
    """m, v as in AdamW,  P_t = Diag(sqrt(v / (1 - beta_2^t)) + eps),  W' = (1 - eta lambda_wd) W_{t-1}."""
    beta1, new1, beta2, new2, rate, correction, eps, kept = n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]
    m = beta1 * m + new1 * g
    v = beta2 * v + new2 * (g * g)
    return m, v, kept * w, rate * m, correction * sqrt(v) + eps


# -- NormalMapSGD -----------------------------------------------------------------------------------------------------


def normal_map_numbers(t: Value, weight_sum: Value, o: Numbers) -> tuple[Value, Value, Numbers]:
    """The step a, a / tau, the metric 1, and 0: z is the centre of the proximal map as it is."""
    lr, tau = o[0], o[1]
    return weight_sum, tau, (lr, lr / tau, 1.0, 0.0)


def normal_map(
    g: Value, w: Value, z: Value, unused: Value, also_unused: Value, n: Numbers, cbrt: Root, sqrt: Root
) -> tuple[Value, ...]:
    """z_t = z_{t-1} - a (G_t + (z_{t-1} - W_{t-1}) / tau),  W_t = prox_{tau psi}(z_t)  (arXiv:2305.05828)."""
    lr, pull, one, nothing = n[0], n[1], n[2], n[3]
    z = z - (lr * g + pull * (z - w))
    return z, unused, z, nothing * z, one


# -- all of them ------------------------------------------------------------------------------------------------------

RAMDA = Recurrence(
    name="RAMDA",
    arrays=("grad_sum", "grad_sq_sum", "anchor"),
    changing=2,
    options=lambda group: (group["lr"], group["eps"]),
    numbers=ramda_numbers,
    prologue=ramda,
    metric=True,
    averages=True,
    sums=True,
)
RMDA = Recurrence(
    name="RMDA",
    arrays=("grad_sum", "anchor"),
    changing=1,
    options=lambda group: (group["lr"],),
    numbers=rmda_numbers,
    prologue=rmda,
    metric=False,
    averages=True,
    sums=True,
)
PROX_SGD = Recurrence(
    name="ProxSGD",
    arrays=("momentum_buffer",),
    changing=1,
    options=lambda group: (group["lr"], group["momentum"]),
    numbers=prox_sgd_numbers,
    prologue=prox_sgd,
    metric=False,
    averages=False,
    sums=False,
)
PROX_ADAMW = Recurrence(
    name="ProxAdamW",
    arrays=("exp_avg", "exp_avg_sq"),
    changing=2,
    options=lambda group: (group["lr"], *group["betas"], group["eps"], group["weight_decay"]),
    numbers=prox_adamw_numbers,
    prologue=prox_adamw,
    metric=True,
    averages=False,
    sums=False,
)
NORMAL_MAP = Recurrence(
    name="NormalMapSGD",
    arrays=("normal_map",),
    changing=1,
    options=lambda group: (group["lr"], group["prox_step"]),
    numbers=normal_map_numbers,
    prologue=normal_map,
    metric=False,
    averages=False,
    sums=False,
)
MAX_NUMBERS, MAX_OPTIONS = 8, 5
"""How many numbers and options a method has at most."""
