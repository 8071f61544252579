"""The compiled step: equal to the plain one and to float64, whatever the shape, the layout, the scale and the start."""

import copy
import dataclasses
import io
import sys
import threading
import time

import numba as nb
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.optim import RAMDA, calls, fused, native
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, SparseGroupLasso
from ramda_theory.subproblem import ProximalGradient

EPS = np.finfo(np.float32).eps

# Shape and the axes of a group: columns, rows, channels, filters, slabs, blocks, single entries.
GROUPS = [
    ((7, 9), (0,)),
    ((9, 7), (1,)),
    ((33, 70), (0,)),
    ((40, 1100), (1,)),
    ((2100, 5), (0,)),
    ((8, 6, 3, 3), (0, 2, 3)),
    ((6, 8, 3, 3), (1, 2, 3)),
    ((5, 4, 6), (1,)),
    ((4, 5, 3), (-1,)),
    ((3, 1, 20), (0, 1)),
    ((11, 13), ()),
]


def drawn_gradients(shape, scale, steps, seed):
    """Columns of very different size, and entries over several decades."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=shape[-1])) * scale
    return [
        torch.tensor(rng.normal(size=shape) * np.exp(rng.normal(size=shape)) * size, dtype=torch.float32)
        for _ in range(steps)
    ]


def start(shape, scale=1.0, seed=1):
    return torch.tensor(scale * np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


def run(w, gradients, **options):
    """The parameter and the optimizer after a step for every gradient."""
    parameter = torch.nn.Parameter(w.clone(memory_format=torch.preserve_format))
    optimizer = RAMDA([parameter], **options)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach(), optimizer


def in_float64(w, gradients, psi, lr, momentum, maximize=False):
    """Algorithm 1 in float64: W, and its last What."""
    w = w.double()
    anchor, v, u, alpha = w, torch.zeros_like(w), torch.zeros_like(w), 0.0
    for t, gradient in enumerate(gradients, 1):
        s, g = lr * t**0.5, gradient.double() * (-1 if maximize else 1)
        alpha, v, u = alpha + s, v + s * g, u + s * g * g
        metric = u ** (1 / 3) + 1e-6
        point = anchor - v / metric if psi is None else psi.metric_prox(v - metric * anchor, metric, alpha)
        w = momentum * w + (1 - momentum) * point
    return w, point


def balanced(psi, w, gradients, lr, share):
    """``psi`` with the weight at which about ``share`` of the groups are zero at the last step."""
    s = [lr * t**0.5 for t in range(1, len(gradients) + 1)]
    v = sum(a * g.double() for a, g in zip(s, gradients, strict=True))
    u = sum(a * g.double() ** 2 for a, g in zip(s, gradients, strict=True))
    b = (u ** (1 / 3) + 1e-6) * w.double() - v
    ratios = (psi.group_norms(b) / psi.group_weights(b)).flatten() if hasattr(psi, "group_norms") else b.abs().flatten()
    return dataclasses.replace(psi, weight=1.001 * float(torch.quantile(ratios, share)) / sum(s))


def excess(parameter, state, psi):
    """By how much the residual of (7) of any group exceeds 1e-5 weight_sum lam_g and the rounding of its terms."""
    alpha = float(state["weight_sum"])
    v, anchor, x = (tensor.double() for tensor in (state["grad_sum"], state["anchor"], parameter))
    metric = state["grad_sq_sum"].double() ** (1 / 3) + 1e-6
    residual = psi.group_norms(psi.subdifferential_residual(x, v + metric * (x - anchor), alpha))
    rounding = 8 * EPS * psi.group_norms(v.abs() + metric * (anchor.abs() + x.abs()))
    return float((residual - 1e-5 * alpha * psi.group_weights(x) - rounding).max())


# -- pieces -----------------------------------------------------------------------------------------------------------


@nb.njit
def cube_roots(values):
    out = np.empty_like(values)
    for i in range(values.size):
        out[i] = native.cube_root(values[i])
    return out


@pytest.mark.parametrize(
    "bits",
    [
        np.arange(0x3F800000, 0x41000000, 7, dtype=np.int32),  # [1, 8), of which all other floats are multiples
        np.arange(0, 0x00800000, 23, dtype=np.int32),  # denormals
        np.arange(0x00800000, 0x7F800000, 3011, dtype=np.int32),  # all scales
    ],
    ids=["mantissas", "denormals", "scales"],
)
def test_the_cube_root_is_right_to_1e_7(bits):
    values = bits.view(np.float32)
    expected = np.cbrt(values.astype(np.float64))
    assert np.all(np.abs(cube_roots(values) - expected) <= 1e-7 * expected)


def test_the_cube_root_of_zero_is_zero_and_of_nan_nan():
    zero, nan = cube_roots(np.array([0.0, np.nan], dtype=np.float32))
    assert zero == 0
    assert np.isnan(nan)


@given(
    seed=st.integers(0, 10**6),
    entries=st.sampled_from([1, 2, 5, 300]),
    spread=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    gap=st.sampled_from([-0.5, -1e-3, 1e-4, 1e-2, 0.3, 0.9, 0.999]),
    away=st.sampled_from([-0.9, -0.3, -0.05, 0.0, 0.01, 0.2, 0.7, 3.0]),
)
def test_what_the_moments_settle_is_settled(seed, entries, spread, gap, away):
    rng = np.random.default_rng(seed)
    b, d = rng.normal(size=entries), np.exp(spread * rng.normal(size=entries))
    lam = np.linalg.norm(b) * (1 - gap)
    expected = bisection(b, d, lam)
    rho = (expected or 1.0) * (1 + away)
    terms = [(b / (rho * d + lam)) ** 2 * (d / (rho * d + lam)) ** k for k in range(5)]
    root, settled = next_norm(rho, lam, *(term.sum() for term in terms), d.max())
    if settled and root == 0:
        assert np.linalg.norm(b) <= lam
    elif settled:
        assert abs(np.linalg.norm(b / (root * d + lam)) - 1) <= native.TOLERANCE
        assert abs(root / expected - 1) <= 1e-4
    else:  # only what is near the threshold, or began far away
        assert gap < 1e-2 or abs(away) > 0.05


def next_norm(rho, lam, *moments):
    """`native.next_norms` of one group, which stands among others that have no numbers."""
    m, count = np.full(15 * native.APART, np.nan), 20
    mine = np.arange(count) % 3 > 0
    for field, value in enumerate((rho, *moments)):
        m[field * native.APART :][:count][mine] = value
    native.next_norms(m, np.uint64(count), lam)
    roots, settled = (m[int(field) :][:count] for field in (native.RHO, native.SETTLED))
    assert not settled[~mine].any()
    assert (roots[mine] == roots[1]).all()
    assert (settled[mine] == settled[1]).all()
    return roots[1], bool(settled[1])


def bisection(b, d, lam):
    """The root of ||b / (rho d + lam)|| = 1 in extended precision; 0 where there is none."""
    b, d, lam = (np.asarray(value, dtype=np.longdouble) for value in (b, d, lam))
    if np.sum(b * b) <= lam * lam:
        return 0.0
    low, high = np.longdouble(0), np.sqrt(np.sum((b / d) ** 2))
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum((b / (middle * d + lam)) ** 2) > 1 else (low, middle)
    return float(low)


@given(
    seed=st.integers(0, 10**6),
    entries=st.sampled_from([1, 3, 64, 1000]),
    spread=st.sampled_from([0.0, 1.0, 5.0]),
    gap=st.sampled_from([-1e-3, -1e-8, 1e-8, 1e-5, 1e-2, 0.5, 1 - 1e-6]),
    scale=st.sampled_from([1e-15, 1.0, 1e15]),
)
def test_one_group_alone_is_solved_in_float64(seed, entries, spread, gap, scale):
    rng = np.random.default_rng(seed)
    b = (scale * rng.normal(size=entries)).astype(np.float32)
    d = np.exp(spread * rng.normal(size=entries)).astype(np.float32)
    lam = float(np.linalg.norm(b.astype(np.float64))) * (1 - gap)
    expected = bisection(b, d, lam)
    assert abs(native.exact_norm(b, d, lam) - expected) <= (1e-9 + 1e-14 / abs(gap)) * expected


# -- steps ------------------------------------------------------------------------------------------------------------


@given(
    case=st.sampled_from(GROUPS),
    share=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    size_scaled=st.booleans(),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    momentum=st.sampled_from([0.0, 0.4, 0.9]),
    maximize=st.booleans(),
    steps=st.sampled_from([1, 2, 7]),
    seed=st.integers(0, 10**6),
)
def test_group_lasso_equals_float64_and_the_plain_path(
    case, share, size_scaled, scale, momentum, maximize, steps, seed
):
    shape, dims = case
    w, gradients = start(shape, seed=seed), drawn_gradients(shape, scale, steps, seed)
    signed = [-g for g in gradients] if maximize else gradients
    psi = balanced(GroupLasso(1.0, dims=dims, size_scaled=size_scaled), w, signed, 1e-2, share)
    options = {"lr": 1e-2, "momentum": momentum, "regularizer": psi, "maximize": maximize}
    ours, optimizer = run(w, gradients, fused=True, **options)
    plain, _ = run(w, gradients, fused=False, **options)
    expected, point = in_float64(w, gradients, psi, 1e-2, momentum, maximize)
    size = expected.abs().max() + 1e-3 * w.abs().max()
    assert (ours - expected).abs().max() <= 1e-5 * size
    assert (ours - plain).abs().max() <= 1e-5 * size
    if momentum == 0:
        state = next(iter(optimizer.state.values()))
        assert excess(ours, state, psi) <= 0
        zero = psi.group_norms(ours) == 0
        clear = (psi.group_norms(point) > 1e-4 * size) | (psi.group_norms(point) == 0)
        if 0 < share < 1:  # at 0 and 1 a group lies on its threshold
            assert torch.equal(zero[clear], (psi.group_norms(point) == 0)[clear])


@given(
    psi=st.sampled_from([None, L1(1.0), ElasticNet(1.0, 0.5)]),
    shape=st.sampled_from([(1,), (300,), (7, 9), (4, 3, 5)]),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
    momentum=st.sampled_from([0.0, 0.4, 0.9]),
    maximize=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_separable_regularizers_equal_float64_and_the_plain_path(psi, shape, scale, momentum, maximize, seed):
    w, gradients = start(shape, seed=seed), drawn_gradients(shape, scale, 8, seed)
    signed = [-g for g in gradients] if maximize else gradients
    if psi is not None and psi.weight:
        psi = balanced(psi, w, signed, 1e-2, 0.5)
    options = {"lr": 1e-2, "momentum": momentum, "regularizer": psi, "maximize": maximize}
    ours, _ = run(w, gradients, fused=True, **options)
    plain, _ = run(w, gradients, fused=False, **options)
    expected, point = in_float64(w, gradients, psi, 1e-2, momentum, maximize)
    size = expected.abs().max() + w.abs().max()
    assert (ours - expected).abs().max() <= 3e-6 * size
    assert (ours - plain).abs().max() <= 3e-6 * size
    if momentum == 0:
        clear = (point.abs() > 1e-4 * size) | (point == 0)
        assert ((ours == 0) == (point == 0))[clear].double().mean() > 0.99


def test_all_and_no_groups_zero():
    w, gradients = start((20, 30)), drawn_gradients((20, 30), 1.0, 5, 0)
    none, _ = run(w, gradients, regularizer=GroupLasso(1e-12), momentum=0.0, fused=True)
    every, optimizer = run(w, gradients, regularizer=GroupLasso(1e6), momentum=0.0, fused=True)
    assert (none != 0).all()
    assert (every == 0).all()
    assert (next(iter(optimizer.state.values()))["norms"] == 0).all()


@pytest.mark.parametrize("rows", [False, True])
def test_groups_at_the_threshold_are_zero_exactly_where_float64_says_so(rows):
    """With V = 0 and W^0 = 1, b = d: the loops' own data are known, and so is on which side a group lies."""
    gaps = np.concatenate([sign * 10.0 ** np.arange(-8, -2) for sign in (1, -1)])
    u = torch.tensor(np.random.default_rng(0).lognormal(size=(50, len(gaps))), dtype=torch.float32)
    d = torch.tensor(cube_roots(u.numpy().ravel())).reshape(u.shape) + torch.tensor(1e-6)
    lam = d.double().norm(dim=0) * (1.0 - torch.tensor(gaps))
    for k in range(len(gaps)):
        group = u[:, k : k + 1].repeat(1, 4)
        group, sizes = (group.T.contiguous(), (1, 1, 4, 50)) if rows else (group, (1, 50, 4, 1))
        for begin in (0.0, 1e-3, 1.0):
            tensors = *(torch.full_like(group, value) for value in (1.0, 0.0, 1.0, 0.0)), group.clone()
            clock = torch.zeros(()), torch.zeros(1, dtype=torch.float64)  # t and alpha become 1, and G is 0
            norms = torch.full((4,), begin)
            addresses = np.array([[tensor.data_ptr() for tensor in (*tensors, norms, *clock)]])
            calls.run(((sizes, True),), addresses, np.array([[1.0, 1.0, 1e-6, 1.0, float(lam[k]), 0.0]]))
            assert ((norms > 0) == (gaps[k] > 0)).all(), (gaps[k], begin)
            assert ((tensors[0] != 0) == (gaps[k] > 0)).all()


