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
# # Identification: when a method has found the structure for good
#
# Theorem 3 of [arXiv:2403.14398](https://arxiv.org/abs/2403.14398): if RAMDA's $\hat w_t$ converge to a point that is
# nondegenerate, there is a finite $T_0$ after which every $\hat w_t$ has exactly the structure of the limit. This
# notebook watches it happen on multinomial logistic regression for scikit-learn's 8 x 8 handwritten digits, with a
# group LASSO over pixels: the ten class weights of a pixel are one group, a zero group is a pixel not looked at.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ramda_theory import run
from ramda_theory.diagnostics import OnlineCertificate, StructureTrace, changes_per_epoch, fit_rate, identification
from ramda_theory.drawing import STYLE, draw_raster, line_style
from ramda_theory.experiments.identify_figure import draw_structures, worst_in_bins
from ramda_theory.methods import RAMDA, FullGradient, NoisyGradient, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import digits, lasso
from ramda_theory.tables import aligned

plt.rcParams.update(STYLE | {"figure.dpi": 120})

# %% [markdown]
# ## The optimum and its margin
#
# The optimum is known: a reference whose $\mathrm{dist}(0, \partial F)$ is measured and printed. A pixel is zero
# there iff the norm of its gradient stays within its bound $\lambda\sqrt{10}$. **See, on the left,** the mean image;
# **in the middle,** the weights of the pixels in use; **on the right,** how much of its bound the gradient of each
# unused pixel takes up. The largest of these shares, at the pixel with the cross, decides how robust the structure
# is: one minus it is the *nondegeneracy margin*.

# %%
problem = digits()
optimum, psi = problem.solution(), problem.regularizer
bound = psi.weight * np.sqrt(10)
norms = np.linalg.norm(optimum.point, axis=1)
share = np.linalg.norm(problem.gradient(optimum.point), axis=1) / bound
unused = norms == 0
tightest = int(np.argmax(np.where(unused, share, 0)))
print(f"used pixels: {optimum.structure.count} of 64, dist(0, dF) = {optimum.stationarity:.0e}")
print(f"margin: {optimum.margin:.4f}, from the gradients: {1 - share[tightest]:.4f} at pixel {tightest}")

