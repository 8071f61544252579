"""Methods without dual averaging: ProxSGD, ProxGen, and the deterministic proximal gradient and FISTA."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ramda_theory.arrays import Array, namespace, real, to_float64
from ramda_theory.methods.state import Settings, checked_gradient, zero_if_none
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.subproblem import Solution, Subproblem, solve
from ramda_theory.subproblem.solve import Solver


@dataclass(frozen=True)
class MomentumState:
    """State of ProxSGD and ProxGen after t steps.

    Attributes
    ----------
    w : array
        W_t, which is also the solution of the last subproblem.
    momentum : array
        m_t, the estimate of the gradient.
    second_moment : array or None
        v_t (ProxGen with AdamW's metric only).
    step : int
        t.
    """

    w: Array
    momentum: Array
    second_moment: Any = None
    step: int = 0

    @property
    def w_hat(self) -> Array:
        """W itself: these methods do not average."""
        return self.w

    @property
    def query(self) -> Array:
        """Gradients are taken at W."""
        return self.w

    @property
    def gradient_estimate(self) -> Array | None:
        """m_t."""
        return self.momentum


@dataclass(frozen=True)
class ProxSGD:
    """m = (1 - c) m + c G,  W = prox_{eta psi}(W - eta m)  (Yang et al. 2020, with a unit averaging step).

    ``settings.averaging`` is the c of the momentum.

    Parameters
    ----------
    regularizer : Regularizer, optional
        psi; None for psi = 0.
    """

    regularizer: Any = None  # a Regularizer; None becomes psi = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularizer", zero_if_none(self.regularizer))

    def init(self, w: Array) -> MomentumState:
        """The state before the first step.

        Parameters
        ----------
        w : array
            W_0, floating point; copied.

        Returns
        -------
        MomentumState
            With t = 0 and m = 0.
        """
        xp = namespace(w=w)
        return MomentumState(xp.asarray(w, copy=True), xp.zeros_like(w))

    def restart(self, state: MomentumState, settings: Settings, memory: int = 0) -> MomentumState:
        """Stages only change the learning rate here.

        Parameters
        ----------
        state : MomentumState
            At the end of a stage.
        settings, memory
            Not used.

        Returns
        -------
        MomentumState
            ``state`` itself.
        """
        return state

    def step(self, state: MomentumState, gradient: Array, settings: Settings) -> tuple[MomentumState, None]:
        """m_t = (1 - c) m_{t-1} + c G_t,  W_t = prox_{eta psi}(W_{t-1} - eta m_t).

        Parameters
        ----------
        state : MomentumState
            After t - 1 steps.
        gradient : array
            G_t at W_{t-1}, of the shape of w, finite.
        settings : Settings
            Of which lr and averaging count.

        Returns
        -------
        state : MomentumState
            After t steps.
        solution : None
            The step is in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        c, eta = settings.averaging, settings.lr
        # m_t = (1 - c_t) m_{t-1} + c_t G_t
        m = (1.0 - c) * state.momentum + c * gradient
        # W_t = prox_{eta_t psi}( W_{t-1} - eta_t m_t )
        w = xp.astype(self.regularizer.prox(to_float64(xp, state.w) - eta * to_float64(xp, m), eta), state.w.dtype)
        return MomentumState(w, m, None, state.step + 1), None


@dataclass(frozen=True)
class ProxGen:
    """W = argmin <m, W> + 1/(2 eta) <W - W', P (W - W')> + psi(W), (6) of arXiv:2403.14398 (Yun et al. 2021).

    Parameters
    ----------
    regularizer : Regularizer, optional
        psi; None for psi = 0.
    betas : (float or callable, float)
        rho_t = beta_1, a number or a function of t = 1, 2, ... (Theorem 4 wants rho_t = rho_0 mu^(t-1)), and beta_2.
    metric : array or callable, optional
        The diagonal of P_t > 0, of the shape of w, fixed or as a function of t.  By default AdamW's:
        sqrt(v_t / (1 - beta_2^t)) + eps.
    eps : float
        Of AdamW's metric, > 0; unlike dual averaging's it does not decay with the stages.
    weight_decay : float
        Decoupled, before the step, as in AdamW.
    solver, max_iter
        As in `DualAveraging`.

    Notes
    -----
    The momentum m_t = rho_t m_{t-1} + (1 - rho_t) G_t is divided by 1 - prod rho_k, AdamW's bias correction.  The
    subproblem solved is (6) times eta, whose residual ``settings.tolerance`` bounds.
    """

    regularizer: Any = None  # a Regularizer; None becomes psi = 0
    betas: tuple[float | Callable[[int], float], float] = (0.9, 0.999)
    metric: Array | Callable[[int], Array] | None = None
    eps: float = 1e-8
    weight_decay: float = 0.0
    solver: str | Solver | None = None
    max_iter: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularizer", zero_if_none(self.regularizer))
        real("eps", self.eps, minimum=0.0, strict=True)
        real("weight_decay", self.weight_decay, minimum=0.0)
        if len(self.betas) != 2 or callable(self.betas[1]):
            raise ValueError(f"betas must be a pair (number or function of t, number), got {self.betas!r}")
        for beta in self.betas:
            if not callable(beta) and not 0.0 <= real("betas", beta) < 1.0:
                raise ValueError(f"betas must lie in [0, 1), got {self.betas!r}")

    def init(self, w: Array) -> ProxGenState:
        """The state before the first step.

        Parameters
        ----------
        w : array
            W_0, floating point; copied.

        Returns
        -------
        ProxGenState
            With t = 0 and m = v = 0.
        """
        xp = namespace(w=w)
        zero = xp.zeros_like(w)
        return ProxGenState(xp.asarray(w, copy=True), zero, zero)

    def restart(self, state: ProxGenState, settings: Settings, memory: int = 0) -> ProxGenState:
        """Stages only change the learning rate here.

        Parameters
        ----------
        state : ProxGenState
            At the end of a stage.
        settings, memory
            Not used.

        Returns
        -------
        ProxGenState
            ``state`` itself.
        """
        return state

    def step(self, state: ProxGenState, gradient: Array, settings: Settings) -> tuple[ProxGenState, Solution | None]:
        """The minimiser of (6) of arXiv:2403.14398.

        Parameters
        ----------
        state : ProxGenState
            After t - 1 steps.
        gradient : array
            G_t at W_{t-1}, of the shape of w, finite.
        settings : Settings
            Of which lr and tolerance count.

        Returns
        -------
        state : ProxGenState
            After t steps.
        solution : Solution or None
            None where the subproblem was solved in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        t, eta, beta2 = state.step + 1, settings.lr, self.betas[1]
        rho = self.betas[0](t) if callable(self.betas[0]) else self.betas[0]
        if not 0.0 <= rho < 1.0:
            raise ValueError(f"betas must lie in [0, 1), rho_{t} is {rho!r}")
        # m_t = rho_t m_{t-1} + (1 - rho_t) G_t,   v_t = beta_2 v_{t-1} + (1 - beta_2) (G_t o G_t)
        m = rho * state.momentum + (1.0 - rho) * gradient
        v = beta2 * state.second_moment + (1.0 - beta2) * gradient * gradient
        forgotten = state.forgotten * rho
        m_hat = m / (1.0 - forgotten)
        # P_t = Diag(sqrt(v_t / (1 - beta_2^t)) + eps)
        if self.metric is None:
            metric = xp.sqrt(v / (1.0 - beta2**t)) + self.eps
        else:
            metric = self.metric(t) if callable(self.metric) else self.metric
            same_shape(metric=metric, w=state.w)
            if not bool(xp.all(xp.isfinite(metric) & (metric > 0))):
                raise ValueError(f"metric must be finite and positive everywhere, at step {t} it is not")
        # W' = (1 - eta_t weight_decay) W_{t-1}
        anchor = (1.0 - eta * self.weight_decay) * state.w
        # W_t = argmin <eta_t m_t, W> + 1/2 <W - W', P_t (W - W')> + eta_t psi(W)
        if self.solver is None and self.regularizer.has_metric_prox(metric, eta):
            w, solution = self.regularizer.metric_prox(eta * m_hat - metric * anchor, metric, eta), None
        else:
            problem = Subproblem(anchor, eta * m_hat, metric, eta, self.regularizer)
            solution = solve(problem, self.solver, start=state.w, tolerance=settings.tolerance, max_iter=self.max_iter)
            w = solution.point
        return ProxGenState(w, m, v, t, forgotten), solution


@dataclass(frozen=True)
class ProxGenState(MomentumState):
    """`MomentumState` with the product of all rho_k so far, by which the momentum is corrected for its start at 0.

    Attributes
    ----------
    w, momentum, second_moment, step
        As in `MomentumState`.
    forgotten : float
        prod_{k <= t} rho_k, in [0, 1].
    """

    forgotten: float = 1.0

    @property
    def gradient_estimate(self) -> Array | None:
        """m_t / (1 - prod rho_k), corrected for its start at 0; None before the first step."""
        return self.momentum / (1.0 - self.forgotten) if self.step else None


@dataclass(frozen=True)
class FISTAState:
    """State of the deterministic methods: W_t, the point ``query`` the next gradient is taken at, and FISTA's t_k.

    Attributes
    ----------
    w : array
        W_t.
    query : array
        Y_t, of the shape of w.
    momentum : float
        t_k >= 1.
    step : int
        t.
    """

    w: Array
    query: Array
    momentum: float = 1.0
    step: int = 0

    @property
    def w_hat(self) -> Array:
        """W itself."""
        return self.w

    @property
    def gradient_estimate(self) -> None:
        """Each step uses its own gradient only."""
        return None


@dataclass(frozen=True)
class FISTA:
    """W = prox_{eta psi}(Y - eta grad f(Y)) with eta <= 1/L (Beck & Teboulle 2009), restarted when it points uphill.

    Parameters
    ----------
    regularizer : Regularizer, optional
    accelerate : bool
        False gives the plain proximal gradient method, Y = W.
    """

    regularizer: Any = None  # a Regularizer; None becomes psi = 0
    accelerate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularizer", zero_if_none(self.regularizer))

    def init(self, w: Array) -> FISTAState:
        """The state before the first step.

        Parameters
        ----------
        w : array
            W_0, floating point; copied.

        Returns
        -------
        FISTAState
            With t = 0 and Y = W_0.
        """
        w = namespace(w=w).asarray(w, copy=True)
        return FISTAState(w, w)

    def restart(self, state: FISTAState, settings: Settings, memory: int = 0) -> FISTAState:
        """A new stage starts without momentum.

        Parameters
        ----------
        state : FISTAState
            At the end of a stage.
        settings, memory
            Not used.

        Returns
        -------
        FISTAState
            Y = W and t_k = 1.
        """
        return replace(state, query=state.w, momentum=1.0)

    def step(self, state: FISTAState, gradient: Array, settings: Settings) -> tuple[FISTAState, None]:
        """W_k = prox_{eta psi}(Y_k - eta grad f(Y_k)), and the next Y.

        Parameters
        ----------
        state : FISTAState
            After t - 1 steps.
        gradient : array
            G_t at Y_k, of the shape of w, finite.
        settings : Settings
            Of which lr count.

        Returns
        -------
        state : FISTAState
            After t steps.
        solution : None
            The step is in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        eta, y = settings.lr, state.query
        # W_k = prox_{eta psi}( Y_k - eta grad f(Y_k) )
        w = self.regularizer.prox(y - eta * gradient, eta)
        if not self.accelerate:
            return FISTAState(w, w, 1.0, state.step + 1), None
        # t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2, or from 1 again when <Y_k - W_k, W_k - W_{k-1}> > 0
        t = 1.0 if float(xp.sum((y - w) * (w - state.w))) > 0 else state.momentum
        t_next = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * t * t))
        # Y_{k+1} = W_k + (t_k - 1)/t_{k+1} (W_k - W_{k-1})
        return FISTAState(w, w + (t - 1.0) / t_next * (w - state.w), t_next, state.step + 1), None
