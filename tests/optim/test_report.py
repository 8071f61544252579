"""`structure_report` against counts by hand, and `removable_parameters` against trying every removal."""

import itertools
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from ramda_theory.model.coupling import removable_parameters
from ramda_theory.model.groups import structured_param_groups
from ramda_theory.model.report import structure_report
from ramda_theory.regularizers import L1, GroupLasso, NuclearNorm, SparseGroupLasso


class ShowsWHat(torch.optim.SGD):
    """An optimizer whose w_hat is w with the first column of every 2-d parameter at zero."""

    @contextmanager
    def structured_point(self):
        matrices = [p for group in self.param_groups for p in group["params"] if p.ndim == 2]
        kept = [p.detach().clone() for p in matrices]
        with torch.no_grad():
            for p in matrices:
                p[:, 0] = 0.0
        yield
        with torch.no_grad():
            for p, own in zip(matrices, kept, strict=True):
                p.copy_(own)


def sparse_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        net[0].weight[:, 1] = 0.0
        net[0].weight[0, 0, 0, 0] = 0.0
        net[2].weight[:, [0, 3, 7]] = -0.0
        net[2].weight[2] = 0.0
        net[4].weight[:, 4] = 1e-45  # a denormal is not zero
    return net


def test_counts_agree_with_loops_over_the_groups():
    net = sparse_net()
    report = structure_report(net)
    assert set(report.layers) == {"w"} and report.parameters == sum(p.numel() for p in net.parameters())
    total_entries = zero_group_entries = 0
    for layer, module in zip(report.layers["w"], (net[0], net[2], net[4]), strict=True):
        weight = module.weight.detach().numpy()
        slices = [weight[:, k] for k in range(weight.shape[1])]
        zero = [piece for piece in slices if all(value == 0 for value in piece.ravel())]
        assert (layer.groups, layer.zero_groups) == (len(slices), len(zero))
        assert layer.zero_entries == sum(value == 0 for value in weight.ravel())
        assert layer.entries == layer.grouped_entries == weight.size
        assert layer.zero_group_entries == sum(piece.size for piece in zero)
        assert layer.rank == np.linalg.matrix_rank(weight.reshape(len(weight), -1).astype(float), rtol=1e-6)
        assert layer.singular_values == min(len(weight), weight[0].size)
        total_entries += weight.size
        zero_group_entries += layer.zero_group_entries
    total = report.total()
    assert [layer.zero_groups for layer in report.layers["w"]] == [1, 3, 0]
    assert total.group_sparsity == zero_group_entries / total_entries == 51 / 198
    assert (total.rank, total.singular_values) == (4 + 4 + 2, 4 + 5 + 2)
    assert total.low_rank_level == pytest.approx(1 / 11)


def test_by_output_counts_rows():
    report = structure_report(sparse_net(), by="output")
    assert [(layer.zero_groups, layer.groups) for layer in report.layers["w"]] == [(0, 4), (1, 5), (0, 2)]


def test_rank_of_a_product_and_of_the_regularizers_own_matrix():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(9, 6), nn.Conv2d(4, 6, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(6, 2) @ torch.randn(2, 9))
        net[1].weight.copy_((torch.randn(6, 3) @ torch.randn(3, 16)).reshape(6, 4, 2, 2))
    first, second = structure_report(net).layers["w"]
    assert (first.rank, first.singular_values, second.rank, second.singular_values) == (2, 6, 3, 6)
    assert first.low_rank_level == pytest.approx(4 / 6)
    groups = structured_param_groups(net, NuclearNorm(0.1))
    assert [layer.rank for layer in structure_report(groups).layers["w"]] == [2, 3]
    assert [layer.singular_values for layer in structure_report(groups, ranks=False).layers["w"]] == [0, 0]
    assert structure_report(groups, ranks=False).total().low_rank_level is None


def test_ranks_that_the_weights_cannot_tell_are_not_told():
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4, dtype=torch.bfloat16), nn.Linear(4, 3))
    with torch.no_grad():
        net[2].weight[0, 0] = float("nan")
    layers = structure_report(net).layers["w"]
    assert [layer.singular_values for layer in layers] == [6, 0, 0]
    assert layers[2].zero_entries == 0 and layers[2].zero_groups == 0


def test_w_and_w_hat_are_told_apart():
    net = sparse_net()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = ShowsWHat(structured_param_groups(net, {"0": L1(0.1), "4": SparseGroupLasso(0.1, 0.5)}), lr=0.1)
    report = structure_report(optimizer)
    assert all(torch.equal(p, own) for p, own in zip(net.parameters(), before, strict=True))
    assert [layer.name for layer in report.layers["w"]] == ["0.weight", "4.weight"]
    assert report.total("w").zero_groups == 0 and report.total("w_hat").zero_groups == 1
    assert report.total("w_hat").group_sparsity == 1 / 5
    assert report.layers["w"][0].group_sparsity is None and report.layers["w"][0].entry_sparsity == 37 / 108
    assert report.removable is None and report.parameters == sum(p.numel() for p in net.parameters())
    with optimizer.structured_point():
        assert structure_report(net).layers["w"][2].zero_groups == 1


