"""Every engine against the methods in float64: all optimizers, regularizers, layouts, dtypes and options.

Each optimizer with each regularizer meets every layout once, and with it in turn every dtype and every option.  The
bounds are those of `enclosure`: exact arithmetic apart, an engine may be wrong by `ROUNDING` units roundoff of its
state in every term of a subproblem's linear part, and where groups have an equation (a compiled engine solves it to
5e-6 of their weight, which is less than the norm of the linear part) by `EQUATION` more.
"""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from enclosure import Enclosure, Pieces
from engine import ENGINES, EVERY_ENGINE, forced, optimizer
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_theory.methods import Settings
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    Reshaped,
    SparseGroupLasso,
)

ROUNDING, EQUATION = 16, 1e-5
CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW)
LR = {RAMDA: 0.05, RMDA: 0.2, ProxSGD: 0.1, ProxAdamW: 0.1}
WEIGHT = {RAMDA: 1.3, RMDA: 0.7, ProxSGD: 1.5, ProxAdamW: 1.2}
GROUP_WEIGHT = {RAMDA: 1.5, RMDA: 1.3, ProxSGD: 1.8, ProxAdamW: 1.8}
"""With which some entries, and groups, are zero at the end and some are not."""

STEPS, RESTART = 6, 4


@dataclass(frozen=True)
class Layout:
    """A shape, the axes of a group in it (or in another shape it is seen in), and how it lies in memory."""

    shape: tuple[int, ...]
    dims: tuple[int, ...] = (0,)
    view: tuple[int, ...] | None = None
    memory: str = "contiguous"

    def __str__(self) -> str:
        seen = f" as {self.view}" if self.view else ""
        return f"{self.shape}{seen} over {self.dims} {self.memory}".replace(" contiguous", "")

    def of(self, values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """A tensor that lies so."""
        tensor = torch.tensor(values, dtype=dtype)
        if self.memory == "transposed":
            backwards = tuple(reversed(range(tensor.ndim)))
            return tensor.permute(backwards).contiguous().permute(backwards)
        if self.memory == "strided":
            wide = torch.zeros([2 * n for n in tensor.shape], dtype=dtype)[(slice(None, None, 2),) * tensor.ndim]
            return wide.copy_(tensor)
        if self.memory == "channels_last":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


LAYOUTS = (
    Layout((9, 14)),
    Layout((14, 9), (1,)),
    Layout((6, 5, 3, 3), (0, 2, 3)),
    Layout((6, 5, 3, 3), (1, 2, 3)),
    Layout((6, 5, 3, 3), (0, 2, 3), memory="channels_last"),
    Layout((6, 5, 3, 3), (1, 2, 3), memory="channels_last"),
    Layout((12, 10), (1, 2), (3, 4, 10)),
    Layout((10, 12), (0, 2), (10, 3, 4)),
    Layout((20,)),
    Layout((20,), ()),
    Layout((), ()),
    Layout((8, 10), memory="strided"),
    Layout((8, 10), (1,), memory="strided"),
    Layout((8, 10), memory="transposed"),
    Layout((8, 10), (1,), memory="transposed"),
    Layout((0, 4)),
    Layout((4, 0)),
    Layout((1, 1)),
    Layout((3, 257)),
    Layout((513, 7)),
    Layout((1000, 130)),
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

PSI = ("None", "L1", "ElasticNet", "MCP", "SCAD", "GroupLasso", "SparseGroupLasso", "GroupMCP", "NuclearNorm")


@dataclass(frozen=True)
class Options:
    """How the steps are taken: options of the optimizer, steps with lr 0, and steps that get a gradient with NaN."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    zero_lr: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()
    memory: int = 0

    def __str__(self) -> str:
        return self.name


OPTIONS = (
    Options("default"),
    Options("maximize", {"maximize": True}),
    Options("tensor lr", {"lr": torch.tensor}, memory=3),
    Options("lr 0", zero_lr=(2, 5)),
    Options("tensor lr 0", {"lr": torch.tensor}, zero_lr=(2, 5)),
    Options("skip", {"on_nonfinite": "skip"}, memory=2),
    Options("skip bad", {"on_nonfinite": "skip", "maximize": True}, bad=(2, 5)),
    Options("skip bad lr 0", {"on_nonfinite": "skip"}, zero_lr=(3, 5), bad=(2, 3)),
    Options("skip tensor lr 0", {"on_nonfinite": "skip", "lr": torch.tensor}, zero_lr=(2, 5)),
    Options("raise bad", bad=(2,)),
    Options("ignore", {"on_nonfinite": "ignore"}),
    Options("ignore bad", {"on_nonfinite": "ignore"}, bad=(3,)),
    Options("momentum 0", {"momentum": 0.0, "weight_decay": 0.4}),
    Options("tensor momentum", {"momentum": torch.tensor(0.25), "weight_decay": 0.4}, memory=3),
    Options("capturable", {"on_nonfinite": "ignore", "capturable": True, "weight_decay": 0.4}),
    Options("skip decay", {"on_nonfinite": "skip", "weight_decay": 0.4}),
    Options("foreach", {"foreach": True}),
)


@dataclass(frozen=True)
class Case:
    """One combination."""

    cls: Any
    psi: str
    layout: Layout
    dtype: torch.dtype
    options: Options

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.cls.__name__}-{self.psi}-{self.layout}-{dtype}-{self.options}"

    @property
    def sensible(self) -> bool:
        """Whether the optimizer has an exact method, and psi a meaning for the shape."""
        if self.psi == "NuclearNorm":
            return self.cls in (RMDA, ProxSGD) and len(self.layout.shape) == 2 and self.layout.view is None
        return True


@functools.cache
def combinations() -> list[Case]:
    """For every optimizer and regularizer all layouts, each with another dtype and option."""
    cases = []
    for cls in CLASSES:
        for psi in PSI:
            draw = random.Random(f"{cls.__name__} {psi}")
            dtypes, options = ([*each] * len(LAYOUTS) for each in (DTYPES, OPTIONS))
            dtypes, options = dtypes[: len(LAYOUTS)], options[: len(LAYOUTS)]
            for each in (dtypes, options):
                draw.shuffle(each)
            cases += [Case(cls, psi, *rest) for rest in zip(LAYOUTS, dtypes, options, strict=True)]
    return [case for case in cases if case.sensible]


def regularizer(case: Case) -> Any:
    """psi, and its pieces."""
    weight, dims, view = WEIGHT[case.cls], case.layout.dims, case.layout.view
    if case.psi == "None":
        return None, Pieces(True)
    if case.psi in ("L1", "ElasticNet", "MCP", "SCAD"):
        further = {"L1": (), "ElasticNet": (0.5,), "MCP": (0.9,), "SCAD": (2.3,)}[case.psi]
        return {"L1": L1, "ElasticNet": ElasticNet, "MCP": MCP, "SCAD": SCAD}[case.psi](weight, *further), Pieces(True)
    if case.psi == "NuclearNorm":
        return NuclearNorm(3 * weight), Pieces(False, (0, 1))
    weight = GROUP_WEIGHT[case.cls]
    psi = {
        "GroupLasso": lambda: GroupLasso(weight, dims, size_scaled=True),
        "SparseGroupLasso": lambda: SparseGroupLasso(weight, 0.4, dims),
        "GroupMCP": lambda: GroupMCP(weight, 50.0, dims),
    }[case.psi]()
    return psi if view is None else Reshaped(psi, view), Pieces(False, dims, view)


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> tuple[np.ndarray, list[np.ndarray]]:
    """A start and gradients that the dtype holds, in float64; slices of different size along every axis."""
    rng = np.random.default_rng(seed)
    sizes = functools.reduce(np.multiply.outer, [np.exp(0.4 * rng.normal(size=n)) for n in shape], np.ones(()))
    away = rng.normal(size=(STEPS + 1, *shape))  # from zero, so that AdamW's metric changes slowly
    values = sizes * (0.5 * away + np.sign(away))
    values = torch.tensor(values, dtype=dtype).double().numpy()
    return np.asarray(values[0]), [np.asarray(value) for value in values[1:]]


class Run:
    """An optimizer and the enclosure of where it must be."""

    def __init__(self, engine: str, case: Case, seed: int) -> None:
        self.case, self.engine = case, engine
        psi, self.pieces = regularizer(case)
        start, self.gradients = drawn(case.layout.shape, seed, case.dtype)
        self.parameter = torch.nn.Parameter(case.layout.of(start, case.dtype))
        arguments = dict(case.options.arguments)
        if case.cls is ProxAdamW:
            arguments.pop("momentum", None)
        else:
            arguments.pop("weight_decay", None)
        self.lr = LR[case.cls]
        self.decay = arguments.get("weight_decay", 0.0)
        self.averaging = 1.0 if case.cls is ProxAdamW else 1.0 - float(arguments.get("momentum", 0.6))
        if case.cls is not ProxAdamW:
            arguments.setdefault("momentum", 0.6)
        self.tensor_lr = "lr" in arguments
        arguments["lr"] = torch.tensor(self.lr, dtype=torch.float64) if self.tensor_lr else self.lr
        self.optimizer = optimizer(engine, case.cls, [self.parameter], regularizer=psi, **arguments)
        eps = torch.finfo(torch.promote_types(case.dtype, torch.float32)).eps
        # An engine may solve the equation in float32 where the state is float32.
        equation = EQUATION if not self.pieces.entries and case.psi != "NuclearNorm" and eps > 1e-10 else 0.0
        self.enclosure = Enclosure(case.cls, psi, self.pieces, start, ROUNDING * eps + equation, eps, self.decay)

    def settings(self, t: int) -> Settings:
        return Settings(0.0 if t in self.case.options.zero_lr else self.lr, self.averaging)

    def take(self, gradient: np.ndarray, settings: Settings) -> None:
        """A step of the optimizer."""
        (group,) = self.optimizer.param_groups
        if self.tensor_lr:
            group["lr"].fill_(settings.lr)
        else:
            group["lr"] = settings.lr
        self.parameter.grad = self.case.layout.of(gradient, self.case.dtype)
        with forced(self.engine):
            self.optimizer.step()

    def weights(self) -> np.ndarray:
        """W as the optimizer keeps it."""
        w = self.optimizer.state[self.parameter].get("w", self.parameter)
        assert w.dtype is torch.promote_types(self.case.dtype, torch.float32)
        assert torch.allclose(w.to(self.case.dtype), self.parameter, 0.0, 0.0, equal_nan=True)
        return w.detach().double().cpu().numpy().copy()

    def everything(self) -> list[torch.Tensor]:
        """Copies of W and the state."""
        return [tensor.detach().clone() for tensor in (self.parameter, *self.optimizer.state[self.parameter].values())]

    def structured(self) -> np.ndarray:
        with self.optimizer.structured_point():
            return self.parameter.detach().double().cpu().numpy().copy()


def spoiled(gradient: np.ndarray) -> np.ndarray:
    """With a NaN in the middle."""
    gradient = gradient.copy()
    gradient.flat[gradient.size // 2] = np.nan
    return gradient


def check(engine: str, case: Case, seed: int = 0) -> None:
    """Take the steps, and look at W and What after each."""
    run = Run(engine, case, seed)
    policy, touched = case.options.arguments.get("on_nonfinite", "raise"), np.zeros(case.layout.shape, dtype=bool)
    skipped, sharp = 0, []
    for t in range(1, STEPS + 1):
        settings = run.settings(t)
        if t == RESTART and case.cls in (RAMDA, RMDA):
            run.optimizer.restart(case.options.memory)
            run.enclosure.restart(settings, case.options.memory)
        gradient = run.gradients[t - 1]
        signed = -gradient if case.options.arguments.get("maximize") else gradient
        if t in case.options.bad and gradient.size:
            before = run.everything()
            if policy == "raise":
                with pytest.raises(RuntimeError, match="non-finite gradient"):
                    run.take(spoiled(gradient), settings)
            else:
                run.take(spoiled(gradient), settings)
            if policy == "ignore":
                touched.flat[touched.size // 2] = True
                # What is not touched must not notice: the enclosure gets the finite gradient.
                run.enclosure.step(signed, settings)
                continue
            assert all(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))
            skipped += policy == "skip"
            continue
        before = run.weights() if t > 1 else None
        run.take(gradient, settings)
        expected = run.enclosure.step(signed, settings)
        w, w_hat = run.weights(), run.structured()
        if settings.lr == 0 and before is not None:
            np.testing.assert_array_equal(w, before)
        if touched.any():
            whole = touched if run.pieces.entries else run.pieces.over(np.max, touched)
            assert np.isnan(w[touched]).all()
            assert (w[whole] != 0).all()
            if case.psi in ("GroupLasso", "NuclearNorm"):
                assert np.isnan(w[whole]).all()
            w, w_hat = (np.where(whole, bounds.point, a) for a, bounds in ((w, expected.w), (w_hat, expected.w_hat)))
            rounded = whole
        else:
            rounded = np.zeros_like(touched)
        assert not (outside := expected.w.excludes(w, run.pieces)).any(), (t, np.argwhere(outside)[:5])
        assert not (w_hat[expected.zero & ~rounded] != 0).any(), (t, "not zero")
        if case.dtype is not torch.float16:  # whose numbers end at 6e-8
            assert not (w_hat[expected.nonzero & ~rounded] == 0).any(), (t, "zero")
        if run.averaging == 1.0 and settings.lr > 0:
            assert not (w[expected.zero & ~rounded] != 0).any(), (t, "W not zero")
            assert not (w[expected.nonzero & ~rounded] == 0).any(), (t, "W zero")
        if settings.lr > 0:
            sharp.append((expected.zero | expected.nonzero, expected.w))
    assert int(run.optimizer.skipped_steps) == skipped
    if case.layout.shape and math.prod(case.layout.shape) > 50:  # the bounds say something
        assert all(clear.mean() > 0.9 for clear, _ in sharp)
        bounds = sharp[-1][1]
        size = run.pieces.norm(bounds.point).max()
        assert np.median(bounds.radius) <= (5e-5 if run.pieces.entries else 5e-3) * size


LARGE = (1000, 130)
"""Cut into several units of work by a compiled engine; slow in the eager one, and nothing new there."""

HALF = (torch.bfloat16, torch.float16)
COMPILED_HALF = [(RAMDA, "GroupLasso"), (RMDA, "MCP"), (ProxSGD, "L1"), (ProxAdamW, "SparseGroupLasso")]
"""What is compiled in half precision too: each takes seconds, and they share their parts."""


def kept(engine: str, case: Case) -> bool:
    """Whether a combination is worth its time on an engine."""
    if engine == "eager":
        return case.layout.shape != LARGE
    if engine == "triton":
        return (
            case.layout.shape != LARGE
            and case.layout.memory != "strided"
            and 0 not in case.layout.shape
            and (case.dtype is not torch.float64 and case.psi not in ("GroupMCP", "NuclearNorm"))
        )
    return case.dtype not in HALF or (case.cls, case.psi) in COMPILED_HALF or case.psi == "NuclearNorm"


INTERPRETED_AT_ONCE = 2
"""Cases of an optimizer with a regularizer that are interpreted, slowly, by default; the others are marked."""


def pairs() -> list[Any]:
    """Every engine with the combinations that are worth it."""
    found = []
    for engine in EVERY_ENGINE:
        cases = [case for case in combinations() if kept(engine, case)]
        if engine == "triton":
            random.Random(0).shuffle(cases)
        seen: Counter[Any] = Counter()
        for case in cases:
            seen[case.cls, case.psi] += 1
            slow = engine == "triton" and seen[case.cls, case.psi] > INTERPRETED_AT_ONCE
            found.append(pytest.param(engine, case, marks=pytest.mark.slow if slow else ()))
    return found


@pytest.mark.parametrize(("engine", "case"), pairs(), ids=str)
def test_follows_the_method(engine, case):
    check(engine, case)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any shape with any axes."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 17, 40]), max_size=4)))
    dims = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
    memory = draw(st.sampled_from(["contiguous", "transposed", "strided"]))
    kinds = [psi for psi in PSI if psi != "NuclearNorm"]
    return Case(
        draw(st.sampled_from(CLASSES)),
        draw(st.sampled_from(kinds)),
        Layout(shape, tuple(axis - len(shape) * draw(st.booleans()) for axis in dims), memory=memory),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(OPTIONS)),
    )


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40)
@given(case=cases(), seed=st.integers(0, 10**6))
def test_any_shape_follows_the_method(engine, case, seed):
    if math.prod(case.layout.shape) <= 10_000 and kept(engine, case):
        check(engine, case, seed)


@pytest.mark.parametrize("psi", [psi for psi in PSI if psi not in ("None", "NuclearNorm")])
@pytest.mark.parametrize("cls", CLASSES)
def test_the_cases_have_zeros_and_nonzeros(cls, psi):
    """Every regularizer sets pieces to zero and leaves others, in some of its cases."""
    zero = nonzero = 0
    for case in combinations():
        if (case.cls, case.psi) == (cls, psi) and 20 < math.prod(case.layout.shape) < 2000:
            run = Run("default", case, 0)
            for t, gradient in enumerate(run.gradients, 1):
                last = run.enclosure.step(gradient, run.settings(t))
            zero, nonzero = zero + last.zero.any(), nonzero + last.nonzero.any()
    assert zero > 3 and nonzero > 3
