"""Faults found in the authors' released package, one test for each: nothing of it happens here."""

import copy
import functools
import io
import math

import numpy as np
import plain
import pytest
import recurrences
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from toy import CLASSES, structured
from waiting import NoSynchronisation

from ramda_theory import kernels
from ramda_theory.optim import RAMDA, RMDA, StageSchedule, structure_report, structured_param_groups
from ramda_theory.regularizers import (
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupLasso,
    SparseGroupLasso,
)

both_paths = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


def drawn(shape, steps, seed=0):
    """A start and gradients, float32, the gradients of very different size from slice to slice."""
    rng = np.random.default_rng(seed)
    scale = functools.reduce(np.multiply.outer, [np.exp(rng.normal(size=length)) for length in shape])
    gradients = [torch.tensor(scale * rng.normal(size=shape), dtype=torch.float32) for _ in range(steps)]
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32), gradients


def algorithm_1(start, gradients, weight, dims, lr=0.05, averaging=0.1, eps=1e-6):
    """(W, What) after one stage with the group LASSO, by loops over floats; ``averaging`` is c, or one c per step."""
    shape = tuple(start.shape)
    averaging = [averaging] * len(gradients) if isinstance(averaging, float) else averaging
    groups = [piece.tolist() for piece in plain.pieces(GroupLasso(weight, dims), shape)]
    gradient = recurrences.constant([np.asarray(g, dtype=float) for g in gradients])
    steps = recurrences.ramda(
        np.asarray(start, dtype=float).ravel().tolist(), gradient, [(lr, c, eps) for c in averaging], weight, groups
    )
    *_, last = steps
    return tuple(np.reshape(point, shape) for point in last)


def feed(optimizer, parameter, gradients, after=lambda: None):
    for gradient in gradients:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        after()


def assert_follows(optimizer, parameter, expected):
    """W and What are (w, w_hat) to float32, with the same zeros in What."""
    for ours, theirs in zip((parameter.detach(), structured(optimizer, parameter)), expected, strict=True):
        theirs = torch.tensor(theirs)
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-6 * float(theirs.abs().max()))
    assert torch.equal(structured(optimizer, parameter) == 0, torch.tensor(expected[1] == 0))


@both_paths
@pytest.mark.parametrize("weight", [0.3, 30.0], ids=["some groups zero", "all 128 groups zero"])
def test_1_no_group_is_left_nonzero_that_is_zero_at_the_optimum(weight, fused):
    """Where a warm start is far from the solution, and every group but few is zero there."""
    start, gradients = drawn((16, 128), 12)
    parameter = nn.Parameter(start.clone())
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(weight), fused=fused)
    feed(optimizer, parameter, gradients)
    expected = algorithm_1(start, gradients, weight, dims=(0,))
    zero = int((expected[1] == 0).all(axis=0).sum())
    assert zero == 128 if weight == 30.0 else 0 < zero < 128
    assert_follows(optimizer, parameter, expected)


@pytest.mark.parametrize("solver", ["proximal_gradient", "accelerated"])
def test_1_a_stopping_rule_leaves_no_group_nonzero_either(solver):
    start, gradients = drawn((16, 128), 12)
    parameter = nn.Parameter(start.clone())
    arguments = {"solver": solver, "tolerance": 1e-4, "max_iter": 2000}
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(30.0), **arguments)
    feed(optimizer, parameter, gradients)
    assert int(torch.count_nonzero(structured(optimizer, parameter))) == 0


@both_paths
@pytest.mark.parametrize("weight", [0.1, 1e6], ids=["small weight", "large weight"])
@pytest.mark.parametrize("zero_start", [True, False], ids=["zero start", "random start"])
def test_2_a_tensor_may_lose_all_its_groups(zero_start, weight, fused):
    start, gradients = drawn((7, 9), 6)
    start = 0 * start if zero_start else start
    parameter = nn.Parameter(start.clone())
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(weight), fused=fused)
    feed(optimizer, parameter, gradients)
    expected = algorithm_1(start, gradients, weight, dims=(0,))
    assert bool((expected[1] == 0).all()) == (weight == 1e6)
    assert_follows(optimizer, parameter, expected)