images = {
    "mean image": load_digits().data.mean(axis=0),
    "weights, norm per pixel": np.where(unused, np.nan, norms),
    "gradient / bound, unused": np.where(unused, share, np.nan),
}
figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.5))
for axis, (title, image), colours in zip(axes, images.items(), ("Greys", "cividis_r", "cividis_r"), strict=True):
    shown = axis.imshow(image.reshape(8, 8), cmap=colours, vmin=0)
    figure.colorbar(shown, ax=axis, shrink=0.8)
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(False)
axes[2].plot(tightest % 8, tightest // 8, "wx", markersize=7)
plt.show()

# %% [markdown]
# ## The pixels, found one by one
#
# RAMDA with batches of 64, learning rate $10^{-2}$, no averaging ($c_t = 1$, so that $w = \hat w$). **See** the
# structure of $\hat w_t$ at some steps. Wrong pixels are orange with a plus (used, should not be) or blue with a
# cross (not used, should be). The pixels in use are found early; what takes long is letting go of the last
# superfluous ones.

# %%
steps = 2800
batches = SampledGradient(batch_size=64, seed=0)
record = run(problem, RAMDA(psi), Schedule(lr=1e-2), steps, gradients=batches).record
found = identification(record.structures_hat, optimum.structure)
print(f"T0 = {found.time}, held for the {found.held_for} steps to the end")
moments = [1, 50, 130, 200, 450, 600, 800, 1000, found.time - 1, found.time]
figure = plt.figure(figsize=(7.2, 4.2))
panels = [(f"step {t}", record.structures_hat[t - 1]) for t in moments]
draw_structures(figure, panels, optimum.structure, image=True, rows=2, title="of $\\hat{w}$ at a step")
plt.show()

# %% [markdown]
# ## The order in which they are found
#
# Every pixel has its own last wrong step. **See, on the left,** that it is large where the gradient at the optimum is
# close to its bound, and 1 elsewhere. **On the right,** the same against the pixel's own margin (one minus its share
# of the bound), for three seeds of the batches, over unused pixels that were ever wrong after step 1. The seeds all
# but agree: what takes time here is not the noise but the early gradients, which $V_t/\alpha_t$ forgets slowly. A
# transient that falls like $1/t$, as $P_t/\alpha_t$ does, gives $T \sim 1/\text{margin}$ (grey line; our estimate,
# the paper states no rate). The fitted power is printed below. $T_0$ is the time of the last pixel.

# %%
right_from, margins, map_of_first = [], [], None
for seed in range(3):
    run_of_seed = run(problem, RAMDA(psi), Schedule(lr=1e-2), steps, gradients=SampledGradient(64, seed)).record
    patterns = np.concatenate(list(run_of_seed.structures_hat.blocks()))
    wrong = patterns != optimum.structure.pattern.ravel()
    last_wrong = (np.arange(1, steps + 1)[:, None] * wrong).max(axis=0)
    map_of_first = 1 + last_wrong if seed == 0 else map_of_first
    chosen = unused & (last_wrong > 1)
    margins.append(1 - share[chosen])
    right_from.append(1 + last_wrong[chosen])
    time = identification(run_of_seed.structures_hat, optimum.structure).time
    print(f"seed {seed}: T0 = {time}; used pixels right from step {1 + last_wrong[~unused].max()} at the latest")

figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.0))
shown = left.imshow(np.log10(map_of_first).reshape(8, 8), cmap="cividis_r")
left.set(title="right from step (seed 0)", xticks=[], yticks=[])
left.grid(False)
bar = figure.colorbar(shown, ax=left, ticks=[0, 1, 2, 3])
bar.set_ticklabels(["1", "10", "100", "1000"])
for seed in range(3):
    right.loglog(margins[seed], right_from[seed], "os^"[seed], color=line_style(seed)["color"], label=f"seed {seed}")
line = np.array([0.05, 0.6])
right.loglog(line, 60 / line, color="#999999", linewidth=1)
right.set(xlabel="margin of the pixel", ylabel="right from iteration", title="unused pixels")
right.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
right.minorticks_off()
right.legend()
plt.show()
order = np.argsort(np.concatenate(margins))
rate = fit_rate(np.concatenate(margins)[order], np.concatenate(right_from)[order], (0.05, 0.6))
print(f"fitted: T ~ margin^({rate.exponent:.2f} +- {rate.uncertainty:.2f})")

# %% [markdown]
# ## T0 against the margin
#
# The digits have one margin. A LASSO planted with a prescribed one (50 entries, 10 of them nonzero, noise of
# deviation 0.05 in every gradient entry) shows the trend: eight seeds for each margin, the data and the noise drawn
# afresh. The schedule, $\eta_t = t^{-9/8}$ and $c_t = \min(1, 4/t)$, meets the conditions of Theorem 2 under this
# noise. **See** that $T_0$ grows as the margin shrinks and scatters widely; the theorem promises a finite $T_0$ and
# no rate.

# %%
convergent = Schedule(lr=lambda t: t**-1.125, averaging=lambda t: min(1.0, 4.0 / t))
planted_margins, times = (0.5, 0.2, 0.1, 0.05), {}
for margin in planted_margins:
    planted = [lasso(margin=margin, seed=seed) for seed in range(8)]
    records = [
        run(p, RAMDA(p.regularizer), convergent, 1500, gradients=NoisyGradient(0.05, seed)).record
        for seed, p in enumerate(planted)
    ]
    found = [identification(r.structures_hat, p.solution().structure) for p, r in zip(planted, records, strict=True)]
    times[margin] = [f.time for f in found if f.time is not None]
    print(f"margin {margin}: identified in {len(times[margin])} of 8 runs, T0 median {np.median(times[margin]):.0f}")
