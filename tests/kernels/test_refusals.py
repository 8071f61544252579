"""What a step refuses, and that nothing has changed then; what stays visible where nothing is refused."""

import copy
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from engine import ENGINES, forced, optimizer

from ramda_theory import kernels
from ramda_theory.kernels.dispatch import forced_engine
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm, SparseGroupLasso
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.subproblem import ProximalGradient

CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW)
each_engine = pytest.mark.parametrize("engine", ENGINES)


def step(engine, own, params, gradients):
    for parameter, gradient in zip(params, gradients, strict=True):
        parameter.grad = gradient
    with forced(engine):
        own.step()


def many_kinds(scale):
    """Groups of parameters that compiled loops take, few or many weights, and of float64, which they leave."""
    torch.manual_seed(0)
    shapes = [((40, 30), (0,)), ((30,), None), ((30 * scale, 40), (1,)), ((6, 5), (0,))]
    groups = []
    for (shape, dims), dtype in zip(shapes, [torch.float32] * 3 + [torch.float64], strict=True):
        parameter = torch.nn.Parameter(torch.randn(shape, dtype=dtype))
        groups.append({"params": [parameter], "regularizer": dims and GroupLasso(0.02, dims=dims)})
    return groups, [group["params"][0] for group in groups]


def everything(own, params):
    """Copies of weights and state."""
    return [parameter.detach().clone() for parameter in params], copy.deepcopy(own.state_dict()["state"])


def assert_unchanged(own, params, before):
    weights, state = before
    assert all(torch.equal(parameter, w) for parameter, w in zip(params, weights, strict=True))
    after = own.state_dict()["state"]
    assert after.keys() == state.keys()
    for index, kept in state.items():
        assert after[index].keys() == kept.keys()
        assert all(torch.equal(after[index][key], value) for key, value in kept.items())


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("scale", [1, 400])
@pytest.mark.parametrize(("where", "bad"), [(0, "nan"), (1, "inf"), (2, "1e30"), (3, "nan")])
@pytest.mark.parametrize("before", ["nothing", "steps", "lr 0"])
def test_a_gradient_that_is_not_finite_changes_nothing(engine, cls, scale, where, bad, before):
    """It is the last entry of one parameter of four: NaN, Inf, or too large to square."""
    if scale == 400 and (cls is not RAMDA or before != "steps"):
        pytest.skip("large ones once")
    groups, params = many_kinds(scale)
    own = optimizer(engine, cls, groups)
    for _ in range(0 if before == "nothing" else 2):
        step(engine, own, params, [torch.randn_like(parameter) for parameter in params])
    if before == "lr 0":
        for group in own.param_groups:
            group["lr"] = 0.0
    gradients = [torch.randn_like(parameter) for parameter in params]
    gradients[where].view(-1)[-1] = float(bad)
    kept = everything(own, params)
    with pytest.raises(RuntimeError, match=f"0 of group {where}; nothing was changed"):
        step(engine, own, params, gradients)
    assert_unchanged(own, params, kept)


@pytest.mark.parametrize("share", [0.5, 1.1])
def test_all_engines_look_through_gradients_alike(share):
    """By their norm in float32, which no thread has alone."""
    params = [torch.nn.Parameter(torch.zeros(300, 4000)), torch.nn.Parameter(torch.zeros(7))]
    size = float(np.sqrt(share * float(np.finfo(np.float32).max) / params[0].numel()))
    for engine in ENGINES:
        own = optimizer(engine, RAMDA, params, lr=1e-30)
        gradients = [torch.full_like(parameter, size) for parameter in params]
        if share < 1:
            step(engine, own, params, gradients)
        else:
            with pytest.raises(RuntimeError, match="non-finite"):
                step(engine, own, params, gradients)


