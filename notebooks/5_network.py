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
# # A network: group-sparse training of a digits classifier
#
# A small convolutional network and a multilayer perceptron on scikit-learn's 8 x 8 digits, trained with the package's
# torch optimizers and a group LASSO over input channels and input features: a zero group can be cut out of the
# network. Theorem 3 of [arXiv:2403.14398](https://arxiv.org/abs/2403.14398) predicts for RAMDA that the structure of
# $\hat w$ settles if $\hat w$ converges to a nondegenerate point. Neither can be checked for a network, so this
# notebook shows what is seen: accuracy, sparsity, and flips, the number of groups that change between zero and
# nonzero from one epoch to the next.

# %%
# %matplotlib inline
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch

from ramda_theory.drawing import COLOURS, STYLE, line_style
from ramda_theory.experiments.identify_figure import draw_structures
from ramda_theory.experiments.train import Session, TrainSettings, train
from ramda_theory.optim import structure_report
from ramda_theory.structure import GroupSupport
from ramda_theory.tables import aligned

plt.rcParams.update(STYLE | {"figure.dpi": 120})
torch.set_num_threads(1)

# %% [markdown]
# ## Two optimizers, epoch by epoch
#
# The convolutional network, 50 epochs, the same weight and seed for RAMDA and ProxSGD; grey lines are milestones,
# where the learning rate falls by ten (RAMDA also restarts). RAMDA's $\hat w$ and its trained weights $w$ are shown
# apart. **See in the top row** the validation accuracy: RAMDA's $\hat w$ is a poor classifier in the first stage,
# while the averaged $w$ is a good one. **In the middle row** is the share of weights in zero groups: RAMDA's $w$ has
# no zero group until the last stage, in which its averaging grows to 1 and $w$ takes over the structure of $\hat w$.
# **In the bottom row** are the flips of every epoch; a method that has identified its structure would show none up to
# the end. The spikes of RAMDA's $\hat w$ at the milestones are the restarts: the record is taken just after one,
# which sets $\hat w$ to $w$, without zeros.

# %%
sessions = {}
for name in ("RAMDA", "ProxSGD"):
    sessions[name] = Session(TrainSettings(optimizer=name, model="cnn", weight=3e-4, epochs=50, seed=0))
    while len(sessions[name].history) < sessions[name].settings.epochs:
        sessions[name].epoch()

figure, axes = plt.subplots(3, 2, figsize=(7.2, 5.4), sharex=True, sharey="row")
for column, (name, session) in enumerate(sessions.items()):
    epochs = [row["epoch"] for row in session.history]
    for axis, quantity in zip(axes[:, column], ("accuracy", "sparsity", "flips"), strict=True):
        for index, (suffix, label) in enumerate((("_hat", "$\\hat{w}$"), ("", "$w$"))):
            if name == "RAMDA" or suffix == "":
                shown = 0 if name == "ProxSGD" else index
                axis.plot(epochs, [row[quantity + suffix] for row in session.history], label=label, **line_style(shown))
        for milestone in session.settings.milestones:
            axis.axvline(milestone, color="#cccccc", linewidth=0.9, zorder=0)
    axes[0, column].set(title=name, ylim=(0, 1.02))
    axes[0, column].legend(loc="lower right")
    axes[2, column].set(xlabel="epoch")
    axes[2, column].set_yscale("symlog", linthresh=1)
    axes[2, column].set_yticks([0, 1, 3, 10, 30, 100, 300], ["0", "1", "3", "10", "30", "100", "300"])
    axes[2, column].minorticks_off()
for axis, label in zip(axes[:, 0], ("validation accuracy", "weighted group sparsity", "groups flipped"), strict=True):
    axis.set_ylabel(label)
plt.show()

rows = [("optimizer", "test accuracy", "group sparsity", "settled since epoch", "median flips in stages 1 to 4")]
for name, session in sessions.items():
    final, flips = session.result().final, session.tracker.flips()
    parts = [f"{np.median(part):.1f}" for part in np.split(flips, session.settings.milestones)]
    numbers = (f"{final['test']:.2%}", f"{final['sparsity']:.2%}", str(final["identification_epoch"]))
    rows.append((name, *numbers, ", ".join(parts)))
print(aligned(rows))

# %% [markdown]
# Read the last two columns against the theorem: whether the structure settled, and how long before the end, is
# measured against the run's own end, since the limit is unknown. A structure that settled in the very last epochs has
# not been seen to hold.