@pytest.mark.parametrize("case", [((70, 300), (0,)), ((300, 70), (1,)), ((40, 30, 3, 3), (0, 2, 3))])
def test_the_norms_a_step_begins_with_do_not_matter(case):
    shape, dims = case
    w, gradients = start(shape), drawn_gradients(shape, 1.0, 3, 0)
    psi = balanced(GroupLasso(1.0, dims=dims), w, gradients, 1e-2, 0.5)
    expected, point = in_float64(w, gradients, psi, 1e-2, 0.0)
    for begin in (0.0, 1e-30, 1e-3, 1e3, 1e30, float("inf"), float("nan"), -1.0):
        parameter = torch.nn.Parameter(w.clone())
        optimizer = RAMDA([parameter], momentum=0.0, regularizer=psi, fused=True)
        for gradient in gradients:
            parameter.grad = gradient
            if optimizer.state[parameter]:
                optimizer.state[parameter]["norms"].fill_(begin)
            optimizer.step()
        assert (parameter - expected).abs().max() <= 1e-5 * expected.abs().max(), begin
        assert torch.equal(psi.group_norms(parameter) == 0, psi.group_norms(point) == 0), begin


def test_the_result_does_not_depend_on_threads_or_on_how_the_work_is_cut(monkeypatch):
    def result(threads, worthwhile):
        torch.set_num_threads(threads)
        monkeypatch.setattr(calls, "WORTHWHILE", worthwhile)
        calls._plan.cache_clear()
        torch.manual_seed(0)
        shapes = [((60, 500), (0,)), ((500, 60), (1,)), ((30, 20, 3, 3), (0, 2, 3)), ((6, 50, 7), (1,)), ((999,), None)]
        shapes.append(((700, 300), (0,)))
        params = [torch.nn.Parameter(torch.randn(shape)) for shape, _ in shapes]
        psis = [None if dims is None else GroupLasso(0.3, dims=dims) for _, dims in shapes]
        groups = [{"params": [p], "regularizer": psi} for p, psi in zip(params, psis, strict=True)]
        optimizer = RAMDA(groups, fused=True)
        for _ in range(10):
            for parameter in params:
                parameter.grad = torch.randn_like(parameter) * torch.randn_like(parameter).exp()
            optimizer.step()
        return [parameter.detach() for parameter in params]

    threads = torch.get_num_threads()
    try:
        one = result(1, 10**9)
        for other in (result(1, 1000), result(2, 2000), result(3, 500)):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    finally:
        torch.set_num_threads(threads)
        calls._plan.cache_clear()


