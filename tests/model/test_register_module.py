"""`register_module`: modules of one's own and of other packages, and what the table says of those that are unknown."""

import warnings

import pytest
import torch
from torch import nn

from ramda_theory.model import Axes, Slices, register_module, structured_param_groups
from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import GroupLasso, NuclearNorm

LASSO = GroupLasso(0.1)


class Mixing(nn.Module):
    """A linear map whose weight has its inputs first, a scale, a table and a code."""

    def __init__(self, inputs=3, outputs=4):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(inputs, outputs))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.table = nn.Parameter(torch.randn(5, outputs))
        self.code = nn.Parameter(torch.randn(2))
        self.kernel_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return (x @ self.kernel + self.kernel_bias) * self.scale


MEANINGS = {"kernel": Axes(input=0, output=1), "scale": "norm", "table": "embedding", "code": "a code, no map"}


def by_name(groups):
    return {each.names[0]: each for each in groups.decisions}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.mark.parametrize(("by", "axis", "count"), [("input", 0, 3), ("output", 1, 4)])
def test_a_module_of_one_s_own(by, axis, count):
    class Own(Mixing):
        pass

    register_module(Own, MEANINGS)
    net = nn.Sequential(Own(), nn.Linear(4, 2))
    found = by_name(structured_param_groups(net, LASSO, by=by))
    psi = found["0.kernel"].regularizer
    assert psi.group_norms(net[0].kernel.detach()).numel() == count
    torch.testing.assert_close(
        psi.group_norms(net[0].kernel.detach()).ravel(), net[0].kernel.detach().double().norm(dim=1 - axis)
    )
    reasons = {name: each.reason for name, each in found.items() if each.regularizer is None}
    assert reasons["0.scale"] == "norm" and reasons["0.table"] == "embedding" and reasons["0.kernel_bias"] == "bias"
    assert reasons["0.code"] == "a code, no map"
    every = by_name(structured_param_groups(net, LASSO, by=by, embeddings=True, norms=True, biases=True))
    assert [name for name, each in every.items() if each.regularizer is None] == ["0.code"]
    assert every["0.scale"].regularizer.group_norms(net[0].scale.detach()).numel() == 4


def test_classes_derived_from_it_are_meant_unless_registered_themselves():
    class Base(Mixing):
        pass

    class Child(Base):
        pass

    class Other(Base):
        pass

    register_module(Base, MEANINGS)
    register_module(Other, {"kernel": Axes(input=1, output=0)})
    net = nn.ModuleList([Base(), Child(), Other()])
    found = by_name(structured_param_groups(net, LASSO))
    assert [found[f"{i}.kernel"].regularizer.dims for i in range(3)] == [(1,), (1,), (0,)]
    register_module(Other, MEANINGS)  # the last word counts
    assert by_name(structured_param_groups(net, LASSO))["2.kernel"].regularizer.dims == (1,)


def test_a_name_stands_for_classes_of_a_package_that_is_not_imported():
    def made(package, name):
        return type(name, (Mixing,), {"__module__": f"{package}.layers.mixing"})

    net = nn.ModuleList([made("elsewhere", "Mix")(), made("elsewhere", "FancyMix")(), made("another", "Mix")()])
    register_module("elsewhere.*Mix", {"kernel": Axes(input=1, output=0)})
    register_module("elsewhere.Mix", {"kernel": Axes(input=0, output=1)})
    found = by_name(structured_param_groups(net, LASSO))
    assert found["0.kernel"].regularizer.dims == (1,)  # an exact name before a pattern
    assert found["1.kernel"].regularizer.dims == (0,)
    assert found["2.kernel"].reason == "unsupported: kernel of Mix"


def test_views_several_axes_and_functions():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3, 4))
            self.flat = nn.Parameter(torch.randn(6, 4))

    def flat(module, shape):
        assert isinstance(module, Experts) and shape == (6, 4)
        return Axes(input=(0, -1), output=(0, 1), view=(2, 3, 4))

    register_module(Experts, {"weight": Axes(input=(0, 2), output=(0, 1)), "flat": flat})
    net = Experts()
    groups = structured_param_groups(net, LASSO)
    weight, same = (each.regularizer for each in groups.decisions)
    assert (weight.dims, weight.view) == ((1,), None) and (same.dims, same.view) == ((1,), (2, 3, 4))
    with torch.no_grad():
        net.flat.copy_(net.weight.reshape(6, 4))
    assert torch.equal(weight.group_norms(net.weight.detach()), same.group_norms(net.flat.detach()))
    assert "8 groups of 3" in groups.table()
    assert "6 groups of 4" in structured_param_groups(net, LASSO, by="output").table()