figure, axis = plt.subplots(figsize=(4.6, 3.0))
for margin, values in times.items():
    axis.loglog([margin] * len(values), values, "o", color=line_style(0)["color"], fillstyle="none")
medians = [np.median(values) for values in times.values()]
axis.loglog(planted_margins, medians, "s-", color="black", label="median")
axis.set(xlabel="planted margin", ylabel="T0 (iterations)", xticks=planted_margins)
axis.set_xticklabels([str(margin) for margin in planted_margins])
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# ## w and w_hat
#
# Theorem 3 speaks of $\hat w_t$, one trains $w_t = (1 - c_t) w_{t-1} + c_t \hat w_t$. **See** that with a fixed $c =
# 0.1$ the pixels of $\hat w$ become right as before while those of $w$ never do: an average of points that ever used
# a pixel uses it for ever. With $c_t = \min(0.1 \sqrt t, 1)$, the schedule of the paper's last stage, $w$ is $\hat w$
# after 100 steps. A dot marks $T_0$. (Each point is the worst of a window of steps.)

# %%
averagings = {
    "c = 0.1": Schedule(lr=1e-2, averaging=0.1),
    "c growing to 1": Schedule(lr=1e-2, averaging=0.1, grow_averaging=True),
}
figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), sharey=True)
for axis, (title, schedule) in zip(axes, averagings.items(), strict=True):
    record = run(problem, RAMDA(psi), schedule, steps, gradients=batches).record
    for index, (name, trace) in enumerate({"$\\hat{w}$": record.structures_hat, "$w$": record.structures_w}.items()):
        axis.plot(*worst_in_bins(trace.distances(optimum.structure), 140), label=name, **line_style(index))
        found = identification(trace, optimum.structure)
        print(f"{title}, {('w_hat', 'w')[index]}: T0 {found.time}, wrong pixels at the end {found.final_error}")
        if found.time is not None:
            axis.plot(found.time, 0, "o", color=line_style(index)["color"], clip_on=False)
    axis.set(xlabel="iteration", title=title, ylim=(0, None))
axes[0].set_ylabel("wrong pixels")
axes[0].legend()
plt.show()

# %% [markdown]
# ## Knowing it during the run: a margin against the noise, and what is better
#
# All of the above compares with a known optimum. Without one, the obvious idea is to watch how far every pixel's
# $\|P W^0 - V\|/\alpha$ is from its bound, in units of the noise of $V/\alpha$ along it (from $U/\alpha -
# (V/\alpha)^2$ and the weights), and to believe the structure once the least of these, z, exceeds a threshold after the
# first epoch and nothing has changed for a tenth of the run. The noise is the wrong unit: $V/\alpha$ averages gradients
# at *old* points, and pixels in use come near their bound as $P/\alpha$ vanishes. `OnlineCertificate` takes the
# gradients of an epoch at the points themselves: by *statistic* it asks that the minimiser of the model there stays the
# same over epochs, by *proof* it bounds every pixel rigorously. **See** z (line): above 1 (cross) right after the first
# epoch, where many pixels are wrong, and never above 2, not even long after $T_0$ (dotted). The statistic (square) and
# the proof (circle) fire at the first step at which $\hat w$ has the structure that they had settled before.

# %%
z, trace, fires, changed = [], StructureTrace(), {}, 1
online = {"statistic": OnlineCertificate(problem, 28), "proof": OnlineCertificate(problem, 28, proof=True)}
method, schedule, steps = RAMDA(psi), Schedule(lr=1e-2), 2800
state = method.init(problem.initial)
for t in range(1, steps + 1):
    query, gradient = state.query, batches(problem, state.query, t)
    state, _ = method.step(state, gradient, schedule.at(t))
    trace.append(psi.structure(state.w_hat))
    changed = t if t > 1 and trace[t - 1] != trace[t - 2] else changed
    alpha, mean = state.weight_sum, state.grad_sum / state.weight_sum
    reach = state.metric * state.anchor / alpha - mean
    lengths = np.linalg.norm(reach, axis=1)
    along = reach / np.maximum(lengths, 1e-300)[:, None]
    spread = np.sqrt(np.sum(along**2 * np.maximum(state.grad_sq_sum / alpha - mean**2, 0), axis=1))
    noise = spread * schedule.lr * np.sqrt(t * (t + 1) / 2) / alpha  # of a mean with weights lr sqrt(k)
    z.append(np.min(np.abs(lengths - bound) / np.maximum(noise, 1e-12)))
    for threshold in (1, 2):
        if z[-1] > threshold and t > 28 and t - changed >= t / 10:
            fires.setdefault(f"z > {threshold}", t)
    for name, certificate in online.items():
        if name not in fires and certificate.observe(t, query, gradient, state.w_hat):
            fires[name] = t
