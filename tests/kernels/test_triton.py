"""The Triton engine, interpreted: what it shares between launches, masks, scales, addresses, and what it leaves."""

from __future__ import annotations

import math
import multiprocessing

import pytest
import torch
from engine import INTERPRETED, forced

from ramda_theory import kernels
from ramda_theory.kernels.rules import COLUMNS
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

if INTERPRETED:
    from ramda_theory.kernels.triton import table
    from ramda_theory.kernels.triton.rows import Row
    from ramda_theory.kernels.triton.table import Launch

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="triton is missing, or compiles for a GPU here")
CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW)


def parameters(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give_gradients(params, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def take(engine, own, params, steps, first=0):
    for t in range(first, first + steps):
        give_gradients(params, t)
        with forced(engine):
            own.step()
    return [parameter.detach().clone() for parameter in params]


def everything(own, params):
    return [t.detach().clone() for p in params for t in (p, *own.state[p].values())]


def assert_same(before, after):
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- groups that are cut into tiles -----------------------------------------------------------------------------------

CUT = [
    ((300, 40), (0,)),  # three tiles of rows, two blocks of columns
    ((3, 2100), (1,)),  # along memory
    ((70, 6, 3, 3), (0, 2, 3)),  # some columns each
    ((2, 140, 5), (1,)),  # blocks in two slices
]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("shape", "dims"), CUT, ids=str)
def test_groups_of_several_tiles_are_stepped_by_two_launches(cls, shape, dims):
    """Against the eager engine, of which `test_engines` says what it is worth."""
    if cls in (ProxSGD, ProxAdamW) and shape != CUT[0][0]:
        pytest.skip("the others differ in their prologue alone")
    psi = SparseGroupLasso(0.1, 0.3, dims)
    ends = []
    for engine in ("triton", "eager"):
        params = parameters(shape)
        ends.append(take(engine, cls(params, lr=0.05, regularizer=psi), params, 3)[0])
    size = float(ends[1].abs().max())
    torch.testing.assert_close(*ends, rtol=0, atol=5e-6 * size)
    assert torch.equal(ends[0] == 0, ends[1] == 0)


def test_the_same_bits_every_time():
    ends = []
    for _ in range(2):
        params = parameters((300, 40), (7, 5), (11,))
        own = RAMDA([{"params": params[:2], "regularizer": GroupLasso(0.05)}, {"params": params[2:]}])
        ends.append([*take("triton", own, params, 3), own.state[params[0]]["norms"]])
    assert_same(*ends)


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_a_skipped_step_leaves_everything(cls):
    params = parameters((300, 5), (6, 7), (5,), (9, 4), dtype=torch.float32)
    psi = [GroupLasso(0.1), GroupLasso(0.1, dims=(1,)), L1(0.1), None]
    own = cls([{"params": [p], "regularizer": r} for p, r in zip(params, psi, strict=True)], on_nonfinite="skip")
    take("triton", own, params, 1)
    before = everything(own, params)
    give_gradients(params, 5)
    params[1].grad[2, 3] = math.nan
    with forced("triton"):
        own.step()
    assert_same(before, everything(own, params))
    assert int(own.skipped_steps) == 1
    take("triton", own, params, 1, first=6)
    assert not any(torch.equal(p.detach(), b) for p, b in zip(params, before[:: len(before) // 4], strict=False))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_what_a_grad_scaler_says_is_heard_by_the_step(cls, dtype):
    """Gradients times the scale with ``grad_scale`` give the step of the gradients; ``found_inf`` leaves it out."""
    scale = torch.full((), 128.0)
    ends = []
    for scaled in (False, True):
        params = parameters((20, 6), (5,), dtype=dtype)
        own = cls([{"params": params[:1], "regularizer": GroupLasso(0.1)}, {"params": params[1:]}], lr=0.05)
        for t in range(2):
            give_gradients(params, t)
            with forced("triton"):
                assert own._step_supports_amp_scaling
                if scaled:
                    for parameter in params:
                        parameter.grad *= scale
                    own.grad_scale, own.found_inf = scale, torch.zeros(1)
                own.step()
                if scaled:
                    before = everything(own, params)
                    params[0].grad[0, 0] = math.inf
                    own.found_inf = torch.ones(1)
                    own.step()
                    assert_same(before, everything(own, params))
                    del own.grad_scale, own.found_inf
        ends.append(everything(own, params))
    assert_same(*ends)
    assert not own._step_supports_amp_scaling  # a CPU's scaler goes on as before


def test_a_grad_scaler_beside_parameters_that_are_stepped_eagerly():
    """On a device whose kernels leave some parameters, those hear it too."""
    ends = []
    for scaled in (False, True):
        params = parameters((6, 5))
        own = RAMDA(params, regularizer=GroupMCP(0.1, 3.0))
        give_gradients(params, 0)
        if scaled:
            params[0].grad *= 64
            own.grad_scale, own.found_inf = torch.full((), 64.0), torch.zeros(1)
        with forced("eager"):
            own.step()
        ends.append(everything(own, params))
    assert_same(*ends)


# -- numbers on the device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [RAMDA, ProxSGD])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_in_tensors_are_read_where_they_are(cls, dtype):
    """As the step does with tensors on a device: by their address, in the kernel, at every step anew."""
    from ramda_theory.kernels.triton.table import Table

    ends = []
    for by_address in (False, True):
        params = parameters((12, 6))
        lr, momentum = torch.tensor(0.05, dtype=dtype), torch.tensor(0.5, dtype=dtype)
        own = cls(params, lr=lr, momentum=momentum, regularizer=GroupLasso(0.2))
        for t in range(4):
            lr.fill_(0.05 / (t + 1))
            momentum.fill_(0.1 * t)
            give_gradients(params, t)
            with forced("triton"):
                own.step()
            if t == 0 and by_address:
                (table,) = own._plan.tables
                assert isinstance(table, Table)
                options = (lr, own.param_groups[0]["eps"]) if cls is RAMDA else (lr, momentum)
                table.set_options(0, 1, 1.0, momentum if cls is RAMDA else 0.0, options)
                table.set_options = lambda *_: None
        ends.append(everything(own, params))
    assert_same(*ends)


def test_gradients_that_move_are_followed():
    """New memory in every step, more sets of addresses than are remembered, and a gradient that is not aligned."""
    ends = []
    for moving in (False, True):
        params = parameters((12, 8), (8,))
        own = RAMDA(params, lr=0.05)
        kept = []
        for t in range(20):
            give_gradients(params, t)
            if moving:
                for parameter in params:
                    room = torch.empty(parameter.numel() + 1)
                    parameter.grad = room[t % 2 :][: parameter.numel()].view_as(parameter).copy_(parameter.grad)
                    kept.append(room)
            with forced("triton"):
                own.step()
        ends.append(everything(own, params))
    assert_same(*ends)


# -- which parameters -------------------------------------------------------------------------------------------------


def test_explain_step_says_who_is_taken_and_why_not():
    params = parameters((6, 5), (6, 5), (6, 5), (6, 5), (0, 3), (6, 4))
    psi = [GroupLasso(0.1), GroupMCP(0.1, 3.0), NuclearNorm(0.1), GroupLasso(1e-15), None, None]
    params[5] = torch.nn.Parameter(torch.randn(12, 8)[::2, ::2])
    wide = torch.nn.Parameter(torch.randn(3, dtype=torch.float64))
    own = RAMDA(
        [{"params": [p], "regularizer": r} for p, r in zip([*params, wide], [*psi, None], strict=True)],
    )
    with forced("triton"):
        rows = own.explain_step().rows
    assert rows[0][1:] == ("triton", "")
    assert all(engine == "eager" for _, engine, _ in rows[1:])
    for (_, _, reason), word in zip(
        rows[1:], ("GroupMCP", "NuclearNorm", "1e-12", "memory", "fill", "float64"), strict=True
    ):
        assert word in reason
    assert all(row[1] != "triton" for row in own.explain_step().rows)  # the CPU has its own engine


def test_a_forced_engine_refuses_what_it_cannot_take():
    (parameter,) = parameters((6, 5))
    own = RAMDA([parameter], regularizer=GroupMCP(0.1, 3.0))
    parameter.grad = torch.ones(6, 5)
    with kernels.using("triton"), pytest.raises(RuntimeError, match="triton engine cannot step a parameter of shape"):
        own.step()
    assert not own.state


# -- teams ------------------------------------------------------------------------------------------------------------


STEP = Launch.step if INTERPRETED else None


def as_program(launch, told, program, programs):
    """Run a launch as one of its programs; for a process of its own, which has to be ended afterwards."""
    from triton.runtime import interpreter

    from ramda_theory.kernels.triton import table

    builder = interpreter.interpreter_builder
    dimension, index = builder.set_grid_dim, builder.set_grid_idx
    builder.set_grid_dim = lambda *_: dimension(programs, 1, 1)
    builder.set_grid_idx = lambda *_: index(program, 0, 0)
    table.resident = lambda *_: 1  # the interpreter is to run one program, this one
    STEP(launch, *told)


@pytest.mark.parametrize(
    ("shape", "dims", "programs"), [((300, 40), (0,), 3), ((300, 70), (0,), 4), ((2, 2100), (1,), 3)], ids=str
)
def test_a_team_meets(monkeypatch, shape, dims, programs):
    """Programs as processes that run at once, on shared memory, and more tiles than programs; twice, on one table."""
    from ramda_theory.kernels.triton import table

    monkeypatch.setattr(table, "scheme_of", lambda row, shape, device: table.TEAM)
    params = parameters(shape)
    own = RAMDA(params, lr=0.05, regularizer=GroupLasso(0.05, dims), on_nonfinite="ignore")
    context = multiprocessing.get_context("fork")

    def together(launch, *told):
        launch._scratch.share_memory_()
        launch._meetings.share_memory_()
        members = [context.Process(target=as_program, args=(launch, told, p, programs)) for p in range(programs)]
        for member in members:
            member.start()
        for member in members:
            member.join(100)
        alive = [member.kill() for member in members if member.is_alive()]
        assert not alive and all(member.exitcode == 0 for member in members)
        assert not launch._meetings.any()  # ready for the next step

    monkeypatch.setattr(table.Launch, "step", together)
    give_gradients(params, 0)
    own._gather_all()  # makes the state, which processes are to share
    own.state[params[0]]["norms"] = torch.ones(shape[1 - dims[0]])
    for tensor in (params[0], params[0].grad, *own.state[params[0]].values()):
        tensor.detach().share_memory_()
    found = []
    for t in range(2):
        gradient = params[0].grad
        fresh = parameters(shape, seed=7 + t)[0].detach()
        gradient.copy_(fresh)
        with forced("triton"):
            own.step()
        found.append(params[0].detach().clone())
    monkeypatch.undo()
    others = parameters(shape)
    plain = RAMDA(others, lr=0.05, regularizer=GroupLasso(0.05, dims), on_nonfinite="ignore")
    for t in range(2):
        others[0].grad = parameters(shape, seed=7 + t)[0].detach()
        with forced("eager"):
            plain.step()
        torch.testing.assert_close(found[t], others[0].detach(), rtol=0, atol=5e-6)


def test_teams_on_tensors_that_are_not_aligned_have_half_the_tile(monkeypatch):
    """Loads of single entries take twice the registers for addresses; a team that no longer fits takes two launches."""

    def launch(columns):
        weight = torch.zeros(300, columns)
        sizes, spec = (1, 300, columns, 1), (0.0, 0.0, 1.0)
        row = Row(weight, None, (), torch.zeros(()), None, None, sizes, spec, COLUMNS, torch.float32, True, {})
        ((_, shape, scheme, aligned),) = table._launches([row], torch.device("cuda"))
        return shape.rows, shape.warps, scheme, aligned

    monkeypatch.setattr(table, "resident", lambda device, shape: 5)
    assert launch(40) == (128, 8, table.TEAM, True)  # 3 members
    assert launch(41) == (64, 8, table.TEAM, False)  # 5
    monkeypatch.setattr(table, "resident", lambda device, shape: 4)
    assert launch(40)[2] == table.TEAM
    assert launch(41)[2:] == (table.SPLIT, False)
