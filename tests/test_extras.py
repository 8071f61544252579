"""What works with the core's packages alone, and what the rest says without its own."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ramda_theory.extras import EXTRAS, MissingExtra, needs, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
OPTIONAL = sorted(name for packages in EXTRAS.values() for name in packages)
BLOCKED = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # None: not to be found

CORE = """
import json
loaded = {}
for name in ENTRIES:
    __import__(name)
    loaded[name] = sorted(name for name, module in sys.modules.items() if module and name in OPTIONAL)
import torch
from ramda_theory.optim import RAMDA
from ramda_theory.regularizers import GroupLasso
w = torch.nn.Parameter(torch.ones(3, 2))
optimizer = RAMDA([w], lr=0.1, momentum=0.0, regularizer=GroupLasso(1e-3))
w.grad = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
optimizer.step()
print(json.dumps({"loaded": loaded, "w": w.tolist()}))
"""
ENTRIES = [
    "ramda_theory",
    "ramda_theory.optim",
    "ramda_theory.regularizers",
    "ramda_theory.model",
    "ramda_theory.subproblem",
    "ramda_theory.methods",
    "ramda_theory.diagnostics",
    "ramda_theory.problems",
    "ramda_theory.drawing",
    "ramda_theory.plots",
    "ramda_theory.experiments.train",
    "ramda_theory.workloads.digits",
    "ramda_theory.cli",
]

CALLS = {
    "digits": ("from ramda_theory.problems import digits", "digits()", "sklearn"),
    "breast_cancer": ("from ramda_theory.problems import breast_cancer", "breast_cancer()", "sklearn"),
    "splits": ("from ramda_theory.workloads.digits import digit_splits", "digit_splits()", "sklearn"),
    "cvxpy": (
        "import numpy as np; from ramda_theory.subproblem import Subproblem, solve; "
        "from ramda_theory.regularizers import L1; z = np.ones(2)",
        "solve(Subproblem(z, z, z, 1.0, L1(1.0)), method='cvxpy')",
        "cvxpy",
    ),
    "zeta": ("from ramda_theory.subproblem import PolynomialTolerance as P", "P(1.0).sum_of_squares", "scipy"),
    "rate": ("from ramda_theory.diagnostics import fit_rate", "fit_rate([1, 2, 3, 4, 5], [9, 6, 3, 2, 1])", "scipy"),
    "table": ("from ramda_theory.tables import to_pandas", "to_pandas([])", "pandas"),
    "figure": ("from ramda_theory.drawing import new_figure", "new_figure(3, 2)", "matplotlib"),
}
ATTEMPTS = """
import json
said = {}
for name, (first, then, _) in CALLS.items():
    try:
        exec(first + "\\n" + then)
        said[name] = "no error"
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
COMMANDS = """
import os
from ramda_theory.cli import main
print([main([command, "--out", "x"]) for command in ("identify", "converge", "validate", "train")], os.listdir())
"""


def without_extras(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run ``code`` where the packages of the extras are not to be found."""
    code = BLOCKED + f"ENTRIES, OPTIONAL, CALLS = {ENTRIES!r}, {OPTIONAL!r}, {CALLS!r}\n" + code
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_core_alone_imports_everything_and_takes_a_step(tmp_path):
    answer = without_extras(CORE, tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["loaded"] == {name: [] for name in ENTRIES}
    # s = lr, U = s g^2, P = cbrt(U) + eps: column 1 is 1 - s/P, less the pull of the weight, which holds column 2 at 0.
    moved, zeros = zip(*found["w"], strict=True)
    assert moved == pytest.approx([1 - 0.1 / (0.1 ** (1 / 3) + 1e-6)] * 3, abs=5e-3)
    assert zeros == (0.0, 0.0, 0.0)


def test_functions_without_their_extra_say_which_to_install(tmp_path):
    answer = without_extras(ATTEMPTS, tmp_path)
    assert answer.returncode == 0, answer.stderr
    install = "is not installed: pip install 'ramda_theory[experiments]'"
    assert json.loads(answer.stdout) == {name: f"{package} {install}" for name, (*_, package) in CALLS.items()}


def test_commands_without_their_extra_say_so_before_they_begin(tmp_path):
    answer = without_extras(COMMANDS, tmp_path)
    assert answer.stdout == "[2, 2, 2, 2] []\n", answer.stderr
    lines = answer.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("is not installed: pip install 'ramda_theory[experiments]'") for line in lines)


def test_other_failures_to_import_stay_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught, needs("cpu"):
        import no_such_package  # noqa: F401
    assert not isinstance(caught.value, MissingExtra)
    require("cpu")
    require("experiments")


def name_of(requirement: str) -> str:
    """The distribution that a requirement asks for."""
    return re.split(r"[\[<>=! ]", requirement)[0]


def test_extras_are_those_of_the_project():
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for extra, packages in EXTRAS.items():
        listed = {name_of(requirement) for requirement in PROJECT["optional-dependencies"][extra]}
        assert listed == {distributions.get(package, package) for package in packages}
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} == {
        "array-api-compat",
        "numpy",
        "torch",
        "tqdm",
    }


def test_every_package_that_is_asked_for_has_its_version_pinned():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    asked = {name_of(requirement) for group in groups for requirement in group} - {PROJECT["name"]}
    assert asked <= PINNED, asked - PINNED