@both_paths
def test_2_gradients_that_are_all_nan(fused):
    start, (gradient,) = drawn((7, 9), 1)
    for policy in ("raise", "ignore"):
        parameter = nn.Parameter(start.clone())
        optimizer = RAMDA([parameter], regularizer=GroupLasso(1e6), on_nonfinite=policy, fused=fused)
        parameter.grad = torch.full_like(gradient, torch.nan)
        if policy == "raise":
            with pytest.raises(RuntimeError, match="non-finite gradient"):
                optimizer.step()
            assert torch.equal(parameter, start)
        else:
            optimizer.step()
            assert bool(parameter.isnan().all())
            assert bool(structured(optimizer, parameter).isnan().all())


@both_paths
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((8, 6, 3, 3), (0, 2, 3)),  # input channels
        ((8, 6, 3, 3), (1, 2, 3)),  # filters
        ((8, 6, 3, 3), (0,)),
        ((8, 6, 3, 3), (-4, -2, -1)),
        ((9, 7), (-1,)),
        ((4, 5, 2, 3, 2), (0, 2, 3, 4)),  # Conv3d
        ((4, 5, 2, 3, 2), (-1, -2, -3, 1)),
    ],
    ids=str,
)
def test_3_any_axes_of_any_convolution_also_through_a_restart(shape, dims, fused):
    (start, gradients), weight = drawn(shape, 18), 0.5
    parameter = nn.Parameter(start.clone())
    optimizer = RAMDA([parameter], lr=0.05, eps=1e-4, regularizer=GroupLasso(weight, dims), fused=fused)
    schedule = StageSchedule(optimizer, [10], 0.5)
    feed(optimizer, parameter, gradients, schedule.step)
    w, _ = algorithm_1(start, gradients[:10], weight, dims, lr=0.05, eps=1e-4)
    growing = [0.1 * math.sqrt(i) for i in range(1, 9)]
    expected = algorithm_1(w, gradients[10:], weight, dims, lr=0.025, averaging=growing, eps=5e-5)
    assert 0 < int((expected[1] == 0).sum()) < expected[1].size
    assert_follows(optimizer, parameter, expected)


@both_paths
def test_3_filters_of_a_network(fused):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))
    groups = structured_param_groups(net, GroupLasso(100.0), by="output", include=nn.Conv2d)
    optimizer = RAMDA(groups, momentum=0.0, fused=fused)
    net(torch.randn(4, 3, 6, 6)).square().sum().backward()
    optimizer.step()
    assert structure_report(optimizer).total("w").zero_groups == 8


@both_paths
@pytest.mark.parametrize("memory", [0, 3])
def test_4_a_restart_before_the_first_gradient_leaves_the_parameter_alone(memory, fused):
    (start, gradients), weight = drawn((7, 9), 12), 0.2
    early, late = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = RAMDA([early, late], lr=0.05, eps=1e-4, regularizer=GroupLasso(weight), fused=fused)
    schedule = StageSchedule(optimizer, [4], 0.5, memory, grow_averaging=False)
    feed(optimizer, early, gradients[:4], schedule.step)
    assert late not in optimizer.state
    assert torch.equal(late, start)
    early.grad = None
    feed(optimizer, late, gradients[4:], schedule.step)
    assert_follows(optimizer, late, algorithm_1(start, gradients[4:], weight, (0,), lr=0.025, eps=5e-5))


