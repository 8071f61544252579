"""SparsityTarget: reaches what is wanted, goes on to the same bits, and refuses what it cannot steer."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ramda_theory.model import SparsityTarget, structure_report, structured_param_groups
from ramda_theory.model.quantile import log_quantile
from ramda_theory.optim import RAMDA, RMDA, NormalMapSGD, ProxAdamW, ProxSGD, StageSchedule
from ramda_theory.regularizers import L1, GroupLasso, SparseGroupLasso
from ramda_theory.workloads.digits import digit_splits

MAKERS: dict[str, Any] = {
    "RAMDA": lambda params: RAMDA(params, lr=1e-2),
    "RMDA": lambda params: RMDA(params, lr=0.3),
    "ProxAdamW": lambda params: ProxAdamW(params, lr=1e-3),
    "ProxSGD": lambda params: ProxSGD(params, lr=0.5),
    "NormalMapSGD": lambda params: NormalMapSGD(params, lr=0.1, prox_step=1.0),
}


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


class Training:
    """A run on the digits that can be cut in two."""

    def __init__(
        self,
        name: str,
        target: Any,
        seed: int = 0,
        weight: float = 1e-4,
        milestones: Any = (300, 420),
        steps: int | None = None,
        psi: Any = GroupLasso,
        closure: bool = False,
    ) -> None:
        self.model, self.closure = net(seed), closure
        self.optimizer = MAKERS[name](structured_param_groups(self.model, psi(weight)))
        self.schedule = StageSchedule(self.optimizer, milestones)
        self.target = None if target is None else SparsityTarget(self.optimizer, target, steps=steps)
        self.data, self.seed = digit_splits()["train"], seed

    def go(self, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(1000 * self.seed + step)
            rows = torch.randint(len(self.data.digits), (64,), generator=generator)

            def closure(rows: torch.Tensor = rows) -> torch.Tensor:
                self.optimizer.zero_grad(set_to_none=True)
                loss = cross_entropy(self.model(self.data.images[rows]), self.data.digits[rows])
                loss.backward()
                return loss

            if self.closure:
                self.optimizer.step(closure)
            else:
                closure()
                self.optimizer.step()
            if self.target is not None:
                self.target.step()
            self.schedule.step()

    def sparsity(self) -> float:
        layers = structure_report(self.optimizer, ranks=False)
        point = "w_hat" if "w_hat" in layers.layers else "w"
        found = layers.total(point).group_sparsity
        assert found is not None
        return found


@pytest.mark.parametrize("name", MAKERS)
def test_the_weight_is_made_larger_until_the_target_is_met_and_then_stays(name):
    run = Training(name, 0.8)
    assert run.target is not None
    run.go(0, 540)
    assert run.sparsity() == pytest.approx(0.8, abs=0.005)
    assert run.target.sparsity() == [pytest.approx(run.sparsity(), abs=1e-6)]
    assert max(weight for weight in run.target.weights if weight is not None) > 1e-4  # it was moved


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [0.5, 0.8])
@pytest.mark.parametrize("name", MAKERS)
def test_the_target_is_met_at_three_seeds_through_three_restarts(name, wanted):
    for seed in range(3):
        run = Training(name, wanted, seed=seed, milestones=(660, 1000, 1320), steps=1680)
        run.go(0, 1680)
        assert run.sparsity() == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("name", ["RAMDA", "RMDA"])
def test_the_quantile_is_that_of_w_hat_itself(name):
    """What the state tells of zero groups, and the weight for more of them, are borne out by solving for w_hat."""
    run = Training(name, None, weight=1e-3)
    run.go(0, 40)
    target = SparsityTarget(run.optimizer, 0.6)
    assert target.sparsity() == [pytest.approx(run.sparsity(), abs=1e-9)]
    factors, sizes = target._critical_factors([0])
    for share in (0.3, 0.6, 0.9):
        target._multiply([0], math.exp(log_quantile(factors, sizes, share)))
        assert run.sparsity() == pytest.approx(share, abs=0.005)
        factors, sizes = target._critical_factors([0])


def test_a_run_cut_in_two_goes_on_to_the_same_bits():
    whole, first, second = (Training("RAMDA", 0.6) for _ in range(3))
    whole.go(0, 120)
    first.go(0, 63)
    for part in ("model", "optimizer", "schedule", "target"):
        getattr(second, part).load_state_dict(getattr(first, part).state_dict())
    second.go(63, 120)
    assert whole.target.weights == second.target.weights and whole.target.weights[0] != 1e-4
    for mine, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.filterwarnings("ignore:the weight of the regularizer is at or above the critical one")
@pytest.mark.parametrize(
    "name, weight, steps", [("ProxSGD", 2e-3, 60), ("ProxAdamW", 3e-4, 60), ("NormalMapSGD", 3e-3, 120)]
)
def test_what_the_coming_step_makes_zero_is_known_before_it(name, weight, steps):
    run = Training(name, None, weight=weight)
    run.go(0, steps)
    target, known = SparsityTarget(run.optimizer, 0.5), []
    run.optimizer.register_step_pre_hook(lambda *_: known.append(target._critical_factors([0], coming=True)))
    run.go(steps, steps + 1)
    (factors, sizes), params = known[0], run.optimizer.param_groups[0]["params"]
    norms = torch.cat([GroupLasso(1.0).group_norms(p.detach()).reshape(-1) for p in params])
    assert torch.equal(norms == 0, factors <= 1) and 0 < (norms == 0).sum() < len(norms)
    assert sizes.sum() == sum(p.numel() for p in params)


@pytest.mark.parametrize("name", ["ProxSGD", "ProxAdamW", "NormalMapSGD"])
def test_at_the_last_of_so_many_steps_the_target_is_met_where_structure_swings(name):
    reached = []
    for steps in (None, 203):
        run = Training(name, 0.5, steps=steps)
        run.go(0, 203)
        reached.append(abs(run.sparsity() - 0.5))
    assert reached[1] <= 0.005 < reached[0]


def test_without_a_quantile_the_last_steps_are_as_the_others():
    weights = []
    for steps in (None, 45):
        run = Training("ProxSGD", 0.6, steps=steps, psi=lambda weight: SparseGroupLasso(weight, 0.5))
        run.go(0, 45)
        weights.append(run.target.weights)
    assert weights[0] == weights[1]


def test_the_coming_step_is_known_by_its_own_number():
    """Early on AdamW's corrections of the moments change much from step to step."""
    run = Training("ProxAdamW", 0.5, steps=3)
    run.go(0, 3)
    assert abs(run.sparsity() - 0.5) <= 0.005


