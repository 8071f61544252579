# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A smaller network: from zeros to an exported model
#
# A weight that is zero saves nothing while it stays in its tensor. This notebook trains a small residual network on
# scikit-learn's digits with RAMDA and a group LASSO ([arXiv:2403.14398](https://arxiv.org/abs/2403.14398)), takes the
# zero channels out, shows that the smaller network computes the same, trains it on, and exports it.
#
# In a residual network zeros alone are not enough: the blocks add to one stream of channels, and a channel of the
# stream can only leave if *every* layer that reads it has a zero column there. `coupled_param_groups` makes one group
# of all that a channel is made of, across the tensors that share it.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ramda_theory.drawing import COLOURS, STYLE, line_style
from ramda_theory.model import compact, coupled_param_groups, load_compact, structured_param_groups
from ramda_theory.optim import RAMDA, StageSchedule
from ramda_theory.regularizers import GroupLasso
from ramda_theory.tables import aligned
from ramda_theory.workloads.digits import digit_splits, residual_network

plt.rcParams.update(STYLE | {"figure.dpi": 120})
torch.set_num_threads(1)
data = digit_splits()
train, test = data["train"], data["test"]
example = train.images[:2]

# %% [markdown]
# ## Groups of a layer, groups of a channel
#
# The same network, optimizer, seed and number of steps; two ways to cut groups, each with two weights. Groups of a
# layer are its input channels. **See** how much of the network `compact` can remove (to the right is more) at which
# accuracy on the test split: the zeros of single layers leave the stream as it is, while every zero group of a channel
# can leave. The table has the share of *zero* weights too, which flatters the first way. One seed and 359 test images:
# half a point of accuracy means nothing.

# %%
weights = {"groups of a layer": (1e-2, 2e-2), "groups of a channel": (1e-2, 2e-2)}
steps, found = 100, {}
for kind, tried in weights.items():
    for weight in tried:
        model, psi = residual_network(seed=0, width=8), GroupLasso(weight)
        coupled = kind == "groups of a channel"
        groups = coupled_param_groups(model, psi, example) if coupled else structured_param_groups(model, psi)
        optimizer = RAMDA(groups, lr=1e-2, fused=False)  # so short a run is not worth compiling
        schedule = StageSchedule(optimizer, milestones=[50, 80])
        order = np.random.default_rng(0)
        for _ in range(steps):
            batch = torch.from_numpy(order.integers(len(train.digits), size=32))
            optimizer.zero_grad()
            cross_entropy(model(train.images[batch]), train.digits[batch]).backward()
            optimizer.step()
            schedule.step()
        optimizer.adopt_structured_point()
        small = compact(model, example, low_rank=False)
        with torch.no_grad():
            accuracy = float((model.eval()(test.images).argmax(1) == test.digits).double().mean())
        found[kind, weight] = (accuracy, 1 - small.parameters[1] / small.parameters[0], model, optimizer, small)

figure, axis = plt.subplots(figsize=(4.8, 3.0))
rows = [("groups", "weight", "test accuracy", "zero weights", "removed")]
for index, (kind, tried) in enumerate(weights.items()):
    points = [found[kind, weight][:2] for weight in tried]
    axis.plot(
        [removed for _, removed in points], [a for a, _ in points], marker="os"[index], label=kind, **line_style(index)
    )
    for weight in tried:
        accuracy, removed, model, *_ = found[kind, weight]
        zeros = sum(int((p == 0).sum()) for p in model.parameters()) / sum(p.numel() for p in model.parameters())
        rows.append((kind, f"{weight:g}", f"{accuracy:.1%}", f"{zeros:.1%}", f"{removed:.1%}"))
axis.set(xlabel="share of parameters removed", ylabel="test accuracy", xlim=(-0.02, 1.02))
axis.legend()
plt.show()
print(aligned(rows))

# %% [markdown]
# ## What left
#
# The network trained with groups of a channel and the larger weight. Every line of the table is a parameter that
# became smaller: channels are unread, or constant (the constant is then part of a bias).

# %%
accuracy, removed, model, optimizer, small = found["groups of a channel", 2e-2]
print(small.table())

