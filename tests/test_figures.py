"""The figures of the repository: whole, named, and from numbers that come out again."""

from __future__ import annotations

import json

import pytest

from paper_checks import __main__ as checks_command
from paper_checks.check import Outcome, check
from ramda_theory.cli import main
from ramda_theory.plots import new_figure, record_figure, typed

# -- the record ------------------------------------------------------------------------------------------------------


def test_a_figure_takes_the_place_of_its_older_entry_only(tmp_path):
    record_figure(tmp_path, "b", command="one", seeds=[0, 1], data="b.json")
    record_figure(tmp_path, "a", command="two", seeds="written in a.py", data={"value": 1.5})
    record_figure(tmp_path, "b", command="three", seeds=(4,), data="b.json")
    entries = json.loads((tmp_path / "figures.json").read_text())
    assert list(entries) == ["a", "b"]
    assert entries["a"]["command"] == "two" and entries["a"]["data"] == {"value": 1.5}
    assert entries["b"]["command"] == "three" and entries["b"]["seeds"] == [4]
    assert entries["b"]["versions"].keys() == {"python", "numpy", "scipy", "torch", "matplotlib", "ramda_theory"}


@pytest.mark.parametrize("text", ["{", "3", "[1, 2]"])
def test_a_strange_file_is_not_overwritten(text, tmp_path):
    (tmp_path / "figures.json").write_text(text)
    with pytest.raises(ValueError, match=r"figures\.json is not"):
        record_figure(tmp_path, "a", command="c", seeds=[0], data="a.json")
    assert (tmp_path / "figures.json").read_text() == text


def test_a_command_is_named_without_its_folder():
    arguments = ["--seeds", "0", "1", "--out", "/somewhere", "--methods", "RAMDA:lr=0.1", "a b", "--resume"]
    expected = "ramda-theory identify --seeds 0 1 --methods RAMDA:lr=0.1 'a b'"
    assert typed("ramda-theory identify", arguments, without=["--resume"]) == expected
    assert typed("c", ["--out=/somewhere", "--quick"]) == "c --quick"


def test_paper_checks_name_their_figures(tmp_path, monkeypatch):
    @check("drawn", claim="", kind="tight", criterion="")
    def measure(quick):
        """Problem: a. Claim: b. Algorithm: c. Theorem: d. Reference: e. Failure would mean: f."""
        return Outcome("holds", {"value": float("nan"), "two": (1, 2)}, "", {"one": new_figure(1, 1)})

    monkeypatch.setattr(checks_command, "all_checks", lambda: [measure])
    assert checks_command.main(["--quick", "--out", str(tmp_path)]) == 0
    (name, entry), *more = json.loads((tmp_path / "figures.json").read_text()).items()
    assert (name, more) == ("one", []) and entry["command"] == "python -m paper_checks drawn --quick"
    assert entry["data"] == {"value": None, "two": [1, 2]} and entry["seeds"] == "written in test_figures.py"
    assert (tmp_path / "one.png").exists() and (tmp_path / "one.pdf").exists()


@pytest.mark.parametrize(
    ("command", "stem", "seeds"),
    [
        (["identify", "--problem", "lasso", "--quick", "--methods", "RMDA", "--seeds", "3", "4"], "identify", [3]),
        (["converge", "--problem", "lasso", "--epochs", "3", "--methods", "RMDA", "--seed", "5"], "converge", [5]),
        (["train", "--model", "mlp", "--epochs", "1", "--seed", "2"], "train", [2]),
    ],
)
def test_commands_write_both_formats_and_name_the_figure(command, stem, seeds, tmp_path):
    assert main([*command, "--out", str(tmp_path)]) == 0
    (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {f"{stem}.{suffix}" for suffix in ("json", "png", "pdf")} | {"figures.json"}
    entry = json.loads((tmp_path / "figures.json").read_text())[stem]
    assert entry["command"] == "ramda-theory " + " ".join(command)
    assert entry["seeds"] == seeds and entry["data"] == f"{stem}.json"
