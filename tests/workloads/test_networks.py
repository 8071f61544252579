"""The networks against independent computations: published sizes, attention by loops, softmax by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from ramda_theory.workloads import WORKLOADS, Examples, find_workload
from ramda_theory.workloads.networks.tacotron2 import Sizes, Tacotron2
from ramda_theory.workloads.networks.transformer_xl import TransformerXL, shift


class Facts(Examples):
    """A data set that knows no more than what the model asks."""

    def __init__(self, **facts):
        self.facts = facts

    def __len__(self):
        return 1


SMALL, LARGE = {"shape": (3, 32, 32)}, {"shape": (3, 224, 224)}
PUBLISHED = {
    "logistic-mnist": (7_850, {"shape": (1, 28, 28), "classes": 10}),
    "mlp-fashion-mnist": (577_178, {"shape": (1, 28, 28), "classes": 10}),
    "vgg19-cifar10": (20_040_522, SMALL | {"classes": 10}),
    "vgg19-cifar100": (20_086_692, SMALL | {"classes": 100}),
    "resnet50-cifar10": (23_520_842, SMALL | {"classes": 10}),
    "resnet50-cifar100": (23_705_252, SMALL | {"classes": 100}),
    "resnet50-imagenet": (25_557_032, LARGE | {"classes": 1000}),
    "transformer-xl-wikitext103": (191_950_298, {"symbols": 267_735}),
    "tacotron2-ljspeech": (28_193_153, {"symbols": 148, "mels": 80}),
    "vit-mim-cifar10": (86_390_016, SMALL | {"size": 224}),
}
"""Weights of the published networks."""
FROM_TRANSFORMERS = ("resnet", "vit")


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_networks_have_their_published_number_of_weights(name):
    if name.startswith(FROM_TRANSFORMERS):
        pytest.importorskip("transformers")
    expected, facts = PUBLISHED[name]
    with torch.device("meta"):
        model = find_workload(name, "paper").model({"train": Facts(**facts)})
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_perceptron_counts_as_its_formula():
    widths = (784, 512, 256, 128, 64, 32, 16, 10)
    assert PUBLISHED["mlp-fashion-mnist"][0] == sum((a + 1) * b for a, b in itertools.pairwise(widths))


def test_shifted_scores_are_those_of_the_distances():
    length, keys = 3, 5
    scores = torch.arange(float(length * keys)).reshape(1, 1, length, keys)
    shifted = shift(scores)
    for i in range(length):
        for j in range(keys - length + i + 1):  # key j is keys - length + i - j before the query
            distance = keys - length + i - j
            assert shifted[0, 0, i, j] == scores[0, 0, i, keys - 1 - distance]


def tiny(**changes):
    torch.manual_seed(0)
    model = TransformerXL(
        **{"symbols": 11, "width": 8, "layers": 1, "heads": 2, "head": 4, "inner": 16, "memory": 4, "dropout": 0.0}
        | changes
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_relative_attention_is_what_loops_compute():
    """One layer with a memory, scalar by scalar from the formula of arXiv:1901.02860."""
    model = tiny()
    layer = model.layers[0].attention
    x, memory = torch.randn(1, 3, 8, dtype=torch.float64), torch.randn(1, 4, 8, dtype=torch.float64)
    found = layer(x, memory, model.positions(7, x), model.u, model.v)[0]
    seen = torch.cat([memory, x], dim=1)[0]
    qkv = layer.qkv(seen).reshape(7, 3, 2, 4)
    rate = [10000.0 ** (-2 * k / 8) for k in range(4)]
    for i in range(3):
        mixed = []
        for head in range(2):
            query, scores = qkv[4 + i, 0, head], []
            for j in range(5 + i):
                distance = 4 + i - j
                angles = [distance * r for r in rate]
                place = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
                r = layer.distance(place.float().double()).reshape(2, 4)[head]
                score = (query + model.u[head]) @ qkv[j, 1, head] + (query + model.v[head]) @ r
                scores.append(score / 2.0)
            share = torch.stack(scores).softmax(0)
            mixed.append(sum(share[j] * qkv[j, 2, head] for j in range(5 + i)))
        expected = layer.norm(x[0, i] + layer.out(torch.cat(mixed)))
        assert torch.allclose(found[i], expected, atol=1e-6)


def test_pieces_with_memory_are_the_whole_text_and_nothing_later_is_seen():
    model = tiny(memory=16)
    tokens = torch.randint(0, 11, (2, 13))
    whole = model(tokens[:, :-1], tokens[:, 1:])
    model.forget()
    pieces = [model(tokens[:, a : a + 4], tokens[:, a + 1 : a + 5]) for a in (0, 4, 8)]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-9)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 11
    model.forget()
    other = model(changed[:, :-1], changed[:, 1:])
    assert torch.equal(other[:, :8], whole[:, :8]) and not torch.allclose(other[:, 9:], whole[:, 9:])


def test_the_adaptive_softmax_is_a_distribution_over_all_words():
    model = tiny(cutoffs=(3, 7))
    x = torch.randn(1, 1, 8, dtype=torch.float64).expand(1, 11, 8)
    likelihood = model.surprise(x, torch.arange(11)[None]).neg().exp()
    assert likelihood.shape == (1, 11) and float(likelihood.sum()) == pytest.approx(1.0, abs=1e-12)
    one, weight, bias = x[0, 0], model.embedding.weight, model.output_bias
    head = torch.cat([weight[:3] @ one + bias[:3], model.cluster_weight @ one + model.cluster_bias]).softmax(0)
    tail = (weight[3:7] @ one + bias[3:7]).softmax(0)
    assert float(likelihood[0, 5]) == pytest.approx(float(head[3] * tail[2]))


def test_tacotron_ignores_padding_of_the_text_and_attends_to_characters():
    torch.manual_seed(0)
    model = Tacotron2(Sizes(20, 6, 8, 8, 12, 12, 8, 8, 4, 5), dropout=0.0).eval()
    text, mel = torch.randint(1, 20, (2, 7)), torch.randn(2, 9, 6)
    text[1, 4:] = 0
    lengths = torch.tensor([7, 4])
    first = model(text, lengths, mel)
    assert [tuple(each.shape) for each in first] == [(2, 9, 6), (2, 9, 6), (2, 9)]
    padding = torch.arange(7) >= lengths[:, None]
    keys = model.attention.memory(model.encode(text, lengths))
    share = model.attention(torch.randn(2, 12), keys, torch.rand(2, 2, 7), padding)
    assert torch.allclose(share.sum(1), torch.ones(2)) and share[1, 4:].abs().max() == 0
    later = mel.clone()
    later[:, -1] += 1  # the last frame is predicted, never read
    assert torch.equal(model(text, lengths, later)[0], first[0])


def test_masks_cover_the_share_and_are_the_same_at_every_evaluation():
    from ramda_theory.workloads.examples import Tensors
    from ramda_theory.workloads.vit_mim_cifar10 import Masked

    images = Tensors((torch.rand(6, 1, 32, 32),), facts={"shape": (1, 32, 32)})
    masked = Masked(images, 32, 8, 4)
    first, mask = masked.fetch(np.arange(6), None)
    assert mask.shape == (6, 64) and mask.reshape(6, 4, 2, 4, 2).float().mean((1, 3, 2, 4)).tolist() == [10 / 16] * 6
    assert torch.equal(mask, masked.fetch(np.arange(6), None)[1]) and not torch.equal(mask[0], mask[1])
    drawn = masked.fetch(np.arange(6), np.random.default_rng(0).random((6, masked.draws)))[1]
    assert not torch.equal(drawn, mask) and torch.equal(first, images.tensors[0])
