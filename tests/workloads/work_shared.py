"""What every process of a shared run does: train copied (DDP) and sharded (FSDP2), and keep what came out."""

import os
import warnings
from pathlib import Path

import torch

from ramda_theory.experiments import workload_figure
from ramda_theory.experiments.processes import join
from ramda_theory.experiments.workload import Plan, train_workload
from ramda_theory.kernels import using

EPOCHS = 3


def work(rank, world, folder, toy):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    folder = Path(folder)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    plan = Plan(toy, epochs=EPOCHS, milestones=(2,))
    workload_figure.plot_run = lambda result, path: None  # drawing takes longer than the runs
    with using("eager"):
        for shard in (False, True):
            out = folder / f"shard {shard}"
            train_workload(plan, out=out, processes=join("cpu", shard))
        cut = folder / "cut"  # what one process began is gone on with by two, sharded
        train_workload(plan, out=cut, resume=True, processes=join("cpu", True))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