# %% [markdown]
# **See** the norm of every filter slice of the four convolutions in the blocks (dark is large; rows are output
# channels, columns input channels), before above and after below. The blue lines above are the channels that left.
# Those of the stream are the same in all pictures: columns of `first`, rows of `second`.

# %%
names = [f"{block}.{layer}.weight" for block in (2, 3) for layer in ("first", "second")]
figure, axes = plt.subplots(2, 4, figsize=(7.2, 3.9))
before, after = (dict(each.named_parameters()) for each in (model, small.model))
for name, (above, below) in zip(names, axes.T, strict=True):
    for axis, parameters in ((above, before), (below, after)):
        norms = torch.linalg.vector_norm(parameters[name].detach(), dim=(2, 3))
        axis.imshow(norms, cmap="Greys", vmin=0.0, extent=(0, norms.shape[1], norms.shape[0], 0))
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(f"{norms.shape[0]} x {norms.shape[1]}")
    rows_of, columns_of = before[name].shape[:2]
    kept = small.cuts[name].kept if name in small.cuts else {}
    for channel in sorted(set(range(rows_of)) - set(kept.get(0, range(rows_of)))):
        above.axhline(channel + 0.5, color=COLOURS[0], linewidth=0.8)
    for channel in sorted(set(range(columns_of)) - set(kept.get(1, range(columns_of)))):
        above.axvline(channel + 0.5, color=COLOURS[0], linewidth=0.8)
    above.set_title(name.removesuffix(".weight"))
plt.show()

# %% [markdown]
# ## It computes the same
#
# On all test images, both in float64: the largest difference of an output, relative to the largest output. Then what
# it saves. **See** parameters, floating-point operations and the time of a forward pass of 64 images, as shares of the
# large network's. Time falls less than operations do in so small a network, where calling an operation costs as much
# as what it computes; `benchmarks/compaction.py` times larger ones.

# %%
print(f"largest relative difference on {len(test.images)} images: {small.check(test.images):.1e}")
latency = small.latency(test.images[:64])
shares = [small.parameters[1] / small.parameters[0], small.flops[1] / small.flops[0], latency.after / latency.before]
figure, axis = plt.subplots(figsize=(4.8, 2.0))
axis.barh(["parameters", "operations", "time"], shares, color=COLOURS[0])
axis.axvline(1.0, color="#999999", linewidth=0.9)
axis.set(xlabel="share of the large network's", xlim=(0, max(1.1, 1.05 * max(shares))))
axis.invert_yaxis()
plt.show()

# %% [markdown]
# ## Training goes on
#
# `optimizer.compact` makes an optimizer of the small network with the state of what remains: the sums V and U, the
# anchor, the step. Zero groups that left cannot come back; everything else goes on.

# %%
going_on = optimizer.compact(small)
order = np.random.default_rng(1)
small.model.train()
for _ in range(20):
    batch = torch.from_numpy(order.integers(len(train.digits), size=32))
    going_on.zero_grad()
    cross_entropy(small.model(train.images[batch]), train.digits[batch]).backward()
    going_on.step()
going_on.adopt_structured_point()
with torch.no_grad():
    later = float((small.model.eval()(test.images).argmax(1) == test.digits).double().mean())
print(f"test accuracy when compacted: {accuracy:.1%}, 20 steps later: {later:.1%}")

# %% [markdown]
# ## Out into the world
#
# `save` writes the weights and, as JSON in the header of the same safetensors file, what was changed; `load_compact`
# needs the code of the large network and executes nothing from the file. `torch.export` takes the small network as any
# other.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = small.save(Path(folder) / "small.safetensors")
    loaded = load_compact(path, lambda: residual_network(seed=1, width=8))
    print(f"{path.name}: {path.stat().st_size} bytes for {small.parameters[1]} parameters")
with torch.no_grad():
    same = torch.equal(loaded(test.images), small.model(test.images))
    program = torch.export.export(small.model, (test.images[:64],))
    exported = torch.allclose(program.module()(test.images[:64]), loaded(test.images[:64]), atol=1e-5)
print(f"loaded again, the outputs are the same bits: {same}; exported, they agree: {exported}")
