"""The figures of the repository: whole, named, and from numbers that come out again."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest

from paper_checks import __main__ as checks_command
from paper_checks import all_checks, networks
from paper_checks.check import Outcome, check
from ramda_theory import plots
from ramda_theory.cli import main, parser
from ramda_theory.drawing import command_line, new_figure, record_figure, save_png
from ramda_theory.experiments.converge import converge
from ramda_theory.experiments.identify import identify

FIGURES = Path(__file__).parents[1] / "figures"
"""The figures of the repository."""
ENTRIES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIGURES.glob("*.json"))}
KEYS = ["command", "seeds", "versions", "data"]
VERSIONS = {"python", "numpy", "scipy", "torch", "matplotlib", "ramda_theory"}

# -- the record ------------------------------------------------------------------------------------------------------


def test_a_figure_has_a_record_of_its_own(tmp_path):
    record_figure(tmp_path, "b", command="one", seeds=[0, 1], data=[1])
    record_figure(tmp_path, "a", command=None, seeds="written in a.py", data={"value": 1.5})
    assert record_figure(tmp_path, "b", command="three", seeds=(4,), data=[2]) == tmp_path / "b.json"
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert list(a) == list(b) == KEYS and a["versions"].keys() == VERSIONS
    assert (a["command"], a["seeds"], a["data"]) == (None, "written in a.py", {"value": 1.5})
    assert (b["command"], b["seeds"], b["data"]) == ("three", [4], [2])
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_figure(tmp_path, "b", command="four", seeds=[0], data={"value": math.nan})
    assert json.loads((tmp_path / "b.json").read_text()) == b


def test_arrays_are_rounded_and_single_numbers_are_not(tmp_path):
    third = 1 / 3
    data = {"one": third, "many": [third, None, 10**12 + 1, "x"], "rows": [{"value": third, "pair": (1e9 * third, 2)}]}
    path = record_figure(tmp_path, "a", command="c", seeds=[0], data=data)
    assert json.loads(path.read_text())["data"] == {
        "one": third,
        "many": [0.33333333, None, 10**12 + 1, "x"],
        "rows": [{"value": third, "pair": [333333330.0, 2]}],
    }


def test_a_command_is_named_without_its_folder():
    arguments = ["--seeds", "0", "1", "--out", "/somewhere", "--methods", "RAMDA:lr=0.1", "a b", "--resume"]
    expected = "ramda-theory identify --seeds 0 1 --methods RAMDA:lr=0.1 'a b'"
    assert command_line("ramda-theory identify", arguments, without=["--resume"]) == expected
    assert command_line("c", ["--out=/somewhere", "--quick"]) == "c --quick"


def test_names_of_earlier_versions():
    assert plots.typed is command_line and plots.save_both is save_png
    assert {"typed", "save_both", "plot_comparison", "plot_training"} <= set(plots.__all__)


def test_paper_checks_name_their_figures(tmp_path, monkeypatch):
    @check("drawn", claim="", kind="tight", criterion="")
    def measure(quick):
        """Problem: a. Claim: b. Algorithm: c. Theorem: d. Reference: e. Failure would mean: f."""
        return Outcome("holds", {"value": float("nan"), "two": (1, 2)}, "", {"one": new_figure(1, 1)})

    monkeypatch.setattr(checks_command, "all_checks", lambda: [measure])
    assert checks_command.main(["--quick", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "one.json", "paper_checks.json"}
    entry = json.loads((tmp_path / "one.json").read_text())
    assert list(entry) == KEYS and entry["command"] == "python -m paper_checks drawn --quick"
    assert entry["data"] == {"value": None, "two": [1, 2]} and entry["seeds"] == "written in test_figures.py"


@pytest.mark.parametrize("arguments", [[], ["--quick"]])
def test_only_a_quick_run_is_quick(arguments, tmp_path, monkeypatch):
    """The published numbers are of full runs."""
    asked = []

    @check("asked", claim="", kind="tight", criterion="")
    def measure(quick):
        """Problem: a. Claim: b. Algorithm: c. Theorem: d. Reference: e. Failure would mean: f."""
        asked.append(quick)
        return Outcome("holds", {}, "")

    monkeypatch.setattr(checks_command, "all_checks", lambda: [measure])
    assert checks_command.main([*arguments, "--out", str(tmp_path)]) == 0
    measure.run(False, None)
    assert asked == [bool(arguments), False]


@pytest.mark.parametrize(
    ("command", "name", "seeds"),
    [
        (["identify", "--problem", "lasso", "--quick", "--methods", "RMDA", "--seeds", "3", "4"], "identify", [3]),
        (["converge", "--problem", "lasso", "--epochs", "3", "--methods", "RMDA", "--seed", "5"], "converge", [5]),
        (["train", "--model", "mlp", "--epochs", "1", "--seed", "2"], "train", [2]),
    ],
)
def test_commands_write_a_figure_and_its_record(command, name, seeds, tmp_path):
    assert main([*command, "--out", str(tmp_path)]) == 0
    (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {f"{name}.png", f"{name}.json"}
    entry = json.loads((tmp_path / f"{name}.json").read_text())
    assert list(entry) == KEYS and entry["command"] == "ramda-theory " + " ".join(command)
    assert entry["seeds"] == seeds and entry["data"]


# -- the figures of the repository -----------------------------------------------------------------------------------


def test_every_figure_has_its_record_and_every_record_its_figure():
    assert len(ENTRIES) > 30
    found = {path.name for path in FIGURES.iterdir()}
    assert found == {f"{name}.{suffix}" for name in ENTRIES for suffix in ("png", "json")}
    for name in ENTRIES:
        assert (FIGURES / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ENTRIES)
def test_the_command_of_a_figure_can_be_typed_and_is_nobodys_own(name):
    entry = ENTRIES[name]
    assert list(entry) == KEYS and entry["versions"].keys() == VERSIONS
    assert entry["seeds"] and entry["data"]
    if entry["command"].startswith("python -m paper_checks "):
        (check_id,) = shlex.split(entry["command"])[3:]  # and nothing else: no quick run
        assert check_id in {item.id for item in all_checks()}
        assert (FIGURES.parent / entry["seeds"].removeprefix("written in ")).exists()
    elif entry["command"].startswith("python -m paper_checks.networks "):
        arguments = shlex.split(entry["command"])[3:]
        assert set(networks.arguments_parser().parse_args(arguments).tables) <= set(networks.TABLES)
        assert "--limit-batches" not in arguments and "--out" not in arguments
    else:
        program, *arguments = shlex.split(entry["command"])
        assert program == "ramda-theory" and "--quick" not in arguments and "--out" not in arguments
        assert parser().parse_args(arguments).command == arguments[0]
    assert not any(place in json.dumps(entry) for place in ("/tmp", "/home", "/work", "/root", "/Users"))


def test_a_setting_of_identify_comes_out_again():
    """Seed 0 of the first setting.  T0 is an integer and the same on every machine unless rounding decides it."""
    kept = next(entry for entry in ENTRIES["identify"]["data"] if entry["seed"] == 0)
    (run,) = identify(methods=["RAMDA:lr=1e-2"], seeds=[0])
    again = run.to_dict()
    for name in ("objective_gap", "nondegeneracy_margin"):
        assert again.pop(name) == pytest.approx(kept.pop(name), rel=1e-6)
    assert again == kept


def test_the_curves_of_converge_come_out_again():
    """Differences of nearly equal numbers are off by their rounding, 1e-14."""
    command = parser().parse_args(shlex.split(ENTRIES["converge"]["command"])[1:])
    runs = converge(command.problem, methods=command.methods, epochs=command.epochs, batch=command.batch)
    kept = ENTRIES["converge"]["data"]
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