@each_engine
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("dims", [(0,), (1,)])
def test_what_is_ignored_becomes_nan_and_never_zero(engine, bad, dims):
    torch.manual_seed(0)
    gradients = [torch.randn(8, 6) for _ in range(4)]
    gradients[2][2, 4] = bad
    touched = (slice(None), 4) if dims == (0,) else 2
    for psi, where in ((GroupLasso(0.05, dims=dims), touched), (None, (2, 4)), (L1(0.05), (2, 4))):
        parameter = torch.nn.Parameter(torch.randn(8, 6))
        own = optimizer(engine, RAMDA, [parameter], regularizer=psi, on_nonfinite="ignore")
        for gradient in gradients:
            step(engine, own, [parameter], [gradient])
        assert (parameter[where] != 0).all()
        if psi is not None:
            assert parameter[where].isnan().all()
        others = torch.ones(8, 6, dtype=torch.bool)
        others[where] = False
        assert parameter[others].isfinite().all()


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("lr", [-0.1, float("nan")])
def test_an_lr_that_became_negative_is_refused(engine, cls, lr):
    parameter = torch.nn.Parameter(torch.ones(4, 5))
    own = optimizer(engine, cls, [parameter])
    step(engine, own, [parameter], [torch.ones(4, 5)])
    kept = everything(own, [parameter])
    own.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match="lr must be"):
        step(engine, own, [parameter], [torch.ones(4, 5)])
    assert_unchanged(own, [parameter], kept)


@each_engine
@pytest.mark.parametrize("cls", CLASSES)
def test_an_lr_that_rounding_left_below_zero_counts_as_zero(engine, cls):
    parameter = torch.nn.Parameter(torch.ones(4, 5))
    own = optimizer(engine, cls, [parameter], lr=1e-2)
    step(engine, own, [parameter], [torch.ones(4, 5)])
    before = parameter.detach().clone()
    own.param_groups[0]["lr"] = -1e-19
    step(engine, own, [parameter], [torch.ones(4, 5)])
    assert torch.equal(parameter, before)
    assert own.state[parameter]["step"] == 2


@each_engine
@pytest.mark.parametrize(("shape", "dims"), [((6, 8), (2,)), ((), (1,)), ((6, 8), (-3,))])
def test_axes_that_a_parameter_lacks_are_refused(engine, shape, dims):
    parameter = torch.nn.Parameter(torch.ones(shape))
    own = optimizer(engine, RAMDA, [parameter])
    own.param_groups[0]["regularizer"] = GroupLasso(0.1, dims=dims)  # past the checks at the door
    with pytest.raises(ValueError, match="dims must name axes"):
        step(engine, own, [parameter], [torch.ones(shape)])
    assert torch.equal(parameter, torch.ones(shape))


UNTAKEN = [
    (lambda: torch.zeros(4, 5, dtype=torch.float64), {}),
    (lambda: torch.zeros(8, 10)[::2, ::2], {}),
    (lambda: torch.zeros(20), {"regularizer": GroupLasso(0.1, labels=[0, 1] * 10)}),
    (lambda: torch.zeros(2, 3, 2, 3, 2), {"regularizer": GroupLasso(0.1, dims=(0, 2, 4))}),
    (lambda: torch.zeros(4, 5), {"regularizer": GroupLasso(0.1), "solver": ProximalGradient(step="group")}),
    (lambda: torch.zeros(4, 0), {}),
]
"""What compiled loops cannot take: another dtype, gaps in memory, labels, groups across memory, a solver, nothing."""


@pytest.mark.parametrize(("make", "options"), UNTAKEN)
def test_what_compiled_loops_cannot_take_is_refused_only_where_they_are_forced(make, options):
    pytest.importorskip("numba")
    results = []
    for engine in ENGINES:
        parameter = torch.nn.Parameter(make())
        step(engine, optimizer(engine, RAMDA, [parameter], **options), [parameter], [torch.ones_like(parameter)])
        results.append(parameter.detach().clone())
    assert torch.equal(*results)
    parameter = torch.nn.Parameter(make())
    own = RAMDA([parameter], fused=True, **options)
    with pytest.raises(RuntimeError, match="fused=True cannot step a parameter of shape"):
        step("default", own, [parameter], [torch.ones_like(parameter)])
    assert torch.equal(parameter, make())
    assert not own.state
    own = RAMDA([parameter], **options)
    with pytest.raises(RuntimeError, match="cpu engine cannot step a parameter of shape"):
        step("cpu", own, [parameter], [torch.ones_like(parameter)])
    assert torch.equal(parameter, make())
    assert not own.state