def test_a_run_cut_among_its_last_steps_goes_on_to_the_same_bits():
    whole, first, second = (Training("ProxSGD", 0.6, steps=60) for _ in range(3))
    whole.go(0, 60)
    first.go(0, 56)
    for part in ("model", "optimizer", "schedule", "target"):
        getattr(second, part).load_state_dict(getattr(first, part).state_dict())
    second.go(56, 60)
    assert whole.target.weights == second.target.weights
    for mine, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_meets_the_target_as_well(again):
    run = Training("ProxSGD", 0.5, steps=33)
    run.go(0, 21)
    other = again(run)
    for each in (run, other):
        each.go(21, 33)
        assert each.sparsity() == pytest.approx(0.5, abs=0.005)
    assert other.target.weights == run.target.weights


@pytest.mark.parametrize("name", ["ProxSGD", "ProxAdamW"])
def test_the_last_steps_wait_for_the_gradients_of_a_closure(name):
    given, computed = Training(name, 0.5, steps=33), Training(name, 0.5, steps=33, closure=True)
    for run in (given, computed):
        run.go(0, 33)
    assert computed.target.weights == given.target.weights and computed.sparsity() == given.sparsity()
    computed.optimizer.step(closure=lambda: torch.tensor(2.0))  # after the last step, as before


