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
# # Structure beyond sparsity, and when identification fails
#
# Theorem 3 of [arXiv:2403.14398](https://arxiv.org/abs/2403.14398) is not about zeros. It needs a regularizer that is
# *partly smooth*: smooth along a manifold, sharp across it. For the nuclear norm the manifold is that of the matrices
# of one rank; for MCP it is the support together with the branch of the penalty that each entry is on. This notebook
# shows a rank being found, what a nonconvex penalty gains and what it costs, and three ways in which identification
# fails.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

from ramda_theory import run
from ramda_theory.diagnostics import StructureTrace, identification
from ramda_theory.drawing import STYLE, draw_raster, line_style
from ramda_theory.methods import RAMDA, RMDA, NoisyGradient, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import factorisation, lasso, least_squares, low_rank, mcp
from ramda_theory.regularizers import L1, MCP
from ramda_theory.subproblem import largest_perturbation
from ramda_theory.tables import aligned

plt.rcParams.update(STYLE | {"figure.dpi": 120})
falling = {"lr": lambda t: t**-1.125, "averaging": lambda t: min(1.0, 4.0 / t)}  # meets Theorem 2 under noise

# %% [markdown]
# ## A rank, identified
#
# Matrix regression with a planted solution of rank 2 (10 x 8), nuclear norm, noise in every gradient. **See** the
# eight singular values of RAMDA's $\hat w_t$ on the left and of the averaged $w_t$ on the right, those of the
# solution as dotted lines. The thresholding of the subproblem's solution cuts all but two of $\hat w$ to zero
# (rounding level, drawn at the bottom) within a few steps. The small singular values of $w$ only decay, and no
# threshold is needed to tell which is which. The table holds the rank of other methods too, from their own
# thresholding.

# %%
problem = low_rank(rows=10, columns=8, samples=120, rank=2)
target, noise, steps = problem.solution(), NoisyGradient(0.05, seed=0), 600
method, schedule = RAMDA(problem.regularizer), Schedule(**falling)
state, values = method.init(problem.initial), {"w_hat": [], "w": []}
for t in range(1, steps + 1):
    state, _ = method.step(state, noise(problem, state.query, t), schedule.at(t))
    values["w_hat"].append(np.linalg.svd(state.w_hat, compute_uv=False))
    values["w"].append(np.linalg.svd(state.w, compute_uv=False))

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
for axis, (name, label) in zip(axes, {"w_hat": "$\\hat{w}_t$", "w": "$w_t$"}.items(), strict=True):
    for k, curve in enumerate(np.array(values[name]).T):
        look = line_style(0) if k < 2 else line_style(1)
        axis.loglog(np.arange(1, steps + 1), np.maximum(curve, 1e-7), linewidth=1.1, **look)
    for value in np.linalg.svd(target.point, compute_uv=False)[:2]:
        axis.axhline(value, color="black", linestyle=":", linewidth=1)
    axis.set(xlabel="iteration", title=f"singular values of {label}", ylim=(5e-8, 10))
axes[0].set_ylabel("singular value")
axes[0].plot([], [], label="the two largest", **line_style(0))
axes[0].plot([], [], label="the other six", **line_style(1))
axes[0].legend(loc="center right")
plt.show()

