"""What every process of a distributed test does: train sharded, save what came out whole."""

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from toy import NoisyQuadratic, structured

from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

ITERATIVE = {"tolerance": 1e-13, "max_iter": 20_000, "eps": 0.3}
PLACEMENTS = {"rows": [Shard(0)], "columns": [Shard(1)], "copies": [Replicate()]}
SHAPE = (7, 4)  # uneven on 2 and on 3 processes; a process without columns on 3

SHARDED = {
    "RAMDA": (RAMDA, {}),
    "RAMDA L1": (RAMDA, {"regularizer": L1(1.0)}),
    "RAMDA GroupLasso": (RAMDA, {"regularizer": GroupLasso(2.0)}),
    "RAMDA GroupLasso rows": (RAMDA, {"regularizer": GroupLasso(2.0, dims=(1,))}),
    "RAMDA SparseGroupLasso": (RAMDA, {"regularizer": SparseGroupLasso(2.0, 0.5)}),
    "RAMDA NuclearNorm": (RAMDA, {"regularizer": NuclearNorm(4.0), **ITERATIVE}),
    "RAMDA GroupMCP": (RAMDA, {"regularizer": GroupMCP(2.0, 3.0), **ITERATIVE}),
    "RAMDA skip": (RAMDA, {"regularizer": GroupLasso(2.0), "on_nonfinite": "skip"}),
    "RAMDA foreach": (RAMDA, {"regularizer": GroupLasso(2.0), "foreach": True}),
    "RMDA GroupLasso": (RMDA, {"regularizer": GroupLasso(4.0)}),
    "RMDA GroupMCP": (RMDA, {"regularizer": GroupMCP(4.0, 3.0)}),
    "ProxSGD GroupLasso": (ProxSGD, {"regularizer": GroupLasso(4.0)}),
    "ProxSGD NuclearNorm": (ProxSGD, {"regularizer": NuclearNorm(4.0)}),
    "ProxAdamW GroupLasso": (ProxAdamW, {"regularizer": GroupLasso(1.0), "lr": 0.3, "weight_decay": 0.1}),
    "ProxAdamW L1": (ProxAdamW, {"regularizer": L1(1.0)}),
}
STEPS = 4
BATCH = 12
KILL_AFTER = 6
"""Steps of the network before its checkpoint."""


def ways(case):
    """(placement, dtype) of each run of a case."""
    everything = case in ("RAMDA GroupLasso", "RAMDA SparseGroupLasso")
    cut = [(place, torch.float64) for place in ("rows", "columns")]
    return [*cut, ("copies", torch.float64), ("rows", torch.float32)] if everything else cut


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train_matrix(case, place, dtype, mesh=None):
    """(w, What) of a matrix after a few steps; sharded if a mesh is given."""
    cls, arguments = SHARDED[case]
    problem = NoisyQuadratic(SHAPE, STEPS)
    parameter = problem.parameter(dtype)
    if mesh is not None:
        parameter = nn.Parameter(distribute_tensor(parameter.detach(), mesh, PLACEMENTS[place]))
    optimizer = cls([parameter], **{"lr": 0.05, **arguments})
    for t in range(1, STEPS + 1):
        gradient = problem.gradient(full(parameter.detach()), t)
        parameter.grad = gradient if mesh is None else distribute_tensor(gradient, mesh, PLACEMENTS[place])
        optimizer.step()
    return full(parameter.detach()).clone(), full(structured(optimizer, parameter)).clone()


def network(dtype):
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def network_optimizer(model, **options):
    first, second, third = model[0], model[2], model[4]
    biases = [first.bias, second.bias, third.bias]
    groups = [
        {"params": [first.weight], "regularizer": GroupLasso(0.02)},
        {"params": [second.weight], "regularizer": SparseGroupLasso(0.03, 0.3, dims=(1,))},
        {"params": [third.weight], "regularizer": L1(0.03)},
        {"params": biases},
    ]
    return RAMDA(groups, lr=0.02, **options)


