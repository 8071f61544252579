"""The figures of the repository: whole, named, and from numbers that come out again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from paper_checks import __main__ as checks_command
from paper_checks import all_checks
from paper_checks.check import Outcome, check
from ramda_theory.cli import main, parser
from ramda_theory.drawing import new_figure, record_figure, typed
from ramda_theory.experiments.converge import converge
from ramda_theory.experiments.identify import identify

FIGURES = Path(__file__).parents[1] / "figures"
"""The figures of the repository."""
ENTRIES = json.loads((FIGURES / "figures.json").read_text(encoding="utf-8"))
RESULTS = {"figures.json", "paper_checks.json"}
"""JSON that belongs to all figures of the folder."""

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


# -- the figures of the repository -----------------------------------------------------------------------------------


def test_every_file_is_named_and_every_name_has_its_files():
    found = {path.name for path in FIGURES.iterdir() if path.suffix in (".png", ".pdf", ".json")}
    named = {f"{stem}.{suffix}" for stem in ENTRIES for suffix in ("png", "pdf")}
    data = {entry["data"] for entry in ENTRIES.values() if isinstance(entry["data"], str)}
    assert found - RESULTS == named | data
    for stem in ENTRIES:
        assert (FIGURES / f"{stem}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (FIGURES / f"{stem}.pdf").read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize("stem", ENTRIES)
def test_the_command_of_a_figure_can_be_typed_and_is_nobodys_own(stem):
    entry = ENTRIES[stem]
    assert entry["versions"].keys() == {"python", "numpy", "scipy", "torch", "matplotlib", "ramda_theory"}
    assert entry["seeds"] and entry["data"]
    if entry["command"].startswith("python -m paper_checks "):
        (name,) = shlex.split(entry["command"])[3:]  # and nothing else: no quick run
        assert name in {item.id for item in all_checks()}
        assert (FIGURES.parent / entry["seeds"].removeprefix("written in ")).exists()
    else:
        program, *arguments = shlex.split(entry["command"])
        assert program == "ramda-theory" and "--quick" not in arguments and "--out" not in arguments
        assert parser().parse_args(arguments).command == arguments[0]
    assert not any(place in json.dumps(entry) for place in ("/tmp", "/home", "/work", "/root", "/Users"))


def test_a_setting_of_identify_comes_out_again():
    """Seed 0 of the first setting.  T0 is an integer and the same on every machine unless rounding decides it."""
    kept = next(entry for entry in json.loads((FIGURES / "identify.json").read_text()) if entry["seed"] == 0)
    (run,) = identify(methods=["RAMDA:lr=1e-2"], seeds=[0])
    again = run.to_dict()
    for name in ("objective_gap", "nondegeneracy_margin"):
        assert again.pop(name) == pytest.approx(kept.pop(name), rel=1e-6)
    assert again == kept


def test_the_curves_of_converge_come_out_again():
    """Differences of nearly equal numbers are off by their rounding, 1e-14."""
    command = parser().parse_args(shlex.split(ENTRIES["converge"]["command"])[1:])
    runs = converge(command.problem, methods=command.methods, epochs=command.epochs, batch=command.batch)
    kept = json.loads((FIGURES / "converge.json").read_text())
    for run, old in zip(runs, kept, strict=True):
        new = run.to_dict()
        assert (new["method"], new["settings"]) == (old["method"], old["settings"])
        assert new["series"].keys() == old["series"].keys()
        for name in new["series"].keys() - {"seconds"}:
            for a, b in zip(new["series"][name], old["series"][name], strict=True):
                assert a == pytest.approx(b, rel=1e-6, abs=1e-13) if b is not None else a is None, name


def test_the_numbers_of_a_check_come_out_again():
    """Slopes of counts of iterations; on another machine a count may be off by one in a few hundred."""
    entry = ENTRIES["theorem_1_steps"]
    (item,) = [item for item in all_checks() if item.id == shlex.split(entry["command"])[3]]
    measured = checks_command.plain(item.run(False, None)[0].measured)
    assert measured.keys() == entry["data"].keys() == {"slopes"}
    for new, old in zip(measured["slopes"], entry["data"]["slopes"], strict=True):
        assert new.pop("instance") == old.pop("instance")
        assert new == pytest.approx(old, rel=1e-2)