def test_a_refused_step_leaves_no_state_of_other_groups():
    """What a later step starts from is the weights at that time, not at the time of the refusal."""
    first, second = torch.nn.Parameter(torch.ones(4, 5)), torch.nn.Parameter(torch.ones(4, 5, dtype=torch.float64))
    own = RAMDA([{"params": [first], "regularizer": L1(0.1)}, {"params": [second]}], fused=True)
    with pytest.raises(RuntimeError, match=r"fused=True cannot step a parameter of shape \(4, 5\)"):
        step("default", own, [first, second], [torch.ones(4, 5), torch.ones(4, 5, dtype=torch.float64)])
    assert not own.state
    assert torch.equal(first, torch.ones(4, 5))


def test_foreach_and_fused_exclude_each_other():
    with pytest.raises(ValueError, match="foreach and fused cannot both be True"):
        RAMDA([torch.nn.Parameter(torch.zeros(3))], foreach=True, fused=True)


def test_engines_are_named():
    with pytest.raises(ValueError, match="engine must be one of eager, cpu"), kernels.using("fast"):
        pass
    with kernels.using("eager"):  # ends with the block, also by an error
        with pytest.raises(ZeroDivisionError), kernels.using("cpu"):
            raise ZeroDivisionError
        own = RAMDA([torch.nn.Parameter(torch.zeros(3))])
        assert [engine for _, engine, _ in own.explain_step().rows] == ["eager"]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_step_is_explained(cls):
    """By name, engine and reason, and truly: a forced engine refuses exactly what the table leaves to the eager one."""
    pytest.importorskip("numba")
    makers = {
        "columns": (lambda: torch.zeros(6, 5), GroupLasso(0.1)),
        "both": (lambda: torch.zeros(6, 5), SparseGroupLasso(0.1, 0.5)),
        "none": (lambda: torch.zeros(6, 5), None),
        "half": (lambda: torch.zeros(6, 5, dtype=torch.bfloat16), L1(0.1)),
        "double": (lambda: torch.zeros(6, 5, dtype=torch.float64), L1(0.1)),
        "labels": (lambda: torch.zeros(6), GroupLasso(0.1, labels=[0, 1, 0, 1, 0, 1])),
    }
    groups = [
        {"params": [(name, torch.nn.Parameter(make()))], "regularizer": psi} for name, (make, psi) in makers.items()
    ]
    own = cls(groups)
    rows = {name: (engine, reason) for name, engine, reason in own.explain_step().rows}
    assert {name: engine for name, (engine, _) in rows.items()} == {
        "columns": "cpu",
        "both": "cpu",
        "none": "cpu",
        "half": "cpu",
        "double": "eager",
        "labels": "eager",
    }
    assert "float64" in rows["double"][1]
    assert "GroupLasso" in rows["labels"][1]
    assert "labels" in str(own.explain_step())
    for name, (make, psi) in makers.items():
        parameter = torch.nn.Parameter(make())
        alone = cls([parameter], regularizer=psi)
        if rows[name][0] == "cpu":
            step("cpu", alone, [parameter], [torch.ones_like(parameter)])
        else:
            with pytest.raises(RuntimeError, match="cpu engine cannot step"):
                step("cpu", alone, [parameter], [torch.ones_like(parameter)])


class Doubled(L1):
    """Twice the l1 norm, to whoever asks it."""

    def prox(self, z, step=1.0):
        return super().prox(z, 2 * step)

    def metric_prox(self, linear, diag, scale=1.0):
        return super().metric_prox(linear, diag, 2 * scale)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_subclass_that_solves_otherwise_is_not_taken_for_its_parent(cls):
    ends = []
    for engine in ENGINES:
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 20))
        step(engine, cls([parameter], lr=0.5, regularizer=Doubled(0.1)), [parameter], [torch.linspace(1, -1, 20)])
        ends.append(parameter.detach())
    assert torch.equal(*ends)
    assert "no loops for Doubled" in str(cls([parameter], regularizer=Doubled(0.1)).explain_step())


