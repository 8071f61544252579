"""What every process of a shared run does: train copied (DDP) and sharded (FSDP2), and keep what came out."""

import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from ramda_theory.experiments import workload_figure
from ramda_theory.experiments.processes import join
from ramda_theory.experiments.workload import Plan, train_workload
from ramda_theory.kernels import using

EPOCHS = 3


@contextmanager
def meeting(rank, world, folder):
    """One process among ``world``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    place = f"file://{folder}/meeting{world}"
    torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    workload_figure.plot_run = lambda result, path: None  # drawing takes longer than the runs
    with using("eager"):
        yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def work(rank, world, folder, toy):
    folder = Path(folder)
    plan = Plan(toy, epochs=EPOCHS, milestones=(2,))
    with meeting(rank, world, folder):
        for shard in (False, True):
            out = folder / f"shard {shard}"
            train_workload(plan, out=out, processes=join("cpu", shard))
        cut = folder / "cut"  # what one process began is gone on with by two, sharded
        train_workload(plan, out=cut, resume=True, processes=join("cpu", True))


def begin_and_go_on(rank, world, folder, toy):
    """Two begin a sharded run in ``begun``; two, sharded and copied, and three, sharded, go on from there."""
    folder = Path(folder)
    with meeting(rank, world, folder):
        if world == 2:
            train_workload(Plan(toy, epochs=1, milestones=(2,)), out=folder / "begun", processes=join("cpu", True))
        for shard in (True, False) if world == 2 else (True,):
            out = folder / f"{world} {'sharded' if shard else 'copied'}"
            if rank == 0:
                shutil.copytree(folder / "begun", out)
            torch.distributed.barrier()
            plan = Plan(toy, epochs=EPOCHS, milestones=(2,))
            train_workload(plan, out=out, resume=True, processes=join("cpu", shard))
