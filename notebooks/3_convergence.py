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
# # Convergence: three errors, and which of them decides
#
# The proof of Theorem 2 of [arXiv:2403.14398](https://arxiv.org/abs/2403.14398) bounds the distance from stationarity
# by three terms,
#
# $$\mathrm{dist}(0, \partial F(\hat w_t))
# \le \|\nabla f(\hat w_t) - V_t/\alpha_t\| + \epsilon_t/\alpha_t + \|P_t(\hat w_t - w_0)/\alpha_t\|. \tag{28}$$
#
# The first is the error of the averaged gradient, the second that of the inexact subproblem, the third the pull of
# the anchor $w_0$. All three can be measured along a run. This notebook compares methods first and then takes RAMDA
# apart: which term decides, and what stages, averaging and inexactness do to it.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

from ramda_theory import run
from ramda_theory.diagnostics import fit_rate, identification, inexactness
from ramda_theory.drawing import STYLE, line_style
from ramda_theory.experiments.converge import converge, table
from ramda_theory.methods import RAMDA, NoisyGradient, SampledGradient, Schedule
from ramda_theory.problems import digits, lasso
from ramda_theory.subproblem import ConstantTolerance, GeometricTolerance, PolynomialTolerance
from ramda_theory.tables import aligned

plt.rcParams.update(STYLE | {"figure.dpi": 120})

# %% [markdown]
# ## Four methods on the digits
#
# Multinomial logistic regression with a group LASSO over pixels, batches of 64, 100 epochs, one constant learning
# rate each. **See** that RAMDA's and RMDA's gap and distance from stationarity keep falling, because their gradient
# estimate keeps improving, while ProxSGD's distance levels off at the noise of its momentum. ProxAdamW at its usual
# learning rate of $10^{-3}$ is slow but not yet at its floor. The last column but one of the table holds fitted
# powers of $t$ over the second half of the run on a logarithmic scale, with 95 % intervals.

# %%
problem = digits()
optimum = problem.solution()
entries = converge(problem, methods=("RAMDA", "RMDA", "ProxSGD", "ProxAdamW"), epochs=100, batch=64, seed=0)
figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
for index, entry in enumerate(entries):
    step = entry.metrics["step"]
    left.loglog(step, entry.gap, label=f"{entry.setting.method}: {entry.setting.short_label}", **line_style(index))
    right.loglog(step, entry.metrics["stationarity"], **line_style(index))
left.set(xlabel="iteration", ylabel="$F(\\hat{w}) - F^\\star$", title="objective gap")
right.set(xlabel="iteration", ylabel="dist$(0, \\partial F(\\hat{w}))$", title="distance from stationarity")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()
print("\n".join(line[: line.rindex("  ")].rstrip() for line in table(entries).splitlines()))

# %% [markdown]
# ## The three terms of (28)
#
# A planted LASSO with independent noise of constant size in every gradient, subproblems solved by Algorithm 2 within
# $\epsilon_t = 0.1\, t^{-0.6}$. On the left a schedule that meets the conditions of Theorem 2 under this noise,
# $\eta_t = t^{-9/8}$, $c_t = \min(1, 4/t)$; in the middle and on the right constant learning rates, as in practice.
# **See** that the distance (thick) stays below the sum of the terms (grey), and which term is the largest. On the
# left all fall together. With a constant learning rate the anchor's pull falls much faster, but the error of the
# gradient stops falling, and the distance with it: a larger learning rate reaches its floor sooner, and the floor is
# higher.

# %%
planted = lasso()
falling = {"lr": lambda t: t**-1.125, "averaging": lambda t: min(1.0, 4.0 / t)}
tolerance = PolynomialTolerance(0.1, 0.6)
schedules = {
    "lr $t^{-9/8}$, c = min(1, 4/t)": Schedule(**falling, tolerance=tolerance),
    "lr 0.1, c = 1": Schedule(0.1, tolerance=tolerance),
    "lr 0.001, c = 1": Schedule(0.001, tolerance=tolerance),
}
terms = {
    "stationarity": "distance from stationarity",
    "model_error": "gradient: $\\|\\nabla f(\\hat{w}) - V/\\alpha\\|$",
    "metric_error": "anchor: $\\|P(\\hat{w} - w_0)\\|/\\alpha$",
    "subproblem_error": "subproblem: residual of (7) $/\\alpha$",
}
steps = 5000
figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.6), sharey=True)
rows = [("schedule", "dist, median of the last 20", "largest term then", *(f"{name} ~ t^" for name in list(terms)[:3]))]
for axis, (title, schedule) in zip(axes, schedules.items(), strict=True):
    method = RAMDA(planted.regularizer, solver="proximal_gradient")
    metrics = run(
        planted, method, schedule, steps, gradients=NoisyGradient(0.1, seed=0), measure_every=25
    ).record.metrics
    for index, (name, label) in enumerate(terms.items()):
        width = 2.2 if name == "stationarity" else 1.2
        axis.loglog(metrics["step"], metrics[name], label=label, linewidth=width, **line_style(index))
    total = sum(metrics[name] for name in list(terms)[1:])
    axis.loglog(metrics["step"], total, color="#999999", linewidth=1, label="sum of the three")
    assert np.all(metrics["stationarity"] <= total)
    axis.set(xlabel="iteration", title=title, ylim=(1e-5, 10))
    rates = [fit_rate(metrics["step"], metrics[name], (500, steps)) for name in list(terms)[:3]]
    largest = max(list(terms)[1:], key=lambda name: np.median(metrics[name][-20:]))
    level = f"{np.median(metrics['stationarity'][-20:]):.3f}"
    rows.append((title.replace("$", ""), level, largest, *(f"{r.exponent:.2f} +- {r.uncertainty:.2f}" for r in rates)))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()