def data(dtype):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(100, BATCH, 6, generator=generator, dtype=torch.float64)
    inputs[..., ::2] *= 0.01
    return inputs.to(dtype), inputs[..., 1:4].sin().to(dtype)


def train_network(model, optimizer, dtype, steps, first=0, rank=0, world=1):
    """Each process takes its share of every batch."""
    inputs, targets = data(dtype)
    share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    for t in range(first, first + steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[t, share]), targets[t, share]).backward()
        optimizer.step()


def points(model, optimizer):
    """All w and all What, whole."""
    w = [full(p.detach()).clone() for p in model.parameters()]
    with optimizer.structured_point():
        return w, [full(p.detach()).clone() for p in model.parameters()]


def shard(model):
    for layer in (model[0], model[2], model[4]):
        fully_shard(layer)
    return fully_shard(model)


def nonfinite(mesh, rank, policy):
    """One process alone has a NaN; what happens on this one: (raised, unchanged, skipped)."""
    problem = NoisyQuadratic(SHAPE, 3)
    parameter = nn.Parameter(distribute_tensor(problem.parameter().detach(), mesh, [Shard(0)]))
    optimizer = RAMDA([parameter], regularizer=GroupLasso(0.5), on_nonfinite=policy)

    def step(t, spoil=False):
        parameter.grad = distribute_tensor(problem.gradient(full(parameter.detach()), t), mesh, [Shard(0)])
        if spoil and rank == 1:
            parameter.grad.to_local()[0, 0] = torch.nan
        optimizer.step()

    step(1)
    before = [parameter.to_local().clone(), *(full(value).clone() for value in optimizer.state[parameter].values())]
    raised = False
    try:
        step(2, spoil=True)
    except RuntimeError as error:
        raised = "non-finite gradient" in str(error)
    after = [parameter.to_local(), *(full(value) for value in optimizer.state[parameter].values())]
    unchanged = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    step(3)
    return raised, unchanged, int(optimizer.skipped_steps)


def checkpointed(model, optimizer, flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model_state, optimizer_state = get_state_dict(model, optimizer, options=options)
    return {"model": model_state, "optimizer": optimizer_state}, options


def save_network(model, optimizer, folder, flatten):
    state, _ = checkpointed(model, optimizer, flatten)
    dcp.save(state, checkpoint_id=folder)


def load_network(model, optimizer, folder, flatten):
    state, options = checkpointed(model, optimizer, flatten)
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
    )


def work(rank, world, folder):
    """One process of ``world``; on 2 processes checkpoints are saved, on 3 they are loaded."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{world}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    results = {}
    for case in SHARDED:
        for place, dtype in ways(case):
            results["matrix", case, place, dtype] = train_matrix(case, place, dtype, mesh)
    for dtype in (torch.float64, torch.float32):
        model = shard(network(dtype))
        optimizer = network_optimizer(model)
        train_network(model, optimizer, dtype, 12, rank=rank, world=world)
        results["fsdp", dtype] = points(model, optimizer)
    model = network(torch.float64)
    parallel = DistributedDataParallel(model)
    optimizer = network_optimizer(model)
    train_network(parallel, optimizer, torch.float64, 12, rank=rank, world=world)
    results["ddp", torch.float64] = points(model, optimizer)
    for policy in ("raise", "skip"):
        gathered = [None] * world
        dist.all_gather_object(gathered, nonfinite(mesh, rank, policy))
        results["nonfinite", policy] = gathered
    for flatten in (False, True):
        model = shard(network(torch.float64))
        optimizer = network_optimizer(model)
        place = folder / f"checkpoint {flatten}"
        if world == 2:
            train_network(model, optimizer, torch.float64, KILL_AFTER, rank=rank, world=world)
            save_network(model, optimizer, place, flatten)
        else:
            load_network(model, optimizer, place, flatten)
            train_network(model, optimizer, torch.float64, 10, first=KILL_AFTER, rank=rank, world=world)
            results["resumed", flatten] = points(model, optimizer)
    if rank == 0:
        torch.save(results, folder / f"results{world}.pt")
    dist.barrier()
    dist.destroy_process_group()
