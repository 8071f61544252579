"""Groups that span tensors: steps are those of the vector of all, and every zero group is a channel that leaves."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ramda_theory import kernels, methods
from ramda_theory.model import compact, coupled_param_groups
from ramda_theory.model.critical import critical_weights
from ramda_theory.optim import RAMDA, RMDA, ProxSGD, structure_report
from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, Regularizer, SparseGroupLasso

SPANS = (((4, 3), 0, (0, 1, 2, 0)), ((5, 4), 1, (0, 1, 2, 3)), ((4,), 0, (3, 1, 2, 0)))
SHAPES = [shape for shape, _, _ in SPANS]


def labels(shape, axis, indices):
    """The group of every entry of an array."""
    return (
        np.broadcast_to(np.reshape(indices, [-1 if i == axis else 1 for i in range(len(shape))]), shape)
        .ravel()
        .tolist()
    )


LABELS = tuple(label for span in SPANS for label in labels(*span))
KINDS = [
    lambda **g: GroupLasso(0.8, **g),
    lambda **g: GroupLasso(3.0, size_scaled=False, **g),
    lambda **g: SparseGroupLasso(1.0, 0.4, **g),
    lambda **g: GroupMCP(0.8, 4.0, **g),
]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_spans_are_the_labels_of_the_whole_vector(kind, library):
    spanning, labelled = KINDS[kind](spans=SPANS), KINDS[kind](labels=LABELS)
    rng = np.random.default_rng(kind)
    z, diag = rng.normal(size=len(LABELS)), np.exp(rng.normal(size=len(LABELS)))
    if library == "torch":
        z, diag = torch.from_numpy(z), torch.from_numpy(diag)
    for found, expected in (
        (spanning.value(z), labelled.value(z)),
        (spanning.prox(z, 0.7), labelled.prox(z, 0.7)),
        (spanning.metric_prox(z, diag, 2.0), labelled.metric_prox(z, diag, 2.0)),
        (spanning.subdifferential_residual(z, z), labelled.subdifferential_residual(z, z)),
        (spanning.critical_weight(z) if kind < 3 else 0.0, labelled.critical_weight(z) if kind < 3 else 0.0),
    ):
        assert np.allclose(np.asarray(found), np.asarray(expected), rtol=1e-13, atol=1e-13)
    assert np.array_equal(spanning.group_support(z).pattern, labelled.group_support(z).pattern)
    assert Regularizer.from_dict(spanning.to_dict()) == spanning and spanning.kernel() is None
    assert [list(i) for i in spanning.grouping.indices((len(LABELS),))] == [
        list(i) for i in labelled.grouping.indices((len(LABELS),))]  # fmt: skip


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("name", ["RAMDA", "RMDA", "ProxSGD"])
def test_steps_are_those_of_the_concatenated_vector(name, kind):
    rng = np.random.default_rng(10 * kind)
    params = [nn.Parameter(torch.from_numpy(rng.normal(size=shape))) for shape in SHAPES]
    group = {"params": params, "regularizer": KINDS[kind](spans=SPANS)}
    w = np.concatenate([p.detach().numpy().ravel() for p in params])
    psi = KINDS[kind](labels=LABELS)
    lr = 0.1
    optimizer, method = {
        "RAMDA": lambda: (RAMDA([group], lr=lr, momentum=0.4), methods.RAMDA(psi)),
        "RMDA": lambda: (RMDA([group], lr=lr, momentum=0.4), methods.RMDA(psi)),
        "ProxSGD": lambda: (ProxSGD([group], lr=lr, momentum=0.6), methods.ProxSGD(psi)),
    }[name]()
    state = method.init(w)
    settings = methods.Settings(lr=lr, averaging=0.4 if name == "ProxSGD" else 0.6)
    zeros = False
    for _ in range(12):
        gradient = 0.4 * rng.normal(size=w.shape)
        for p, part in zip(params, np.split(gradient, np.cumsum([p.numel() for p in params])[:-1]), strict=True):
            p.grad = torch.from_numpy(part.reshape(p.shape))
        optimizer.step()
        state, _ = method.step(state, gradient, settings)
        found = np.concatenate([p.detach().numpy().ravel() for p in params])
        assert np.allclose(found, state.w, rtol=1e-12, atol=1e-13)
        with optimizer.structured_point():
            hat = np.concatenate([p.detach().numpy().ravel() for p in params])
        zeros |= bool((psi.group_support(hat).pattern == 0).any())
    assert zeros


def test_all_of_a_group_step_together():
    params = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = RAMDA([{"params": params, "regularizer": GroupLasso(0.1, spans=SPANS)}])
    params[0].grad = torch.randn(SHAPES[0])
    with pytest.raises(RuntimeError, match="span 3 parameters, of which 1 have a gradient"):
        optimizer.step()
    assert "its groups span several parameters" in str(optimizer.explain_step())
    for p in params:
        p.grad = torch.randn_like(p)
    with kernels.using("cpu"), pytest.raises(RuntimeError, match="span several"):
        optimizer.step()
    with pytest.raises(ValueError, match="span parameters of shapes"):
        RAMDA([{"params": params[:2], "regularizer": GroupLasso(0.1, spans=SPANS)}])


@pytest.mark.parametrize(("spans", "message"), [
    ((((2, 2), 0, (0, 2)),), "without gaps"),
    ((((2, 2), 2, (0, 1)),), "along axis 2"),
    ((((2, 2), 0, (0,)),), "a group for each slice"),
    (((2, 2),), r"must hold \(shape, axis, indices\)"),
])  # fmt: skip
def test_bad_spans(spans, message):
    with pytest.raises(ValueError, match=message):
        GroupLasso(0.1, spans=spans)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


def residual_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        Block(8),
        Block(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def test_every_zero_group_is_a_channel_that_leaves():
    model, x = residual_network().double(), torch.randn(2, 1, 6, 6, dtype=torch.float64)
    groups = coupled_param_groups(model, GroupLasso(1.0), x)
    psi, names = groups[0]["regularizer"], groups[0]["param_names"]
    assert groups[1]["param_names"] == ["6.bias"] and len(names) == 15
    assert "part of 24 groups" in groups.table() and "not coupled" in groups.table()
    sizes = psi.grouping.of((sum(p.numel() for p in groups[0]["params"]),)).sizes
    assert (
        sorted(sizes) == [74] * 16 + [9 + 1 + 72 + 4 * 1 + 72 + 3] * 8
    )  # the stream: stem, two norms, two convs, head
    with torch.no_grad():
        for (_, axis, indices), parameter in zip(psi.spans, groups[0]["params"], strict=True):
            gone = [i for i, group in enumerate(indices) if group % 3 == 0]
            parameter.index_fill_(axis, torch.tensor(gone), 0.0)
    small = compact(model, x, low_rank=False)
    for (_, axis, indices), name in zip(psi.spans, names, strict=True):
        assert small.cuts[name].kept[axis].tolist() == [i for i, group in enumerate(indices) if group % 3]
    assert small.check() < 1e-12
    report = structure_report(RAMDA(groups))
    assert report.total("w").zero_groups == 8


def test_refusals():
    model, x = residual_network(), torch.randn(2, 1, 6, 6)
    with pytest.raises(TypeError, match="must be one of groups"):
        coupled_param_groups(model, L1(0.1), x)
    with pytest.raises(ValueError, match="no channel of the model can leave"):
        coupled_param_groups(nn.Linear(3, 2), GroupLasso(0.1), torch.randn(2, 3))


def test_the_critical_weight_of_groups_that_span_parameters_is_that_of_their_vector():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    inputs = torch.randn(5, 4)
    groups = coupled_param_groups(model, GroupLasso(1e-9), inputs)
    model(inputs).square().sum().backward()
    (joint,) = [group for group in groups if group.get("regularizer") is not None]
    ((_, critical),) = critical_weights(groups).values()
    vector = torch.cat([parameter.grad.reshape(-1) for parameter in joint["params"]])
    psi = joint["regularizer"]
    norms = psi.group_norms(vector)
    zero = dataclasses.replace(psi, weight=1.001 * critical).prox(vector, 1.0)
    left = dataclasses.replace(psi, weight=0.999 * critical).prox(vector, 1.0)
    assert norms.max() > 0 and not zero.any() and left.any()