@pytest.mark.parametrize("cls", CLASSES)
def test_4_a_schedule_may_have_no_milestones(cls):
    """One stage, which is the last: its averaging weight grows to 1."""
    start, gradients = drawn((7, 9), 120)
    parameter = nn.Parameter(start.clone())
    optimizer = cls([parameter], lr=0.01, regularizer=L1(0.1))
    schedule = StageSchedule(optimizer, [])
    feed(optimizer, parameter, gradients, schedule.step)
    assert optimizer.param_groups[0]["lr"] == 0.01
    if cls in (RAMDA, RMDA):
        assert optimizer.param_groups[0]["momentum"] == 0.0
        torch.testing.assert_close(parameter.detach(), structured(optimizer, parameter), rtol=1e-6, atol=1e-6)
        assert torch.equal(parameter == 0, structured(optimizer, parameter) == 0)


@pytest.mark.parametrize("cls", CLASSES)
def test_5_a_closure_may_differentiate(cls):
    ours, theirs = (nn.Parameter(drawn((7, 9), 1)[0]) for _ in range(2))
    optimizer, other = (cls([p], lr=0.01, regularizer=GroupLasso(0.1)) for p in (ours, theirs))

    def closure():
        optimizer.zero_grad()
        loss = ours.square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        with torch.no_grad():
            loss = optimizer.step(closure)
        assert float(loss.detach()) == float(theirs.detach().square().sum())
        theirs.grad = 2 * theirs.detach()
        other.step()
    assert torch.equal(ours, theirs)


@both_paths
@pytest.mark.parametrize("at", [3, 7, 11])
def test_5_a_resumed_run_keeps_the_averaging_weight(at, fused):
    """Everything goes through weights_only loading, and the end is that of the scalar loop, and of the run itself."""
    (start, gradients), weight = drawn((7, 9), 14), 0.1

    def begin(w):
        parameter = nn.Parameter(w)
        optimizer = RAMDA([parameter], lr=0.05, eps=1e-4, regularizer=GroupLasso(weight), fused=fused)
        return parameter, optimizer, StageSchedule(optimizer, [6], 0.5)

    parameter, optimizer, schedule = begin(start.clone())
    feed(optimizer, parameter, gradients[:at], schedule.step)
    buffer = io.BytesIO()
    torch.save([parameter.detach(), optimizer.state_dict(), schedule.state_dict()], buffer)
    feed(optimizer, parameter, gradients[at:], schedule.step)
    buffer.seek(0)
    w, *states = torch.load(buffer, weights_only=True)
    resumed, *parts = begin(w)
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)
    feed(parts[0], resumed, gradients[at:], parts[1].step)
    assert torch.equal(resumed, parameter)
    middle, _ = algorithm_1(start, gradients[:6], weight, (0,), lr=0.05, eps=1e-4)
    growing = [0.1 * math.sqrt(i) for i in range(1, 9)]
    assert_follows(parts[0], resumed, algorithm_1(middle, gradients[6:], weight, (0,), 0.025, growing, 5e-5))


@both_paths
@pytest.mark.parametrize("steps", [0, 3], ids=["fresh", "under way"])
def test_6_lr_zero_with_zero_groups_changes_nothing(steps, fused):
    """Neither at the first step nor later, when What is elsewhere."""
    start, gradients = drawn((7, 9), 7)
    start[:, ::2] = 0
    parameter = nn.Parameter(start.clone())
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(0.5), fused=fused)
    feed(optimizer, parameter, gradients[:steps])
    with torch.no_grad():
        parameter.copy_(start)
    w_hat = structured(optimizer, parameter)
    assert torch.equal(w_hat, start) == (steps == 0)
    optimizer.param_groups[0]["lr"] = 0.0
    feed(optimizer, parameter, gradients[steps:])
    assert torch.equal(parameter, start)
    assert torch.equal(structured(optimizer, parameter) == 0, w_hat == 0)
    assert bool(structured(optimizer, parameter).isfinite().all())


