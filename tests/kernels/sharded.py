"""What every process of a test of sharded parameters does: interpreted kernels on its pieces, saved whole."""

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from ramda_theory import kernels
from ramda_theory.optim import RAMDA, RMDA, NormalMapSGD, ProxAdamW, ProxSGD
from ramda_theory.regularizers import MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

CLASSES = {cls.__name__: cls for cls in (RAMDA, RMDA, ProxSGD, ProxAdamW, NormalMapSGD)}
LRS = {"RAMDA": 0.1, "RMDA": 0.3, "ProxSGD": 0.3, "ProxAdamW": 0.05, "NormalMapSGD": 0.1}
ROWS, COLUMNS = [Shard(0)], [Shard(1)]
STEPS, RESTART_AFTER = 5, 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""With GPUs, the kernels are compiled, and every process has one of its own."""

PARAMETERS = {
    "entries": ((7, 4), ROWS, ElasticNet(0.2, 0.1)),
    "entries by columns": ((5, 3), COLUMNS, MCP(0.2, 3.0)),
    "a process without entries": ((1, 6), ROWS, SCAD(0.2, 3.7)),
    "no regularizer": ((9,), ROWS, None),
    "whole groups": ((7, 4), COLUMNS, GroupLasso(0.3)),
    "whole rows": ((5, 6), ROWS, SparseGroupLasso(0.3, 0.3, dims=(1,))),
    "whole groups, none on a process": ((1, 6), ROWS, GroupLasso(0.3, dims=(1,))),
    "cut groups": ((7, 5), ROWS, GroupLasso(0.3)),
    "cut rows": ((5, 7), COLUMNS, SparseGroupLasso(0.3, 0.3, dims=(1,))),
    "cut in name only": ((1, 6), ROWS, GroupLasso(0.3)),
    "cut groups of several tiles": ((150, 5), ROWS, GroupLasso(0.15)),
    "cut filters": ((4, 3, 3, 2), ROWS, SparseGroupLasso(0.3, 0.1, dims=(0, 2, 3))),
    "a single cut group": ((11,), ROWS, GroupLasso(0.1)),
    "copies": ((4, 3), [Replicate()], GroupLasso(0.3)),
    "half precision": ((6, 4), ROWS, GroupLasso(0.3)),
    "not sharded": ((5, 4), None, GroupLasso(0.3)),
}


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut(tensor, mesh, placements):
    return tensor.clone() if mesh is None or placements is None else distribute_tensor(tensor, mesh, placements)


def numbers(seed, name, scale=1.0):
    """Random ones, with smaller rows and columns, whose groups become zero."""
    shape, *_ = PARAMETERS[name]
    generator = torch.Generator().manual_seed(100 * list(PARAMETERS).index(name) + seed)
    found = scale * torch.randn(shape, generator=generator)
    found[2::3] *= 0.05
    found[..., 1::2] *= 0.05
    return found.to(DEVICE, torch.bfloat16 if name == "half precision" else None)


def optimizer(cls, mesh=None, names=PARAMETERS, **options):
    """Of parameters that are sharded if a mesh is given; without averaging, which would leave no zeros in them."""
    params = {name: nn.Parameter(cut(numbers(0, name, 0.3), mesh, PARAMETERS[name][1])) for name in names}
    groups = [{"params": [p], "regularizer": PARAMETERS[name][2]} for name, p in params.items()]
    averaging = {"momentum": 0.0} if cls in (RAMDA, RMDA) else {}
    return cls(groups, lr=LRS[cls.__name__], **averaging, **options), params


def give_gradients(params, t, mesh=None, placements=None):
    """Of sizes that spread over decades, so that norms need several updates; cut as the parameters, or otherwise."""
    for name, parameter in params.items():
        gradient = numbers(t, name) * 10 ** numbers(77, name)
        parameter.grad = cut(gradient, mesh, PARAMETERS[name][1] and (placements or PARAMETERS[name][1]))


def train(cls, engine, mesh=None, names=PARAMETERS, steps=STEPS, first=1, made=None, **options):
    """All parameters after some steps, whole, by name; a restart where the method has one."""
    own, params = made or optimizer(cls, mesh, names, **options)
    for t in range(first, first + steps):
        give_gradients(params, t, mesh)
        with kernels.using(engine):
            own.step()
        if t == RESTART_AFTER and hasattr(own, "restart"):
            own.restart()
    return {name: full(parameter.detach()).clone() for name, parameter in params.items()}


def pieces(own, params):
    """Copies of all that a process has."""
    tensors = [t for p in params.values() for t in (p.detach(), *own.state[p].values())]
    return [(t.to_local() if isinstance(t, DTensor) else t).clone() for t in tensors]


def nonfinite(mesh, rank, policy):
    """Process 1 alone has a NaN in a gradient; what happens on this one: (raised, unchanged, skipped)."""
    own, params = optimizer(RAMDA, mesh, ("entries", "whole rows", "cut groups", "not sharded"), on_nonfinite=policy)
    outcome = []
    for t in (1, 2, 3):
        give_gradients(params, t, mesh)
        before = pieces(own, params) if t > 1 else []
        if t == 2 and rank == 1:
            params["whole rows"].grad.to_local()[0, 0] = torch.nan
        raised = False
        try:
            with kernels.using("triton"):
                own.step()
        except RuntimeError as error:
            raised = "non-finite gradient" in str(error)
        same = all(torch.equal(a, b) for a, b in zip(before, pieces(own, params), strict=False))
        outcome.append((raised, same, int(own.skipped_steps)))
    return outcome[1:]


def counted(mesh, cls, name):
    """Kernels launched and sums over the processes in the second step of a parameter; seen by the interpreter alone."""
    if DEVICE == "cuda":
        return None
    from triton.runtime.interpreter import GridExecutor

    own, params = optimizer(cls, mesh, (name,))
    found = {"launches": 0, "sums": 0}
    launch, add_up = GridExecutor.__call__, dist.all_reduce

    def counting_launch(self, *args, **kwargs):
        found["launches"] += 1
        return launch(self, *args, **kwargs)

    def counting_sum(*args, **kwargs):
        found["sums"] += 1
        return add_up(*args, **kwargs)

    for t in (1, 2):
        give_gradients(params, t, mesh)
        if t == 2:
            GridExecutor.__call__, dist.all_reduce = counting_launch, counting_sum
        with kernels.using("triton"):
            own.step()
    GridExecutor.__call__, dist.all_reduce = launch, add_up
    return found["launches"], found["sums"]


def explained(mesh):
    """(engine, reason) for parameters that kernels take, and for others."""

    def sharded(shape, dtype=torch.float32):
        return nn.Parameter(distribute_tensor(torch.ones(shape, dtype=dtype, device=DEVICE), mesh, ROWS))

    turned = DTensor.from_local(torch.ones(3, 4, device=DEVICE).t(), mesh, COLUMNS, run_check=False)
    groups = [
        (sharded((6, 4)), GroupLasso(0.1)),
        (sharded((6, 4)), GroupLasso(0.1, dims=(2,), view=(2, 3, 4))),
        (sharded((6, 4)), NuclearNorm(0.1)),
        (sharded((6, 4)), GroupMCP(0.1, 3.0)),
        (sharded((6, 4), torch.float64), GroupLasso(0.1)),
        (nn.Parameter(turned), GroupLasso(0.1)),
    ]
    own = RAMDA([{"params": [p], "regularizer": psi} for p, psi in groups])
    with kernels.using("triton"):
        return [row[1:] for row in own.explain_step().rows]


def of_gradients(mesh, rank):
    """A parameter after steps with gradients that are copies, or summands, or lie the other way round in memory.

    And after steps that one process alone plans anew.
    """
    ends = []
    for kind in ("alike", "copies", "summands", "turned", "planned anew"):
        own, params = optimizer(RAMDA, mesh, ("cut groups",))
        (parameter,) = params.values()
        for t in range(1, 4):
            give_gradients(params, t, mesh, [Replicate()] if kind == "copies" else None)
            if kind == "summands":
                whole = full(parameter.grad)
                parts = whole if rank == 0 else torch.zeros_like(whole)
                parameter.grad = DTensor.from_local(parts, mesh, [Partial()], run_check=False)
            if kind == "turned":
                piece = parameter.grad.to_local().t().contiguous().t()
                parameter.grad = DTensor.from_local(
                    piece, mesh, ROWS, run_check=False, shape=parameter.shape, stride=parameter.stride()
                )
            if kind == "planned anew" and rank == 1:
                own._plan = None
            with kernels.using("triton"):
                own.step()
        ends.append(full(parameter.detach()).clone())
    return ends


def network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3)).to(DEVICE)


def train_network(engine, rank=0, world=1, fsdp=False):
    """Weights of a network after steps on halves of a batch: FSDP2 cuts rows."""
    from torch.distributed.fsdp import fully_shard

    model = network()
    if fsdp:
        for layer in (model[0], model[2], model[4]):
            fully_shard(layer)
        fully_shard(model)
    first, second, third = model[0], model[2], model[4]
    own = RAMDA(
        [
            {"params": [first.weight], "regularizer": GroupLasso(0.02)},
            {"params": [second.weight], "regularizer": SparseGroupLasso(0.03, 0.3, dims=(1,))},
            {"params": [third.weight, first.bias, second.bias, third.bias]},
        ],
        lr=0.02,
    )
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(8, 12, 6, generator=generator).to(DEVICE)
    share = slice(rank * 12 // world, (rank + 1) * 12 // world)
    for batch in inputs:
        own.zero_grad()
        nn.functional.mse_loss(model(batch[share]), batch[share, 1:4].sin()).backward()
        with kernels.using(engine):
            own.step()
    return [full(parameter.detach()).clone() for parameter in model.parameters()]


SAVED = ("entries", "whole groups", "whole rows", "cut groups", "cut in name only")


def named(params):
    return nn.ParameterDict({name.replace(" ", "_"): parameter for name, parameter in params.items()})


def to_disk(folder, mesh, load):
    """Three steps, a checkpoint, two more; or the checkpoint of other processes, and two steps."""
    own, params = optimizer(RAMDA, mesh, SAVED)
    model = named(params)
    with kernels.using("triton"):
        if not load:
            train(RAMDA, "triton", mesh, steps=3, made=(own, params))
        state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, own)}
        if load:
            dcp.load(state, checkpoint_id=folder)
            set_optimizer_state_dict(model, own, state["optimizer"])
        else:
            dcp.save(state, checkpoint_id=folder)
    return train(RAMDA, "triton", mesh, steps=2, first=4, made=(own, params))


def from_one_process(mesh):
    """Three steps on one process, two on all."""
    whole, params = optimizer(RAMDA, None, SAVED)
    train(RAMDA, "triton", None, steps=3, made=(whole, params))
    own, pieces = optimizer(RAMDA, mesh, SAVED)
    everything = StateDictOptions(full_state_dict=True)
    with torch.no_grad(), kernels.using("triton"):
        for name, parameter in pieces.items():
            parameter.copy_(cut(params[name].detach(), mesh, PARAMETERS[name][1]))
        state = get_optimizer_state_dict(named(params), whole)
        set_optimizer_state_dict(named(pieces), own, state, options=everything)
    return train(RAMDA, "triton", mesh, steps=2, first=4, made=(own, pieces))


ON_TWO_AXES = ("entries", "whole groups", "cut groups", "whole rows")


def meshes_of_two_axes(folder, rank, world):
    """{kind: weights} on 2 x 2 processes: sharded both ways, or by rows on copies."""
    mesh = init_device_mesh(DEVICE, (2, 2))
    found = {}
    for kind in ([Shard(0), Shard(1)], [Shard(1), Shard(0)], [Replicate(), Shard(0)], [Shard(0), Shard(0)]):
        before = {name: PARAMETERS[name] for name in ON_TWO_AXES}
        PARAMETERS.update({name: (shape, kind, psi) for name, (shape, _, psi) in before.items()})
        found[str(kind)] = train(RAMDA, "triton", mesh, ON_TWO_AXES)
        PARAMETERS.update(before)
    return found


def work(rank, world, folder, part):
    """One process of ``world``: its share of a part of the tests."""
    import interpreted  # noqa: F401  before the first step loads Triton

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(folder)
    if DEVICE == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting {part}", rank=rank, world_size=world)
    results = PARTS[part](folder, rank, world)
    if rank == 0:
        torch.save(results, folder / f"{part}.pt")
    dist.barrier()
    dist.destroy_process_group()


def first_part(folder, rank, world):
    """What every run of the tests asks."""
    mesh = init_device_mesh(DEVICE, (world,))
    results = {("weights", name): train(CLASSES[name], "triton", mesh) for name in FIRST}
    for policy in ("raise", "skip"):
        results["nonfinite", policy] = gathered(nonfinite(mesh, rank, policy), world)
    for case in COUNTED:
        results["counted", *case] = gathered(counted(mesh, CLASSES[case[0]], case[1]), world)
    results["explained"] = gathered(explained(mesh), world)
    results["network"] = train_network("triton", rank, world, fsdp=True)
    return results


def second_part(folder, rank, world):
    """What takes longer."""
    mesh = init_device_mesh(DEVICE, (world,))
    results = {("weights", name): train(CLASSES[name], "triton", mesh) for name in OTHERS}
    results["gradients"] = of_gradients(mesh, rank)
    results["checkpoint"] = to_disk(folder / "checkpoint", mesh, load=False)
    results["from one process"] = from_one_process(mesh)
    return results


def from_disk(folder, rank, world):
    """On from the checkpoint of the second part."""
    return to_disk(folder / "checkpoint", init_device_mesh(DEVICE, (world,)), load=True)


FIRST, OTHERS = ("RAMDA", "ProxSGD"), ("RMDA", "ProxAdamW", "NormalMapSGD")
COUNTED = tuple((name, of) for name in FIRST for of in ("entries", "whole groups", "cut groups"))
PARTS = {"first": first_part, "second": second_part, "from disk": from_disk, "two axes": meshes_of_two_axes}


def gathered(value, world):
    found = [None] * world
    dist.all_gather_object(found, value)
    return found
