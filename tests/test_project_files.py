"""What stands in several files of the project agrees: versions, bounds, the commands that must hold."""

import re
import tomllib
from pathlib import Path

import yaml

import ramda_theory

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def bound(package: str) -> str:
    return next(m[1] for each in PROJECT["dependencies"] if (m := re.fullmatch(rf"{package}>=([\d.]+)", each)))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["references"][0]["identifiers"][0]["value"] in text("README.md")
    assert f"## {PROJECT['version']}" in text("CHANGELOG.md")


def test_the_workflow_tests_the_versions_that_are_allowed():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    versions = jobs["tests"]["strategy"]["matrix"]
    assert versions["torch"] == [bound("torch"), "newest"]
    assert f">={versions['python'][0]}" == PROJECT["requires-python"]


def test_the_commands_that_must_hold_are_the_same_everywhere():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    told = text("CONTRIBUTING.md")
    for command in ("ruff check .", "ruff format --check .", "mypy", "pytest -n 2", "pytest -n 2 --cov"):
        assert command in steps and command in told
    hooks = {hook["id"]: hook for hook in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]}
    assert {name: hook["entry"].split()[0] for name, hook in hooks.items()} == {
        "ruff-check": "ruff",
        "ruff-format": "ruff",
        "mypy": "mypy",
    }


def test_links_of_the_texts_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("paper_checks/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_extras_that_are_told_exist():
    extras = PROJECT["optional-dependencies"]
    told = {name for names in re.findall(r"\.\[([\w,]+)\]", text("README.md")) for name in names.split(",")}
    assert told and told <= set(extras)
    assert ramda_theory.__name__ == PROJECT["name"]