# %% [markdown]
# ## What is zero, layer by layer
#
# RAMDA's network at $w$ and $\hat w$. **See** in the table that the two have the same zeros at the end of training,
# and in which layers they are. The test accuracy is printed before and after $\hat w$ is adopted as the network's
# weights.

# %%
session = sessions["RAMDA"]
print(structure_report(session.optimizer, ranks=False).table().rpartition("\n")[0])
before = session.accuracy(session.data["test"])
session.optimizer.adopt_structured_point()
print(f"\ntest accuracy with w: {before:.2%}, with w_hat: {session.accuracy(session.data['test']):.2%}")

# %% [markdown]
# ## Accuracy against sparsity
#
# The multilayer perceptron, 30 epochs, three weights for each of four optimizers, one seed. **See** each optimizer's
# curve from the smallest weight (left) to the largest: higher and further to the right is better. One seed and a test
# split of some hundred images cannot rank curves that are within a point of accuracy of one another.

# %%
weights = (3e-4, 6e-4, 1e-3)
figure, axis = plt.subplots(figsize=(4.8, 3.3))
rows = [("optimizer", "weight", "validation", "test", "group sparsity", "settled since epoch")]
for index, name in enumerate(("RAMDA", "RMDA", "ProxSGD", "ProxAdamW")):
    results = [train(TrainSettings(optimizer=name, model="mlp", weight=w, epochs=30, seed=0)) for w in weights]
    points = [(result.final["sparsity"], result.final["test"]) for result in results]
    axis.plot(*zip(*points, strict=True), marker="osD^"[index], markersize=5, label=name, **line_style(index))
    for result in results:
        final = result.final
        shares = (f"{final[key]:.1%}" for key in ("validation", "test", "sparsity"))
        rows.append((name, f"{result.settings.weight:g}", *shares, str(final["identification_epoch"])))
axis.set(xlabel="weighted group sparsity", ylabel="test accuracy", xlim=(-0.02, 1.02))
axis.legend(loc="center left")
plt.show()
print(aligned(rows))

# %% [markdown]
# ## Pixels, found by a network
#
# The groups of the perceptron's first layer are the input pixels. **See** which of them $\hat w$ uses after some
# epochs of RAMDA, compared with the end of the same run (orange with a plus: used, though not at the end; blue with a
# cross: not used, though at the end). Unlike in the convex problem of notebook 2 there is no known optimum to compare
# with.

# %%
session = Session(TrainSettings(optimizer="RAMDA", model="mlp", weight=1e-3, epochs=30, seed=0))
while len(session.history) < session.settings.epochs:
    session.epoch()
layer = session.tracker.names[0]
patterns = [session.tracker.pattern(layer, record).ravel().astype(np.int8) for record in range(30)]
milestones = session.settings.milestones
moments = [1, 2, 5, 8, 11, 13, 15, 19, 25, 30]
assert not set(moments) & set(milestones)  # where a restart has just set w_hat to w
figure = plt.figure(figsize=(7.2, 4.2))
panels = [(f"epoch {epoch}", GroupSupport(patterns[epoch - 1])) for epoch in moments]
draw_structures(figure, panels, GroupSupport(patterns[-1]), image=True, rows=2, title="of the first layer's $\\hat{w}$")
plt.show()
print(f"restarts after epochs {milestones}")

# %% [markdown]
# The same as a count. **See** in which epochs pixels flip, and whether they still do at the end. The pairs of high
# bars are the restarts again, which open every pixel for one record; what the restart really costs is whether the
# epoch after has the pixels of the epoch before, and that is printed.

# %%
flips = [np.count_nonzero(a != b) for a, b in pairwise(patterns)]
figure, axis = plt.subplots(figsize=(4.8, 2.4))
axis.bar(np.arange(2, 31), flips, color=COLOURS[0])
for milestone in milestones:
    axis.axvline(milestone + 0.5, color="#999999", linewidth=0.9)
axis.set(xlabel="epoch (grey: a restart)", ylabel="pixels flipped")
plt.show()
for milestone in milestones:
    changed = np.count_nonzero(patterns[milestone - 2] != patterns[milestone])
    print(f"restart after epoch {milestone}: {changed} pixels differ between the epochs before and after it")
print(f"pixels used at the end: {np.count_nonzero(patterns[-1])} of 64; flips in the last five: {sum(flips[-5:])}")
