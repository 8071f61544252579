"""The page that works in the browser alone: its recurrences against ramda_theory.methods, and that it draws."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ramda_theory.methods import NSGD, RAMDA, RMDA, ProxGen, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import binary_logistic, least_squares
from ramda_theory.regularizers import L1, GroupLasso

PAGE = Path(__file__).parents[1] / "docs" / "extra" / "playground"
STEPS, BATCH, WEIGHT = 60, 8, 0.3

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

HARNESS = """
const R = require(process.argv[1]), given = JSON.parse(require("fs").readFileSync(0));
const f = R[given.f](given.rows, given.targets);
const psi = given.size > 1 ? R.groupLasso(given.weight, given.size) : R.l1(given.weight);
const method = R.METHODS[given.method](psi, given.tau), trace = [];
const start = Float64Array.from(given.start);
R.run(f, method, R.schedule(given.schedule), start, given.batches.length, (t) => given.batches[t - 1],
      (t, state) => trace.push([Array.from(state.w), Array.from(state.wHat)]));
console.log(JSON.stringify({ trace, value: f.value(start),
  minimiser: Array.from(R.minimiser(f, psi)), pattern: psi.pattern(R.minimiser(f, psi)) }));
"""

ROWS = np.random.default_rng(0).normal(size=(80, 12))
PLANTED = np.repeat([1.0, 0.0, -2.0, 0.0], 3)
LR = {"NSGD": 0.3, "ProxAdamW": 0.3}
METHODS = {
    "RAMDA": RAMDA,
    "RMDA": RMDA,
    "ProxSGD": ProxSGD,
    "ProxAdamW": lambda psi: ProxGen(psi, betas=(1 - 0.3, 0.999)),
    "NSGD": lambda psi: NSGD(psi, prox_step=5.0),
}


def case(loss: str, size: int):
    """A problem, and what the page is told of it."""
    psi = GroupLasso(WEIGHT, labels=tuple(np.repeat(range(4), 3).tolist())) if size > 1 else L1(WEIGHT)
    scores = ROWS @ PLANTED + np.random.default_rng(1).normal(size=len(ROWS))
    targets = np.where(scores > 0, 1.0, -1.0) if loss == "logistic" else scores
    make = binary_logistic if loss == "logistic" else least_squares
    problem = make(ROWS, targets, psi)
    return problem, {"f": loss, "rows": ROWS.tolist(), "targets": targets.tolist(), "size": size, "weight": WEIGHT}


def node(given: dict) -> dict:
    command = ["node", "-e", HARNESS, str(PAGE / "methods.js")]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("loss", ["leastSquares", "logistic"])
@pytest.mark.parametrize("name", METHODS)
def test_recurrences_are_those_of_the_package(name, loss, size):
    problem, given = case(loss, size)
    method = METHODS[name](problem.regularizer)
    stages = {"lr": LR.get(name, 0.05), "averaging": 0.3, "eps": 1e-3, "milestones": [15, 30, 45]}
    schedule = Schedule(**stages, memory=7, memory_growth=3.0, grow_averaging=name in ("RAMDA", "RMDA"))
    gradients = SampledGradient(BATCH, seed=1)
    start = np.repeat([0.0, 1.0], 6) * np.random.default_rng(2).normal(size=12)
    state, expected = method.init(start), []
    for t in range(1, STEPS + 1):
        settings = schedule.at(t)
        if schedule.starts_stage(t):
            state = method.restart(state, settings, schedule.memory_at(t))
        state, _ = method.step(state, gradients(problem, state.query, t), settings)
        expected.append((state.w, state.w_hat))
    found = node(
        given
        | {
            "method": name,
            "tau": 5.0,
            "start": start.tolist(),
            "batches": [gradients.batch(problem, t).tolist() for t in range(1, STEPS + 1)],
            "schedule": {**stages, "memory": 7, "memoryGrowth": 3, "growAveraging": schedule.grow_averaging},
        }
    )
    np.testing.assert_allclose(np.array(found["trace"]), np.array(expected), rtol=0, atol=1e-10)
    assert any((hat == 0).any() for _, hat in expected), "no zeros: psi was not seen"
    assert abs(found["value"] - problem.value(start)) <= 1e-12
    reference = problem.solution()
    np.testing.assert_allclose(found["minimiser"], reference.point, rtol=0, atol=1e-9)
    assert found["pattern"] == reference.structure.pattern.tolist()


def test_the_page_needs_nothing_but_its_own_files():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir()))
    own = {path.name for path in PAGE.iterdir()}
    assert set(re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]+)\"", text)) <= own
    assert not re.search(r"fetch\(|XMLHttpRequest|@import|url\(|import\(", text)


def test_every_input_has_its_label():
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    inputs = set(re.findall(r"<(?:input|select) id=\"(\w+)\"", text))
    assert len(inputs) == 11 and inputs == set(re.findall(r"<label for=\"(\w+)\"", text))


WATCH = """<script>
const seen = [], frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const drawn = () => [...document.querySelectorAll("polyline")].map((line) => line.getAttribute("points")).join("|");
(async () => {
  for (const [id, value] of CHANGES) {
    const before = drawn(), input = document.getElementById(id);
    if (input.type === "checkbox") input.checked = value; else input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
    seen.push([id, drawn() !== before, document.getElementById("summary").textContent]);
  }
  document.getElementById("pin").click();
  await frame();
  seen.push(["pin", document.querySelectorAll("#error .kept").length === 1, ""]);
  document.body.insertAdjacentHTML("beforeend", "<pre id=seen></pre>");
  document.getElementById("seen").textContent = JSON.stringify(seen);
})();
</script>"""
NO_FRAMES = "<script>window.requestAnimationFrame = (done) => setTimeout(done, 0);</script>"
"""A browser that only prints its page paints none."""
CHANGES = [
    ("lambda", "-0.5"),
    ("batch", "2"),
    ("seed", "3"),
    ("lr", "-1"),
    ("averaging", "-1"),
    ("stages", "4"),
    ("memory", "0"),
    ("grow", False),
    ("problem", "logistic"),
    ("method", "NSGD"),
    ("tau", "3"),
    ("problem", "group"),
    ("lr", "1.5"),
    ("method", "ProxAdamW"),
    ("method", "ProxSGD"),
    ("method", "RMDA"),
]


@needs_browser
def test_every_control_draws_anew_in_a_browser(tmp_path):
    shutil.copytree(PAGE, tmp_path / "page")
    index = tmp_path / "page" / "index.html"
    watching = WATCH.replace("CHANGES", json.dumps(CHANGES))
    page = index.read_text(encoding="utf-8").replace("</body>", f"{watching}</body>")
    index.write_text(page.replace("<head>", f"<head>{NO_FRAMES}"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=60000", "--dump-dom", index.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
    found = re.search(r"<pre id=\"seen\">(.*?)</pre>", page, re.DOTALL)
    assert found, page[-2000:]
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert [name for name, changed, _ in seen if not changed] == []
    assert len(seen) == len(CHANGES) + 1
    assert "structure" in seen[0][2] and "diverged" in seen[12][2]
