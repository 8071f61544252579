"""torchao's parameter-efficient pruning (PAT): proximal maps of growing weight on the weights of AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Optimizer

from ramda_theory.extras import needs
from ramda_theory.regularizers import Regularizer
from ramda_theory.workloads.opponents.base import Opponent


class PAT(Opponent):
    """torchao's ``PruneOptimizer`` around torch's AdamW without decay, with torchao's own group LASSO.

    With L_t the weights that AdamW moves, and gamma_t the sum of the learning rates so far,

        L_t = L_{t-1} + AdamW's step for the gradient at W_{t-1},   W_t = prox_{gamma_t psi}(L_t).

    Parameters
    ----------
    params : iterable
        Parameters or groups, as `ramda_theory.optim.structured_param_groups` makes them, with `GroupLasso` alone.
    lr : float

    Raises
    ------
    MissingExtra
        Without torchao.
    ValueError
        For another regularizer, or groups that are not the slices along one axis, which is what torchao maps.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            if group["regularizer"] is not None:
                for parameter in group["params"]:
                    axis_of_groups(group["regularizer"], parameter)
                group |= {"prox_type": "ProxGroupLasso", "group_type": "", "reg_lambda": group["regularizer"].weight}
        self._inner = AdamW(self.param_groups, lr=lr, weight_decay=0.0)
        # torchao's optimizer counts steps in the first regularized group, and cannot step without one.
        self._pruner: Any = _pruner(self._inner) if any(True for _ in self.structured()) else self._inner
        self.state, self.param_groups = self._inner.state, self._inner.param_groups  # one of each for both

    def update_all(self) -> None:
        """A step of torchao's optimizer, with the weights that the regularizers have now."""
        for group in self.param_groups:
            if group["regularizer"] is not None:
                group["reg_lambda"] = group["regularizer"].weight
        self._pruner.step()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("PAT cannot be copied or pickled: torchao's optimizer cannot; its state_dict() can")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only while the optimizer is made: torchao's has its groups from then on."""
        if hasattr(self, "_pruner"):
            raise RuntimeError("PAT takes all its parameters when it is made")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._inner.state, self._inner.param_groups = self.state, self.param_groups


def axis_of_groups(psi: Regularizer, parameter: Tensor) -> int:
    """The axis whose slices are psi's groups.

    Parameters
    ----------
    psi : Regularizer
    parameter : Tensor

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If psi is no group LASSO of such groups, scaled by their sizes.
    """
    shape = tuple(parameter.shape)
    spec = psi.kernel() if psi.sum_of_group_norms else None
    within = psi.piece_axes(shape) if spec is not None and spec.size_scaled else None
    others = [] if within is None else [axis for axis in range(len(shape)) if axis not in within]
    if len(others) != 1:
        raise ValueError(f"PAT needs GroupLasso(size_scaled=True) of the slices along one axis, got {psi!r} of {shape}")
    return others[0]


def _pruner(inner: Optimizer) -> Any:
    """torchao's optimizer, told by the regularizers which slices are groups."""
    with needs("workloads"):
        from torchao.prototype.pat.group.grouper import Grouper
        from torchao.prototype.pat.optim import PruneOptimizer

    class Slices(Grouper):  # type: ignore[misc]
        def __init__(self, p: Tensor, regularizer: Regularizer) -> None:
            super().__init__(p, in_dims=axis_of_groups(regularizer, p))

    class Pruner(PruneOptimizer):  # type: ignore[misc]
        def _build_group_artifacts(self, group: dict[str, Any]) -> tuple[type, dict[str, Any]]:
            return Slices, {"regularizer": group["regularizer"]}

    return Pruner(inner)
