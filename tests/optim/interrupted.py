"""A training run that checkpoints, goes on from its last checkpoint, and can be made to die: run as a script.

    python interrupted.py FOLDER STEPS DIE_AT

DIE_AT is the step in whose last backward pass the process kills itself (SIGKILL), "save K" to die while the K-th
checkpoint is being written, or "never".
"""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from ramda_theory.files import write_atomically
from ramda_theory.optim import RAMDA, RMDA, ProxAdamW, StageSchedule
from ramda_theory.regularizers import GroupLasso, NuclearNorm

EVERY = 5
"""Steps between checkpoints."""
CASES = {
    "RAMDA float32": (RAMDA, torch.float32, {"lr": 0.02}),
    "RAMDA bfloat16": (RAMDA, torch.bfloat16, {"lr": 0.02}),
    "RAMDA skip float64": (RAMDA, torch.float64, {"lr": 0.02, "on_nonfinite": "skip"}),
    "RMDA float32": (RMDA, torch.float32, {"lr": 0.3}),
    "ProxAdamW float32": (ProxAdamW, torch.float32, {"lr": 0.01}),
}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Training:
    """A network, its optimizer and its schedules."""

    def __init__(self, case):
        cls, self.dtype, options = CASES[case]
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 5), nn.Linear(5, 1)).to(self.dtype)
        first, _, second, third = self.model
        groups = [
            {"params": [first.weight], "regularizer": GroupLasso(0.2)},
            {"params": [second.weight], "regularizer": NuclearNorm(0.01)},
            {"params": [first.bias, second.bias, *third.parameters()]},
        ]
        self.optimizer = cls(groups, **options)
        self.schedule = StageSchedule(self.optimizer, [8, 14], 0.3, memory=0 if cls is ProxAdamW else 3)
        self.decay = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.98)
        self.parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "decay": self.decay,
        }

    def step(self, x, spoil=None):
        x = x.to(self.dtype)
        self.optimizer.zero_grad()
        loss = (self.model(x) - x[:, :3].sum(1, keepdim=True)).square().mean()
        if spoil is not None:
            self.model[0].weight.register_hook(spoil)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.decay.step()

    def points(self):
        w = [p.detach().clone() for p in self.model.parameters()]
        with self.optimizer.structured_point():
            return w, [p.detach().clone() for p in self.model.parameters()]


def main(folder, steps, die_at="never"):
    """Train to the end; (step begun at, w and What of every case)."""
    trainings = {case: Training(case) for case in CASES}
    sampler, first = torch.Generator().manual_seed(1), 0
    checkpoint = Path(folder) / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for case, training in trainings.items():
            for name, part in training.parts.items():
                part.load_state_dict(saved[case][name])
        sampler.set_state(saved["sampler"])
        first = saved["step"]
    for t in range(first + 1, steps + 1):
        x = torch.randn(32, 12, generator=sampler)
        for case, training in trainings.items():
            training.step(x, spoil=die if str(t) == die_at and case == list(CASES)[-1] else None)
        if t % EVERY == 0:
            state = {case: {k: part.state_dict() for k, part in each.parts.items()} for case, each in trainings.items()}
            state |= {"sampler": sampler.get_state(), "step": t}

            def write(file, state=state, t=t):
                torch.save(state, file)
                if die_at == f"save {t // EVERY}":
                    die()

            write_atomically(checkpoint, write)
    return first, {case: training.points() for case, training in trainings.items()}


if __name__ == "__main__":
    result = main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    write_atomically(Path(sys.argv[1]) / "end.pt", lambda file: torch.save(result, file))