def test_a_resumed_run_is_the_same_bit_for_bit():
    w, gradients = start((40, 60)), drawn_gradients((40, 60), 1.0, 30, 0)
    psi = balanced(GroupLasso(1.0), w, gradients, 1e-2, 0.5)
    straight, _ = run(w, gradients, regularizer=psi, fused=True)
    half, optimizer = run(w, gradients[:13], regularizer=psi, fused=True)
    file = io.BytesIO()
    torch.save({"w": half, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    parameter = torch.nn.Parameter(saved["w"])
    resumed = RAMDA([parameter])
    resumed.load_state_dict(saved["optimizer"])
    for gradient in gradients[13:]:
        parameter.grad = gradient
        resumed.step()
    assert torch.equal(parameter, straight)


def test_a_checkpoint_of_the_plain_path_goes_on_fused_and_back():
    w, gradients = start((40, 60)), drawn_gradients((40, 60), 1.0, 30, 0)
    psi = balanced(GroupLasso(1.0), w, gradients, 1e-2, 0.5)
    expected, _ = in_float64(w, gradients, psi, 1e-2, 0.9)
    for first in (True, False):
        half, optimizer = run(w, gradients[:13], regularizer=psi, fused=first)
        parameter = torch.nn.Parameter(half.clone())
        other = RAMDA([parameter], regularizer=psi)
        other.load_state_dict(optimizer.state_dict())
        other.param_groups[0]["fused"] = not first
        for gradient in gradients[13:]:
            parameter.grad = gradient
            other.step()
        assert (parameter - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("psi", [None, L1(0.1), GroupLasso(0.1)])
@pytest.mark.parametrize("after", [0, 3])
def test_a_step_with_lr_0_changes_no_bit(psi, after):
    w, gradients = start((8, 6)), drawn_gradients((8, 6), 1.0, after + 1, 0)
    parameter, optimizer = run(w, gradients[:after], regularizer=psi, fused=True)
    (own,) = optimizer.param_groups[0]["params"]
    before = [tensor.clone() for tensor in (own, *optimizer.state[own].values())]
    optimizer.param_groups[0]["lr"] = 0.0
    own.grad = gradients[after]
    optimizer.step()
    assert torch.equal(own, parameter)
    assert optimizer.state[own]["step"] == after + 1
    if after:
        unchanged = [tensor for key, tensor in optimizer.state[own].items() if key != "step"]
        kept = [tensor for tensor, key in zip(before[1:], optimizer.state[own], strict=True) if key != "step"]
        assert all(torch.equal(a, b) for a, b in zip(unchanged, kept, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("dims", [(0,), (1,)])
def test_what_is_not_finite_is_refused_or_stays_visible(bad, dims):
    w, gradients = start((8, 6)), drawn_gradients((8, 6), 1.0, 3, 0)
    broken = gradients[2].clone()
    broken[2, 4] = bad
    psi = GroupLasso(0.05, dims=dims)
    before, optimizer = run(w, gradients[:2], regularizer=psi, fused=True)
    (parameter,) = optimizer.param_groups[0]["params"]
    kept = [tensor.clone() for tensor in (before, *optimizer.state[parameter].values())]
    parameter.grad = broken
    with pytest.raises(RuntimeError, match="non-finite"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(kept, (parameter, *optimizer.state[parameter].values()), strict=True))
    for other, touched in ((psi, (slice(None), 4) if dims == (0,) else 2), (None, (2, 4)), (L1(0.05), (2, 4))):
        options = {"regularizer": other, "on_nonfinite": "ignore"}
        ours, plain = (run(w, [*gradients[:2], broken, gradients[0]], fused=f, **options)[0] for f in (True, False))
        assert torch.equal(ours.isnan(), plain.isnan())
        assert (ours[touched] != 0).all()
        if other is not None:
            assert ours[touched].isnan().all()


# -- what the loops take, and what they leave -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "dims"),
    [("channels_last", (0, 2, 3)), ("channels_last", (1, 2, 3)), ("transposed", (0,)), ("transposed", (1,))],
)
def test_layouts_without_gaps_are_taken(layout, dims):
    shape = (6, 8, 3, 3) if layout == "channels_last" else (20, 30)
    w, gradients = start(shape), drawn_gradients(shape, 1.0, 6, 0)
    psi = balanced(GroupLasso(1.0, dims=dims), w, gradients, 1e-2, 0.5)

    def laid_out(tensor):
        if layout == "channels_last":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.T.contiguous().T

    ours, _ = run(laid_out(w), [laid_out(g) for g in gradients], regularizer=psi, fused=True, momentum=0.5)
    assert not ours.is_contiguous()
    expected, _ = in_float64(w, gradients, psi, 1e-2, 0.5)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: torch.zeros(4, 5, dtype=torch.float64), {}),
        (lambda: torch.zeros(4, 5, dtype=torch.bfloat16), {}),
        (lambda: torch.zeros(8, 10)[::2, ::2], {}),
        (lambda: torch.zeros(4, 5), {"regularizer": SparseGroupLasso(0.1, 0.5)}),
        (lambda: torch.zeros(20), {"regularizer": GroupLasso(0.1, labels=[0, 1] * 10)}),
        (lambda: torch.zeros(4, 5), {"regularizer": GroupLasso(0.1, dims=(0, 1))}),
        (lambda: torch.zeros(2, 3, 2, 3, 2), {"regularizer": GroupLasso(0.1, dims=(0, 2, 4))}),
        (lambda: torch.zeros(4, 5), {"regularizer": GroupLasso(0.1), "solver": ProximalGradient(step="group")}),
        (lambda: torch.zeros(4, 5), {"on_nonfinite": "skip"}),
        (lambda: torch.zeros(4, 0), {}),
    ],
)
def test_what_the_loops_cannot_take_goes_the_plain_way(make, options):
    results = []
    for choice in (None, False):
        parameter = torch.nn.Parameter(make())
        parameter.grad = torch.ones_like(parameter)
        optimizer = RAMDA([parameter], fused=choice, **options)
        optimizer.step()
        assert "norms" not in optimizer.state[parameter]
        results.append(parameter.detach().clone())
    assert torch.equal(*results)
    parameter = torch.nn.Parameter(make())
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(RuntimeError, match="fused=True cannot step a parameter of shape"):
        RAMDA([parameter], fused=True, **options).step()
    assert torch.equal(parameter, make())


def test_one_step_takes_some_parameters_and_leaves_others():
    def step(choice):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(6, 5, dtype=dtype)) for dtype in (torch.float32, torch.float64) * 2]
        optimizer = RAMDA(params, regularizer=GroupLasso(0.05), fused=choice)
        for late in (1, 0, 0):  # the last two parameters get their first gradient one step later
            for parameter in params[: 4 - 2 * late]:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        return params, optimizer

    ours, optimizer = step(None)
    plain, _ = step(False)
    assert ["norms" in optimizer.state[parameter] for parameter in ours] == [True, False, True, False]
    assert all((a - b).abs().max() <= 1e-6 for a, b in zip(ours, plain, strict=True))


