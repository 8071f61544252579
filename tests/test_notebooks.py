"""The notebooks as committed: in sync with their text, run from a clean kernel, no code that the package should own."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
MOST_LAMBDAS = 3
"""Schedules are functions of t; anything else has a name in the package."""


def notebook(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(name: str, kind: str) -> list[dict]:
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == kind]


def figures(cell: dict) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def unmagic(source: str) -> str:
    return re.sub(r"^%.*$", "", source, flags=re.MULTILINE)


def test_every_notebook_has_its_text_and_the_other_way_round():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == NAMES
    assert [name[:2] for name in NAMES] == ["1_", "2_", "3_", "4_", "5_", "6_"]


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_is_in_sync(name):
    text = jupytext.read(FOLDER / f"{name}.py")
    assert text.metadata["jupytext"]["formats"] == "ipynb,py:percent"
    paired = [(cell.cell_type, cell.source) for cell in text.cells]
    assert paired == [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(name)["cells"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_package_owns_the_functions(name):
    for cell in cells(name, "code"):
        nodes = list(ast.walk(ast.parse(unmagic("".join(cell["source"])))))
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        assert sum(isinstance(n, ast.Lambda) for n in nodes) <= MOST_LAMBDAS


@pytest.mark.parametrize("name", NAMES)
def test_it_was_executed_once_from_a_clean_kernel_without_a_complaint(name):
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert all(output["name"] == "stdout" for output in outputs if output["output_type"] == "stream")
    assert notebook(name)["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_what_to_see_is_said_before_each_figure(name):
    all_cells = notebook(name)["cells"]
    shown = [index for index, cell in enumerate(all_cells) if figures(cell)]
    assert len(shown) >= 3
    for index in shown:
        assert figures(all_cells[index]) == 1
        before = all_cells[index - 1]
        assert before["cell_type"] == "markdown" and re.search(r"\*\*[^*]*\b[Ss]ee\b", "".join(before["source"]))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_machine_is_left_in_it(name):
    for cell in cells(name, "code"):
        assert not set(cell["metadata"]) & {"execution", "ExecuteTime"}
        for output in cell["outputs"]:
            words = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            assert not re.search(r"(^|[\s'\"(])(/\w+/\w|[A-Z]:\\)| at 0x", words), words