found = identification(trace, optimum.structure)
rows = [("statement by", "first at step", "wrong pixels then", "T0")]
for name in ("z > 1", "z > 2", *online):
    step = fires.get(name)
    wrong = "-" if step is None else str(trace[step - 1].distance(optimum.structure))
    rows.append((name, "never" if step is None else str(step), wrong, str(found.time)))

figure, axis = plt.subplots(figsize=(5.2, 3.0))
axis.loglog(np.arange(1, steps + 1), np.maximum(z, 1e-3), color="#999999", linewidth=0.6)
axis.axhline(1, color="black", linewidth=0.8)
axis.axhline(2, color="black", linewidth=0.8)
axis.axvline(found.time, color="black", linewidth=1, linestyle=":")
for index, (name, marker) in enumerate({"z > 1": "x", "statistic": "s", "proof": "o"}.items()):
    if name in fires:
        look = {"color": line_style(index)["color"], "markersize": (8, 9, 4)[index], "linestyle": "none"}
        axis.plot(fires[name], 1 if index == 0 else 5, marker, label=name, **look)
axis.set(xlabel="iteration", ylabel="least margin over noise, z", ylim=(1e-3, 20))
axis.legend()
plt.show()
print(aligned(rows))

# %% [markdown]
# ## Why these settings of ProxSGD flicker: memory
#
# A pixel at zero stays there as long as the method's *estimate* of its gradient stays within the bound, so what counts
# is how many gradients the estimate remembers. RAMDA's estimate $V_t/\alpha_t$ averages over all gradients, ProxSGD's
# momentum $m_t$ over the last $1/c$. **See** the estimate for the pixel with the smallest margin, over its bound:
# RAMDA's settles below 1, ProxSGD's with $c = 0.1$ crosses 1 for ever. Its scatter is set by the batches and by $c$,
# not by how long one trains. With $c = 0.001$ it averages over a thousand steps; it then overshoots and swings, but
# ends below 1. This is no contrast of dual averaging with all others: the normal-map method `NSGD`
# ([arXiv:2305.05828](https://arxiv.org/abs/2305.05828)), whose $z$ remembers $\tau/a$ steps, identifies these pixels
# earlier than RAMDA does when its steps $a$ fall in stages (`ramda-theory identify`, `python -m paper_checks rivals`).
# Nor is memory all: one that is too long keeps old gradients, and with them wrong pixels, as RAMDA's above does for two
# thousand steps.