def changed_dtype(parameter, optimizer):
    parameter.data = parameter.data.half()
    parameter.grad = parameter.grad.half()


def changed_memory(parameter, optimizer):
    parameter.data = parameter.data.clone()


def changed_layout(parameter, optimizer):
    parameter.data = parameter.data.T.contiguous().T


def transposed(parameter, optimizer):
    parameter.data = parameter.data.T


def changed_gradient(parameter, optimizer):
    parameter.grad = parameter.grad.T.contiguous().T


def changed_regularizer(parameter, optimizer):
    optimizer.param_groups[0]["regularizer"] = GroupLasso(0.3, dims=(1,))


def without_regularizer(parameter, optimizer):
    optimizer.param_groups[0]["regularizer"] = None


def changed_options(parameter, optimizer):
    optimizer.param_groups[0].update(lr=0.3, momentum=0.2, eps=1e-3, maximize=True)


def changed_state(parameter, optimizer):
    optimizer.state[parameter] = {key: value.clone() for key, value in optimizer.state[parameter].items()}


def changed_norms(parameter, optimizer):
    optimizer.state[parameter]["norms"] = optimizer.state[parameter]["norms"].clone()


def forgotten_state(parameter, optimizer):
    optimizer.state.clear()


def another_group(parameter, optimizer):
    other = torch.nn.Parameter(torch.ones(30, 20))
    other.grad = torch.ones(30, 20)
    optimizer.add_param_group({"params": [other], "regularizer": GroupLasso(0.1)})
    optimizer.param_groups.reverse()