@pytest.mark.parametrize("cls", CLASSES)
def test_6_distributed_checkpoints_load_into_a_sparse_model(cls):
    """torch.distributed.checkpoint fills the state of a new optimizer by a step with lr 0 and zero gradients."""

    def begin():
        net = nn.Linear(6, 5)
        return net, cls(structured_param_groups(net, GroupLasso(1.0)), lr=0.05)

    net, optimizer = begin()
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.eye(6)).square().sum().backward()
        optimizer.step()
    optimizer.adopt_structured_point()
    assert bool((net.weight == 0).all(dim=0).any())
    options = StateDictOptions(flatten_optimizer_state_dict=False)
    saved = get_optimizer_state_dict(net, optimizer, options=options)
    other, fresh = begin()
    other.load_state_dict(net.state_dict())
    set_optimizer_state_dict(other, fresh, copy.deepcopy(saved), options=options)
    for name, weight in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
    for ours, theirs in zip(other.parameters(), net.parameters(), strict=True):
        for key, value in optimizer.state[theirs].items():
            assert torch.equal(fresh.state[ours][key], value)


@both_paths
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_7_a_bad_entry_never_makes_its_group_zero(bad, fused):
    """Refused with nothing changed, or NaN for all to see; "skip", which has no fused step, leaves the step out."""
    start, (*gradients, last) = drawn((7, 9), 4)
    for policy in ("raise", "ignore", "skip"):
        parameter = nn.Parameter(start.clone())
        taken = None if policy == "skip" else fused
        optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(0.01), on_nonfinite=policy, fused=taken)
        feed(optimizer, parameter, gradients)
        before = parameter.detach().clone(), structured(optimizer, parameter)
        parameter.grad = last.clone()
        parameter.grad[3, 4] = bad
        if policy == "raise":
            with pytest.raises(RuntimeError, match="nothing was changed"):
                optimizer.step()
        else:
            optimizer.step()
        after = parameter.detach(), structured(optimizer, parameter)
        for ours, old in zip(after, before, strict=True):
            if policy == "ignore":
                assert bool(ours[3, 4].isnan())
                assert bool((ours[:, [i for i in range(9) if i != 4]]).isfinite().all())
                assert not bool((ours[:, 4] == 0).any())
            else:
                assert torch.equal(ours, old)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_8_sums_of_half_precision_parameters_are_float32_also_after_loading(dtype):
    """V and U against float64 sums of the gradients, t and the weights included in what is saved."""
    start, gradients = drawn((7, 9), 40)
    gradients = [(1e3 * gradient.clamp(-60, 60)).to(dtype) for gradient in gradients]
    parameter = nn.Parameter(start.to(dtype))
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(0.1))
    feed(optimizer, parameter, gradients)
    roots = [0.05 * math.sqrt(t) for t in range(1, 41)]
    sums = {
        "grad_sum": sum(s * g.double() for s, g in zip(roots, gradients, strict=True)),
        "grad_sq_sum": sum(s * g.double() ** 2 for s, g in zip(roots, gradients, strict=True)),
    }
    buffer = io.BytesIO()
    torch.save((parameter, optimizer.state_dict()), buffer)
    buffer.seek(0)
    loaded, state_dict = torch.load(buffer, weights_only=True)
    other = RAMDA([loaded])
    other.load_state_dict(state_dict)
    for state in (optimizer.state[parameter], other.state[loaded]):
        assert float(state["weight_sum"]) == pytest.approx(sum(roots), rel=1e-12)
        for key, expected in sums.items():
            assert state[key].dtype == torch.float32
            bound = 1e-6 * float(expected.abs().max())
            torch.testing.assert_close(state[key].double(), expected, rtol=1e-5, atol=bound)
        for key, value in state.items():
            assert torch.equal(value, optimizer.state[parameter][key])
    assert bool(parameter.isfinite().all())


