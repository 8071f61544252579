"""`compact` on networks small enough to count by hand, and what it refuses or leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from families import plant, randomized
from torch import nn

from ramda_theory.model import compact
from ramda_theory.model.coupling import removable_parameters
from ramda_theory.optim import structure_report


def perceptron() -> nn.Sequential:
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), 0)
    plant(model[2].weight[:, 1], model[0].weight[3], model[2].weight[4])  # unread; sigmoid(b); relu(b)
    return model


X = torch.randn(3, 4, dtype=torch.float64)


def test_a_perceptron_by_hand():
    model = perceptron()
    small = compact(model, X)
    assert [tuple(p.shape) for p in small.model.parameters()] == [(4, 4), (4,), (4, 4), (4,), (2, 4), (2,)]
    first, middle, last = (model[i] for i in (0, 2, 4))
    with torch.no_grad():
        absorbed = middle.bias + middle.weight[:, 3] * torch.sigmoid(first.bias[3])
        final = last.bias + last.weight[:, 4] * F.relu(absorbed[4])
    torch.testing.assert_close(small.model[2].bias, absorbed[:4], rtol=1e-14, atol=0)
    torch.testing.assert_close(small.model[4].bias, final, rtol=1e-14, atol=0)
    torch.testing.assert_close(small.model[0].weight, first.weight[[0, 2, 4, 5]], rtol=0, atol=0)
    assert small.model[0].out_features == 4 and small.model[2].in_features == 4
    assert small.parameters == (77, 50) and small.flops[1] < small.flops[0]
    assert small.check(torch.randn(9, 4, dtype=torch.float64)) < 1e-14
    text = small.table()
    assert "axis 0: 1 constant, 1 unread" in text and "parameters: 50 of 77" in text
    assert str(small) == text


def test_the_original_is_untouched_and_nothing_is_shared():
    model = perceptron().train()
    before = copy.deepcopy(model.state_dict())
    small = compact(model, X)
    with torch.no_grad():
        for parameter in small.model.parameters():
            parameter.add_(1.0)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert small.model.training


@pytest.mark.parametrize("seed", range(3))
def test_chains_of_linear_layers_lose_what_was_said_to_be_removable(seed):
    generator = torch.Generator().manual_seed(seed)
    model = randomized(nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 2)), seed)
    with torch.no_grad():
        for layer in (model[2], model[4]):
            layer.weight[:, torch.rand(9, generator=generator) < 0.4] = 0.0
        rows = torch.rand(9, generator=generator) < 0.3
        model[0].weight[rows], model[0].bias[rows] = 0.0, 0.0
    small = compact(model, torch.randn(2, 3, dtype=torch.float64), low_rank=False)
    before, after = small.parameters
    assert before - after == removable_parameters(model)  # no input feature is unread here
    report = structure_report(model, example_inputs=torch.randn(2, 3, dtype=torch.float64))
    assert report.removable == before - report.compacted >= before - after
    assert f"compacted, {report.compacted} are left" in report.table()


def test_nothing_to_remove():
    model = randomized(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), 0)
    small = compact(model, X)
    assert small.parameters == (23, 23) and small.table().startswith("nothing can be removed")
    assert small.check() == 0.0


def test_a_layer_whose_outputs_are_all_constant_keeps_one():
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), 0)
    plant(model[0].weight)
    small = compact(model, X)
    assert small.model[0].out_features == 1 and small.check() < 1e-14


def test_constants_meet_the_zeros_of_a_padding():
    """A channel that is constant but not zero is no constant where a convolution pads it with zeros."""
    model = randomized(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)), 0)
    with torch.no_grad():
        model[0].weight[[1, 2]] = 0.0
        model[0].bias[1], model[0].bias[2] = 0.7, -0.7  # after ReLU: a constant, and zero
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    small = compact(model, x)
    assert small.model[0].out_channels == 3 and small.check() < 1e-14
    model[2].padding_mode, model[2]._reversed_padding_repeated_twice = "reflect", [1, 1, 1, 1]
    small = compact(model, x)
    assert small.model[0].out_channels == 2 and small.check() < 1e-14


def test_batch_norm_in_both_modes():
    """A constant before batch norm is another one in training, where it is its own mean."""
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)), 0)
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[1].weight[4] = 0.0  # constant in both
    x = torch.randn(8, 4, dtype=torch.float64)
    small, both = compact(model, x), compact(model, x, training=True)
    assert small.model[0].out_features == 4 and both.model[0].out_features == 5
    assert small.check() < 1e-14 and both.check() < 1e-14
    torch.testing.assert_close(both.model.train()(x), model.train()(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(small.model.train()(x), model(x))


def test_dropout_is_no_constant_in_training():
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Dropout(), nn.Linear(6, 2)), 0)
    plant(model[0].weight[3])
    assert compact(model, X).model[0].out_features == 5
    assert compact(model, X, training=True).model[0].out_features == 6


def test_low_rank():
    model = randomized(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 12)), 0)
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(10, 2, dtype=torch.float64) @ torch.randn(2, 12, dtype=torch.float64))
    x = torch.randn(3, 12, dtype=torch.float64)
    small = compact(model, x)
    assert small.parameters == (12 * 10 + 10 + 10 * 12 + 12, 2 * 22 + 10 + 132) and small.check() < 1e-12
    assert "rank 2" in small.table() and small.model[0].in_features == 12 and small.model[0].out_features == 10
    assert compact(model, x, low_rank=False).parameters == (262, 262)


def test_shared_modules_and_tied_weights():
    shared = nn.Linear(5, 5)
    model = randomized(nn.Sequential(nn.Linear(4, 5), shared, nn.Tanh(), shared, nn.Linear(5, 2)), 0)
    plant(shared.weight[:, 2], model[4].weight[:, 2])
    small = compact(model, X)
    assert small.model[1] is small.model[3] and small.model[1].weight.shape == (4, 4) and small.check() < 1e-14


def test_hooks_keep_their_module_as_it_is():
    model = perceptron()
    seen = []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    small = compact(model, X)
    assert small.model[2].weight.shape == model[2].weight.shape and small.check() < 1e-14
    assert "2 has hooks" in small.table()


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Unknown(nn.Module):
    """Sorts its channels: an operation without a rule."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.b(self.a(x).sort(-1).values)