@pytest.mark.parametrize(
    "change",
    [
        changed_dtype, changed_memory, changed_layout, transposed, changed_gradient, changed_regularizer,
        without_regularizer, changed_options, changed_state, changed_norms, forgotten_state, another_group,
    ],
)  # fmt: skip
def test_what_changes_between_steps_is_noticed(change):
    """The step after a change is that of an optimizer that has never made another, and the plain one."""
    w, gradients = start((20, 20)), drawn_gradients((20, 20), 1.0, 7, 0)
    _, optimizer = run(w, gradients[:5], regularizer=GroupLasso(0.05))
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = gradients[5].clone()
    change(parameter, optimizer)
    # A copy of an optimizer knows what its state says, and nothing else.
    fresh, plain = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    for group in plain.param_groups:
        group["fused"] = False
    every = [[p for group in each.param_groups for p in group["params"]] for each in (optimizer, fresh, plain)]
    for params, each in zip(every, (optimizer, fresh, plain), strict=True):
        for parameter, own in zip(params, every[0], strict=True):
            parameter.grad = own.grad
        each.step()
    ours, expected, close = ([parameter.detach() for parameter in params] for params in every)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in zip(ours, close, strict=True))
    assert all(
        torch.equal(value, fresh.state[other][key])
        for parameter, other in zip(optimizer.state, fresh.state, strict=True)
        for key, value in optimizer.state[parameter].items()
    )