@pytest.mark.parametrize("cls", CLASSES)
def test_8_float16_gradients_of_1000_are_harmless(cls):
    parameter = nn.Parameter(torch.ones(4, 3, dtype=torch.float16))
    optimizer = cls([parameter], lr=1e-3, regularizer=GroupLasso(0.1))
    feed(optimizer, parameter, [torch.full((4, 3), 1e3)] * 5)
    assert bool(parameter.isfinite().all())
    assert bool((parameter < 1).all())


@both_paths
def test_9_regularization_that_was_asked_for_happens(fused):
    """A regularizer alone suffices, for every parameter; one that reaches none is an error."""
    start, (gradient,) = drawn((7, 9), 1)
    parameters = [nn.Parameter(start.clone()), nn.Parameter(start.clone().reshape(9, 7))]
    optimizer = RAMDA(parameters, momentum=0.0, regularizer=GroupLasso(1e6), fused=fused)
    for parameter in parameters:
        parameter.grad = gradient.reshape(parameter.shape)
    optimizer.step()
    assert all(int(torch.count_nonzero(parameter)) == 0 for parameter in parameters)
    with pytest.raises(ValueError, match="reaches no parameter that can be regularized"):
        structured_param_groups(nn.LayerNorm(4), GroupLasso(0.1))
    with pytest.raises(ValueError, match="nothing is regularized"):
        structure_report(RAMDA([nn.Parameter(start.clone())]))


@pytest.mark.parametrize("weight", [-0.1, math.nan, torch.tensor(-0.1)], ids=str)
def test_9_weights_of_groups_are_checked(weight):
    with pytest.raises(ValueError, match="weight must be finite and >= 0"):
        RAMDA([{"params": [nn.Parameter(torch.ones(2, 2))], "regularizer": GroupLasso(weight)}])


@both_paths
def test_9_a_tensor_weight_stays_what_it_is(fused):
    (start, gradients), weight = drawn((7, 9), 8), torch.tensor(0.25)
    parameter = nn.Parameter(start.clone())
    optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(weight), fused=fused)
    feed(optimizer, parameter, gradients)
    assert float(weight) == 0.25
    assert optimizer.param_groups[0]["regularizer"].weight == 0.25
    assert_follows(optimizer, parameter, algorithm_1(start, gradients, 0.25, dims=(0,)))


@both_paths
@pytest.mark.parametrize("size", [1, 4, 49, 1024])
def test_10_the_threshold_has_the_square_root_of_the_group_size(size, fused):
    """From W^0 = 0 the first What_g is zero if ||g_g|| <= lam sqrt(n_g), and one part in 1e5 above it is not."""
    ratios = torch.tensor([0.9 / math.sqrt(size), 0.5, 1 - 1e-5, 1 + 1e-5, 1.5], dtype=torch.float64)
    direction = torch.tensor(np.random.default_rng(0).normal(size=(size, 5)))
    gradient = 0.3 * math.sqrt(size) * ratios * direction / direction.norm(dim=0)
    parameter = nn.Parameter(torch.zeros(size, 5))
    optimizer = RAMDA([parameter], momentum=0.0, regularizer=GroupLasso(0.3), fused=fused)
    feed(optimizer, parameter, [gradient])
    assert torch.equal((parameter != 0).any(dim=0), ratios > 1)


def test_10_screened_groups_cost_no_iterations():
    """Between lam and lam sqrt(n_g) as much as below: such a subproblem is solved before the first iteration."""
    parameter = nn.Parameter(torch.zeros(49, 6))
    arguments = {"solver": "proximal_gradient", "tolerance": 1e-6}
    optimizer = RAMDA([parameter], regularizer=GroupLasso(0.3), **arguments)
    optimizer.record_inexactness = True
    gradient = torch.ones(49, 6)
    feed(optimizer, parameter, [0.3 * 0.9 * gradient])  # of norm 0.9 lam sqrt(n_g)
    assert optimizer.inexactness[parameter].iterations <= 1
    assert optimizer.inexactness[parameter].residual == 0
    assert int(torch.count_nonzero(parameter)) == 0