# %%
contestants = {
    "RAMDA, lr 0.01": (RAMDA(psi), Schedule(lr=1e-2)),
    "ProxSGD, lr 0.1, c = 0.1": (ProxSGD(psi), Schedule(lr=0.1, averaging=0.1)),
    "ProxSGD, lr 1, c = 0.001": (ProxSGD(psi), Schedule(lr=1.0, averaging=0.001)),
}
steps, estimates, traces = 5600, {}, {}
for name, (method, schedule) in contestants.items():
    state, estimates[name], traces[name] = method.init(problem.initial), [], StructureTrace()
    for t in range(1, steps + 1):
        state, _ = method.step(state, batches(problem, state.query, t), schedule.at(t))
        estimates[name].append(np.linalg.norm(state.gradient_estimate[tightest]) / bound)
        traces[name].append(psi.structure(state.w_hat))

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), sharey=True)
for index, (axis, (name, estimate)) in enumerate(zip(axes, estimates.items(), strict=True)):
    axis.plot(np.arange(1, steps + 1), estimate, color=line_style(index)["color"], linewidth=(1.5, 0.5, 1.5)[index])
    axis.axhline(1, color="black", linewidth=1)
    axis.axhline(share[tightest], color="black", linewidth=1, linestyle=":")
    axis.set(xlabel="iteration", title=name, ylim=(0.5, 2))
    half = np.array(estimate[steps // 2 :])
    print(f"{name}: above its bound in {np.mean(half > 1):.1%} of the second half, deviation {half.std():.3f}")
axes[0].set_ylabel("gradient estimate / bound")
axes[0].text(steps, 0.55, "dotted: at the optimum", ha="right", fontsize=7.5)
plt.show()

# %% [markdown]
# All 64 pixels of the same three runs. **See** white where a pixel was right throughout a window of steps, darker the
# more often it was wrong. The pixels are sorted by margin, the smallest at the top; below the line are the pixels in
# use, by their weights. RAMDA's wrong pixels end one after the other. With $c = 0.1$ ProxSGD's pixels of small margin
# are wrong nearly always, as a pixel that has left zero takes many steps to come back, and others return now and
# then. With $c = 0.001$ it swings, wrong on both sides, before it settles.

# %%
used = np.argsort(np.where(unused, np.inf, norms))[: optimum.structure.count]
order = np.concatenate([used[::-1], [k for k in np.argsort(share) if unused[k]]])
figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.6), sharey=True)
rows = [("method", "T0", "wrong at the end", "flips in the last ten epochs")]
for axis, (name, trace) in zip(axes, traces.items(), strict=True):
    image = draw_raster(axis, trace, optimum.structure, order, windows=100)
    axis.axhline(optimum.structure.count - 0.5, color="#0072B2", linewidth=0.8)
    axis.set(title=name, ylabel="")
    found = identification(trace, optimum.structure)
    flips = changes_per_epoch(trace, batches.steps_per_epoch(problem))[-10:].sum()
    rows.append((name, str(found.time), str(found.final_error), str(flips)))
axes[0].set_ylabel("pixels, by margin")
figure.colorbar(image, ax=axes, label="never (0) to always (1) wrong", shrink=0.7)
plt.show()
print(aligned(rows))

# %% [markdown]
# ## When ProxSGD does identify
#
# Nothing forbids it: the noise must fall below the margin, by full gradients, by larger batches, by a small $c$, by a
# decaying learning rate, or by some of these together. **See** in the table which of these settings end on the
# optimum's structure and since when; 8400 steps each.

# %%
decay = {"milestones": (1680, 3360, 5040, 6720)}
settings = {
    "batches of 64, lr 1, c = 0.1": (batches, Schedule(1.0, 0.1)),
    "batches of 64, lr 1, c = 0.1, decayed": (batches, Schedule(1.0, 0.1, **decay)),
    "batches of 64, lr 1, c = 0.01, decayed": (batches, Schedule(1.0, 0.01, **decay)),
    "batches of 64, lr 1, c = 0.001": (batches, Schedule(1.0, 0.001)),
    "batches of 512, lr 1, c = 0.01": (SampledGradient(batch_size=512, seed=0), Schedule(1.0, 0.01)),
    "full gradients, lr 1, c = 0.1": (FullGradient(), Schedule(1.0, 0.1)),
}
rows = [("ProxSGD with", "T0", "held for", "wrong pixels at the end", "F - F*")]
for name, (gradients, schedule) in settings.items():
    record = run(problem, ProxSGD(psi), schedule, 8400, gradients=gradients, measure_every=8400).record
    found = identification(record.structures_hat, optimum.structure)
    gap = record.metrics["objective"][-1] - optimum.objective
    rows.append((name, str(found.time), str(found.held_for), str(found.final_error), f"{gap:.1e}"))
print(aligned(rows))
