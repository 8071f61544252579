"""torch's own acceptance machinery for optimizers (`OptimizerInfo`, `optims`) over all classes and many settings."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch.nn import Parameter
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    TensorTracker,
    _get_optim_inputs_including_global_cliquey_kwargs,
    get_error_inputs_for_all_optims,
    optims,
)
from torch.testing._internal.common_utils import TestCase, parametrize
from toy import CLASSES

from ramda_theory.optim import RAMDA, NormalMapSGD, ProxAdamW, StageSchedule
from ramda_theory.regularizers import L1, MCP, GroupLasso, SparseGroupLasso
from ramda_theory.subproblem import PolynomialTolerance, ProximalGradient

MOMENTUM = tuple(cls for cls in CLASSES if cls not in (ProxAdamW, NormalMapSGD))
SOLVING = (RAMDA, ProxAdamW)


def inputs(cls):
    """The settings every test goes through."""

    def of_device(device, dtype=None):
        settings = {
            "default": {},
            "lr": {"lr": 0.02},
            "tensor lr": {"lr": torch.tensor(0.02)},
            "maximize": {"lr": 0.002, "maximize": True},
            "group lasso": {"lr": 0.02, "regularizer": GroupLasso(0.05)},
            "l1, skip": {"lr": 0.02, "regularizer": L1(0.05), "on_nonfinite": "skip"},
            "mcp, capturable": {
                "lr": torch.tensor(0.02, device=device),
                "regularizer": MCP(0.05, 3.0),
                "on_nonfinite": "ignore",
                "capturable": True,
            },
        }
        if cls in MOMENTUM:
            settings["without momentum"] = {"lr": 0.005, "momentum": 0.0, "regularizer": SparseGroupLasso(0.05, 0.5)}
        if cls is NormalMapSGD:
            settings["prox step"] = {"lr": 0.02, "prox_step": 0.5, "regularizer": SparseGroupLasso(0.05, 0.5)}
        if cls is ProxAdamW:
            settings["weight decay"] = {"lr": 0.02, "weight_decay": 0.1, "regularizer": GroupLasso(0.05)}
        if cls in SOLVING:
            settings["solver"] = {
                "lr": 0.02,
                "eps": 0.1,
                "regularizer": GroupLasso(0.05),
                "solver": ProximalGradient(step="group"),
                "tolerance": PolynomialTolerance(1e-3),
                "max_iter": 50,
            }
        return [OptimizerInput(params=None, kwargs=kwargs, desc=desc) for desc, kwargs in settings.items()]

    return of_device


def errors(cls):
    """Bad arguments and the messages they must meet."""

    def of_device(device, dtype):
        bad = [
            ({"lr": -0.1}, ValueError, "lr must be finite and >= 0, got -0.1"),
            ({"lr": float("nan")}, ValueError, "lr must be finite"),
            ({"lr": "fast"}, TypeError, "lr must be a real number, got 'fast'"),
            ({"lr": torch.tensor(-1.0)}, ValueError, "lr must be finite and >= 0"),
            ({"regularizer": 0.1}, TypeError, "regularizer must be a Regularizer or None, got 0.1"),
            ({"regularizer": GroupLasso}, TypeError, "regularizer must be a Regularizer or None"),
            ({"regularizer": GroupLasso(0.1, dims=(2,))}, ValueError, r"does not fit a parameter of shape \(1, 1\)"),
            ({"on_nonfinite": "stop"}, ValueError, r"on_nonfinite must be one of \('raise', 'skip', 'ignore'\)"),
            ({"maximize": "yes"}, ValueError, "maximize must be one of"),
            ({"foreach": 2}, ValueError, "foreach must be one of"),
            ({"capturable": True}, ValueError, "on_nonfinite='raise' does: use 'skip' or 'ignore'"),
        ]
        if cls in MOMENTUM:
            bad += [
                ({"momentum": 1.0}, ValueError, "momentum must be < 1, got 1.0"),
                ({"momentum": -0.1}, ValueError, "momentum must be finite and >= 0"),
            ]
        elif cls is NormalMapSGD:
            bad += [({"prox_step": 0.0}, ValueError, "prox_step must be finite and > 0, got 0.0")]
        else:
            bad += [
                ({"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be < 1, got 1.0"),
                ({"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] must be finite and >= 0"),
                ({"betas": 0.9}, TypeError, "betas must be a pair of numbers"),
                ({"weight_decay": -1}, ValueError, "weight_decay must be finite and >= 0, got -1"),
            ]
        if cls in SOLVING:
            bad += [
                ({"eps": 0.0}, ValueError, "eps must be finite and > 0, got 0.0"),
                ({"solver": "newton"}, ValueError, "solver must be None, one of .*accelerated.*got 'newton'"),
                ({"solver": "accelerated", "regularizer": MCP(0.1, 3.0)}, ValueError, "it is not convex"),
                ({"solver": "newton_raphson", "regularizer": L1(0.1)}, ValueError, "GroupLasso only"),
                ({"tolerance": -1.0}, ValueError, "tolerance must be finite and >= 0"),
                ({"tolerance": "small"}, TypeError, "tolerance must be None, a number or a tolerance sequence"),
                ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
                ({"max_iter": 1.5}, TypeError, "max_iter must be an integer"),
            ]
        sample = Parameter(torch.randn(1, 1, device=device, dtype=dtype))
        groups = [
            ([{"params": [sample], "lr": -1.0}], ValueError, "lr must be finite and >= 0"),
            ([{"params": [sample], "regulariser": L1(0.1)}], ValueError, "did you mean 'regularizer'"),
            ([{"params": [sample], "on_nonfinite": "skip"}], ValueError, "on_nonfinite is decided for all parameters"),
            ([torch.zeros(2, dtype=torch.complex64, requires_grad=True)], TypeError, "real floating dtype"),
            ([torch.zeros(2, dtype=torch.int64)], TypeError, "real floating dtype, got torch.int64"),
            ([torch.eye(2).to_sparse().requires_grad_()], TypeError, "parameters must be dense"),
        ]
        return (
            get_error_inputs_for_all_optims(device, dtype)
            + [
                ErrorOptimizerInput(OptimizerInput([sample], kwargs), error_type=kind, error_regex=message)
                for kwargs, kind, message in bad
            ]
            + [
                ErrorOptimizerInput(OptimizerInput(params, {}), error_type=kind, error_regex=message)
                for params, kind, message in groups
            ]
        )

    return of_device


def has_momentum(optimizer):
    """Whether there is one that a scheduler can change."""
    return not isinstance(optimizer, NormalMapSGD)


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, gamma=0.9, step_size=5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [5, 10]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.4, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.95),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=15),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.98**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.98),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.01, step_size_up=5, cycle_momentum=has_momentum(o)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=60, cycle_momentum=has_momentum(o)),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[5]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.95)], optimizer=o
    ),
    "StageSchedule": lambda o: StageSchedule(o, [10], 0.5),
}

INFOS = [
    OptimizerInfo(
        cls,
        optim_inputs_func=inputs(cls),
        optim_error_inputs_func=errors(cls),
        scheduler_inputs=tuple([scheduler] for scheduler in SCHEDULERS.values()),
        supported_impls=("foreach",),
        supports_complex=False,
    )
    for cls in CLASSES
]


class Fit:
    """Least squares in a weight and a bias, from a fixed start."""

    def __init__(self, device, dtype, contiguous=True):
        generator = torch.Generator().manual_seed(3)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

        if contiguous:
            self.weight, self.bias = Parameter(normal(10, 5)), Parameter(normal(10))
        else:
            self.weight, self.bias = Parameter(normal(10, 5, 2)[..., 0]), Parameter(normal(10, 2)[..., 0])
        self.input = normal(5)

    @property
    def params(self):
        return [self.weight, self.bias]

    def loss(self):
        return (self.weight.mv(self.input) + self.bias).pow(2).sum()

    def backward(self):
        for parameter in self.params:
            parameter.grad = None
        loss = self.loss()
        loss.backward()
        return loss

    def train(self, optimizer, steps, schedulers=()):
        for _ in range(steps):
            loss = self.backward()
            optimizer.step()
            for scheduler in schedulers:
                plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(loss.detach()) if plateau else scheduler.step()


def settings(info, device, dtype):
    """Every setting, with and without foreach."""
    return _get_optim_inputs_including_global_cliquey_kwargs(device, dtype, info)


class TestAcceptance(TestCase):
    @optims(INFOS)
    def test_errors(self, device, dtype, optim_info):
        for error in optim_info.optim_error_inputs_func(device, dtype):
            wanted = error.optimizer_error_input
            self.assertEqual(error.error_on, OptimizerErrorEnum.CONSTRUCTION_ERROR)
            params = wanted.params if wanted.params is not None else [Parameter(torch.randn(1, device=device))]
            warns = issubclass(error.error_type, Warning)
            check = self.assertWarnsRegex if warns else self.assertRaisesRegex
            with check(error.error_type, error.error_regex):
                optim_info.optim_cls(params, **wanted.kwargs)

    @optims(INFOS)
    def test_add_param_group_changes_nothing_when_it_refuses(self, device, dtype, optim_info):
        fit = Fit(device, dtype)
        optimizer = optim_info.optim_cls([fit.weight])
        before = repr(optimizer)
        for group in ({"lr": -1.0}, {"regularizer": GroupLasso(0.1, dims=(1,))}, {"maximise": True, "foreaches": 2}):
            with pytest.raises(ValueError):
                optimizer.add_param_group({"params": [fit.bias], **group})
            self.assertEqual(repr(optimizer), before)
            self.assertEqual(len(optimizer.param_groups), 1)
        optimizer.add_param_group({"params": (p for p in [fit.bias]), "lr": 0.5, "regularizer": L1(0.1)})
        self.assertIs(optimizer.param_groups[1]["params"][0], fit.bias)
        self.assertEqual(optimizer.param_groups[1]["lr"], 0.5)

    @parametrize("contiguous", [True, False])
    @optims(INFOS)
    def test_goes_in_the_right_direction(self, device, dtype, optim_info, contiguous):
        for setting in settings(optim_info, device, dtype):
            fit = Fit(device, dtype, contiguous)
            first = float(fit.loss())
            fit.train(optim_info.optim_cls(fit.params, **setting.kwargs), 20)
            worse = setting.kwargs.get("maximize", False)
            self.assertTrue(float(fit.loss()) > first if worse else float(fit.loss()) < first, setting.desc)

    @optims(INFOS)
    def test_goes_in_the_right_direction_with_schedulers(self, device, dtype, optim_info):
        for kind in (float, torch.tensor):
            for name, (scheduler,) in zip(SCHEDULERS, optim_info.scheduler_inputs, strict=True):
                fit = Fit(device, dtype)
                first = float(fit.loss())
                optimizer = optim_info.optim_cls(fit.params, lr=kind(0.02), regularizer=L1(0.01))
                fit.train(optimizer, 20, [scheduler(optimizer)])
                self.assertLess(float(fit.loss()), first, f"{name} with a {kind.__name__} lr")

    @optims(INFOS)
    def test_lr_of_a_param_group(self, device, dtype, optim_info):
        """A group with lr 0 stays bitwise, one with the other's lr moves as the other does."""
        fit, same = Fit(device, dtype), Fit(device, dtype)
        start = fit.bias.detach().clone()
        groups = [{"params": [fit.weight], "lr": 0.02}, {"params": [fit.bias]}]
        fit.train(optim_info.optim_cls(groups, lr=0.0, regularizer=L1(0.3)), 5)
        self.assertEqual(fit.bias, start, rtol=0, atol=0)
        self.assertNotEqual(fit.weight, same.weight)
        groups = [{"params": [same.weight]}, {"params": [same.bias], "lr": 0.0}]
        same.train(optim_info.optim_cls(groups, lr=0.02, regularizer=L1(0.3)), 5)
        self.assertEqual(fit.weight, same.weight, rtol=0, atol=0)

    @optims(INFOS)
    def test_weight_of_a_param_group(self, device, dtype, optim_info):
        """A large weight makes its own group zero, and only that."""
        fit = Fit(device, dtype)
        groups = [{"params": [fit.weight], "regularizer": GroupLasso(1e3)}, {"params": [fit.bias]}]
        optimizer = optim_info.optim_cls(groups, lr=0.05)
        fit.train(optimizer, 10)
        with optimizer.structured_point():
            self.assertEqual(int(torch.count_nonzero(fit.weight)), 0)
            self.assertEqual(int(torch.count_nonzero(fit.bias)), 10)

    @optims(INFOS)
    def test_tensor_lr(self, device, dtype, optim_info):
        """Of any number of axes, equal to the number it holds, and followed when changed in place."""
        for shape in ((), (1,), (1, 1)):
            plain, tensor = Fit(device, dtype), Fit(device, dtype)
            lr = torch.full(shape, 0.0625, device=device)  # exact in binary
            number = optim_info.optim_cls(plain.params, lr=0.0625, regularizer=GroupLasso(0.05))
            other = optim_info.optim_cls(tensor.params, lr=lr, regularizer=GroupLasso(0.05))
            for factor in (1.0, 0.5):
                number.param_groups[0]["lr"] = 0.0625 * factor
                lr.fill_(0.0625 * factor)
                plain.train(number, 5)
                tensor.train(other, 5)
            self.assertEqual(tensor.params, plain.params)

    @optims(INFOS)
    def test_closure(self, device, dtype, optim_info):
        """Called once, with gradients enabled, its value returned; equal to calling it oneself."""
        for setting in settings(optim_info, device, dtype):
            ours, theirs = Fit(device, dtype), Fit(device, dtype)
            optimizer = optim_info.optim_cls(ours.params, **copy.deepcopy(setting.kwargs))
            other = optim_info.optim_cls(theirs.params, **copy.deepcopy(setting.kwargs))
            for _ in range(3):
                calls = []

                def closure(fit=ours, calls=calls):
                    calls.append(torch.is_grad_enabled())
                    return fit.backward()

                with torch.no_grad():
                    loss = optimizer.step(closure)
                self.assertEqual(calls, [True])
                self.assertEqual(loss, theirs.backward(), rtol=0, atol=0)
                self.assertIsNone(other.step())
            self.assertEqual(ours.params, theirs.params, rtol=0, atol=0)

    @optims(INFOS)
    def test_is_a_noop_without_gradients(self, device, dtype, optim_info):
        for setting in settings(optim_info, device, dtype):
            fit = Fit(device, dtype)
            start = [p.detach().clone() for p in fit.params]
            optimizer = optim_info.optim_cls(fit.params, **setting.kwargs)
            before = repr(optimizer)
            optimizer.step()
            self.assertEqual(fit.params, start, rtol=0, atol=0)
            self.assertEqual(repr(optimizer), before)
            self.assertEqual(len(optimizer.state), 0)

    @optims(INFOS)
    def test_is_a_noop_for_zero_gradients(self, device, dtype, optim_info):
        """On a fresh optimizer without regularizer, bit for bit."""
        for setting in settings(optim_info, device, dtype):
            kwargs = {**setting.kwargs, "regularizer": None, "solver": None}
            if optim_info.optim_cls not in SOLVING:
                del kwargs["solver"]
            kwargs.pop("weight_decay", None)
            fit = Fit(device, dtype)
            start = [p.detach().clone() for p in fit.params]
            optimizer = optim_info.optim_cls(fit.params, **kwargs)
            for p in fit.params:
                p.grad = torch.zeros_like(p)
            for _ in range(3):
                optimizer.step()
            self.assertEqual(fit.params, start, rtol=0, atol=0)

    @optims(INFOS)
    def test_repr(self, device, dtype, optim_info):
        for setting in settings(optim_info, device, dtype):
            fit = Fit(device, dtype)
            groups = [{"params": [fit.weight]}, {"params": [fit.bias], "lr": 0.125}]
            text = repr(optim_info.optim_cls(groups, **setting.kwargs))
            self.assertIn(optim_info.name, text)
            self.assertIn("Parameter Group 1", text)
            self.assertIn("lr: 0.125", text)
            self.assertIn(f"regularizer: {setting.kwargs.get('regularizer')!r}", text)

    @optims(INFOS)
    def test_state_dict_is_deterministic(self, device, dtype, optim_info):
        """A second optimizer with the first one's state goes on bit for bit alike, and has the same state_dict."""
        for setting in settings(optim_info, device, dtype):
            first, second = Fit(device, dtype), Fit(device, dtype)
            optimizer = optim_info.optim_cls(first.params, **setting.kwargs)
            first.train(optimizer, 5)
            saved = copy.deepcopy(optimizer.state_dict())
            with torch.no_grad():
                for p, q in zip(second.params, first.params, strict=True):
                    p.copy_(q)
            other = optim_info.optim_cls(second.params, **copy.deepcopy(setting.kwargs))
            given = copy.deepcopy(saved)
            other.load_state_dict(given)
            self.assertEqual(other.state_dict(), saved, rtol=0, atol=0)
            first.train(optimizer, 5)
            second.train(other, 5)
            self.assertEqual(first.params, second.params, rtol=0, atol=0)
            self.assertEqual(optimizer.state_dict(), other.state_dict(), rtol=0, atol=0)
            self.assertEqual(given["param_groups"], saved["param_groups"])

    @optims(INFOS)
    def test_loads_older_states(self, device, dtype, optim_info):
        """Options that were added later, and steps that are plain numbers."""
        for setting in settings(optim_info, device, dtype):
            first, second = Fit(device, dtype), Fit(device, dtype)
            optimizer = optim_info.optim_cls(first.params, **copy.deepcopy(setting.kwargs))
            other = optim_info.optim_cls(second.params, **copy.deepcopy(setting.kwargs))
            first.train(optimizer, 3)
            second.train(other, 3)
            saved = copy.deepcopy(optimizer.state_dict())
            for group in saved["param_groups"]:
                for key in ("foreach", "capturable", "maximize", "on_nonfinite", "max_iter"):
                    group.pop(key, None)
            for state in saved["state"].values():
                for key in ("step", "weight_sum"):
                    if key in state:
                        state[key] = state[key].item()
            optimizer.load_state_dict(saved)
            self.assertTrue(all(torch.is_tensor(state["step"]) for state in optimizer.state.values()))
            first.train(optimizer, 3)
            second.train(other, 3)
            self.assertEqual(first.params, second.params, rtol=0, atol=0)

    @optims(INFOS)
    def test_named_parameters(self, device, dtype, optim_info):
        """Names are kept in the state_dict, and states go between named and unnamed optimizers."""
        named, plain = Fit(device, dtype), Fit(device, dtype)
        names = ["layer.weight", "layer.bias"]
        psi = L1(0.05)
        first = optim_info.optim_cls(zip(names, named.params, strict=True), lr=0.02, regularizer=psi)
        second = optim_info.optim_cls(plain.params, lr=0.02, regularizer=psi)
        named.train(first, 3)
        plain.train(second, 3)
        self.assertEqual(first.state_dict()["param_groups"][0]["param_names"], names)
        first.load_state_dict(second.state_dict())
        self.assertEqual(first.state_dict()["param_groups"][0]["param_names"], names)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        named.train(first, 3)
        plain.train(second, 3)
        self.assertEqual(named.params, plain.params, rtol=0, atol=0)

    @optims(INFOS)
    def test_all_hooks(self, device, dtype, optim_info):
        """Global and own step hooks, and the hooks of state_dict and load_state_dict, each once and in order."""
        fit, heard = Fit(device, dtype), []

        def say(word):
            return lambda *_: heard.append(word)

        optimizer = optim_info.optim_cls(fit.params, regularizer=L1(0.1))
        handles = [
            register_optimizer_step_pre_hook(say("global before")),
            register_optimizer_step_post_hook(say("global after")),
            optimizer.register_step_pre_hook(say("before")),
            optimizer.register_step_post_hook(say("after")),
            optimizer.register_state_dict_pre_hook(say("save before")),
            optimizer.register_state_dict_post_hook(say("save after")),
            optimizer.register_load_state_dict_pre_hook(say("load before")),
            optimizer.register_load_state_dict_post_hook(say("load after")),
        ]
        fit.train(optimizer, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        steps = ["global before", "before", "after", "global after"]
        self.assertEqual(heard, [*steps, "save before", "save after", "load before", "load after"])
        for handle in handles:
            handle.remove()
        fit.train(optimizer, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        self.assertEqual(len(heard), 8)

    @optims(INFOS)
    def test_hooks_may_replace_the_state_dict(self, device, dtype, optim_info):
        """Hooks see plain data, and what they return is what is saved and loaded, in full precision."""
        fit = Fit(device, dtype)
        optimizer = optim_info.optim_cls(fit.params, lr=0.02, regularizer=GroupLasso(0.1))
        fit.train(optimizer, 2)
        seen = []

        def doubled(_, state_dict):
            seen.append(state_dict["param_groups"][0]["regularizer"])
            changed = copy.deepcopy(state_dict)
            changed["param_groups"][0]["lr"] *= 2
            changed["state"][0]["step"] += 10
            return changed

        handle = optimizer.register_state_dict_post_hook(doubled)
        saved = optimizer.state_dict()
        handle.remove()
        self.assertEqual(saved["param_groups"][0]["lr"], 0.04)
        optimizer.register_load_state_dict_pre_hook(doubled)
        optimizer.load_state_dict(saved)
        self.assertEqual(optimizer.param_groups[0]["lr"], 0.08)
        self.assertEqual(float(optimizer.state[fit.weight]["step"]), 22.0)
        self.assertEqual(seen, [GroupLasso(0.1).to_dict()] * 2)
        self.assertEqual(optimizer.param_groups[0]["regularizer"], GroupLasso(0.1))

    @optims(INFOS)
    def test_copies_go_on_alone(self, device, dtype, optim_info):
        """deepcopy and pickle give an optimizer of its own that goes on in the same way."""
        for setting in settings(optim_info, device, dtype):
            for duplicate in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
                fit = Fit(device, dtype)
                optimizer = optim_info.optim_cls(fit.params, **copy.deepcopy(setting.kwargs))
                fit.train(optimizer, 3)
                fit_copy, copied = duplicate((fit, optimizer))
                public = {key for key in vars(optimizer) if not key.startswith("_")}
                self.assertEqual({key for key in vars(copied) if not key.startswith("_")}, public)
                tracker = TensorTracker({"rtol": 0, "atol": 0})
                for _ in range(3):
                    fit.train(optimizer, 1)
                    tracker.add(fit.weight)
                for _ in range(3):
                    fit_copy.train(copied, 1)
                    tracker.pop_check_set(fit_copy.weight, self)
                self.assertTrue(tracker.all_popped())

    @optims(INFOS)
    def test_state_starts_with_the_first_gradient(self, device, dtype, optim_info):
        fit = Fit(device, dtype)
        optimizer = optim_info.optim_cls(fit.params)
        self.assertEqual(len(optimizer.state), 0)
        fit.backward()
        fit.bias.grad = None
        optimizer.step()
        self.assertEqual(list(optimizer.state), [fit.weight])

    @optims(INFOS)
    def test_sparse_gradients_are_refused_before_anything_changes(self, device, dtype, optim_info):
        fit = Fit(device, dtype)
        optimizer = optim_info.optim_cls(fit.params)
        start = [p.detach().clone() for p in fit.params]
        fit.backward()
        fit.bias.grad = fit.bias.grad.to_sparse()
        with self.assertRaisesRegex(RuntimeError, f"{optim_info.name} does not support sparse gradients"):
            optimizer.step()
        self.assertEqual(fit.params, start, rtol=0, atol=0)


instantiate_device_type_tests(TestAcceptance, globals())

READER = """
import io, sys, torch
state_dicts = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=True)
assert not any(name.startswith("ramda_theory") for name in sys.modules)
torch.save(state_dicts, sys.stdout.buffer)
"""


def test_weights_only_loading_where_only_torch_is_imported():
    """Through a process that knows torch alone and back, for every class and setting."""
    cases = [(info.optim_cls, setting.kwargs) for info in INFOS for setting in info.optim_inputs_func("cpu")]
    fits, optimizers, buffer = [], [], io.BytesIO()
    for cls, kwargs in cases:
        fits.append(Fit("cpu", torch.float32))
        optimizers.append(cls(fits[-1].params, **copy.deepcopy(kwargs)))
        fits[-1].train(optimizers[-1], 3)
    torch.save([optimizer.state_dict() for optimizer in optimizers], buffer)
    command = [sys.executable, "-c", READER]
    answer = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr.decode()
    loaded = torch.load(io.BytesIO(answer.stdout), weights_only=True)
    for (cls, kwargs), fit, optimizer, state_dict in zip(cases, fits, optimizers, loaded, strict=True):
        twin = copy.deepcopy(fit)
        other = cls(twin.params, **copy.deepcopy(kwargs))
        other.load_state_dict(state_dict)
        fit.train(optimizer, 3)
        twin.train(other, 3)
        assert all(torch.equal(p, q) for p, q in zip(fit.params, twin.params, strict=True))
        assert other.param_groups[0]["regularizer"] == kwargs.get("regularizer")
        assert other.param_groups[0].get("tolerance") == kwargs.get("tolerance")