def test_optimizers_without_w_hat_and_without_names():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    params = [{"params": [net[0].bias], "regularizer": None}, {"params": [net[0].weight, net[1].weight],
                                                               "regularizer": GroupLasso(0.1)}]  # fmt: skip
    report = structure_report(torch.optim.SGD(params, lr=0.1))
    assert [layer.name for layer in report.layers["w"]] == ["group 1, parameter 0", "group 1, parameter 1"]
    with pytest.raises(ValueError, match="nothing is regularized"):
        structure_report(torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(TypeError, match="source must be a model, an optimizer or ParamGroups, got list"):
        structure_report([net])


def test_a_frozen_model_can_be_read():
    net = sparse_net().requires_grad_(False)
    assert structure_report(net).total().zero_groups == 4


def test_dict_and_table():
    net = sparse_net()
    optimizer = ShowsWHat(structured_param_groups(net, {"0": L1(0.1), "2": GroupLasso(0.1)}), lr=0.1)
    report = structure_report(optimizer)
    data = json.loads(json.dumps(report.to_dict()))
    assert set(data) == {"w", "w_hat", "parameters", "removable"}
    assert data["w"]["layers"]["2.weight"]["zero_groups"] == 3
    assert data["w"]["total"]["group_sparsity"] == report.total().group_sparsity == 3 / 16
    lines = report.table().splitlines()
    assert str(report) == repr(report) == report.table()
    assert " ".join(lines[2].split()) == "0.weight w - - 4 of 4 0.0% 34.3%"
    assert " ".join(lines[4].split()) == "2.weight w 3 of 16 18.8% 4 of 5 20.0% 35.0%"
    assert [line.split()[:2] for line in lines[2:-1]] == [
        [name, point] for name in ("0.weight", "2.weight", "total") for point in ("w", "w_hat")]  # fmt: skip
    zero, every = data["w_hat"]["total"]["zero_group_entries"], data["parameters"]
    assert lines[-1].startswith(f"{zero} of {every} parameters lie in zero groups; which of them can be removed only")


# -- removable parameters ------------------------------------------------------------------------------------------


def most_removable(net: nn.Sequential) -> int:
    """Parameters of the largest set of inputs and hidden units that can be held at zero without changing the output."""
    layers = [module for module in net if isinstance(module, nn.Linear)]
    widths = [layer.in_features for layer in layers]
    x = torch.randn(20, widths[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = net(x)
    best = 0
    for choice in itertools.product([0.0, 1.0], repeat=sum(widths)):
        masks = list(torch.tensor(choice, dtype=torch.float64).split(widths))
        y = x
        depth = iter(masks)
        for module in net:
            y = module(y * next(depth) if isinstance(module, nn.Linear) else y)
        if torch.allclose(y, wanted, rtol=0, atol=1e-12):
            kept = [int(mask.sum()) for mask in masks] + [layers[-1].out_features]
            ends = zip(layers, itertools.pairwise(kept), strict=True)
            left = sum(read * written + written * (layer.bias is not None) for layer, (read, written) in ends)
            best = max(best, sum(p.numel() for p in net.parameters()) - left)
    return best


@pytest.mark.parametrize("seed", range(24))
def test_removable_parameters_are_the_most_that_can_go(seed):
    generator = torch.Generator().manual_seed(seed)
    activation = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()][seed % 4]
    bias = seed % 3 > 0
    net = nn.Sequential(nn.Linear(3, 3, bias=bias), activation, nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
            p.mul_(torch.rand(p.shape, generator=generator) < 0.45)
        if bias:
            net[0].bias.abs_()  # else zeros do not tell which ReLU is always zero
        for layer in (net[0], net[2]):  # zero rows and columns, as regularizers leave them
            layer.weight[torch.rand(3, generator=generator) < 0.3] = 0.0
            layer.weight[:, torch.rand(3, generator=generator) < 0.3] = 0.0
    found = removable_parameters(net)
    assert found == most_removable(net)
    assert found == structure_report(net).removable
    assert f"removable parameters: {found} of" in structure_report(net).table()


def test_a_zero_column_takes_the_row_before_with_it():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert removable_parameters(net) == 0
    with torch.no_grad():
        net[2].weight[:, 1] = 0.0
    assert removable_parameters(net) == 2 + 4 + 1  # the column, the row that fed it and its bias
    with torch.no_grad():
        net[0].weight[:, 0] = 0.0
    assert removable_parameters(net) == 7 + 2  # what is left of the first input's column


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize("net", [
    nn.Linear(2, 2),  # one layer is a chain
    nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(2, 3), nn.Dropout()), nn.Linear(3, 2), nn.Softmax(1)),
])  # fmt: skip
def test_chains(net):
    assert removable_parameters(net) == 0


shared = nn.Linear(2, 2)


@pytest.mark.parametrize("net", [
    Residual(nn.Linear(2, 2)),
    nn.Sequential(Residual(nn.Linear(2, 2)), nn.Linear(2, 2)),
    nn.Sequential(nn.Linear(2, 2), nn.Softmax(1), nn.Linear(2, 2)),
    nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2)),
    nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.Linear(2, 2)),
    nn.Sequential(shared, nn.ReLU(), shared),
    nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2)),
    nn.Sequential(nn.ReLU()),
    nn.LSTM(2, 2),
])  # fmt: skip
def test_where_zeros_do_not_tell(net):
    assert removable_parameters(net) is None