@pytest.mark.parametrize("steered", [True, False])
def test_a_gradient_that_is_not_finite_changes_no_weight(steered):
    run = Training("ProxSGD", 0.6, steps=20)
    run.go(0, 15)
    before = run.target.weights
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            if steered or group["regularizer"] is None:
                parameter.grad.fill_(math.nan)
    with pytest.raises(RuntimeError, match="non-finite"):
        run.optimizer.step()
    assert run.target.weights == before


def test_nothing_is_measured_while_a_stage_settles():
    run = Training("RAMDA", 0.6, milestones=(60,))
    run.go(0, 60)
    before = run.target.weights
    run.go(60, 85)  # 25 steps of the new stage
    assert run.target.weights == before
    run.go(85, 100)
    assert run.target.weights != before


def test_every_group_has_its_own_target_or_none():
    run = Training("RAMDA", None, weight=1e-3)
    groups = run.optimizer.param_groups
    assert [group["regularizer"] is not None for group in groups] == [True, False]
    target = SparsityTarget(run.optimizer, [0.5, None])
    assert target.weights == [1e-3, None]
    for wanted, words in (([0.5], "one number per parameter group"), ([0.5, 0.5], "needs a regularizer with groups")):
        with pytest.raises(ValueError, match=words):
            SparsityTarget(run.optimizer, wanted)
    with pytest.raises(ValueError, match="nothing to steer"):
        SparsityTarget(run.optimizer, [None, None])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": 0.0}, "target must be"),
        ({"target": 1.0}, r"target must be in \(0, 1\)"),
        ({"every": 0}, "every must be at least 1"),
        ({"settle": -1}, "settle must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"gain": 0.0}, "gain"),
        ({"rate": float("inf")}, "rate"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, words):
    run = Training("RAMDA", None)
    with pytest.raises(ValueError, match=words):
        SparsityTarget(run.optimizer, **arguments)


def test_what_cannot_be_steered_is_refused():
    model = net()
    with pytest.raises(TypeError, match=r"optimizer must be one of ramda_theory\.optim"):
        SparsityTarget(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="weight > 0"):
        SparsityTarget(RAMDA(model.parameters(), regularizer=GroupLasso(0.0)))
    with pytest.raises(ValueError, match=r"regularizer with groups.* got L1"):
        SparsityTarget(RAMDA(model.parameters(), regularizer=L1(1e-3)))
    run = Training("RAMDA", 0.5)
    with run.optimizer.structured_point(), pytest.raises(RuntimeError, match="structured_point"):
        run.target.step()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("count"), "must have the keys"),
        (lambda state: state.update(targets=[0.7]), "is of the targets"),
        (lambda state: state.update(before=[]), "measurements"),
        (lambda state: state.update(count=-1), "count"),
    ],
)
def test_a_state_of_another_is_refused_and_nothing_changes(change, words):
    run = Training("RAMDA", 0.5)
    own = run.target.state_dict()
    state = {**own}
    change(state)
    with pytest.raises(ValueError, match=words):
        run.target.load_state_dict(state)
    assert run.target.state_dict() == own


@pytest.mark.parametrize(
    ("factors", "share", "expected"),
    [
        ([0.5, 2.0, 4.0, 8.0], 0.5, math.log(2.0) + 1e-3),
        ([0.5, 2.0, 4.0, 8.0], 0.25, 0.0),  # held already
        ([0.5, 0.6, 4.0, 8.0], 0.01, math.log(0.5) - 1e-3),  # no group at all
        ([0.5, 0.6, 4.0, 8.0], 0.99, math.log(8.0) + 1e-3),  # all, away from the last one's factor
        ([0.0, 0.0, 4.0, 8.0], 0.3, 0.0),  # two have no pull: nothing to do
        ([0.5, 2.0, math.inf, math.inf], 0.9, math.log(2.0) + 1e-3),  # two cannot become zero
    ],
)
def test_the_nearest_share_that_can_be_reached(factors, share, expected):
    found = log_quantile(torch.tensor(factors, dtype=torch.float64), torch.ones(4, dtype=torch.float64), share)
    assert found == pytest.approx(expected, abs=1e-12)
