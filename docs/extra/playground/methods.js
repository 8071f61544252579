// The recurrences of ramda_theory.methods on arrays of numbers; tests/test_playground.py holds them against it.
(function (root) {
  "use strict";

  const zeros = (n) => new Float64Array(n);
  const soft = (x, level) => Math.sign(x) * Math.max(Math.abs(x) - level, 0);

  // psi -----------------------------------------------------------------------------------------------------------------
  // metricProx: argmin <linear, x> + 1/2 <x, diag x> + scale psi(x).

  function l1(weight) {
    return {
      size: 1,
      value: (w) => weight * w.reduce((sum, x) => sum + Math.abs(x), 0),
      prox: (z, step) => z.map((x) => soft(x, step * weight)),
      metricProx: (linear, diag, scale) => linear.map((l, i) => soft(-l, scale * weight) / diag[i]),
      leastSubgradient: (w) => w.map((x) => weight * Math.sign(x)),
      criticalFactor: (g) => Math.max(...g.map(Math.abs)),
      pattern: (w) => Array.from(w, Math.sign),
    };
  }

  // weight * sqrt(size) * ||x_g||, groups of consecutive entries.
  function groupLasso(weight, size) {
    const level = weight * Math.sqrt(size);
    const norm = (w, start) => {
      let sum = 0;
      for (let i = start; i < start + size; i++) sum += w[i] * w[i];
      return Math.sqrt(sum);
    };
    const norms = (w) => Array.from({ length: w.length / size }, (_, g) => norm(w, g * size));

    // ||x|| = rho solves sum_i b_i^2 / (P_i rho + tau)^2 = 1; Newton on the concave 1 / sqrt of that, from the left.
    function groupRoot(b, diag, start, tau) {
      let rho = 0;
      for (let k = 0; k < 100; k++) {
        let phi = 0, slope = 0;
        for (let i = start; i < start + size; i++) {
          const r = b[i] / (diag[i] * rho + tau);
          phi += r * r;
          slope += (r * r * diag[i]) / (diag[i] * rho + tau);
        }
        const next = rho + ((Math.sqrt(phi) - 1) * phi) / slope;
        if (!(next > rho * (1 + 2e-16))) break;
        rho = next;
      }
      return rho;
    }

    return {
      size,
      value: (w) => level * norms(w).reduce((a, b) => a + b, 0),
      prox(z, step) {
        const x = zeros(z.length);
        norms(z).forEach((length, g) => {
          const kept = length > step * level ? 1 - (step * level) / length : 0;
          for (let i = g * size; i < (g + 1) * size; i++) x[i] = kept * z[i];
        });
        return x;
      },
      metricProx(linear, diag, scale) {
        const x = zeros(linear.length), b = linear.map((l) => -l), tau = scale * level;
        norms(b).forEach((length, g) => {
          if (length <= tau) return;
          const rho = groupRoot(b, diag, g * size, tau);
          for (let i = g * size; i < (g + 1) * size; i++) x[i] = (rho * b[i]) / (diag[i] * rho + tau);
        });
        return x;
      },
      leastSubgradient(w) {
        const lengths = norms(w);
        return w.map((x, i) => (x === 0 ? 0 : (level * x) / lengths[Math.floor(i / size)]));
      },
      criticalFactor: (g) => Math.max(...norms(g)) / Math.sqrt(size),
      pattern: (w) => norms(w).map(Math.sign),
    };
  }

  // f -------------------------------------------------------------------------------------------------------------------

  function smooth(rows, targets, pointwise, slope, curvature) {
    const n = rows.length, p = rows[0].length;
    const dot = (row, w) => {
      let sum = 0;
      for (let i = 0; i < p; i++) sum += row[i] * w[i];
      return sum;
    };
    return {
      n,
      p,
      curvature,
      rows,
      value(w) {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += pointwise(dot(rows[k], w), targets[k]);
        return sum / n;
      },
      gradient(w, batch) {
        const g = zeros(p), count = batch ? batch.length : n;
        for (let b = 0; b < count; b++) {
          const k = batch ? batch[b] : b, s = slope(dot(rows[k], w), targets[k]) / count;
          for (let i = 0; i < p; i++) g[i] += s * rows[k][i];
        }
        return g;
      },
    };
  }
  const leastSquares = (rows, y) => smooth(rows, y, (s, t) => ((s - t) * (s - t)) / 2, (s, t) => s - t, 1);
  const logistic = (rows, signs) =>
    smooth(
      rows,
      signs,
      (s, t) => Math.max(-t * s, 0) + Math.log1p(Math.exp(-Math.abs(s))),
      (s, t) => -t / (1 + Math.exp(t * s)),
      0.25
    );

  // Methods -------------------------------------------------------------------------------------------------------------
  // settings: lr, averaging (c), eps.  A state has w and wHat.

  const average = (w, wHat, c) =>
    c === 1 ? wHat : w.map((x, i) => (c < 0.5 ? x + c * (wHat[i] - x) : wHat[i] - (1 - c) * (wHat[i] - x)));

  function sumOfRoots(count) {
    let sum = 0;
    for (let k = 1; k <= count; k++) sum += Math.sqrt(k);
    return sum;
  }

  // s_t = lr sqrt(t), alpha += s, V += s G, and in RAMDA U += s G^2; the metric P is cbrt(U) + eps or sqrt(t).
  function dualAveraging(psi, adaptive) {
    return {
      init: (w) => ({ w, wHat: w, anchor: w, V: zeros(w.length), U: zeros(w.length), alpha: 0, t: 0 }),
      restart(state, settings, memory) {
        const alpha = settings.lr * sumOfRoots(memory), kept = state.alpha > 0 ? alpha / state.alpha : 0;
        return {
          w: state.w,
          wHat: state.w,
          anchor: state.w,
          V: state.V.map((v) => kept * v),
          U: state.U.map((u) => kept * u),
          alpha: kept ? alpha : 0,
          t: kept ? memory : 0,
        };
      },
      step(state, g, { lr, averaging, eps }) {
        const t = state.t + 1, s = lr * Math.sqrt(t), alpha = state.alpha + s, beta = Math.sqrt(t);
        const V = state.V.map((v, i) => v + s * g[i]);
        const U = state.U.map((u, i) => u + s * g[i] * g[i]);
        let wHat;
        if (adaptive) {
          const P = U.map((u) => Math.cbrt(u) + eps);
          wHat = psi.metricProx(V.map((v, i) => v - P[i] * state.anchor[i]), P, alpha);
        } else {
          wHat = psi.prox(state.anchor.map((a, i) => a - V[i] / beta), alpha / beta);
        }
        return { w: average(state.w, wHat, averaging), wHat, anchor: state.anchor, V, U, alpha, t };
      },
    };
  }

  // m = (1 - c) m + c G,  w = prox_{lr psi}(w - lr m).
  function proxSGD(psi) {
    return {
      init: (w) => ({ w, wHat: w, m: zeros(w.length) }),
      restart: (state) => state,
      step(state, g, { lr, averaging: c }) {
        const m = state.m.map((x, i) => (1 - c) * x + c * g[i]);
        const w = psi.prox(state.w.map((x, i) => x - lr * m[i]), lr);
        return { w, wHat: w, m };
      },
    };
  }

  // AdamW's moments with beta_1 = 1 - c, in its metric P = sqrt(v / (1 - beta_2^t)) + eps.
  function proxAdamW(psi, beta2 = 0.999, eps = 1e-8) {
    return {
      init: (w) => ({ w, wHat: w, m: zeros(w.length), v: zeros(w.length), t: 0, forgotten: 1 }),
      restart: (state) => state,
      step(state, g, { lr, averaging }) {
        const rho = 1 - averaging, t = state.t + 1, forgotten = state.forgotten * rho;
        const m = state.m.map((x, i) => rho * x + (1 - rho) * g[i]);
        const v = state.v.map((x, i) => beta2 * x + (1 - beta2) * g[i] * g[i]);
        const P = v.map((x) => Math.sqrt(x / (1 - beta2 ** t)) + eps);
        const linear = m.map((x, i) => (lr * x) / (1 - forgotten) - P[i] * state.w[i]);
        const w = psi.metricProx(linear, P, lr);
        return { w, wHat: w, m, v, t, forgotten };
      },
    };
  }

  // z -= lr (G + (z - x) / tau),  x = prox_{tau psi}(z).
  function nsgd(psi, tau) {
    return {
      init(w) {
        const outward = psi.leastSubgradient(w);
        return { w, wHat: w, z: w.map((x, i) => x + tau * outward[i]) };
      },
      restart: (state) => state,
      step(state, g, { lr }) {
        const z = state.z.map((x, i) => x - lr * (g[i] + (x - state.w[i]) / tau));
        const w = psi.prox(z, tau);
        return { w, wHat: w, z };
      },
    };
  }

  const METHODS = {
    RAMDA: (psi) => dualAveraging(psi, true),
    RMDA: (psi) => dualAveraging(psi, false),
    ProxSGD: (psi) => proxSGD(psi),
    ProxAdamW: (psi) => proxAdamW(psi),
    NSGD: (psi, tau) => nsgd(psi, tau),
  };

  // Stages: lr and eps times gamma after each milestone; a restart keeps `memory` steps' averages, each further one
  // `memoryGrowth` times as much; with growAveraging c_i = min(c sqrt(i), 1) in the last stage.
  function schedule({ lr, averaging = 1, eps = 1e-6, milestones = [], gamma = 0.1, memory = 0, memoryGrowth = 1, growAveraging = false }) {
    const stageOf = (t) => milestones.filter((m) => m < t).length;
    return {
      startsStage: (t) => milestones.includes(t - 1),
      memoryAt: (t) => Math.round(memory * memoryGrowth ** (Math.max(stageOf(t), 1) - 1)),
      at(t) {
        const stage = stageOf(t), decay = gamma ** stage;
        const taken = t - (stage ? milestones[stage - 1] : 0);
        const c = growAveraging && stage === milestones.length ? Math.min(averaging * Math.sqrt(taken), 1) : averaging;
        return { lr: lr * decay, averaging: c, eps: eps * decay };
      },
    };
  }

  function run(f, method, stages, start, steps, batchOf, observe) {
    let state = method.init(start);
    for (let t = 1; t <= steps; t++) {
      const settings = stages.at(t);
      if (stages.startsStage(t)) state = method.restart(state, settings, stages.memoryAt(t));
      state = method.step(state, f.gradient(state.w, batchOf(t)), settings);
      observe(t, state);
    }
    return state;
  }

  // The optimum by FISTA, restarted where it points uphill.
  function minimiser(f, psi, most = 20000) {
    let u = zeros(f.p).fill(1), largest = 1;
    for (let k = 0; k < 100; k++) {
      const next = zeros(f.p);
      for (const row of f.rows) {
        let s = 0;
        for (let i = 0; i < f.p; i++) s += row[i] * u[i];
        for (let i = 0; i < f.p; i++) next[i] += (s * row[i]) / f.n;
      }
      largest = Math.sqrt(next.reduce((a, x) => a + x * x, 0));
      u = next.map((x) => x / largest);
    }
    const step = 1 / (1.02 * largest * f.curvature);
    let w = zeros(f.p), y = w, momentum = 1;
    for (let k = 0; k < most; k++) {
      const g = f.gradient(y), next = psi.prox(y.map((x, i) => x - step * g[i]), step);
      let uphill = 0, moved = 0;
      for (let i = 0; i < f.p; i++) {
        uphill += (y[i] - next[i]) * (next[i] - w[i]);
        moved = Math.max(moved, Math.abs(next[i] - y[i]));
      }
      const old = momentum;
      momentum = uphill > 0 ? 1 : (1 + Math.sqrt(1 + 4 * old * old)) / 2;
      const push = uphill > 0 ? 0 : (old - 1) / momentum;
      y = next.map((x, i) => x + push * (x - w[i]));
      w = next;
      if (moved < 1e-14) break;
    }
    return w;
  }

  const api = { l1, groupLasso, leastSquares, logistic, METHODS, schedule, run, minimiser };
  root.Recurrences = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof globalThis !== "undefined" ? globalThis : this);
