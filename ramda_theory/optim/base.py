"""What the optimizers share: options, precision, non-finite gradients, the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ramda_theory.kernels import eager
from ramda_theory.kernels.dispatch import Plan, StepExplanation, explain, left_to_step, numbers_on_device
from ramda_theory.kernels.eager.solve import Pending, Records, StepInexactness
from ramda_theory.kernels.eager.undo import Undo
from ramda_theory.kernels.nonfinite import NonFiniteGradient, nonfinite_here, nonfinite_parameters
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.sharding import any_process, laid_alike, meshes
from ramda_theory.kernels.work import Work, device_scalars
from ramda_theory.model.compaction import Compaction
from ramda_theory.optim.changes import ChangedOptions
from ramda_theory.optim.compacted import compacted_groups
from ramda_theory.optim.options import check_parameter, checked_group
from ramda_theory.optim.state import Checkpointed
from ramda_theory.optim.structured_point import HasStructuredPoint


class StructuredOptimizer(HasStructuredPoint, Checkpointed):
    """A ``torch.optim.Optimizer`` whose parameter groups may carry a regularizer.

    Subclasses say which options they take (`_checks`) and which recurrence they follow (`_recurrence`).  Weights, and
    all arrays of the state, are float32 (float64 for float64 parameters): a half-precision parameter has its float32
    weights in ``state["w"]``.
    """

    _recurrence: ClassVar[Recurrence]
    record_inexactness: bool
    _records: Records

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._reset_attributes()
        super().__init__(params, {key: self._checks[key](value) for key, value in defaults.items()})

    def _reset_attributes(self) -> None:
        self.record_inexactness = False
        self._records = {}
        self._new: list[Tensor] = []
        self._check_options = ChangedOptions(self._checks)
        self._plan: Plan | None = None
        self._captured_plans: list[Plan] = []
        self._holds_structured_point = False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "record_inexactness": self.record_inexactness}

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

    @property
    def inexactness(self) -> dict[Tensor, StepInexactness]:
        """With ``record_inexactness = True``: condition (7) in the last step, for every regularized parameter.

        A step on a device leaves the numbers of exact solutions there; reading this attribute waits for them, and after
        a graph was replayed finds those of its last step.
        """
        return {key: each.read() if isinstance(each, Pending) else each for key, each in self._records.items()}

    # -- parameter groups and state ---------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; every option and parameter is checked before anything is stored.

        Parameters
        ----------
        param_group : dict
            ``params``, and a value of every option that is not to be the optimizer's own.

        Raises
        ------
        TypeError, ValueError
            For an option or a parameter that is not allowed, a regularizer that does not fit a parameter, or an
            unknown option whose name resembles a known one.
        """
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

        t is an integer, which no number of steps wears out.  alpha is float64, and has one axis because torch.compile
        (2.13, on the host) loses updates in place of float64 tensors without axes.
        """
        device = parameter.device if numbers_on_device(group, parameter) else "cpu"
        if key == "step":
            return torch.tensor(int(value), dtype=torch.int64, device=device)
        return torch.tensor([value], dtype=torch.float64, device=device)

    def _move_numbers(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Bring the numbers of the state to its parameter: the model was moved, or the options have changed."""
        for key in self._scalar_keys:
            if key in state and state[key].device != device:
                state[key] = state[key].to(device, non_blocking=True)

    def _change_precision(self, state: dict[str, Any], parameter: Tensor, wide: torch.dtype) -> None:
        """Bring the arrays of the state to the precision ``wide``: the model has become narrower or wider since."""
        for key in (*self._recurrence.arrays, "norms"):
            if key in state:
                state[key] = state[key].to(wide)
        if parameter.dtype == wide:
            state.pop("w", None)
        else:
            state["w"] = state.get("w", parameter.detach()).to(wide)

    def _gather(self, group: dict[str, Any]) -> Work:
        """What the step needs of every parameter that has a gradient."""
        count = len(self._recurrence.arrays)
        lists: list[list[Tensor]] = [[] for _ in range(4 + count + self._recurrence.sums)]
        self._init_group(group, *lists)
        params, grads, weights, *state = lists
        states = [] if torch.compiler.is_compiling() else [self.state[parameter] for parameter in params]
        weight_sums = state[count + 1] if self._recurrence.sums else []
        return Work(group, params, grads, weights, state[:count], state[count], weight_sums, states)

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        weights: list[Tensor],
        *state_lists: list[Tensor],
    ) -> None:
        """Append to the lists; state for a parameter that has its first gradient.

        torch.compile knows this method by its name and calls it before it traces.
        """
        keys = (*self._recurrence.arrays, "step", "weight_sum")[: len(state_lists)]
        on_device = device_scalars(group)
        for parameter in group["params"]:
            if (gradient := parameter.grad) is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(self._initial_state(group, parameter))
                if not torch.compiler.is_compiling():
                    self._new.append(parameter)
            if on_device or not state["step"].is_cpu or (parameter.is_cuda and numbers_on_device(group, parameter)):
                self._move_numbers(state, parameter.device)
            wide = torch.promote_types(parameter.dtype, torch.float32)
            if state[keys[0]].dtype != wide or ("w" in state) != (parameter.dtype != wide):
                self._change_precision(state, parameter, wide)
            params.append(parameter)
            grads.append(gradient)
            weights.append(state.get("w", parameter))
            for key, tensors in zip(keys, state_lists, strict=True):
                tensors.append(state[key])

    # -- the step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step.

        Parameters
        ----------
        closure : callable, optional
            Reevaluates the model and returns the loss.

        Returns
        -------
        Any
            The closure's loss; None without a closure.

        Raises
        ------
        TypeError, ValueError
            For an option or a parameter that was changed since the last step to what is not allowed; nothing has
            changed then.
            Numbers in tensors on an accelerator, which would have to be waited for, are not looked at, nor is anything
            but a number lr while ``torch.compile`` traces.
        RuntimeError
            For a sparse gradient, inside `structured_point`, and (`NonFiniteGradient`) with ``on_nonfinite="raise"``
            for a gradient that is not finite; nothing has changed then.
        """
        self._accelerator_graph_capture_health_check()
        self.refuse_structured_point("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_options(self.param_groups)
        self._refuse_sparse()
        if self.record_inexactness:
            self._records.clear()
        if torch.compiler.is_compiling():
            self._compiled_step()
        else:
            self._planned_step()
        return loss

    def _gather_all(self) -> list[Work]:
        """The work of every group that has a gradient."""
        work = [self._gather(group) for group in self.param_groups]
        return [each for each in work if each.params]

    def _compiled_step(self) -> None:
        """A step that torch traces: the eager engine's alone."""
        work = self._gather_all()
        policy = self.param_groups[0]["on_nonfinite"]
        if policy == "raise":
            raise RuntimeError("on_nonfinite='raise' waits for the gradients: a compiled step needs 'skip' or 'ignore'")
        mask = self._skipped(work) if policy == "skip" else None
        for each in work:
            eager.step(self._recurrence, each, mask)

    def _planned_step(self) -> None:
        """A step divided among the engines; a refusal leaves nothing behind."""
        recording = self.record_inexactness
        self._new.clear()
        try:
            work = self._gather_all()
            for each in work:
                each.grads[:] = map(laid_alike, each.grads, each.params)
            if self._plan is None or not self._plan.still_holds(work, recording):
                check_work(work)
                self._plan = Plan(self._recurrence, work, recording)
                self._plan.still_holds(work, recording)
            plan = self._plan
            plan.begin(work)
            found, grad_scale = self._scaler()
            if found is None:
                found = self._nonfinite(work, plan)
        except BaseException:
            self._plan = None
            self._forget_new()
            raise
        remaining = plan.remaining(work)
        undo = Undo(remaining)
        if undo.needed:  # what may raise comes first: the compiled functions cannot be taken back
            self._eager_step(remaining, found, grad_scale, undo)
        plan.step(found, grad_scale)
        if plan.captured and plan not in self._captured_plans:
            self._captured_plans.append(plan)
        if not undo.needed:
            self._eager_step(remaining, found, grad_scale, undo)

    def _eager_step(self, works: list[Work], found: Tensor | None, grad_scale: Tensor | None, undo: Undo) -> None:
        """The part of a step that no faster engine takes; an error in a solve takes all of it back."""
        record = self._records if self.record_inexactness else None
        try:
            for work in works:
                if grad_scale is not None:
                    work = replace(work, grads=[gradient.float() / grad_scale for gradient in work.grads])
                eager.step(self._recurrence, work, found, record)
        except BaseException:
            undo.restore()
            self._plan = None
            self._forget_new()
            raise

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether a ``GradScaler`` leaves it to the step to unscale gradients and to look at ``found_inf``.

        So steps on a device never wait for it.
        """
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        return not self.record_inexactness and left_to_step(gradients)

    def _scaler(self) -> tuple[Tensor | None, Tensor | None]:
        """What a ``GradScaler`` has told: the flag that masks the step, and what gradients are to be divided by."""
        found, grad_scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        return None if found is None else found.reshape(()) != 0, grad_scale

    def _nonfinite(self, work: list[Work], plan: Plan) -> Tensor | None:
        """Apply ``on_nonfinite``; the flag that masks the step, for "skip"."""
        policy = self.param_groups[0]["on_nonfinite"]
        if policy == "ignore" or not work:
            return None
        if policy == "skip":
            return self._skipped(work, plan)
        if self._somewhere(work, plan):
            where = nonfinite_parameters(self.param_groups)
            raise NonFiniteGradient(
                f"non-finite gradient (NaN, Inf, or too large to square) {where}; nothing was changed. "
                "on_nonfinite='skip' leaves such steps out, 'ignore' lets them through."
            )
        return None

    def _skipped(self, work: list[Work], plan: Plan | None = None) -> Tensor | None:
        if not work:
            return None
        found = torch.as_tensor(self._somewhere(work, plan))
        self._count_skip(found)
        return found

    @staticmethod
    def _somewhere(work: list[Work], plan: Plan | None) -> Tensor | bool:
        """Whether a gradient is not finite: what compiled functions take is looked through by them.

        All processes are asked, whichever engines step their pieces.
        """
        params = [parameter for each in (work if plan is None else plan.remaining(work)) for parameter in each.params]
        found: Tensor | bool = plan is not None and bool(plan.tables) and plan.nonfinite()
        if params:
            own = nonfinite_here(params)
            found = own | (found.to(own.device) if isinstance(found, Tensor) else found)
        over = meshes([gradient for each in work for gradient in each.grads])
        return any_process(torch.as_tensor(found), over) if over else found

    def _refuse_sparse(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.layout is not torch.strided:
                    raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")

    def explain_step(self) -> StepExplanation:
        """Which engine steps each parameter, and why no faster one does.

        Returns
        -------
        StepExplanation
            A row per parameter; ``print`` shows a table.
        """
        return explain(self.param_groups, self.record_inexactness)

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
        skipped: Tensor | int = self.param_groups[0].get("skipped_steps", 0)
        return skipped

    # -- smaller models ---------------------------------------------------------------------------------------------

    def compact(self, small: Compaction) -> Self:
        """An optimizer of the small model, with the options and the state of what remains.

        The trajectory goes on as that of the large model would if all that left stayed zero: groups keep their weights
        although they have fewer entries.  What left without being zero (the row of a channel that nobody reads) no
        longer counts in the norms of groups it was part of.

        Parameters
        ----------
        small : Compaction
            What `ramda_theory.model.compact` made of the model whose parameters this optimizer has (with
            ``low_rank=False``).

        Returns
        -------
        StructuredOptimizer
            Of the same class.  Biases that were made to absorb constants are not among its parameters.

        Raises
        ------
        ValueError
            If a parameter is none of that model, or became two factors, or what remains of its groups is no group.
        RuntimeError
            Inside `structured_point`.
        """
        self.refuse_structured_point("compact()")
        groups, states = compacted_groups(self, small)
        new = type(self)(groups, **self.defaults)
        new.state.update(states)
        new.record_inexactness = self.record_inexactness
        return new


def check_work(work: Sequence[Work]) -> None:
    """Refuse parameters that were put into a group, or given other memory, and do not fit it or their state."""
    for each in work:
        for parameter, *own in zip(each.params, each.grads, each.weights, *each.arrays, strict=True):
            check_parameter(parameter, each.options["regularizer"])
            wrong = next((tensor.shape for tensor in own if tensor.shape != parameter.shape), None)
            if wrong is not None:
                raise ValueError(
                    f"a parameter of shape {tuple(parameter.shape)} has a gradient or state of shape "
                    f"{tuple(wrong)}: it was replaced or reshaped; delete its state, or give it one that fits"
                )
