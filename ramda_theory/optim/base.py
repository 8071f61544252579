"""What the optimizers share: options, precision, non-finite gradients, structured points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from ramda_theory.kernels.nonfinite import nonfinite_parameters, nonfinite_somewhere
from ramda_theory.kernels.sharding import local
from ramda_theory.optim.changes import ChangedOptions
from ramda_theory.optim.lists import Work, on_device
from ramda_theory.optim.options import checked_group
from ramda_theory.optim.solving import Inexactness
from ramda_theory.optim.state import Checkpointed


class StructuredOptimizer(Checkpointed):
    """A ``torch.optim.Optimizer`` whose parameter groups may carry a regularizer.

    Subclasses say which options they take (`_checks`), what they keep per parameter (`_state_keys`) and how a list of
    parameters is updated (`_update`).  Weights, and all arrays of the state, are float32 (float64 for float64
    parameters): a half-precision parameter has its float32 weights in ``state["w"]``.
    """

    inexactness: dict[Tensor, Inexactness]
    """With ``record_inexactness = True``: condition (7) in the last step, for every regularized parameter."""
    record_inexactness: bool

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._reset_attributes()
        super().__init__(params, {key: self._checks[key](value) for key, value in defaults.items()})

    def _reset_attributes(self) -> None:
        self.record_inexactness = False
        self.inexactness = {}
        self._new: list[Tensor] = []
        self._check_options = ChangedOptions(self._checks)
        self._holds_structured_point = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_holds_structured_point" not in self.__dict__:  # unpickled, not loaded
            self._reset_attributes()
        super().__setstate__(state)
        for group in self.param_groups:
            for key in self._checks:
                group.setdefault(key, self.defaults[key])
            for parameter in group["params"]:
                kept = self.state.get(parameter, {})
                for key in self._scalar_keys:
                    if key in kept and not torch.is_tensor(kept[key]):
                        kept[key] = self._scalar(group, parameter, key, float(kept[key]))
        self._start_counting()

    # -- parameter groups and state ---------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; every option and parameter is checked before anything is stored."""
        if isinstance(param_group, dict):
            param_group = checked_group(param_group, self.defaults, self._checks)
        super().add_param_group(param_group)
        self._start_counting()

    def _initial_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        """State of a parameter that has its first gradient."""
        w = parameter.detach()
        wide = torch.promote_types(w.dtype, torch.float32)
        state = {
            key: self._scalar(group, parameter, key, 0.0)
            if key in self._scalar_keys
            else w.to(wide, copy=True)
            if key == "anchor"
            else torch.zeros_like(w, dtype=wide, memory_format=torch.preserve_format)
            for key in self._state_keys
        }
        if w.dtype != wide:
            state["w"] = w.to(wide, copy=True)
        return state

    @staticmethod
    def _scalar(group: dict[str, Any], parameter: Tensor, key: str, value: float) -> Tensor:
        """A number of the state: on the host, where reading it is free, unless the step must not look at it.

        t is float32, as in torch.  alpha is float64, and has one axis because torch.compile (2.13, on the host) loses
        updates in place of float64 tensors without axes.
        """
        device = parameter.device if on_device(group) else "cpu"
        if key == "step":
            return torch.tensor(value, dtype=torch.float32, device=device)
        return torch.tensor([value], dtype=torch.float64, device=device)

    def _move_numbers(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Bring the numbers of the state to its parameter: the model was moved, or the options have changed."""
        for key in self._scalar_keys:
            if key in state and state[key].device != device:
                state[key] = state[key].to(device, non_blocking=True)

    def _init_group(self, group: dict[str, Any], params: list, grads: list, weights: list, *states: list) -> None:
        """Append what the step needs of every parameter that has a gradient."""
        numbers_on_device = on_device(group)
        for parameter in group["params"]:
            if (grad := parameter.grad) is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(self._initial_state(group, parameter))
                if not torch.compiler.is_compiling():
                    self._new.append(parameter)
            if numbers_on_device or not state["step"].is_cpu:
                self._move_numbers(state, parameter.device)
            w = state.get("w", parameter)
            if w is not parameter and w.dtype == parameter.dtype:  # the model has become wider since
                del state["w"]
                w = parameter
            params.append(parameter)
            grads.append(grad)
            weights.append(w)
            for key, tensors in zip(self._state_keys, states, strict=True):
                tensors.append(state[key])

    # -- the step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step.

        Parameters
        ----------
        closure : callable, optional
            Reevaluates the model and returns the loss.

        Raises
        ------
        TypeError, ValueError
            For an option that was changed since the last step to what is not allowed; nothing has changed then.
            Numbers in tensors on an accelerator, which would have to be waited for, are not looked at, nor is anything
            but a number lr while ``torch.compile`` traces.
        RuntimeError
            For a sparse gradient, inside `structured_point`, and with ``on_nonfinite="raise"`` for a gradient that
            is not finite; nothing has changed then.
        """
        self._accelerator_graph_capture_health_check()
        self.refuse_structured_point("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_options(self.param_groups)
        keep = self._nonfinite()
        if not torch.compiler.is_compiling():
            self._new.clear()
        if self.record_inexactness:
            self.inexactness.clear()
        work: list[Work] = []
        for group in self.param_groups:
            lists: Any = [[] for _ in range(3 + len(self._state_keys))]
            self._init_group(group, *lists)
            if lists[0]:
                work.append((group, lists))
        self._update_all(work, keep)
        return loss

    def _update_all(self, work: list[Work], keep: Tensor | None) -> None:
        """One step of all parameter groups."""
        for group, lists in work:
            self._update(group, *lists, keep=keep)

    def _update(self, group: dict[str, Any], *lists: list[Tensor], keep: Tensor | None) -> None:
        """One step of the parameters in ``lists``; where ``keep`` is true everything stays as it is."""
        raise TypeError(f"{type(self).__name__} defines no update")

    def _nonfinite(self) -> Tensor | None:
        """Apply ``on_nonfinite``; the flag that masks the step, for "skip"."""
        params = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if (gradient := parameter.grad) is not None:
                    if gradient.layout is not torch.strided:
                        raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
                    params.append(parameter)
        policy = self.param_groups[0]["on_nonfinite"]
        if policy == "ignore" or not params:
            return None
        if policy == "skip":
            found = nonfinite_somewhere(params)
            self._count_skip(found)
            return found
        if torch.compiler.is_compiling():
            raise RuntimeError("on_nonfinite='raise' waits for the gradients: a compiled step needs 'skip' or 'ignore'")
        self._check_finite(params)
        return None

    def _check_finite(self, params: list[Tensor]) -> None:
        """Refuse gradients that are not finite."""
        if nonfinite_somewhere(params):
            self._refuse_nonfinite()

    def _refuse_nonfinite(self) -> NoReturn:
        where = nonfinite_parameters(self.param_groups)
        raise RuntimeError(
            f"non-finite gradient (NaN, Inf, or too large to square) {where}; nothing was changed. "
            "on_nonfinite='skip' leaves such steps out, 'ignore' lets them through."
        )

    def _forget_new(self) -> None:
        """Remove the state that was made in this step."""
        for parameter in self._new:
            self.state.pop(parameter, None)

    def _start_counting(self) -> None:
        first = self.param_groups[0]
        if first["on_nonfinite"] == "skip" and "skipped_steps" not in first:
            device = first["params"][0].device if first["params"] else "cpu"
            first["skipped_steps"] = torch.zeros((), dtype=torch.int64, device=device)

    def _count_skip(self, found: Tensor) -> None:
        self._start_counting()  # in case the option was changed on the way
        first = self.param_groups[0]
        if first["skipped_steps"].device != found.device:  # the model was moved, or the state loaded
            first["skipped_steps"] = first["skipped_steps"].to(found.device)
        first["skipped_steps"].add_(found)

    @property
    def skipped_steps(self) -> Tensor | int:
        """Steps that ``on_nonfinite="skip"`` left out: a 0-d tensor where the gradients are."""
        return self.param_groups[0].get("skipped_steps", 0)

    # -- structured points ------------------------------------------------------------------------------------------

    def _structured_piece(self, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        """This process's piece of What; None where it is the parameter itself."""
        return None

    @contextmanager
    def structured_point(self) -> Iterator[None]:
        """Let the parameters hold What, the point with exact structure, inside the ``with`` block.

        What is computed from the state; the parameters' own values are kept aside and come back, bit for bit, at the
        end.  Before the first step of a stage What is W.  For optimizers that do not average it always is.

        Raises
        ------
        RuntimeError
            Inside another such block.
        """
        self.refuse_structured_point("structured_point()")
        kept: list[tuple[Tensor, Tensor]] = []
        try:
            self._holds_structured_point = True
            with torch.no_grad():
                for parameter, piece in self._structured_points():
                    kept.append((parameter, parameter.detach().clone()))
                    local(parameter).copy_(piece)
            yield
        finally:
            with torch.no_grad():
                for parameter, own in kept:
                    parameter.copy_(own)
            self._holds_structured_point = False

    @torch.no_grad()
    def adopt_structured_point(self) -> None:
        """Make What the weights for good: with averaging this is how exact zeros reach the model.

        Raises
        ------
        RuntimeError
            Inside `structured_point`.
        """
        self.refuse_structured_point("adopt_structured_point()")
        for parameter, piece in self._structured_points():
            if "w" in self.state[parameter]:
                local(self.state[parameter]["w"]).copy_(piece)
            local(parameter).copy_(piece)

    def _structured_points(self) -> Iterator[tuple[Tensor, Tensor]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                piece = self._structured_piece(group, parameter) if self.state.get(parameter) else None
                if piece is not None:
                    yield parameter, piece

    def refuse_structured_point(self, what: str) -> None:
        """Raise a RuntimeError inside `structured_point`, where ``what`` is not possible."""
        if self._holds_structured_point:
            raise RuntimeError(f"{what} inside structured_point(): the model does not hold its own weights there")
