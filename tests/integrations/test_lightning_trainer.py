"""StructureCallback in Lightning's Trainer: a real run, its checkpoints, and the same bits after resuming."""

import logging
import warnings

import pytest
import torch

pytest.importorskip("lightning")

import lightning.pytorch as pl

from ramda_theory.integrations.lightning import StructureCallback
from ramda_theory.model import structured_param_groups
from ramda_theory.optim import RAMDA, StageSchedule
from ramda_theory.regularizers import GroupLasso

STEPS, EPOCHS = 8, 4
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(pl.LightningModule):
    def __init__(self, interval="step"):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
        self.interval = interval

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        optimizer = RAMDA(structured_param_groups(self, GroupLasso(5e-3)), lr=1e-2)
        schedule = StageSchedule(optimizer, [1, 2], steps_per_epoch=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.interval}}


def data():
    x = torch.randn(8 * STEPS, 10, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1] - x[:, 1:2]), batch_size=8)


def fit(folder, epochs=EPOCHS, interval="step", resume=None, **arguments):
    net = Net(interval)
    keep = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    callback = StructureCallback(**arguments)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callback, keep], log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(net, data(), ckpt_path=resume, **({} if resume is None else {"weights_only": False}))
    return trainer, net, callback


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lightning")
    return folder, *fit(folder, log_to=folder / "structure.csv")


def test_it_restarts_logs_and_adopts(finished):
    folder, trainer, _, callback = finished
    optimizer = trainer.optimizers[0]
    assert {int(state["step"]) for state in optimizer.state.values()} == {(EPOCHS - 2) * STEPS}
    assert "structure/w_hat/group_sparsity" in trainer.callback_metrics
    tracker = callback.following.tracker
    assert tracker.times == [1, 2, 3, 4]
    lines = (folder / "structure.csv").read_text().splitlines()
    assert lines[0].startswith("call,structure/w/group_sparsity") and len(lines) == 1 + EPOCHS


def test_checkpoints_hold_w_and_beside_it_what(finished):
    folder, _, net, _ = finished
    saved = torch.load(folder / f"epoch={EPOCHS - 1}.ckpt", weights_only=False)
    structured = saved["structured_state_dict"]
    assert any(not torch.equal(saved["state_dict"][key], structured[key]) for key in structured)
    assert all(torch.equal(structured[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_run_ends_with_the_same_bits(finished, tmp_path, epoch):
    folder, _, net, callback = finished
    _, again, other = fit(tmp_path, resume=folder / f"epoch={epoch}.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert (other.following.tracker.flips() == callback.following.tracker.flips()).all()


def test_a_schedule_that_would_be_stepped_once_an_epoch_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"StageSchedule counts steps: .*'interval': 'step'.*got interval 'epoch'"):
        fit(tmp_path, interval="epoch")
