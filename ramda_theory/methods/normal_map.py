"""Normal-map proximal SGD (Milzarek & Qiu, arXiv:2305.05828)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramda_theory.arrays import Array, namespace, real, to_float64
from ramda_theory.methods.state import Settings, checked_gradient, zero_if_none


@dataclass(frozen=True)
class NormalMapState:
    """State of NSGD after t steps.

    Attributes
    ----------
    w : array
        x_t = prox_{tau psi}(z_t).
    z : array
        The normal map's variable, of which x is the proximal point.
    step : int
        t.
    prox_step : float
        tau.
    """

    w: Array
    z: Array
    step: int = 0
    prox_step: float = 1.0

    @property
    def w_hat(self) -> Array:
        """W itself: there is no averaging."""
        return self.w

    @property
    def query(self) -> Array:
        """Gradients are taken at W."""
        return self.w

    @property
    def gradient_estimate(self) -> Array:
        """(x - z)/tau: an average of the gradients of about the last tau/a steps."""
        return (self.w - self.z) / self.prox_step


@dataclass(frozen=True)
class NSGD:
    """z <- z - a (G(x) + (z - x)/tau),  x = prox_{tau psi}(z)  (arXiv:2305.05828).

    A zero of the normal map grad f(x) + (z - x)/tau with x = prox_{tau psi}(z) makes x stationary.  As
    (x - z)/tau <- (1 - a/tau) (x_old - z)/tau + (a/tau) G up to the move of x, z averages gradients over about tau/a
    steps: a learning rate that falls makes that memory longer.

    Parameters
    ----------
    regularizer : Regularizer, optional
        psi; None for psi = 0.
    prox_step : float
        tau > 0; the learning rate ``settings.lr`` is a, usually well below it.
    """

    regularizer: Any = None  # a Regularizer; None becomes psi = 0
    prox_step: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularizer", zero_if_none(self.regularizer))
        object.__setattr__(self, "prox_step", real("prox_step", self.prox_step, minimum=0.0, strict=True))

    def init(self, w: Array) -> NormalMapState:
        """The state before the first step: z = w + tau s with s in d psi(w) of least norm, so that prox(z) = w.

        Parameters
        ----------
        w : array
            Where the run starts, floating point; copied.

        Returns
        -------
        NormalMapState
            With t = 0.
        """
        xp = namespace(w=w)
        w = xp.asarray(w, copy=True)
        outward = self.regularizer.subdifferential_residual(w, xp.zeros_like(w))
        return NormalMapState(w, xp.astype(to_float64(xp, w) + self.prox_step * outward, w.dtype), 0, self.prox_step)

    def restart(self, state: NormalMapState, settings: Settings, memory: int = 0) -> NormalMapState:
        """Stages only change the learning rate, and with it how far back z remembers.

        Parameters
        ----------
        state : NormalMapState
            At the end of a stage.
        settings, memory
            Not used.

        Returns
        -------
        NormalMapState
            ``state`` itself.
        """
        return state

    def step(self, state: NormalMapState, gradient: Array, settings: Settings) -> tuple[NormalMapState, None]:
        """z_t = z_{t-1} - a_t (G_t + (z_{t-1} - x_{t-1})/tau),  x_t = prox_{tau psi}(z_t).

        Parameters
        ----------
        state : NormalMapState
            After t - 1 steps.
        gradient : array
            G_t at x_{t-1}, of the shape of w, finite.
        settings : Settings
            Of which lr counts.

        Returns
        -------
        state : NormalMapState
            After t steps.
        solution : None
            The step is in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        a, tau = settings.lr, self.prox_step
        # z_t = z_{t-1} - a_t (G_t + (z_{t-1} - x_{t-1}) / tau)
        z = state.z - a * (gradient + (state.z - state.w) / tau)
        # x_t = prox_{tau psi}(z_t)
        w = xp.astype(self.regularizer.prox(to_float64(xp, z), tau), z.dtype)
        return NormalMapState(w, z, state.step + 1, tau), None