def test_heads_of_one_s_own_attention_and_why_there_are_none():
    class Attention(nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.heads, self.make, self.read = heads, nn.Linear(6, 6), nn.Linear(6, 6)

    def heads(module):
        if 6 % module.heads:
            return f"heads of Attention not known: 6 features are no {module.heads} heads"
        return {"make.weight": Slices((module.heads, 6 // module.heads, 6), (0,))}

    register_module(Attention, heads=heads)
    groups = structured_param_groups(nn.Sequential(Attention(3)), LASSO, heads=True)
    found = by_name(groups)
    assert found["0.make.weight"].note == "whole heads" and "3 groups of 12 (whole heads)" in groups.table()
    assert found["0.read.weight"].note == "" and found["0.read.weight"].regularizer.dims == (0,)
    with pytest.raises(ValueError, match=r"heads: True reaches no .*6 features are no 4 heads"):
        structured_param_groups(Attention(4), LASSO, heads=True)
    both = structured_param_groups(nn.ModuleList([Attention(3), Attention(4)]), LASSO, heads=True)
    assert "6 groups of 6 (heads of Attention not known: 6 features are no 4 heads)" in both.table()


def test_heads_that_reach_nothing_are_an_error():
    with pytest.raises(ValueError, match=r"heads: True reaches no attention head: there is no attention"):
        structured_param_groups(nn.Linear(2, 2), LASSO, heads=True)
    net = nn.ModuleList([nn.MultiheadAttention(4, 2), nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="heads: True reaches no"):
        structured_param_groups(net, LASSO, heads=True, include="1")


def test_the_table_adds_up_what_is_left_and_below_half_it_warns():
    net = nn.ModuleDict({"a": nn.Linear(10, 10), "b": nn.Bilinear(5, 5, 5), "e": nn.Embedding(10, 4)})
    lines = structured_param_groups(net, LASSO).table().splitlines()
    assert lines[
        -2
    ] == "not regularized: 125 unsupported: weight of Bilinear; 40 embedding; 10 bias; 5 unsupported: " + (
        "bias of Bilinear"
    )
    assert lines[-1] == "regularized: 100 of 280 parameters"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structured_param_groups(net, LASSO, exclude="b")  # 100 of 140
        structured_param_groups(net, LASSO, include="a")
        structured_param_groups(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(50)), LASSO)  # norms are no weights
        with pytest.raises(UserWarning, match=r"only 100 of 270 weights are regularized \(37%\); not: 125 unsupp"):
            structured_param_groups(net, LASSO)


def test_registered_weights_train_to_zero_groups():
    class Own(Mixing):
        pass

    register_module(Own, MEANINGS)
    torch.manual_seed(0)
    net = Own()
    optimizer = RAMDA(structured_param_groups(net, GroupLasso(0.05)), lr=1e-1, momentum=0.0)
    x = torch.randn(64, 3)
    for _ in range(200):
        optimizer.zero_grad()
        (net(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
    assert (net.kernel != 0).any(dim=1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, {}), TypeError, "must be a class of modules or 'package.Class', got 3"),
        ((int, {}), TypeError, "must be a class of modules"),
        (("Conv1D", {}), ValueError, "must be a class or 'package.Class', got 'Conv1D'"),
        (("a.b.C", {}), ValueError, "'package.Class', got 'a.b.C'"),
        ((Mixing, {3: "norm"}), TypeError, "named by strings, got 3"),
        ((Mixing, {"(": "norm"}), ValueError, r"'\(' is no regular expression"),
        ((Mixing, {"kernel": (0, 1)}), TypeError, r"parameters\['kernel'\] must be Axes, words or a function"),
        ((Mixing, {"kernel": ""}), TypeError, "must be Axes, words or a function, got ''"),
    ],
)
def test_what_cannot_be_registered_changes_nothing(arguments, error, message):
    with pytest.raises(error, match=message):
        register_module(*arguments)
    with pytest.raises(TypeError, match="heads must be a function"):
        register_module(Mixing, MEANINGS, heads=4)
    assert by_name(structured_param_groups(nn.ModuleList([Mixing(), nn.Linear(2, 2)]), LASSO))["0.kernel"].reason


def test_axes_that_the_weight_lacks_are_named():
    class Own(Mixing):
        pass

    register_module(Own, {"kernel": Axes(input=2, output=0)})
    with pytest.raises(ValueError, match=r"kernel of Own is seen as \(3, 4\), which lacks an axis of \(2,\)"):
        structured_param_groups(Own(), LASSO)
    register_module(Own, {"kernel": Axes(input=0, output=1, view=(5, 2))})
    with pytest.raises(ValueError, match=r"kernel of Own of shape \(3, 4\) cannot be seen as \(5, 2\)"):
        structured_param_groups(Own(), NuclearNorm(0.1))
    with pytest.raises(TypeError, match="input must be an integer"):
        Axes(input="0", output=1)