EVERY_EXACT_ONE = [
    None,
    L1(0.1),
    ElasticNet(0.1, 0.1),
    MCP(0.1, 3.0),
    SCAD(0.1, 3.7),
    GroupLasso(0.1),
    SparseGroupLasso(0.1, 0.5),
]


def layers(cls, device, policy, **options):
    """Ten layers with every exact regularizer, and how to give them gradients."""
    regularizers = (EVERY_EXACT_ONE * 2)[:10]
    parameters = [nn.Parameter(drawn((7, 9), 1)[0].to(device)) for _ in regularizers]
    groups = [{"params": [p], "regularizer": psi} for p, psi in zip(parameters, regularizers, strict=True)]

    def gradients(seed):
        for i, parameter in enumerate(parameters):
            parameter.grad = drawn((7, 9), 1, 10 * seed + i)[1][0].to(device)

    plain = {"fused": False} if cls is RAMDA else {}
    return gradients, cls(groups, on_nonfinite=policy, **plain, **options)


@pytest.mark.parametrize("policy", ["skip", "ignore"])
@pytest.mark.parametrize("cls", CLASSES)
def test_11_a_step_waits_for_nothing(cls, policy, monkeypatch):
    """Told that its arrays are not on the host, where it would look for an early end of the scalar equation."""
    for module in ("pieces", "scalar_equation"):
        monkeypatch.setattr(f"ramda_theory.regularizers.{module}.is_host", lambda array: False)
    gradients, optimizer = layers(cls, "cpu", policy)
    for t in range(3):
        gradients(t)
        state = optimizer.state.values()
        free = [each[key] for each in state for key in ("step", "weight_sum") if key in each]
        if t == 0:
            optimizer.step()  # makes the state
            continue
        with kernels.using("eager"), NoSynchronisation(free if policy == "ignore" else ()) as watch:
            optimizer.step()
        assert watch.operations > 100


@pytest.mark.parametrize("options", [{}, {"capturable": True}, {"foreach": True}], ids=str)
@pytest.mark.parametrize("policy", ["skip", "ignore"])
@pytest.mark.parametrize("cls", CLASSES)
def test_11_a_step_runs_on_a_device_that_cannot_be_looked_at(cls, policy, options):
    """ "meta" has no numbers: whoever asks for one gets an error."""
    gradients, optimizer = layers(cls, "meta", policy, **options)
    for t in range(2):
        gradients(t)
        optimizer.step()
    with pytest.raises((RuntimeError, NotImplementedError)):
        optimizer.param_groups[0]["params"][0].sum().item()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("cls", CLASSES)
def test_11_a_step_of_ten_layers_is_one_graph(cls):
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    runs = []
    for compile_it in (False, True):
        gradients, optimizer = layers(cls, "cpu", "skip")
        step = torch.compile(optimizer.step, fullgraph=True, backend=backend) if compile_it else optimizer.step
        for t in range(3):
            gradients(t)
            step()
        runs.append([p.detach() for group in optimizer.param_groups for p in group["params"]])
    torch._dynamo.reset()
    assert len(compiled) == 1
    for ours, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.fixture
