"""The documentation: its Python and the examples in docstrings run; API pages miss no public module."""

import ast
import doctest
import importlib
import pkgutil
import re
import sys
import types
from pathlib import Path

import pytest

import ramda_theory
from ramda_theory.regularizers import Regularizer

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md") if "```python\n" in path.read_text(encoding="utf-8"))
LISTED = set(re.findall(r"^   (ramda_theory[\w.]*)$", (DOCS / "api" / "index.md").read_text(encoding="utf-8"), re.M))
INTERNAL = {"ramda_theory.plots"}
"""Lists names, but of earlier versions."""


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_page_runs(page, monkeypatch):
    module = types.ModuleType(f"page_{page}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    monkeypatch.setattr(Regularizer, "_registry", dict(Regularizer._registry))  # what a page defines is its own
    for block in re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, f"{page}.md", "exec"), module.__dict__)


def modules_with_examples() -> list[str]:
    files = sorted(path for path in Path(ramda_theory.__path__[0]).rglob("*.py") if ">>> " in path.read_text("utf-8"))
    return [".".join(path.relative_to(DOCS.parent).with_suffix("").parts).removesuffix(".__init__") for path in files]


def test_examples_in_docstrings_run():
    results = {name: doctest.testmod(importlib.import_module(name)) for name in modules_with_examples()}
    assert [name for name, result in results.items() if result.failed] == []
    assert sum(result.attempted for result in results.values()) >= 5


def test_there_are_pages():
    assert {"architecture", "index", "own_engine", "own_method", "own_regularizer", "workloads"} <= set(PAGES)


def missing(listed: set[str]) -> set[str]:
    """Public modules, those that list their names, without an API page."""
    wings = [f"ramda_theory.{module.name}" for module in pkgutil.iter_modules(ramda_theory.__path__)]
    public = {
        name for name in wings if name != "ramda_theory.__main__" and hasattr(importlib.import_module(name), "__all__")
    }
    return (public | {"ramda_theory"}) - INTERNAL - listed


def test_every_public_module_has_its_page():
    assert missing(LISTED) == set()
    assert missing(LISTED - {"ramda_theory.optim"}) == {"ramda_theory.optim"}


def test_what_is_listed_exists():
    for name in LISTED:
        path = DOCS.parent.joinpath(*name.split("."))
        if path.is_dir() or path.with_suffix(".py").is_file():
            continue
        tree = ast.parse(path.parent.with_suffix(".py").read_text(encoding="utf-8"))  # trainers are slow to import
        assert path.name in {getattr(node, "name", None) for node in tree.body}, name
