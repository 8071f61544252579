"""The house: a file imports from its own floor or below, and no two files import one another, however indirectly.

Imports inside functions and those for types alone count as all others do.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ramda_theory"

FLOORS = (
    ("arrays", "extras", "files", "structure", "tables"),
    ("regularizers",),
    ("problems", "subproblem"),
    ("kernels", "methods"),
    ("diagnostics",),
    ("checkpoint", "drawing"),
    ("model",),
    ("optim", "run", "second_phase", "workloads"),
    ("experiments", "integrations"),
    ("cli", "plots"),
    ("__main__", "ramda_theory"),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}


def name_of(path: Path, root: Path) -> str:
    """The module in ``path``, without the package's name; the package itself is "ramda_theory"."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "ramda_theory"


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, wherever it does so."""
    files = {name_of(path, root): path for path in root.rglob("*.py")}

    def found(name: str) -> str:
        return name.removeprefix("ramda_theory").removeprefix(".") or "ramda_theory"

    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno} imports by dots; names are written out here"
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if found(name) in files else str(node.module) for name in inside]
            else:
                continue
            graph[module] |= {found(name) for name in names if name.partition(".")[0] == "ramda_theory"} - {module}
    return graph


def upward(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports from a floor above."""
    return {
        (module, other)
        for module, others in graph.items()
        for other in others
        if FLOOR[other.partition(".")[0]] > FLOOR[module.partition(".")[0]]
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import one another in a circle, the first of them repeated at the end; [] if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


GRAPH = imports(ROOT)


def test_every_file_has_its_floor():
    assert {module.partition(".")[0] for module in GRAPH} <= set(FLOOR)


def test_nothing_is_imported_from_above():
    assert upward(GRAPH) == set()


def test_no_circles():
    assert not (found := circle(GRAPH)), " imports ".join(found)


@pytest.fixture
def house(tmp_path):
    """A small house whose files are given by their text."""

    def build(**files: str) -> dict[str, set[str]]:
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / f"{name.replace('__at__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return imports(tmp_path)

    return build


@pytest.mark.parametrize(
    "text",
    [
        "from ramda_theory.optim.base import Base",
        "import ramda_theory.optim.base",
        "from ramda_theory.optim import base",
        "def f():\n    from ramda_theory.optim.base import Base",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ramda_theory.optim.base import Base",
    ],
)
def test_an_import_from_above_is_seen_wherever_it_is(house, text):
    graph = house(model__at__tracker=text, optim__at__base="import torch\nfrom ramda_theory.model import tracker")
    assert upward(graph) == {("model.tracker", "optim.base")}
    assert set(circle(graph)) == {"model.tracker", "optim.base"}


def test_the_top_is_above_all(house):
    assert upward(house(cli="from ramda_theory import run", run="")) == set()
    assert upward(house(cli="from ramda_theory import Run", run="")) == {("cli", "ramda_theory")}