def test_a_subclass_that_changes_nothing_or_states_its_own_kernel_has_one():
    class Rows(GroupLasso):
        dims: tuple[int, ...] = (1,)

    class Own(Doubled):
        def kernel(self):
            return KernelSpec("l1", 2 * self.weight)

    assert Rows(0.1).kernel() == GroupLasso(0.1).kernel()
    assert Own(0.1).kernel() == L1(0.2).kernel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entry": "huber"}, "entry must be one of l1, mcp, scad, got 'huber'"),
        ({"entry": "mcp", "number": 2.0, "group_weight": 0.1}, "entry must be 'l1' where there are groups"),
        ({"entry": "l1", "number": 2.0, "group_weight": 0.1}, "number must be 0 where there are groups, got 2.0"),
    ],
)
def test_what_the_loops_have_no_form_for_cannot_be_stated(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelSpec(weight=0.3, **arguments)


def test_an_engine_is_forced_on_one_thread_whatever_the_others_do():
    entered, left = threading.Event(), threading.Event()

    def other():
        with kernels.using("eager"):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    before = forced_engine()
    with kernels.using("eager"):
        left.set()
        thread.join()
        inside = forced_engine()
    assert (before, inside, forced_engine()) == (None, "eager", None)


@dataclass(frozen=True)
class Faulty(L1):
    """An l1 norm whose proximal map raises where an entry exceeds 10, as a user's own may."""

    def prox(self, z, step=1.0):
        if bool((abs(z) > 10).any()):
            raise ArithmeticError("no proximal map here")
        return super().prox(z, step)

    def metric_prox(self, linear, diag, scale=1.0):
        return self.prox(-linear / diag, scale / diag)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("recording", [False, True])
def test_an_error_in_a_regularizer_takes_the_whole_step_back(cls, steps, recording):
    """Before it comes what compiled loops step, a nuclear norm's warm start and entries of the same psi."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(6, 5)) for _ in range(5)]
    kinds = [GroupLasso(0.02), NuclearNorm(0.02), None, Faulty(0.02), Faulty(0.02)]
    own = cls([{"params": [p], "regularizer": psi} for p, psi in zip(params, kinds, strict=True)], lr=0.1)
    for _ in range(steps):
        step("default", own, params, [torch.randn(6, 5) for _ in params])
    own.record_inexactness = recording  # if so, the eager engine takes all of them
    with torch.no_grad():
        params[-1][0, 0] = 1e6
    before = everything(own, params)
    gradients = [torch.randn(6, 5) for _ in params]
    gradients[-1][0, 0] = -1e6
    with pytest.raises(ArithmeticError):
        step("default", own, params, gradients)
    assert_unchanged(own, params, before)


def test_a_float64_group_that_cannot_be_solved_takes_the_whole_step_back():
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(6, 5, dtype=torch.float64)) for _ in range(3)]
    own = RAMDA(params, lr=0.1, regularizer=GroupLasso(0.02), on_nonfinite="ignore")
    step("default", own, params, [torch.randn(6, 5, dtype=torch.float64) for _ in params])
    before = everything(own, params)
    gradients = [torch.randn(6, 5, dtype=torch.float64) for _ in params]
    gradients[-1] *= 1e152
    with pytest.raises(ValueError, match="1e\\+150"):
        step("default", own, params, gradients)
    assert_unchanged(own, params, before)


def test_copies_of_an_optimizer_go_on_recording():
    own = RAMDA([torch.nn.Parameter(torch.randn(4, 3))], regularizer=GroupLasso(0.1))
    own.record_inexactness = True
    assert copy.deepcopy(own).record_inexactness
