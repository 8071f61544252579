"""StructureCallback in transformers' Trainer: a real run, its saved models, and the same bits after resuming."""

import warnings

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers as tf

from ramda_theory.integrations.transformers import StructureCallback
from ramda_theory.model import structured_param_groups
from ramda_theory.optim import RAMDA, StageSchedule
from ramda_theory.regularizers import GroupLasso

EPOCHS, STEPS = 4, 6


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, i):
        ids = torch.randint(0, 20, (8,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": ids}


def trainer(folder, *, epochs=EPOCHS, schedule=True, callback=None, optimizer=None, **arguments):
    torch.manual_seed(0)
    tf.set_seed(0)
    model = tf.LlamaForCausalLM(
        tf.LlamaConfig(
            vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=16,
        )
    )  # fmt: skip
    if optimizer is None:
        optimizer = RAMDA(structured_param_groups(model, GroupLasso(2e-2)), lr=1e-2)
    stages = StageSchedule(optimizer, [1, 2], steps_per_epoch=STEPS)
    settings = tf.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=4, use_cpu=True, report_to=[],
        save_strategy="epoch", logging_strategy="epoch", disable_tqdm=True, seed=0, **arguments,
    )  # fmt: skip
    other = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    return tf.Trainer(
        model, settings, train_dataset=Tokens(), eval_dataset=Tokens(),
        optimizers=(optimizer, stages if schedule else other),
        callbacks=[StructureCallback() if callback is None else callback],
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer")
    run = trainer(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the adopted point")
        warnings.filterwarnings("ignore", message="the weight of the regularizer")
        try:
            run.train()
            told = ""
        except UserWarning as warning:
            told = str(warning)
    return folder, run, told


def test_it_restarts_logs_and_adopts(finished):
    _, run, told = finished
    optimizer = run.optimizer.optimizer  # accelerate's wrapper around ours
    assert isinstance(optimizer, RAMDA)
    states = [state for state in optimizer.state.values() if state]
    assert {int(state["step"]) for state in states} == {(EPOCHS - 2) * STEPS}  # of the last stage
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    losses = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(losses) == EPOCHS
    assert all("structure/w_hat/group_sparsity" in entry and "structure/w/group_sparsity" in entry for entry in losses)
    # c = 0.1 sqrt(12) < 1: w_hat is not w yet, and adopting it says so
    assert told.startswith("the adopted point w_hat is") or told == ""


def test_checkpoints_hold_w_and_beside_it_what(finished):
    folder, run, _ = finished
    last = folder / f"checkpoint-{EPOCHS * STEPS}"
    w = tf.LlamaForCausalLM.from_pretrained(last)
    w_hat = tf.LlamaForCausalLM.from_pretrained(last / "structured")
    moved = [not torch.equal(a, b) for a, b in zip(w.parameters(), w_hat.parameters(), strict=True)]
    assert any(moved)
    adopted = dict(run.model.named_parameters())
    for name, parameter in w_hat.named_parameters():
        assert torch.equal(parameter, adopted[name]), name


def test_a_resumed_run_ends_with_the_same_bits(finished, tmp_path):
    folder, run, _ = finished
    for at in (1, 3):  # at the end of the first stage, and within the last
        again = trainer(tmp_path / str(at))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again.train(resume_from_checkpoint=str(folder / f"checkpoint-{at * STEPS}"))
        for name, parameter in again.model.named_parameters():
            assert torch.equal(parameter, run.model.get_parameter(name)), name


def test_without_stages_it_warns_and_foreign_optimizers_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="no StageSchedule was found among the trainer's schedulers"):
        trainer(tmp_path, epochs=1, schedule=False).train()
    foreign = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"needs an optimizer of ramda_theory\.optim, got SGD"):
        trainer(tmp_path, optimizer=foreign).train()


def test_the_best_model_at_the_end_is_left_alone(tmp_path):
    run = trainer(tmp_path, epochs=2, load_best_model_at_end=True, eval_strategy="epoch")
    with pytest.warns(UserWarning, match="load_best_model_at_end: the model holds the best checkpoint's w"):
        run.train()
    best = tf.LlamaForCausalLM.from_pretrained(run.state.best_model_checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), run.model.cpu().parameters(), strict=True))