contestants = {
    "RAMDA, schedule as above": (method, schedule),
    "RMDA, lr 0.5": (RMDA(problem.regularizer), Schedule(0.5)),
    "ProxSGD, lr 0.5, c = 0.1": (ProxSGD(problem.regularizer), Schedule(0.5, 0.1)),
    "ProxSGD, lr 0.5, c = 0.01": (ProxSGD(problem.regularizer), Schedule(0.5, 0.01)),
}
rows = [("method", "T0 of w_hat", "rank of w_hat at the end", "rank of w", "steps at another rank, second half")]
for name, (contestant, plan) in contestants.items():
    record = run(problem, contestant, plan, steps, gradients=noise).record
    wrong = record.structures_hat.distances(target.structure)[steps // 2 :]
    ranks = [str(trace[-1].count) for trace in (record.structures_hat, record.structures_w)]
    time = identification(record.structures_hat, target.structure).time
    rows.append((name, str(time), *ranks, f"{np.count_nonzero(wrong)} of {steps // 2}"))
print(aligned(rows))

# %% [markdown]
# ## What a nonconvex penalty gains
#
# The l1 norm shrinks every entry it keeps; MCP is flat beyond $\gamma\lambda$ and leaves large entries alone. Least
# squares with 12 true entries among 60 and noisy observations, each penalty with the weight that gives it exactly 12
# entries or the nearest to that on a grid. **See** the estimated against the true entries: the l1 estimates lie below
# the diagonal by about the same amount, MCP's close to it. (Both are stationary points to the accuracy printed; for
# MCP a local minimiser.)

# %%
rng = np.random.default_rng(0)
A, truth = rng.standard_normal((120, 60)), np.zeros(60)
truth[rng.choice(60, 12, replace=False)] = rng.choice((-1, 1), 12) * rng.uniform(0.5, 2.5, 12)
y = A @ truth + 0.5 * rng.standard_normal(120)
figure, axis = plt.subplots(figsize=(4.4, 3.4))
for index, penalty in enumerate(("l1", "MCP")):
    grid = [L1(w) if penalty == "l1" else MCP(w, 4.0) for w in np.geomspace(0.05, 0.5, 15)]
    fits = [least_squares(A, y, psi).solution() for psi in grid]
    fit, psi = min(zip(fits, grid, strict=True), key=lambda pair: abs(pair[0].structure.count - 12))
    axis.plot(
        truth,
        fit.point,
        "os"[index],
        color=line_style(index)["color"],
        fillstyle=("full", "none")[index],
        label=penalty,
    )
    hits = np.count_nonzero((fit.point != 0) & (truth != 0))
    shrink = np.mean(np.abs(truth) - np.abs(fit.point), where=truth != 0)
    print(
        f"{penalty}, weight {psi.weight:.2f}: {fit.structure.count} entries, {hits} of them true; mean shrinkage "
        f"{shrink:+.3f}, error {np.linalg.norm(fit.point - truth):.2f}, dist(0, dF) {fit.stationarity:.0e}"
    )
axis.plot([-2.6, 2.6], [-2.6, 2.6], color="#999999", linewidth=0.8)
axis.set(xlabel="true entry", ylabel="estimated entry")
axis.legend()
plt.show()

# %% [markdown]
# ## What it costs dual averaging
#
# MCP is weakly convex, so Theorem 3 covers it, *if* $\hat w_t$ converges. But the proof of Theorem 2 needs
# $P_t/\alpha_t \to 0$, and the subproblem (4) is convex in an entry on MCP's curved branch only while $\gamma
# P_t/\alpha_t \ge 1$. After that no minimiser of (4) stays on that branch. **See, below,** the smallest $\gamma
# P_t/\alpha_t$ over the planted curved entries, which falls through 1 at the vertical line in the run of one stage,
# and **above** the wrong entries: found, kept, and lost about then. Restarts every 100 steps keep $P_t/\alpha_t$ up;
# as published they forget the gradients and with them the structure, again and again, while with 50 steps' averages
# kept (ours) the structure stays.

# %%
problem = mcp(weight=0.1, gamma=50.0, seed=0)
target, psi, method, noise = problem.solution(), problem.regularizer, RAMDA(problem.regularizer), NoisyGradient(0.05, 0)
steps, curved = 5000, np.abs(target.structure.pattern) == 1
every = {"milestones": tuple(range(100, 5000, 100)), "gamma": 1.0}
schedules = {
    "one stage, falling lr": Schedule(**falling),
    "restarts, memory 0": Schedule(0.01, **every),
    "restarts, memory 50": Schedule(0.01, **every, memory=50),
}
figure, axes = plt.subplots(2, 3, figsize=(7.2, 4.0), sharex=True, sharey="row")
print(f"planted: {curved.sum()} entries on the curved branch, margin {target.margin:.2f}")
for index, (name, schedule) in enumerate(schedules.items()):
    state, trace, convexity = method.init(problem.initial), StructureTrace(), []
    for t in range(1, steps + 1):
        if schedule.starts_stage(t):
            state = method.restart(state, schedule.at(t), schedule.memory)
        state, _ = method.step(state, noise(problem, state.query, t), schedule.at(t))
        trace.append(psi.structure(state.w_hat))
        convexity.append(psi.gamma * np.min(state.metric[curved]) / state.weight_sum)
    wrong, at, (top, bottom) = trace.distances(target.structure), np.arange(1, steps + 1), axes[:, index]
    top.plot(at, wrong, linewidth=0.9, color=line_style(index)["color"])
    bottom.semilogy(at, convexity, linewidth=0.9, color=line_style(index)["color"])
    lost = next((t for t, c in zip(at, convexity, strict=True) if c < 1), None)
    last = np.flatnonzero(wrong == 0)
    time, last_right = identification(trace, target.structure).time, last[-1] + 1 if len(last) else None
    print(f"{name}: T0 {time}, last right step {last_right}, first step with gamma P/alpha < 1: {lost}")
    if lost is not None:
        top.axvline(lost, color="#999999", linewidth=1)
        bottom.axvline(lost, color="#999999", linewidth=1)
    top.set_title(name)
    bottom.axhline(1, color="black", linewidth=1)
    bottom.set(xlabel="iteration")
axes[0, 0].set_yscale("symlog", linthresh=2)
axes[0, 0].set_yticks([0, 1, 2, 5, 10, 20, 40], ["0", "1", "2", "5", "10", "20", "40"])
axes[0, 0].minorticks_off()
axes[0, 0].set_ylabel("wrong entries of $\\hat{w}$")
axes[1, 0].set_ylabel("smallest $\\gamma P/\\alpha$")
plt.show()

# %% [markdown]
# ## Failure by degeneracy
#
# LASSO with planted margins 0.2, 0.02 and 0. At margin 0 one zero entry has its gradient exactly on the bound, and
# the noise decides at every step on which side $V_t/\alpha_t$ falls. **See** the 15 zero entries of smallest margin,
# the smallest at the top, with darkness for the share of steps at which they were wrong. The other entries are found
# in all three; the top row is what changes. The seed matters, as the printed shares show: at margin 0 a finite run
# can stay right by luck, and at margin 0.02 a run of this length can be too short.

# %%
steps, margins = 3000, (0.2, 0.02, 0.0)
figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.0), sharey=True)
for axis, margin in zip(axes, margins, strict=True):
    report = []
    for seed in range(4):
        problem = lasso(margin=margin, seed=seed)
        target = problem.solution()
        record = run(
            problem, RAMDA(problem.regularizer), Schedule(**falling), steps, gradients=NoisyGradient(0.05, seed)
        ).record
        wrong = record.structures_hat.distances(target.structure)
        report.append(f"{np.mean(wrong[steps // 2 :] > 0):.0%}")
        if seed == 1:
            share = np.abs(problem.gradient(target.point)) / problem.regularizer.weight
            zero = target.point == 0
            order = np.array([k for k in np.argsort(share) if zero[k]])[-15:]
            image = draw_raster(axis, record.structures_hat, target.structure, order, windows=100)
            axis.set(title=f"margin {margin:g}", ylabel="", yticks=[])
    print(f"margin {margin:g}: wrong in {', '.join(report)} of the second half's steps (seeds 0 to 3; drawn: seed 1)")