def mesh(tmp_path):
    """Of this process alone; groups cut across several are the business of the distributed tests."""
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cls", CLASSES)
def test_11_sharded_parameters_are_stepped(cls, axis, mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    start, gradients = drawn((7, 9), 4)
    plain = nn.Parameter(start.clone())
    sharded = nn.Parameter(distribute_tensor(start, mesh, [Shard(axis)]))
    optimizers = [cls([p], lr=0.05, regularizer=GroupLasso(0.2)) for p in (plain, sharded)]
    for gradient in gradients:
        plain.grad, sharded.grad = gradient.clone(), distribute_tensor(gradient, mesh, [Shard(axis)])
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(sharded.detach().full_tensor(), plain.detach(), rtol=1e-5, atol=1e-6)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.norm = nn.Embedding(10, 3), nn.BatchNorm2d(3)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv3d(4, 5, 2)
        self.last = nn.Linear(5, 2)


def test_12_groups_of_convolutions_are_counted():
    """By loops over the channels; a channel with one nonzero entry is not zero."""
    net = Network()
    with torch.no_grad():
        net.first.weight[:, 0] = 0
        net.first.weight[:, 2] = 0
        net.first.weight[3, 2, 1, 1] = 1e-40
        net.second.weight[:, 1:3] = 0
        net.last.weight[:, 4] = 0
    layers = {layer.name: layer for layer in structure_report(net).layers["w"]}
    found = {name: (layer.zero_groups, layer.groups) for name, layer in layers.items()}
    assert found == {"first.weight": (1, 3), "second.weight": (2, 4), "last.weight": (1, 5)}
    in_zero_groups = 4 * 9 + 2 * 5 * 8 + 2
    every = 4 * 3 * 9 + 5 * 4 * 8 + 2 * 5
    assert structure_report(net).total().group_sparsity == pytest.approx(in_zero_groups / every, rel=1e-12)


def test_12_embeddings_norms_and_biases_are_left_alone():
    """In the groups and in what a step with an enormous weight does."""
    net = Network()
    groups = structured_param_groups(net, GroupLasso(1e6))
    regularized = {name for group in groups if group["regularizer"] is not None for name in group["param_names"]}
    assert regularized == {"first.weight", "second.weight", "last.weight"}
    optimizer = RAMDA(groups, momentum=0.0)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        assert int(torch.count_nonzero(parameter)) == (0 if name in regularized else parameter.numel())


def test_12_the_penalty_is_the_sum_over_all_groups():
    """psi of every weight of the network, against loops over its groups."""
    net, total, expected = Network(), 0.0, 0.0
    for group in structured_param_groups(net, GroupLasso(0.3)):
        for parameter in group["params"] if group["regularizer"] is not None else ():
            total += float(group["regularizer"].value(parameter.detach()))
    for weight in (net.first.weight, net.second.weight, net.last.weight):
        for channel in weight.detach().double().unbind(1):
            expected += 0.3 * math.sqrt(channel.numel()) * math.dist(channel.flatten(), [0.0] * channel.numel())
    assert total == pytest.approx(expected, rel=1e-6)


def test_13_a_denormal_is_not_zero():
    """Nor are the 5.6e-45 at which 0.9^t sticks."""
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[5.6e-45, 0.0, 1.0], [0.0, -0.0, 1.0]]))
    report = structure_report(net).total()
    assert (report.zero_groups, report.zero_entries) == (1, 3)


@both_paths
def test_13_w_and_what_are_told_apart_and_the_averaging_weight_reaches_one(fused):
    """w has entries too small to square and is not called zero; it is zero with a stage schedule or when adopted."""
    start, (gradient,) = drawn((7, 9), 1)

    def run(steps, staged):
        parameter = nn.Parameter(start.clone())
        optimizer = RAMDA([parameter], lr=0.05, regularizer=GroupLasso(1e6), fused=fused)
        schedule = StageSchedule(optimizer, []) if staged else None
        feed(optimizer, parameter, [gradient] * steps, schedule.step if staged else lambda: None)
        return parameter, optimizer, structure_report(optimizer)

    parameter, optimizer, report = run(600, staged=False)
    assert float(parameter.detach().square().max()) == 0
    assert bool((parameter != 0).any(dim=0).all())
    assert (report.total("w").zero_groups, report.total("w_hat").zero_groups) == (0, 9)
    optimizer.adopt_structured_point()
    assert int(torch.count_nonzero(parameter)) == 0
    parameter, _, report = run(120, staged=True)
    assert int(torch.count_nonzero(parameter)) == 0
    assert (report.total("w").zero_groups, report.total("w_hat").zero_groups) == (9, 9)