def test_what_is_not_known_stays_and_is_named():
    model = randomized(Unknown(), 0)
    plant(model.a.weight[2], model.b.weight[:, 1])
    small = compact(model, X)
    assert small.parameters[0] == small.parameters[1] and small.check() == 0.0
    assert "not looked into: nothing is known about sort" in small.table()
    assert "zero, but kept" in small.table()


class FixedSize(nn.Module):
    """A size that no attribute tells."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.a(x).reshape(-1, 6))


class NamedSize(FixedSize):
    """One that two attributes might tell."""

    def __init__(self):
        super().__init__()
        self.inner, self.other = 6, 6

    def forward(self, x):
        return self.b(self.a(x).reshape(-1, self.inner)) * self.other


def test_sizes_that_a_forward_holds():
    for model, width in ((randomized(FixedSize(), 0), 6), (randomized(NamedSize(), 0), 5)):
        plant(model.b.weight[:, 1])
        small = compact(model, X)
        assert small.model.a.out_features == width and small.check() < 1e-14
        assert getattr(small.model, "other", 6) == 6
    assert "holds sizes" in compact(_planted(FixedSize()), X).table()


def _planted(model):
    model = randomized(model, 0)
    plant(model.b.weight[:, 1])
    return model


@pytest.mark.parametrize(("model", "inputs", "error", "message"), [
    (nn.Linear(4, 2), torch.randn(3, 5), ValueError, "example_inputs do not fit the model"),
    (nn.Linear(4, 2), "x", TypeError, "example_inputs must be a tensor, a tuple of arguments or a dict"),
    ([nn.Linear(4, 2)], torch.randn(3, 4), TypeError, "model must be a torch.nn.Module, got list"),
    (Branches(), torch.randn(3, 4), ValueError, "control flow that depends on values"),
])  # fmt: skip
def test_refusals(model, inputs, error, message):
    with pytest.raises(error, match=message):
        compact(model, inputs)


def test_latency_is_measured():
    small = compact(perceptron(), X)
    found = small.latency()
    assert found.before > 0 and found.after > 0 and found.ratio == found.before / found.after


def test_the_small_model_exports():
    small = compact(perceptron(), X)
    program = torch.export.export(small.model, (X,))
    torch.testing.assert_close(program.module()(X), small.model(X), rtol=1e-14, atol=1e-14)


def test_compacting_again_changes_nothing():
    small = compact(perceptron(), X)
    again = compact(small.model, X)
    assert again.parameters == (50, 50) and again.check() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_constants_are_absorbed_in_the_precision_of_the_model(dtype, seed):
    """Zero rows with biases: the constants are rounded as the bias is, which is no error of the small model."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2)).to(dtype)
    with torch.no_grad():
        model[0].weight[:40] = 0.0
    small = compact(model, torch.randn(4, 20, dtype=dtype))
    assert small.model[0].out_features == 24 and small.model[2].bias.dtype == dtype
    assert small.check(torch.randn(50, 20)) <= 10 * torch.finfo(dtype).eps
    exact = compact(copy.deepcopy(model).double(), torch.randn(4, 20, dtype=torch.float64))
    assert exact.check(torch.randn(50, 20, dtype=torch.float64)) <= 1e-12


class ReadsItsWidth(nn.Module):
    """Divides by the square root of a width that a smaller model would not have."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.first(x).relu()
        return self.second(hidden * hidden.shape[-1] ** -0.5)


def test_a_width_that_the_forward_computes_with_keeps_the_model_whole():
    model = ReadsItsWidth().double()
    with torch.no_grad():
        model.second.weight[:, :3] = 0.0
    small = compact(model, torch.randn(4, 6, dtype=torch.float64))
    assert small.check() == 0.0 and small.parameters[0] == small.parameters[1]
    assert "reads sizes as numbers" in small.table()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_parameters_that_are_not_finite_are_refused(value):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].bias[0] = value
    with pytest.raises(ValueError, match=r"finite parameters, got NaN or Inf in 1\.bias"):
        compact(model, torch.randn(2, 4))
