"""Which weights `structured_param_groups` reaches, in which groups, and what it refuses."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from ramda_theory.model.groups import ParamGroups, structured_param_groups
from ramda_theory.optim import RAMDA, StructureTracker, structure_report
from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, NuclearNorm, Reshaped, SparseGroupLasso

LASSO = GroupLasso(0.1)


def decision(groups: ParamGroups, name: str):
    return next(each for each in groups.decisions if name in each.names)


def channels(module: nn.Module, by: str) -> tuple[int, int]:
    """Number of inputs or outputs of a layer, and the axis of its input or output (a batch) that counts them."""
    if isinstance(module, nn.Linear):
        return (module.in_features if by == "input" else module.out_features), -1
    return (module.in_channels if by == "input" else module.out_channels), 1


LAYERS = {
    "Linear": (nn.Linear(3, 4), (5, 3)),
    "Conv1d": (nn.Conv1d(3, 4, 3), (2, 3, 7)),
    "Conv2d": (nn.Conv2d(3, 4, (3, 2)), (2, 3, 5, 6)),
    "Conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "ConvTranspose1d": (nn.ConvTranspose1d(3, 4, 3), (2, 3, 5)),
    "ConvTranspose2d": (nn.ConvTranspose2d(3, 4, (3, 2)), (2, 3, 4, 3)),
    "ConvTranspose3d": (nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 2, 3)),
    "depthwise Conv2d": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
    "depthwise ConvTranspose2d": (nn.ConvTranspose2d(4, 4, 3, groups=4), (2, 4, 3, 3)),
    "depthwise Conv2d with two filters": (nn.Conv2d(3, 6, 3, groups=3), (2, 3, 5, 5)),
    "grouped Conv1d": (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 7)),
    "grouped Conv2d": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "grouped ConvTranspose2d": (nn.ConvTranspose2d(6, 4, 3, groups=2), (2, 6, 3, 3)),
    "depthwise ConvTranspose1d with two filters": (nn.ConvTranspose1d(3, 6, 3, groups=3), (2, 3, 5)),
}


def without_group(layer: nn.Module, psi: GroupLasso, k: int) -> nn.Module:
    """The layer with the k-th group of ``psi`` set to zero."""
    layer = copy.deepcopy(layer)
    zero_group(layer.weight, psi, k)
    return layer


@torch.no_grad()
def zero_group(weight: torch.Tensor, psi, k: int) -> None:
    """Set the k-th group of ``psi`` to zero."""
    norms = psi.group_norms(weight.detach())
    kept = torch.ones(norms.numel(), dtype=weight.dtype)
    kept[k] = 0.0
    weight.mul_(psi.spread(kept.reshape(norms.shape), weight))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("by", ["input", "output"])
def test_a_zero_group_is_an_input_nobody_reads_or_an_output_nobody_writes(name, by):
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).double()
    groups = structured_param_groups(layer, LASSO, by=by)
    psi = groups[0]["regularizer"]
    count, axis = channels(layer, by)
    assert psi.group_norms(layer.weight.detach()).numel() == count
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    for k in range(count):
        pruned = without_group(layer, psi, k)
        if by == "input":
            other = x.clone()
            other.select(axis, k).add_(1.0)
            assert torch.equal(pruned(other), pruned(x))
            assert not torch.equal(layer(other), layer(x))
        else:
            y = pruned(x).select(axis, k)
            assert torch.equal(y, pruned.bias[k].expand_as(y))
            assert not torch.equal(layer(x).select(axis, k), y)


@pytest.mark.parametrize("rnn", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_columns_are_inputs_and_hidden_features(rnn):
    net = rnn(3, 4, num_layers=2, bidirectional=True).double()
    groups = structured_param_groups(net, LASSO)
    (group,) = (group for group in groups if group["regularizer"] is not None)
    assert sorted(group["param_names"]) == sorted(name for name, p in net.named_parameters() if p.ndim == 2)
    assert group["regularizer"].dims == (0,)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    other = x.clone()
    other[..., 1] += 1.0
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
            getattr(net, name)[:, 1] = 0.0
    assert torch.equal(net(x)[0], net(other)[0])


def test_recurrent_cells_and_projected_lstm():
    cell = structured_param_groups(nn.GRUCell(3, 4), LASSO)
    assert cell[0]["param_names"] == ["weight_ih", "weight_hh"]
    projected = structured_param_groups(nn.LSTM(3, 4, proj_size=2), LASSO, by="output")
    assert projected[0]["param_names"] == ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]
    assert projected[0]["regularizer"].dims == (1,)


@pytest.mark.parametrize("kdim", [None, 5])
def test_attention_projections_by_feature(kdim):
    attention = nn.MultiheadAttention(6, 2, kdim=kdim, add_bias_kv=True, batch_first=True).double()
    groups = structured_param_groups(attention, LASSO)
    weights = {"in_proj_weight", "out_proj.weight"} if kdim is None else {
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}  # fmt: skip
    assert set(groups[0]["param_names"]) == weights
    assert decision(groups, "bias_k").reason == "bias"
    if kdim is None:  # a zero column of the joint projection is a feature that attention to itself does not read
        with torch.no_grad():
            attention.in_proj_weight[:, 2] = 0.0
        x = torch.randn(2, 4, 6, dtype=torch.float64)
        other = x.clone()
        other[..., 2] += 1.0
        assert torch.equal(attention(x, x, x)[0], attention(other, other, other)[0])


@pytest.mark.parametrize(("by", "pruned"), [("input", (2, slice(None))), ("output", (slice(None), 2))])
def test_embeddings_when_asked_for(by, pruned):
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    assert decision(structured_param_groups(net, LASSO, by=by), "0.weight").reason == "embedding"
    psi = decision(structured_param_groups(net, LASSO, by=by, embeddings=True), "0.weight").regularizer
    with torch.no_grad():
        net[0].weight[pruned] = 0.0
    support = psi.group_support(net[0].weight.detach())
    assert support.pattern.size == (5 if by == "input" else 3)
    assert (support.pattern.ravel() == 0).nonzero()[0].tolist() == [2]


def test_all_group_norms_take_channels_of_grouped_convolutions():
    layer = nn.Conv2d(4, 8, 3, groups=2)
    for psi in (LASSO, SparseGroupLasso(0.1, 0.5), GroupMCP(0.1, 3.0)):
        found = structured_param_groups(layer, psi)[0]["regularizer"]
        assert found == replace(psi, dims=(1, 3, 4), view=(2, 4, 2, 3, 3))
    assert structured_param_groups(layer, GroupMCP(0.1, 3.0), by="output")[0]["regularizer"].dims == (1, 2, 3)


@pytest.mark.parametrize("kdim", [None, 5])
@pytest.mark.parametrize("by", ["input", "output"])
def test_whole_heads(kdim, by):
    attention = nn.MultiheadAttention(6, 3, kdim=kdim, vdim=kdim, batch_first=True).double()
    groups = structured_param_groups(attention, LASSO, by=by, heads=True)
    found = {each.names[0]: each.regularizer for each in groups.decisions if each.regularizer}
    assert set(found) == {"out_proj.weight"} | (
        {"in_proj_weight"} if kdim is None else {f"{k}_proj_weight" for k in "qkv"}
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, dtype=torch.float64, generator=generator)
    y = x if kdim is None else torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    whole = attention(x, y, y)[0]
    for h in range(3):
        # A head that the output projection does not read, and a head that projects everything to zero, are the same.
        unread = copy.deepcopy(attention)
        zero_group(unread.out_proj.weight, found["out_proj.weight"], h)
        unmade = copy.deepcopy(attention)
        for name in set(found) - {"out_proj.weight"}:
            zero_group(unmade.get_parameter(name), found[name], h)
        assert not torch.allclose(unread(x, y, y)[0], whole)
        torch.testing.assert_close(unread(x, y, y)[0], unmade(x, y, y)[0], rtol=1e-12, atol=1e-12)
    layer = nn.Sequential(nn.TransformerEncoderLayer(6, 3, dim_feedforward=4))
    table = structured_param_groups(layer, LASSO, heads=True).table()
    assert "GroupLasso(0.1, dims=(0, 2, 3), view=(3, 3, 2, 6))" in table and "3 groups of 36" in table
    assert "GroupLasso(0.1, dims=(0, 2), view=(6, 3, 2))" in table and "3 groups of 12" in table


def test_training_with_whole_heads_prunes_heads_and_survives_a_checkpoint():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(6, 3, batch_first=True)
    x = torch.randn(8, 4, 6)
    target = attention(x, x, x)[0].detach()
    optimizer = RAMDA(structured_param_groups(attention, GroupLasso(0.02), heads=True), lr=1e-2, momentum=0.9)
    tracker = StructureTracker(optimizer)
    for _ in range(60):
        optimizer.zero_grad()
        (attention(x, x, x)[0] - target).square().mean().backward()
        optimizer.step()
        tracker.record()
    heads = tracker.pattern("out_proj.weight").ravel()
    assert heads.shape == (3,) and 0 in heads
    weight = attention.out_proj.weight.detach()
    with optimizer.structured_point():
        columns = (weight.reshape(6, 3, 2) != 0).any(dim=2).any(dim=0)
    assert columns.tolist() == (heads != 0).tolist()
    assert structure_report(optimizer).total("w_hat").zero_groups >= 1
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = RAMDA(structured_param_groups(attention, GroupLasso(0.5), heads=True), lr=1e-2, momentum=0.9)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert [g["regularizer"] for g in twin.param_groups] == [g["regularizer"] for g in optimizer.param_groups]


def test_defaults_leave_norms_biases_embeddings_and_unknown_modules_alone():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    net = nn.ModuleDict(
        {"embed": nn.Embedding(4, 3), "conv": nn.Conv1d(2, 3, 2), "batch": nn.BatchNorm1d(3), "layer": nn.LayerNorm(3),
         "group": nn.GroupNorm(1, 3), "rms": nn.RMSNorm(3), "act": nn.PReLU(), "two": nn.Bilinear(2, 2, 2),
         "scale": Scale(), "fc": nn.Linear(3, 2)}
    )  # fmt: skip
    groups = structured_param_groups(net, LASSO)
    reasons = {name: each.reason for each in groups.decisions for name in each.names if each.regularizer is None}
    assert reasons == {
        **{f"{name}.weight": "norm" for name in ("batch", "layer", "group", "rms")},
        **{f"{name}.bias": "bias" for name in ("batch", "layer", "group", "conv", "fc")},
        "embed.weight": "embedding",
        **{f"{name}.weight": f"unsupported: weight of {type(net[name]).__name__}" for name in ("act", "two", "scale")},
        "two.bias": "unsupported: bias of Bilinear",
    }
    names = [name for group in groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    assert groups[-1]["regularizer"] is None and len(groups) == 3


@pytest.mark.parametrize("reparametrize", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm,
                                           nn.utils.spectral_norm])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_reparametrized_weights_are_unsupported(reparametrize):
    net = nn.Sequential(reparametrize(nn.Linear(3, 2)), nn.Linear(2, 2))
    groups = structured_param_groups(net, LASSO)
    assert groups[0]["param_names"] == ["1.weight"]
    with pytest.raises(ValueError, match="reaches no parameter"):
        structured_param_groups(net, LASSO, include="0")


def test_norms_and_biases_are_single_entries_when_asked_for():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    groups = structured_param_groups(net, LASSO, norms=True, biases=True)
    for name in ("0.bias", "1.weight", "1.bias"):
        found = decision(groups, name)
        assert found.regularizer.group_norms(found.parameter.detach()).numel() == 4
    with pytest.raises(ValueError, match=r"0\.bias .*NuclearNorm cannot regularize a bias"):
        structured_param_groups(net, NuclearNorm(0.1), biases=True)


@pytest.mark.parametrize("psi", [SparseGroupLasso(0.2, 0.5, size_scaled=False), GroupMCP(0.2, 3.0)])
def test_only_the_axes_of_a_group_norm_change(psi):
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    found = [group["regularizer"] for group in structured_param_groups(net, psi)][:2]
    assert [each.dims for each in found] == [(0, 2, 3), (0,)]
    for each in found:
        assert {**each.to_dict(), "dims": [0]} == psi.to_dict()


def test_separable_regularizers_stay_and_the_nuclear_norm_takes_rows_along_the_first_axis():
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(3, 2))
    assert structured_param_groups(net, L1(0.3))[0]["regularizer"] == L1(0.3)
    first, second = structured_param_groups(net, NuclearNorm(0.3))[:2]
    assert first["regularizer"].matrix(net[0].weight.detach()).shape == (3, 8)
    assert second["regularizer"] == NuclearNorm(0.3)


def test_selectors_are_names_patterns_modules_and_classes():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Conv1d(2, 2, 1), nn.Linear(3, 2)), nn.Linear(2, 2))

    def reached(**arguments):
        return structured_param_groups(net, L1(0.1), **arguments)[0]["param_names"]

    everything = ["0.weight", "1.0.weight", "1.1.weight", "2.weight"]
    assert reached() == everything
    assert reached(include="1") == reached(include=net[1]) == reached(include=["1.*"]) == everything[1:3]
    assert reached(include=nn.Linear, exclude=net[1]) == ["0.weight", "2.weight"]
    assert reached(include=["2.weight", nn.Conv1d]) == ["1.0.weight", "2.weight"]
    assert reached(exclude=(nn.Conv1d, "?.weight")) == ["1.1.weight"]


def test_a_mapping_gives_each_part_its_regularizer_and_the_first_match_counts():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 2), nn.Conv1d(2, 2, 1))
    groups = structured_param_groups(net, {"0": LASSO, net[1]: L1(0.3), nn.Linear: NuclearNorm(0.2)})
    found = {each.names[0]: type(each.regularizer).__name__ for each in groups.decisions if each.regularizer}
    assert found == {"0.weight": "GroupLasso", "1.weight": "L1", "2.weight": "NuclearNorm"}
    assert decision(groups, "3.weight").reason == "not selected"
    with pytest.raises(ValueError, match=r"'0' selects no parameter .*earlier"):
        structured_param_groups(net, {nn.Linear: LASSO, "0": L1(0.1)})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.third = nn.Linear(3, 3)
        self.third.weight = self.first.weight
        self.head.weight = self.embed.weight


def test_shared_parameters_appear_once_and_the_stricter_role_wins():
    groups = structured_param_groups(Tied(), LASSO)
    names = [name for group in groups for name in group["param_names"]]
    assert sorted(names) == ["embed.weight", "first.bias", "first.weight", "third.bias"]
    assert decision(groups, "first.weight").names == ("first.weight", "second.weight", "third.weight")
    assert decision(groups, "head.weight").reason == "shared, and embedding as embed.weight"
    assert "embed.weight = head.weight" in groups.table()
    assert structured_param_groups(Tied(), LASSO, include="second")[0]["param_names"] == ["first.weight"]
    with pytest.raises(ValueError, match="reaches no parameter"):
        structured_param_groups(Tied(), LASSO, exclude="third")
    with pytest.raises(ValueError, match=r"include: 'head' reaches no parameter .*embed\.weight"):
        structured_param_groups(Tied(), LASSO, include="head")


def test_the_stricter_role_wins_in_any_order():
    net = nn.ModuleDict({"head": nn.Linear(3, 7, bias=False), "embed": nn.Embedding(7, 3), "fc": nn.Linear(2, 2)})
    net["head"].weight = net["embed"].weight
    found = decision(structured_param_groups(net, LASSO), "head.weight")
    assert found.regularizer is None and found.reason == "shared, and embedding as embed.weight"


def test_shared_parameters_grouped_in_two_ways_are_refused():
    with pytest.raises(ValueError, match=r"two ways, .*dims=\(1,\)\) as embed\.weight.*dims=\(0,\)\) as head\.weight"):
        structured_param_groups(Tied(), LASSO, embeddings=True)
    assert "embed.weight" in structured_param_groups(Tied(), L1(0.1), embeddings=True)[0]["param_names"]
    assert structured_param_groups(Tied(), LASSO, embeddings=True, exclude="head")[0]["param_names"] == ["first.weight"]


def test_frozen_parameters_are_shown_and_left_out_unless_asked_for():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    groups = structured_param_groups(net, LASSO)
    assert [group["param_names"] for group in groups] == [["1.weight"], ["1.bias"]]
    assert "frozen" in decision(groups, "0.weight").reason and "frozen" in groups.table()
    with_frozen = structured_param_groups(net, LASSO, frozen=True)
    assert [group["param_names"] for group in with_frozen] == [["0.weight", "1.weight"], ["0.bias", "1.bias"]]
    with pytest.raises(ValueError, match=r"include: '0' reaches no parameter .*frozen"):
        structured_param_groups(net, LASSO, include="0")


NET = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(("model", "arguments", "error", "message"), [
    (nn.ReLU(), {}, ValueError, "selects no parameter"),
    (nn.LayerNorm(3), {}, ValueError, r"reaches no parameter .*weight \(norm\), bias \(bias\)"),
    (NET, {"exclude": nn.Linear}, ValueError, r"reaches no parameter .*0.weight \(excluded\)"),
    (NET, {"include": "2"}, ValueError, "include: '2' selects no parameter"),
    (NET, {"exclude": "fc*"}, ValueError, r"exclude: 'fc\*' selects no parameter"),
    (NET, {"exclude": nn.Linear(2, 3)}, ValueError, r"exclude: Linear\(...\) selects no parameter"),
    (NET, {"include": ["0", nn.BatchNorm1d]}, ValueError, r"include: BatchNorm1d reaches no .*1.weight \(norm\)"),
    (NET, {"include": []}, ValueError, "include must name something"),
    (NET, {"include": 3}, TypeError, "include takes names, modules and classes of modules, got 3"),
    (NET, {"include": [torch.Tensor]}, TypeError, "include takes"),
    (NET, {"by": "head"}, ValueError, "by must be 'input' or 'output', got 'head'"),
    (NET, {"regularizer": 0.1}, TypeError, "regularizer must be a Regularizer"),
    (NET, {"regularizer": None}, TypeError, "regularizer must be a Regularizer"),
    (NET, {"regularizer": {}}, ValueError, "regularizer must name something"),
    (NET, {"regularizer": GroupLasso(0.1, labels=(0, 0, 1))}, ValueError, "must not carry labels"),
    (NET, {"regularizer": Reshaped(LASSO, (3, 2))}, ValueError, "must not carry labels or a shape"),
    (nn.LazyLinear(3), {}, ValueError, "weight has no shape yet"),
    ([], {}, TypeError, "model must be a torch.nn.Module, got list"),
])  # fmt: skip
def test_what_cannot_be_is_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        structured_param_groups(model, **{"regularizer": LASSO, **arguments})


def test_the_groups_are_what_torch_expects_and_carry_names():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(structured_param_groups(net, LASSO), lr=0.1)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert net.get_parameter(name) is parameter
    assert [group["param_names"] for group in optimizer.state_dict()["param_groups"]] == [
        ["0.weight"], ["2.weight"], ["0.bias", "2.bias"]]  # fmt: skip


def test_the_table_tells_every_decision():
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Linear(6, 2))
    groups = structured_param_groups(net, {nn.Conv2d: LASSO, "1": NuclearNorm(0.2)})
    lines = str(groups).splitlines()
    assert str(groups) == repr(groups) == groups.table()
    assert " ".join(lines[2].split()) == "0.weight Conv2d 4x3x5x5 GroupLasso(0.1, dims=(0, 2, 3)) 3 groups of 100"
    assert " ".join(lines[3].split()) == "0.bias Conv2d 4 - bias"
    assert " ".join(lines[4].split()) == "1.weight Linear 2x6 NuclearNorm(0.2) matrix 2 x 6"
    assert lines[-1] == "regularized: 312 of 318 parameters"


def test_copies_and_order_are_those_of_the_model():
    net = nn.Sequential(nn.Linear(2, 3), nn.Conv1d(2, 2, 1), nn.Linear(3, 2))
    groups = structured_param_groups(net, LASSO)
    assert [group["param_names"] for group in groups] == [
        ["0.weight", "2.weight"], ["1.weight"], ["0.bias", "1.bias", "2.bias"]]  # fmt: skip
    twin = copy.deepcopy(groups)
    assert twin.table() == groups.table() and twin[0]["params"][0] is not groups[0]["params"][0]