def with_half_norms(state):
    state["norms"] = state["norms"].half()


def with_one_norm_for_all(state):
    state["norms"] = torch.ones(1).expand(20)


def with_float32_weight_sum(state):
    state["weight_sum"] = state["weight_sum"].float()


def with_float64_step(state):
    state["step"] = state["step"].double()


def with_integer_step(state):
    state["step"] = state["step"].long()


@pytest.mark.parametrize(
    "change",
    [with_half_norms, with_one_norm_for_all, with_float32_weight_sum, with_float64_step, with_integer_step],
)
def test_a_state_of_other_kinds_is_not_taken_for_what_it_was(change):
    w, gradients = start((20, 20)), drawn_gradients((20, 20), 1.0, 6, 0)
    expected, _ = in_float64(w, gradients, GroupLasso(0.05), 1e-2, 0.9)
    _, optimizer = run(w, gradients[:4], regularizer=GroupLasso(0.05))
    (parameter,) = optimizer.param_groups[0]["params"]
    change(optimizer.state[parameter])
    for gradient in gradients[4:]:
        parameter.grad = gradient
        optimizer.step()
    assert optimizer.state[parameter]["step"] == 6
    assert (parameter - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("gradient", [torch._neg_view(torch.ones(4)), torch._efficientzerotensor((4,))])
def test_gradients_that_are_not_what_is_in_memory_are_left(gradient):
    ours, _ = run(start((4,)), [gradient] * 2)
    plain, _ = run(start((4,)), [gradient] * 2, fused=False)
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("taken", [None, False])
def test_a_model_made_wider_goes_on_without_the_copies_of_its_weights(taken):
    parameter = torch.nn.Parameter(start((4, 5)).half())
    optimizer = RAMDA([parameter], fused=taken)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    parameter.data = parameter.data.float()
    before = parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (parameter < before).all()
    assert "w" not in optimizer.state[parameter]


@pytest.mark.parametrize(("shape", "dims"), [((6, 8), (2,)), ((), (1,)), ((6, 8), (-3,))])
def test_axes_that_a_parameter_lacks_are_refused(shape, dims):
    parameter = torch.nn.Parameter(torch.ones(shape))
    optimizer = RAMDA([parameter])
    parameter.grad = torch.ones(shape)
    optimizer.param_groups[0]["regularizer"] = GroupLasso(0.1, dims=dims)  # past the checks at the door
    with pytest.raises(ValueError, match="dims must name axes"):
        optimizer.step()


def test_an_interrupted_step_leaves_no_thread_at_work(monkeypatch):
    parameter = torch.nn.Parameter(torch.zeros(2000, 1000))
    parameter.grad = torch.ones_like(parameter)
    optimizer = RAMDA([parameter])
    monkeypatch.setattr(calls, "WORTHWHILE", 1000)
    calls._plan.cache_clear()
    native_run, main = native.run, threading.get_ident()

    def interrupted(*arguments):
        if threading.get_ident() == main:
            raise KeyboardInterrupt
        time.sleep(0.01)
        native_run(*arguments)

    monkeypatch.setattr(native, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    after = parameter.detach().clone()
    time.sleep(0.05)
    assert torch.equal(parameter, after)
    calls._plan.cache_clear()


def test_a_step_without_helping_threads_is_the_same(monkeypatch):
    """While the interpreter shuts down, no thread can be started."""

    class Closed:
        def submit(self, *_):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    w, gradients = start((2000, 300)), drawn_gradients((2000, 300), 1.0, 3, 0)
    expected, _ = run(w, gradients, regularizer=GroupLasso(0.05))
    monkeypatch.setattr(calls, "_pool", lambda *_: Closed())
    alone, _ = run(w, gradients, regularizer=GroupLasso(0.05))
    assert torch.equal(alone, expected)


def test_without_numba_the_plain_path_is_taken(monkeypatch):
    monkeypatch.setattr(fused, "loops", lambda: None)
    w, gradients = start((6, 5)), drawn_gradients((6, 5), 1.0, 3, 0)
    plain, _ = run(w, gradients, regularizer=GroupLasso(0.05), fused=False)
    ours, _ = run(w, gradients, regularizer=GroupLasso(0.05))
    assert torch.equal(ours, plain)
    with pytest.raises(RuntimeError, match="numba is not there"):
        run(w, gradients, fused=True)


def test_without_a_folder_for_the_loops_the_plain_path_is_taken_with_a_warning(monkeypatch):
    def without_folder(name, *arguments):
        raise RuntimeError("cannot cache function 'squares': no locator available for file 'native.py'")

    monkeypatch.delitem(sys.modules, "ramda_theory.optim.native")
    monkeypatch.delattr("ramda_theory.optim.native")
    monkeypatch.setattr(nb, "njit", lambda **_: without_folder)
    calls.loops.cache_clear()
    w, gradients = start((6, 5)), drawn_gradients((6, 5), 1.0, 3, 0)
    try:
        with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
            ours, _ = run(w, gradients, regularizer=GroupLasso(0.05))
    finally:
        calls.loops.cache_clear()
    plain, _ = run(w, gradients, regularizer=GroupLasso(0.05), fused=False)
    assert torch.equal(ours, plain)


def test_parameters_in_the_same_memory_are_stepped_one_after_the_other():
    w, gradients = start((2000, 300)), drawn_gradients((2000, 300), 1.0, 3, 0)
    results = []
    for taken in (None, None, False):
        first = torch.nn.Parameter(w.clone())
        second = torch.nn.Parameter(first.detach())
        optimizer = RAMDA([{"params": [first]}, {"params": [second]}], fused=taken)
        for gradient in gradients:
            first.grad, second.grad = gradient, 2 * gradient
            optimizer.step()
        results.append(first.detach())
    assert torch.equal(results[0], results[1])
    assert (results[0] - results[2]).abs().max() <= 1e-5 * w.abs().max()


@pytest.mark.parametrize("dims", [(0,), (1,)])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_weights_of_extreme_sizes_stay_finite(dims, scale):
    w, gradients = start((20, 12), scale), drawn_gradients((20, 12), 1.0, 2, 0)
    ours, _ = run(w, gradients, regularizer=GroupLasso(1e-3, dims=dims), fused=True)
    plain, _ = run(w, gradients, regularizer=GroupLasso(1e-3, dims=dims), fused=False)
    assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_foreach_and_fused_exclude_each_other():
    with pytest.raises(ValueError, match="foreach and fused cannot both be True"):
        RAMDA([torch.nn.Parameter(torch.zeros(3))], foreach=True, fused=True)


def test_recording_how_well_the_subproblems_are_solved_takes_the_plain_path():
    parameter = torch.nn.Parameter(start((6, 5)))
    parameter.grad = start((6, 5), seed=2)
    optimizer = RAMDA([parameter], regularizer=GroupLasso(0.05))
    optimizer.record_inexactness = True
    optimizer.step()
    assert optimizer.inexactness[parameter].status == "solved"


def test_autograd_notices_that_the_weights_changed():
    parameter = torch.nn.Parameter(start((6, 5)))
    loss = (parameter * parameter).sum()
    parameter.grad = torch.ones(6, 5)
    RAMDA([parameter], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_unsolved_equation_is_an_error(monkeypatch):
    monkeypatch.setattr(calls, "run", lambda *_: calls.Report(1, 1, 1, 1))
    with pytest.raises(RuntimeError, match="not solved"):
        run(start((6, 5)), drawn_gradients((6, 5), 1.0, 1, 0), regularizer=GroupLasso(0.05), fused=True)


def test_a_step_takes_next_to_no_memory():
    """Of the largest tensor, less than a byte per weight at the peak, in a step that needs several passes."""
    w = torch.randn(1024, 4096)
    parameter = torch.nn.Parameter(w)
    parameter.grad = torch.randn_like(w)
    optimizer = RAMDA([parameter], regularizer=GroupLasso(0.02), fused=True, on_nonfinite="ignore")
    optimizer.step()
    parameter.grad.mul_(3.0)
    assert peak(optimizer.step) < w.numel()


def peak(function):
    """Bytes of memory that ``function`` takes at its peak beyond what was taken before."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts again
    except OSError:
        pytest.skip("this system does not tell the peak of memory")
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


def status(key):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key))


def test_a_refused_step_leaves_no_state():
    """What a later step starts from is the weights at that time, not at the time of the refusal."""
    first, second = torch.nn.Parameter(torch.ones(4, 5)), torch.nn.Parameter(torch.ones(4, 5, dtype=torch.float64))
    optimizer = RAMDA([{"params": [first], "regularizer": L1(0.1)}, {"params": [second]}], fused=True)
    first.grad, second.grad = torch.ones_like(first), torch.ones_like(second)
    with pytest.raises(RuntimeError, match=r"fused=True cannot step a parameter of shape \(4, 5\)"):
        optimizer.step()
    assert not optimizer.state
    assert torch.equal(first, torch.ones(4, 5))


@pytest.mark.parametrize("taken", [None, False])
@pytest.mark.parametrize("lr", [-0.1, float("nan")])
def test_an_lr_that_became_negative_is_refused(taken, lr):
    parameter = torch.nn.Parameter(torch.ones(4, 5))
    optimizer = RAMDA([parameter], fused=taken)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match="lr must be >= 0"):
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in optimizer.state[parameter].items())


@pytest.mark.parametrize("taken", [None, False])
def test_an_lr_that_rounding_left_below_zero_counts_as_zero(taken):
    parameter = torch.nn.Parameter(torch.ones(4, 5))
    optimizer = RAMDA([parameter], fused=taken, lr=1e-2)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before, weight_sum = parameter.detach().clone(), optimizer.state[parameter]["weight_sum"].clone()
    optimizer.param_groups[0]["lr"] = -1e-19
    optimizer.step()
    assert torch.equal(parameter, before)
    assert torch.equal(optimizer.state[parameter]["weight_sum"], weight_sum)


@pytest.mark.parametrize("share", [0.5, 1.1])
def test_gradients_are_looked_through_as_by_the_plain_path(share):
    """By their norm in float32, which no thread has alone."""
    parameters = [torch.nn.Parameter(torch.zeros(300, 4000)), torch.nn.Parameter(torch.zeros(7))]
    size = float(np.sqrt(share * float(np.finfo(np.float32).max) / parameters[0].numel()))
    finite = []
    for taken in (None, False):
        optimizer = RAMDA(parameters, fused=taken, lr=1e-30)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, size)
        try:
            optimizer.step()
            finite.append(True)
        except RuntimeError:
            finite.append(False)
    assert finite == [share < 1] * 2


# -- refusals ---------------------------------------------------------------------------------------------------------


def many_kinds(scale):
    """Parameters that the loops take, few or many weights of them, and (float64) one that they leave."""
    shapes = [((40, 30), (0,)), ((30,), None), ((30 * scale, 40), (1,))]
    groups = []
    for (shape, dims), dtype in zip([*shapes, ((6, 5), (0,))], [torch.float32] * 3 + [torch.float64], strict=True):
        parameter = torch.nn.Parameter(torch.randn(shape, dtype=dtype))
        groups.append({"params": [parameter], "regularizer": dims and GroupLasso(0.02, dims=dims)})
    return groups


@pytest.mark.parametrize("scale", [1, 400])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("where", range(4))
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("before", ["nothing", "steps", "restart", "lr 0"])
def test_a_gradient_that_is_not_finite_changes_nothing(scale, bad, where, left, before):
    torch.manual_seed(0)
    groups = many_kinds(scale)[: 4 if left else 3]
    params = [group["params"][0] for group in groups]
    optimizer = RAMDA(groups)
    for _ in range(0 if before == "nothing" else 3):
        for parameter in params:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    if before == "restart":
        optimizer.restart()
    if before == "lr 0":
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    where = min(where, len(params) - 1)
    for parameter in params:
        parameter.grad = torch.randn_like(parameter)
    params[where].grad.view(-1)[-1] = bad * (1e150 if params[where].dtype is torch.float64 else 1.0)
    weights, state = [parameter.detach().clone() for parameter in params], copy.deepcopy(optimizer.state_dict())
    with pytest.raises(RuntimeError, match=f"0 of group {where}; nothing was changed"):
        optimizer.step()
    assert all(torch.equal(parameter, w) for parameter, w in zip(params, weights, strict=True))
    after = optimizer.state_dict()
    assert after["state"].keys() == state["state"].keys()
    for index, kept in state["state"].items():
        assert after["state"][index].keys() == kept.keys()
        assert all(torch.equal(after["state"][index][key], value) for key, value in kept.items())


@pytest.mark.parametrize("scale", [1, 400])
def test_without_a_learning_rate_only_the_step_is_counted(scale):
    torch.manual_seed(0)
    groups = many_kinds(scale)
    params = [group["params"][0] for group in groups]
    optimizer = RAMDA(groups)
    for lr in (1e-2, 0.0):
        for group in optimizer.param_groups:
            group["lr"] = lr
        weights = [parameter.detach().clone() for parameter in params]
        state = copy.deepcopy(optimizer.state_dict()["state"])
        for parameter in params:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    assert all(torch.equal(parameter, w) for parameter, w in zip(params, weights, strict=True))
    for index, kept in optimizer.state_dict()["state"].items():
        assert kept["step"] == 2
        assert all(torch.equal(kept[key], value) for key, value in state[index].items() if key != "step")
