// Sliders to settings, settings to a run, the run to curves.
(function () {
  "use strict";
  const R = globalThis.Recurrences, STEPS = 3000, EVERY = 10, SAMPLES = 200;
  const HELD = STEPS / 10; // steps for which the structure must have been right at the end to be called found
  const BATCHES = [1, 2, 5, 10, 20, 50, 200], MEMORIES = [0, 20, 50, 200, 500, 1000];
  const $ = (id) => document.getElementById(id);
  const NAMES = ["problem", "lambda", "batch", "seed", "method", "lr", "averaging", "tau", "stages", "memory", "grow"];
  const USUAL = {
    RAMDA: { lr: -2, averaging: -0.5, stages: 3, memory: 3, grow: true },
    RMDA: { lr: -1.3, averaging: -0.5, stages: 3, memory: 3, grow: true },
    ProxSGD: { lr: -1.2, averaging: -1, stages: 3, memory: 3, grow: false },
    ProxAdamW: { lr: -2, averaging: -1, stages: 3, memory: 3, grow: false },
    NSGD: { lr: -0.5, averaging: 0, tau: 1.5, stages: 3, memory: 3, grow: false },
  };
  const SHOWN = {
    lambda: (v) => (10 ** v).toFixed(v < -1 ? 3 : 2),
    batch: (v) => BATCHES[v],
    seed: (v) => v,
    lr: (v) => Number((10 ** v).toPrecision(2)),
    averaging: (v) => Number((10 ** v).toPrecision(2)),
    tau: (v) => Number((10 ** v).toPrecision(2)),
    stages: (v) => v,
    memory: (v) => MEMORIES[v],
  };

  // Random numbers: mulberry32, and normal ones by Box and Muller.
  function generator(seed) {
    let a = (seed * 2654435761 + 12345) >>> 0;
    const uniform = () => {
      a = (a + 0x6d2b79f5) >>> 0;
      let x = Math.imul(a ^ (a >>> 15), a | 1);
      x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
      return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  }

  function shuffled(n, random) {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(random.uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  const problems = new Map();
  function problemOf(kind, seed, share) {
    const key = `${kind} ${seed} ${share}`;
    if (problems.has(key)) return problems.get(key);
    const random = generator(seed + 1), size = kind === "lasso" ? 1 : 3, p = kind === "lasso" ? 40 : 48;
    const planted = Array(p).fill(0), pieces = p / size;
    for (const g of shuffled(pieces, random).slice(0, Math.round(pieces / 4)))
      for (let i = g * size; i < (g + 1) * size; i++) planted[i] = random.normal() + (random.uniform() < 0.5 ? -1 : 1);
    const rows = Array.from({ length: SAMPLES }, () => Float64Array.from({ length: p }, random.normal));
    const scores = rows.map((row) => row.reduce((sum, x, i) => sum + x * planted[i], 0) + random.normal());
    const f = kind === "logistic" ? R.logistic(rows, scores.map((s) => (s > 0 ? 1 : -1))) : R.leastSquares(rows, scores);
    const start = new Float64Array(p), make = (weight) => (size === 1 ? R.l1(weight) : R.groupLasso(weight, size));
    const weight = share * make(1).criticalFactor(f.gradient(start));
    const psi = make(weight), best = R.minimiser(f, psi), F = (w) => f.value(w) + psi.value(w);
    const found = { f, psi, weight, start, F, least: F(best), pattern: psi.pattern(best) };
    problems.set(key, found);
    if (problems.size > 60) problems.delete(problems.keys().next().value);
    return found;
  }

  function wrong(pattern, other) {
    let count = 0;
    for (let i = 0; i < pattern.length; i++) count += pattern[i] !== other[i];
    return count;
  }

  function read() {
    const s = {};
    for (const name of NAMES) {
      const input = $(name);
      s[name] = input.type === "checkbox" ? input.checked : input.type === "range" ? Number(input.value) : input.value;
    }
    return s;
  }

  function write(settings) {
    for (const [name, value] of Object.entries(settings)) {
      if ($(name).type === "checkbox") $(name).checked = value === true || value === "true";
      else $(name).value = value;
    }
  }

  function compute(s) {
    const given = problemOf(s.problem, s.seed, 10 ** s.lambda), { f, psi } = given;
    const milestones = Array.from({ length: s.stages - 1 }, (_, k) => Math.round(((k + 1) * STEPS) / s.stages));
    const stages = R.schedule({
      lr: 10 ** s.lr,
      averaging: 10 ** s.averaging,
      milestones,
      memory: MEMORIES[s.memory],
      growAveraging: s.grow && averages(s.method),
    });
    const batch = BATCHES[s.batch], perEpoch = Math.floor(SAMPLES / batch), random = generator(1000 + s.seed);
    let order = [];
    const batchOf = (t) => {
      const index = (t - 1) % perEpoch;
      if (index === 0) order = shuffled(SAMPLES, random);
      return order.slice(index * batch, (index + 1) * batch);
    };
    const trace = { t: [], hat: [], mean: [], gapHat: [], gapMean: [], milestones, last: null, T0: null, given };
    let since = null, worst = 0, worstMean = 0; // of the steps since the last point drawn
    R.run(f, R.METHODS[s.method](psi, 10 ** s.tau), stages, given.start, STEPS, batchOf, (t, state) => {
      const pattern = psi.pattern(state.wHat), errors = wrong(pattern, given.pattern);
      since = errors ? null : (since ?? t);
      worst = Math.max(worst, errors);
      worstMean = Math.max(worstMean, state.w === state.wHat ? errors : wrong(psi.pattern(state.w), given.pattern));
      if (t % EVERY && t !== 1) return;
      trace.t.push(t);
      trace.hat.push(worst);
      trace.mean.push(worstMean);
      worst = worstMean = 0;
      trace.gapHat.push(given.F(state.wHat) - given.least);
      trace.gapMean.push(state.w === state.wHat ? trace.gapHat.at(-1) : given.F(state.w) - given.least);
      trace.last = pattern;
    });
    trace.held = since === null ? 0 : STEPS + 1 - since;
    trace.T0 = trace.held > HELD ? since : null;
    return trace;
  }

  const averages = (method) => method === "RAMDA" || method === "RMDA";

  // Drawing -------------------------------------------------------------------------------------------------------------
  const el = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  function chart(svg, title, ticks, yOf, curves, dots, milestones, bottom) {
    const width = Math.max(320, Math.round(svg.clientWidth || 640)), height = bottom ? 220 : 190;
    const left = 46, right = 12, top = 26, floor = height - (bottom ? 34 : 10);
    const x = (t) => left + ((width - left - right) * t) / STEPS, y = (v) => floor - (floor - top) * yOf(v);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(el("text", { x: left, y: 14, class: "title" }, title));
    for (const [value, label] of ticks) {
      svg.append(el("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(el("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, label));
    }
    for (const m of milestones) svg.append(el("line", { class: "stage", x1: x(m), x2: x(m), y1: top, y2: floor }));
    svg.append(el("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }));
    if (bottom) {
      for (let t = 0; t <= STEPS; t += 1000) {
        const anchor = t === 0 ? "start" : t === STEPS ? "end" : "middle";
        svg.append(el("text", { x: x(t), y: floor + 16, "text-anchor": anchor }, t));
      }
      svg.append(el("text", { x: (left + width - right) / 2 + (width > 500 ? 0 : 70), y: floor + 30, "text-anchor": "middle" }, "step"));
    }
    for (const [name, t, values] of curves)
      svg.append(el("polyline", { class: name, points: t.map((s, i) => `${x(s).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" ") }));
    for (const [name, t, value] of dots) if (t !== null) svg.append(el("circle", { class: name, cx: x(t), cy: y(value), r: 5 }));
  }

  const LEAST = -12;
  const MOST = 4; // beyond it a run has diverged, as far as a drawing goes
  const exponent = (gap) => (gap < 10 ** MOST ? Math.max(LEAST, Math.log10(Math.max(gap, 1e-300))) : MOST);
  const power = (k) => (k === 0 ? "1" : "10" + [...String(k)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join(""));

  function draw(s, now, kept) {
    const most = Math.max(4, ...now.hat, ...now.mean, ...(kept ? kept.hat : []));
    const root = (v) => Math.sqrt(v / most), marks = [0, 1, 2, 5, 10, 20, 40].filter((v) => v <= most);
    const curves = (hat, mean) => [
      ...(kept ? [["kept", kept.t, kept[hat]]] : []),
      ...(averages(s.method) ? [["mean", now.t, now[mean]]] : []),
      ["hat", now.t, now[hat]],
    ];
    const at = (trace, t) => trace.gapHat[Math.max(0, trace.t.findIndex((u) => u >= t))];
    const dots = (f) => [
      ...(kept ? [["keptdot", kept.T0, kept.T0 && f(kept)]] : []),
      ["dot", now.T0, now.T0 && f(now)],
    ];
    chart($("error"), "Wrong pieces", marks.map((v) => [v, v]), root, curves("hat", "mean"), dots(() => 0), now.milestones, false);
    const all = [...now.gapHat, ...now.gapMean, ...(kept ? kept.gapHat : [])].map(exponent);
    const high = Math.ceil(Math.max(...all.slice(1))), low = Math.min(Math.floor(Math.min(...all)), high - 2);
    const scale = (gap) => Math.min(1, (exponent(gap) - low) / (high - low)), gaps = [];
    for (let k = low; k <= high; k += high - low > 5 ? 2 : 1) gaps.push([10 ** k, power(k)]);
    const dotted = dots((trace) => at(trace, trace.T0));
    chart($("gap"), "Objective gap F − F*", gaps, scale, curves("gapHat", "gapMean"), dotted, now.milestones, true);
    raster(now);
    $("key-mean").hidden = !averages(s.method);
    $("key-kept").hidden = !kept;
    $("key-stage").hidden = !now.milestones.length;
    const wrongMean = now.mean.at(-1), wrongHat = now.hat.at(-1);
    const gap = now.gapHat.at(-1), shown = gap < 1e-12 ? "below 1e-12" : gap.toExponential(1);
    const found = !(gap < 10 ** MOST)
      ? "diverged, its learning rate is too large"
      : now.T0 === null
      ? `structure not found in ${STEPS} steps: ` +
        (now.held ? `right only in the last ${now.held === 1 ? "one" : now.held}` : `up to ${wrongHat} wrong at the end`)
      : `structure right for good from step ${now.T0}`;
    const nonzero = now.given.pattern.filter((v) => v !== 0).length;
    const kind = s.problem === "lasso" ? "entries" : "groups";
    $("summary").innerHTML = `<strong>${s.method}: ${found}.</strong> The optimum has ${nonzero} of ` +
      `${now.given.pattern.length} ${kind} nonzero; the gap ends at ${shown}` +
      (averages(s.method) ? `, and the average w has ${wrongMean} wrong.` : ".");
  }

  function raster(now) {
    const pattern = now.given.pattern, cell = (name) => `<span class="${name}"></span>`;
    const row = (label, cells) =>
      `<span>${label}</span><div class="pieces" style="--count:${pattern.length}" role="img" aria-label="${label} point">${cells.join("")}</div>`;
    const best = pattern.map((v) => cell(v ? "right" : ""));
    const last = now.last.map((v, i) =>
      cell(v === pattern[i] ? (v ? "right" : "") : v === 0 ? "lost" : "extra"));
    const key = (name, words) => `<span><span class="pieces">${cell(name)}</span>${words}</span>`;
    $("raster").innerHTML = row("optimum", best) + row("found", last) +
      `<div class="note">${key("right", "nonzero")}${key("", "zero")}${key("extra", "wrongly nonzero")}${key("lost", "wrongly zero")}</div>`;
  }

  // Wiring --------------------------------------------------------------------------------------------------------------
  let now = null, kept = null, waiting = false;

  function update() {
    waiting = false;
    const s = read();
    for (const [name, shown] of Object.entries(SHOWN)) document.querySelector(`output[for="${name}"]`).textContent = shown(s[name]);
    const dual = averages(s.method);
    const uses = { averaging: s.method !== "NSGD", tau: s.method === "NSGD", memory: dual && s.stages > 1, grow: dual };
    for (const [name, used] of Object.entries(uses)) {
      $(name).disabled = !used;
      $(name).closest(".field").classList.toggle("off", !used);
    }
    $("averaging-label").textContent = dual ? "Averaging c: w moves this share towards ŵ" : "Weight c of the newest gradient in the momentum";
    now = compute(s);
    draw(s, now, kept);
    document.body.dataset.ready = "true";
  }

  function soon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(update);
  }

  write({ problem: "lasso", lambda: -0.9, batch: 3, seed: 0, method: "RAMDA", tau: 1.5, ...USUAL.RAMDA });
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (USUAL[asked.method]) write({ method: asked.method, ...USUAL[asked.method] });
  write(Object.fromEntries(Object.entries(asked).filter(([name]) => NAMES.includes(name))));
  $("controls").addEventListener("input", (event) => {
    if (event.target.id === "method") write(USUAL[event.target.value]);
    soon();
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("pin").addEventListener("click", () => {
    kept = now;
    $("unpin").disabled = false;
    soon();
  });
  $("unpin").addEventListener("click", () => {
    kept = null;
    $("unpin").disabled = true;
    $("pin").focus();
    soon();
  });
  $("reset").addEventListener("click", () => {
    write(USUAL[$("method").value]);
    soon();
  });
  addEventListener("resize", soon);
  update();
})();