axes[0].set_ylabel("zero entries, by margin")
figure.colorbar(image, ax=axes, label="never (0) to always (1) wrong", shrink=0.8)
plt.show()

# %% [markdown]
# ## Inexactness is not what fails
#
# Could an answer that meets (7) be off the manifold? For a subproblem of a convex run, the exact solution is moved
# along random directions as far as (7) with $\epsilon = 0.01$ allows. **See** that within the manifold there is room,
# in proportion to $\epsilon$, but across it none: a zero entry made nonzero, however little, jumps in its
# subgradient, and the residual with it. Condition (7) itself protects the structure wherever the margin exceeds the
# tolerance.

# %%
rows = [("problem", "room along the manifold", "room off the manifold", "pieces changed by either")]
for problem in (lasso(seed=0), low_rank(rows=10, columns=8, samples=120, rank=2)):
    method = RAMDA(problem.regularizer)
    state = run(problem, method, Schedule(**falling), 300, gradients=NoisyGradient(0.05, seed=0)).state
    subproblem = method.subproblem(state)
    moved = [
        largest_perturbation(subproblem, state.w_hat, tolerance=0.01, seed=0, along=along)
        for along in ("manifold", "ambient")
    ]
    room = [np.linalg.norm(found.point - state.w_hat) for found in moved]
    changed = [found.structure.distance(problem.regularizer.structure(state.w_hat)) for found in moved]
    rows.append((problem.name, *(f"{distance:.1e}" for distance in room), str(changed)))
print(aligned(rows))

# %% [markdown]
# ## Failure by choice: several limits
#
# A 30 x 20 matrix of rank 2, partly observed, factorised with six components; the group LASSO removes components. The
# problem is nonconvex, and which components survive is a matter of the start. **See** the norms of the six columns
# for three different starts: two survive each time, but not the same two. The theorem speaks of the structure of the
# run's own limit, so $T_0$ is counted against the run's own end; a structure known beforehand is not what the theorem
# promises.

# %%
steps = 3000
figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.8), sharey=True)
for seed, axis in enumerate(axes):
    problem = factorisation(seed=seed)
    method, schedule, batches = RAMDA(problem.regularizer), Schedule(0.03), SampledGradient(32, seed=0)
    state, norms, trace = method.init(problem.initial), [], StructureTrace()
    for t in range(1, steps + 1):
        state, _ = method.step(state, batches(problem, state.query, t), schedule.at(t))
        norms.append(np.linalg.norm(state.w_hat, axis=0))
        trace.append(problem.regularizer.structure(state.w_hat))
    for k, curve in enumerate(np.array(norms).T):
        axis.semilogx(np.arange(1, steps + 1), curve, linewidth=1.3, label=f"component {k}", **line_style(k))
    axis.set(xlabel="iteration", title=f"start and matrix {seed}")
    found = identification(trace)
    print(f"start {seed}: components {np.flatnonzero(norms[-1])} survive, T0 {found.time}, held for {found.held_for}")
axes[0].set_ylabel("norm of the column of $\\hat{w}$")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
plt.show()