print(aligned(rows))

# %% [markdown]
# ## Stages and averaging
#
# In practice the learning rate is constant within stages; at each milestone it is divided by ten and the method
# starts afresh from the current $w$ (a restart: $w_0 \leftarrow w$, sums forgotten). Digits again, 100 epochs. **See,
# on the left,** that one stage with a small learning rate decreases steadily, while stages that begin with a large
# one overtake it. **In the middle,** the anchor's pull: it jumps up at every restart, as $P_t/\alpha_t$ starts large
# again, and then falls below that of the long stage, whose anchor is far away; a restart that keeps 200 steps'
# averages ("memory", ours) jumps far less. **On the right,** the gradient error falls from stage to stage, because
# $w$ moves less. In the table see $T_0$: the first stage is the same for both runs with stages, so the structure that
# the run with memory has from its $T_0$ on was lost by the restarts of the other.

# %%
batches, milestones = SampledGradient(batch_size=64, seed=0), (560, 1120, 1680, 2240)
stages = {
    "one stage, lr 0.01, c = 1": Schedule(1e-2),
    "one stage, lr 0.01, c = 0.1": Schedule(1e-2, 0.1),
    "stages from lr 0.1, c = 0.1 to 1": Schedule(0.1, 0.1, milestones=milestones, grow_averaging=True),
    "the same, memory 200": Schedule(0.1, 0.1, milestones=milestones, grow_averaging=True, memory=200),
}
figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.5))
rows = [("schedule", "F(w_hat) - F*", "dist(0, dF(w_hat))", "T0 of w_hat", "T0 of w")]
for index, (name, schedule) in enumerate(stages.items()):
    record = run(problem, RAMDA(problem.regularizer), schedule, 2800, gradients=batches, measure_every=20).record
    metrics = record.metrics
    axes[0].semilogy(metrics["step"], metrics["objective"] - optimum.objective, label=name, **line_style(index))
    axes[1].semilogy(metrics["step"], metrics["metric_error"], **line_style(index))
    axes[2].semilogy(metrics["step"], metrics["gradient_error"], linewidth=1, **line_style(index))
    end = (f"{metrics['objective'][-1] - optimum.objective:.1e}", f"{metrics['stationarity'][-1]:.1e}")
    found = [identification(t, optimum.structure).time for t in (record.structures_hat, record.structures_w)]
    rows.append((name, *end, *map(str, found)))
titles = ("objective gap of $\\hat{w}$", "anchor's pull", "gradient error at $w$")
for axis, title in zip(axes, titles, strict=True):
    for milestone in milestones:
        axis.axvline(milestone, color="#cccccc", linewidth=0.8, zorder=0)
    axis.set(xlabel="iteration", title=title)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()
print(aligned(rows))

# %% [markdown]
# ## Inexactness schedules side by side
#
# Subproblems by Algorithm 2, warm-started at $w_{t-1}$, with tolerances $\epsilon_t$ that meet (8), $\sum
# \epsilon_t^2 < \infty$, and two that do not. **See, on the left,** the residuals the solver really returned: where
# the tolerance is loose it stops after the first iteration, far below what was allowed. **In the middle,** the inner
# iterations so far. **On the right,** the distance from stationarity: the curves coincide. Violating (8) costs
# nothing here, since even one warm-started iteration leaves a term of (28) much smaller than the gradient's (last
# column of the table: their ratio, median of the second half). That is a fact about this solver on this problem and
# no licence: the theorem must also cover the worst answers that (7) admits.

# %%
tolerances = {
    "exact": None,
    "eps_t = t^-0.6": PolynomialTolerance(1.0, 0.6),
    "eps_t = 0.01 t^-0.6": PolynomialTolerance(0.01, 0.6),
    "eps_t = 0.1 * 0.995^t": GeometricTolerance(0.1, 0.995),
    "eps_t = 1 (violates (8))": ConstantTolerance(1.0),
    "eps_t = 0.02 t^1.5 (violates (8))": lambda t: 0.02 * t**1.5,
}
figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.6))
rows = [
    (
        "tolerances",
        "sum of eps_t^2",
        "failed (7)",
        "inner iterations",
        "T0",
        "dist at the end",
        "subproblem / gradient error",
    )
]
for index, (name, tolerance) in enumerate(tolerances.items()):
    method = RAMDA(problem.regularizer, solver="proximal_gradient" if tolerance else None)
    record = run(problem, method, Schedule(1e-2, tolerance=tolerance), 2800, gradients=batches, measure_every=40).record
    metrics, inner = record.metrics, record.inner
    axes[2].loglog(metrics["step"], metrics["stationarity"], label=name, **line_style(index))
    time, ratio = (
        identification(record.structures_hat, optimum.structure).time,
        metrics["subproblem_error"] / metrics["model_error"],
    )
    end = (str(time), f"{metrics['stationarity'][-1]:.2e}", f"{np.median(ratio[len(ratio) // 2 :]):.0e}")
    if not tolerance:
        rows.append((name, "0", "-", "0", *end))
        continue
    seen = inexactness(record)
    axes[0].loglog(inner["step"][::28], inner["residual"][::28], **line_style(index))
    axes[1].loglog(inner["step"], np.cumsum(inner["iterations"]), **line_style(index))
    squares = f"{seen.sum_of_squares[-1]:.2g} so far"
    rows.append((name, squares, str(seen.violations), str(seen.iterations.sum()), *end))
axes[0].set(xlabel="iteration t", ylabel="residual of (7)", title="residual")
axes[1].set(xlabel="iteration t", ylabel="inner iterations so far", title="work")
axes[2].set(xlabel="iteration t", title="distance from stationarity", ylim=(9e-3, 1))
figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()
print(aligned(rows))
