"""The command line and its jobs as functions: what they write, what they refuse, and going on after an interruption."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ramda_theory.cli import main
from ramda_theory.experiments import validate
from ramda_theory.experiments.converge import converge
from ramda_theory.experiments.identify import SETTINGS, identify, table
from ramda_theory.experiments.settings import METHODS, Setting, parse_setting, select
from ramda_theory.experiments.validate import REGULARIZERS, cases_of
from ramda_theory.methods import SampledGradient
from ramda_theory.problems import PROBLEMS, group_lasso, lasso
from ramda_theory.regularizers import L1, MCP, GroupLasso
from ramda_theory.structure import GroupSupport

TWO = ["RAMDA:lr=0.02,averaging=0.1", "ProxAdamW:lr=0.001"]
"""One setting whose w_hat finds the structure within 900 steps and whose w does not, and one that does not at all."""
FIELDS = {
    "method": str,
    "settings": str,
    "seed": int,
    "iterations": int,
    "identification_time": (int, type(None)),
    "identification_time_w": (int, type(None)),
    "final_structure_error": int,
    "final_structure_error_w": int,
    "held_for": int,
    "objective_gap": float,
    "nondegeneracy_margin": float,
}
QUICK = ["identify", "--problem", "lasso", "--methods", *TWO, "--quick"]


def small(**options):
    """`identify` on a planted LASSO: 900 steps of a tenth of a millisecond."""
    return identify(**({"problem": "lasso", "methods": TWO, "seeds": (0,)} | options))


# -- identify -------------------------------------------------------------------------------------------------------


def test_the_json_of_identify(tmp_path):
    runs = small(seeds=(0, 3), out=tmp_path)
    entries = json.loads((tmp_path / "identify.json").read_text())["data"]
    assert [(entry["method"], entry["seed"]) for entry in entries] == [
        *(("RAMDA", 0), ("RAMDA", 3)),
        *(("ProxAdamW", 0), ("ProxAdamW", 3)),
    ]
    for entry, result in zip(entries, runs, strict=True):
        assert entry.keys() == FIELDS.keys()
        for name, kind in FIELDS.items():
            assert isinstance(entry[name], kind) and not isinstance(entry[name], bool), name
        # once more from the structures themselves
        target = lasso().solution().structure
        hat, averaged = result.record.structures_hat, result.record.structures_w
        assert entry["iterations"] == len(hat) == 900
        assert entry["final_structure_error"] == hat[-1].distance(target)
        assert entry["final_structure_error_w"] == averaged[-1].distance(target)
        for name, trace in (("identification_time", hat), ("identification_time_w", averaged)):
            wrong = [t for t in range(1, 901) if trace[t - 1] != target]
            last = wrong[-1] if wrong else 0
            assert entry[name] == (None if last == 900 else last + 1)
        assert entry["held_for"] == (900 - entry["identification_time"] + 1 if entry["identification_time"] else 0)
        assert entry["nondegeneracy_margin"] == pytest.approx(0.2, abs=1e-9)
        gap = result.record.metrics["objective"][-1] - lasso().objective(lasso().known_point)
        assert entry["objective_gap"] == pytest.approx(gap, abs=1e-14) and gap > 0
    assert [entry["identification_time"] is None for entry in entries] == [False, False, True, True]
    assert all(entry["identification_time_w"] is None for entry in entries)
    assert (tmp_path / "identify.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_default_settings():
    """Methods with and without dual averaging are compared by default."""
    assert {setting.method for setting in SETTINGS} == {"RAMDA", "RMDA", "RDA", "NSGD", "ProxSGD", "ProxAdamW"}
    assert len({(setting.method, setting.label) for setting in SETTINGS}) == len(SETTINGS)


def test_quick_runs_a_third_of_the_epochs_and_the_first_seed():
    (only,) = small(methods=["RAMDA:lr=0.05,milestones=30/150"], seeds=(4, 5), quick=True)
    assert only.seed == 4 and only.w_hat.steps == 300
    assert only.setting.milestones == (10, 50)


def test_the_table_has_a_row_for_each_setting():
    runs = small(seeds=(0, 1))
    lines = table(runs).splitlines()
    assert lines[0].split("  ")[0] == "method" and len(lines) == 2 + 2
    row = lines[2]
    assert row.startswith("RAMDA") and "lr 0.02" in row
    for entry in runs[:2]:
        assert str(entry.w_hat.time) in row
    assert "never" in lines[3]
    assert len({line.index("lr") for line in lines[2:]}) == 1  # columns are aligned


@pytest.mark.parametrize("method", ["MADGRAD", "MDA", "PG", "FISTA", "ProxAdamW:lr=0.01"])
def test_every_method_can_be_identified(method):
    """Also those without psi, whose structures are read by the problem's."""
    (entry,) = identify(group_lasso(), methods=[method], seeds=(0,), quick=True)
    assert isinstance(entry.record.structures_hat[-1], GroupSupport)
    assert entry.to_dict()["method"] == method.partition(":")[0] and math.isfinite(entry.gap)
    if method == "FISTA":
        assert entry.w_hat.time is not None


def test_a_problem_without_a_certified_optimum(tmp_path, monkeypatch, capsys):
    """Structures are then held against the run's own end, and the command says so."""
    problem = lasso()
    problem.known_point = problem.known_point + 1e-3
    monkeypatch.setitem(PROBLEMS, "lasso", lambda weight: problem)
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    assert "no certified optimum: structures are held against the end of each run" in capsys.readouterr().out
    for entry in json.loads((tmp_path / "identify.json").read_text())["data"]:
        assert entry["final_structure_error"] == 0 and entry["identification_time"] is not None


def test_a_diverging_run_is_reported_beside_the_others(tmp_path, capsys):
    arguments = ["identify", "--problem", "lasso", "--quick", "--out", str(tmp_path)]
    assert main([*arguments, "--methods", "ProxSGD:lr=1e5", "RAMDA:lr=0.02"]) == 0
    first, second = json.loads((tmp_path / "identify.json").read_text())["data"]
    assert first["objective_gap"] is None and first["identification_time"] is None and first["held_for"] == 0
    assert first["iterations"] < second["iterations"] == 300
    out = capsys.readouterr().out
    assert "diverged" in out and "nan" not in out.lower()
    assert main([*arguments, "--methods", "ProxSGD:lr=1e5", "RAMDA:lr=0.02"]) == 0  # again from the checkpoints


def test_a_diverged_run_has_found_nothing():
    """Whatever structure it happened to have when it ended."""
    entry, _ = small(quick=True)
    assert entry.w_hat.time is not None and entry.gap is not None
    lost = replace(entry, diverged=True)
    assert (lost.w_hat.time, lost.w_hat.held_for, lost.gap) == (None, 0, None)


def test_a_run_that_diverges_in_its_first_step_is_an_error(tmp_path, monkeypatch, capsys):
    """There is nothing to report of it."""
    monkeypatch.setattr(SampledGradient, "__call__", lambda self, problem, w, t: np.full(w.shape, np.inf))
    error = refused([*QUICK, "--out", str(tmp_path)], capsys)
    assert "step 1 gave NaN or Inf: the learning rate is too large, or the gradient is wrong" in error


# -- interruptions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The JSON of a command that was not interrupted: two methods of 300 steps each."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*QUICK, "--out", str(out)]) == 0
    return (out / "identify.json").read_text()


@pytest.mark.parametrize("call", [1, 150, 300, 301, 599])
def test_an_interrupted_command_goes_on(call, whole, tmp_path, monkeypatch, capsys):
    """Finished runs stay on disk, and the same command ends in the same JSON as one that was never interrupted."""
    calls = 0
    plain = SampledGradient.__call__

    def interrupted(self, problem, w, t):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return plain(self, problem, w, t)

    monkeypatch.setattr(SampledGradient, "__call__", interrupted)
    assert main([*QUICK, "--out", str(tmp_path)]) == 130
    error = capsys.readouterr().err
    assert f"interrupted; what was finished is in {tmp_path}" in error and "Traceback" not in error
    path = tmp_path / "identify.json"
    finished = json.loads(path.read_text())["data"] if path.exists() else []
    assert finished == json.loads(whole)["data"][: (call - 1) // 300]
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    assert calls == 2 * 300 + 1  # no step was taken twice
    assert path.read_text() == whole


def test_a_finished_command_does_no_work_again(tmp_path, monkeypatch, capsys):
    arguments = [*QUICK, "--out", str(tmp_path)]
    assert main(arguments) == 0
    first = capsys.readouterr().out, (tmp_path / "identify.json").read_text(), (tmp_path / "identify.png").read_bytes()

    def never(self, problem, w, t):
        raise AssertionError("a finished run took a step")

    monkeypatch.setattr(SampledGradient, "__call__", never)
    assert main(arguments) == 0
    again = capsys.readouterr().out, (tmp_path / "identify.json").read_text(), (tmp_path / "identify.png").read_bytes()
    assert first == again


def test_more_seeds_and_methods_reuse_what_is_there(tmp_path, monkeypatch):
    small(out=tmp_path, quick=True, methods=TWO[:1])
    steps = []
    plain = SampledGradient.__call__
    monkeypatch.setattr(SampledGradient, "__call__", lambda self, p, w, t: steps.append(t) or plain(self, p, w, t))
    small(out=tmp_path, quick=True)
    assert len(steps) == 300  # those of the second method alone
    small(out=tmp_path, quick=True, weight=0.2)
    assert len(steps) == 300 + 600  # another problem is another run
    small(out=tmp_path, quick=True, seeds=(9,))
    assert len(steps) == 300 + 600 + 600


# -- at the door ----------------------------------------------------------------------------------------------------


def refused(arguments, capsys) -> str:
    """The one line that ``arguments`` are refused with."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    out, error = capsys.readouterr()
    assert code == 2 and out == "" and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    return error


BAD = [
    ([], "required: COMMAND"),
    (["identity"], "invalid choice: 'identity'"),
    (["identify", "--problem", "mnist"], "unknown problem 'mnist'; choose from digits, breast-cancer, lasso"),
    (["identify", "--methods", "Adam"], "unknown method 'Adam'; choose from RAMDA, RMDA"),
    (["identify", "--methods", "ramda"], "unknown method 'ramda'"),
    (["identify", "--methods", ""], "unknown method ''"),
    (["identify", "--methods"], "--methods: expected at least one argument"),
    (["identify", "--methods", "RAMDA:rate=1"], "unknown setting 'rate' of RAMDA; choose from lr, averaging"),
    (["identify", "--methods", "RAMDA:lr"], "lr of RAMDA cannot be read from ''"),
    (["identify", "--methods", "RAMDA:lr=fast"], "lr of RAMDA cannot be read from 'fast'"),
    (["identify", "--methods", "RAMDA:lr=nan"], "lr of RAMDA must be positive, got nan"),
    (["identify", "--methods", "RAMDA:lr=-1"], "lr of RAMDA must be positive, got -1.0"),
    (["identify", "--methods", "RAMDA:lr=inf"], "lr of RAMDA must be positive, got inf"),
    (["identify", "--methods", "RAMDA:averaging=1.5"], "averaging must be in [0, 1], got 1.5"),
    (["identify", "--methods", "RAMDA:averaging=nan"], "averaging must be finite"),
    (["identify", "--methods", "RAMDA:gamma=0"], "gamma must be finite and > 0, got 0.0"),
    (["identify", "--methods", "RAMDA:memory=-1"], "memory must be at least 0, got -1"),
    (["identify", "--methods", "RAMDA:memory=1.5"], "memory of RAMDA cannot be read from '1.5'"),
    (
        ["identify", "--methods", "RAMDA:lr=1,grow=true,lr=2"],
        "lr of RAMDA is given twice in 'RAMDA:lr=1,grow=true,lr=2'",
    ),
    (["identify", "--methods", "RAMDA:grow=maybe"], "grow of RAMDA cannot be read from 'maybe'"),
    (["identify", "--methods", "RAMDA:milestones=60/30"], "milestones must be positive and increasing, got (60, 30)"),
    (["identify", "--methods", "RAMDA:milestones=60,120"], "unknown setting '120' of RAMDA"),
    (["identify", "--methods", "RAMDA", "PG", "--problem", "factorisation"], "PG needs a problem with a Lipschitz"),
    (["identify", "--weight", "-1"], "--weight: must be positive and finite, got -1"),
    (["identify", "--weight", "0"], "--weight: must be positive and finite, got 0"),
    (["identify", "--weight", "nan"], "--weight: must be positive and finite, got nan"),
    (["identify", "--weight", "inf"], "--weight: must be positive and finite, got inf"),
    (["identify", "--weight", "small"], "--weight: invalid positive value: 'small'"),
    (["identify", "--seeds"], "--seeds: expected at least one argument"),
    (["identify", "--seeds", "-1"], "--seeds: must be at least 0 and less than 2**63, got -1"),
    (["identify", "--seeds", "0", "1.5"], "--seeds: invalid seed value: '1.5'"),
    (["identify", "--quick", "please"], "unrecognized arguments: please"),
    (["identify", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
    (["converge", "--problem", "mnist"], "unknown problem 'mnist'"),
    (["converge", "--methods", "Adam"], "unknown method 'Adam'"),
    (["converge", "--methods"], "--methods: expected at least one argument"),
    (["converge", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
    (["converge", "--epochs", "nan"], "--epochs: invalid count value: 'nan'"),
    (["converge", "--epochs", "-3"], "--epochs: must be at least 1, got -3"),
    (["converge", "--epochs", "1000000001"], "--epochs: must be at most 1000000000, got 1000000001"),
    (["converge", "--problem", "lasso", "--epochs", "1000000000"], "steps must be at most 1000000000"),
    (["converge", "--batch", "0"], "--batch: must be at least 1, got 0"),
    (["converge", "--problem", "lasso", "--batch", "201"], "batch must be at most 200 (the samples of lasso), got 201"),
    (["converge", "--problem", "lasso", "--meth", "RAMDA"], "unrecognized arguments: --meth RAMDA"),
    (["converge", "--seed", "-1"], "--seed: must be at least 0 and less than 2**63, got -1"),
    (["converge", "--weight", "nan"], "--weight: must be positive and finite, got nan"),
    (["validate", "--seed", "-3"], "--seed: must be at least 0 and less than 2**63, got -3"),
    (["validate", "--problem", "lasso"], "unrecognized arguments: --problem lasso"),
    (["train", "--weight", "-1"], "--weight: must be at least 0 and finite, got -1"),
    (["train", "--lr", "0"], "--lr: must be positive and finite, got 0"),
    (["train", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
    (["train", "--epochs", "2000000000"], "--epochs: must be at most 1000000000, got 2000000000"),
    (["train", "--milestones", "0"], "--milestones: must be at least 1, got 0"),
    (["train", "--seeds"], "--seeds: expected at least one argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_arguments_end_in_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = refused(arguments, capsys)
    assert error.startswith("ramda-theory") and message in error
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("command", ["identify", "converge", "validate", "train"])
def test_out_must_be_a_folder(command, tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    quick = [] if command in ("validate", "train") else ["--problem", "lasso", "--methods", "RAMDA"]
    error = refused([command, *quick, "--out", str(tmp_path / "file")], capsys)
    assert f"--out must be a folder, {tmp_path / 'file'} is a file" in error
    error = refused([command, *quick, "--out", str(tmp_path / "file" / "deeper")], capsys)
    assert f"--out must be a folder, {tmp_path / 'file'} is a file" in error
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": ()}, ValueError, "seeds must be nonnegative integers, at least one, got"),
        ({"seeds": (0, -1)}, ValueError, "seeds must be nonnegative integers"),
        ({"seeds": (0.5,)}, TypeError, "seeds must be an integer or a sequence of integers"),
        ({"problem": "mnist"}, ValueError, "unknown problem 'mnist'"),
        ({"methods": ["SGD"]}, ValueError, "unknown method 'SGD'"),
        ({"methods": []}, ValueError, "methods must name at least one method"),
        ({"weight": -0.1}, ValueError, "weight must be finite and > 0, got -0.1"),
        ({"weight": float("nan")}, ValueError, "weight must be finite"),
        ({"problem": lasso(), "weight": 0.1}, ValueError, "weight applies to a named problem only"),
    ],
)
def test_bad_arguments_of_the_function(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_are_read_from_text():
    assert parse_setting("RAMDA") == Setting("RAMDA", 1e-2)
    assert parse_setting("RAMDA:lr=1e-1,averaging=0.1,milestones=60/120,grow=true,memory=200,gamma=0.3") == Setting(
        "RAMDA", 0.1, 0.1, (60, 120), 0.3, 200, True
    )
    assert parse_setting("ProxSGD").averaging == 0.1
    for method in METHODS:
        assert parse_setting(method).method == method


def test_named_methods_stand_for_all_their_settings():
    problem = PROBLEMS["digits"]()
    assert select(SETTINGS, None, problem) == list(SETTINGS)
    assert select(SETTINGS, ["RAMDA"], problem) == [s for s in SETTINGS if s.method == "RAMDA"]
    assert select(SETTINGS, ["RAMDA:lr=1e-2", "FISTA"], problem) == [Setting("RAMDA", 1e-2), Setting("FISTA", 1.0)]


def test_learning_rates_in_units_of_one_over_l():
    problem = lasso()
    (rmda,) = select((), ["RMDA"], problem)
    assert rmda.lr == pytest.approx(1 / problem.lipschitz, rel=0.05)
    (own,) = select((), ["RMDA:lr=0.3"], problem)
    assert own.lr == 0.3  # a number that was asked for is taken as it is
    method, schedule = Setting("FISTA", 1.0).build(problem, 3)
    assert schedule.lr == 1 / problem.lipschitz and method.accelerate


def test_what_a_setting_builds():
    setting = parse_setting("RAMDA:lr=1e-1,averaging=0.1,milestones=2/5,grow=true,memory=7,gamma=0.2")
    _, schedule = setting.build(lasso(), 3)
    assert schedule.milestones == (6, 15) and schedule.memory == 7 and schedule.grow_averaging
    assert (schedule.lr, schedule.averaging, schedule.gamma) == (0.1, 0.1, 0.2)


# -- converge and validate ------------------------------------------------------------------------------------------


def test_converge(tmp_path, capsys):
    arguments = ["converge", "--problem", "lasso", "--methods", "RAMDA:lr=0.05", "FISTA", "--epochs", "40"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    ramda, fista = json.loads((tmp_path / "converge.json").read_text())["data"]
    assert (ramda["method"], fista["method"]) == ("RAMDA", "FISTA")
    series = ramda["series"]
    assert series["step"][-1] == 120 == fista["series"]["step"][-1]
    for i in range(len(series["step"])):
        bound = series["model_error"][i] + series["subproblem_error"][i] + series["metric_error"][i]
        assert series["stationarity"][i] <= bound * (1 + 1e-10)
    assert "model_error" not in fista["series"]
    assert fista["series"]["objective_gap"][-1] < 1e-8
    assert (tmp_path / "converge.png").exists()
    assert "RAMDA" in capsys.readouterr().out
    before = (tmp_path / "converge.json").read_text()
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "converge.json").read_text() == before


def test_converge_as_a_function():
    (entry,) = converge(lasso(), methods=["RAMDA:lr=0.05"], epochs=30, batch=None)
    assert len(entry.record.structures_hat) == 30
    with pytest.raises(ValueError, match="at least one method"):
        converge("lasso", methods=[])


def test_validate(tmp_path, capsys):
    assert main(["validate", "--quick", "--out", str(tmp_path)]) == 0
    cases = json.loads((tmp_path / "validate.json").read_text())["data"]
    assert len(cases) > 50 and all(case["claim_holds"] for case in cases)
    assert {case["status"] for case in cases} <= {"solved", "max_iter", "no_descent"}
    assert (tmp_path / "validate.png").exists()
    assert "FALSE" not in capsys.readouterr().out


@pytest.mark.parametrize("psi", [L1(1.0), GroupLasso(1.0), MCP(1.0, 3.0)])
def test_a_solver_that_claims_too_much_is_found_out(psi, tmp_path, capsys, monkeypatch):
    """Exit code 1 and its name."""
    plain = validate.solve

    def boasting(problem, solver, **options):
        solution = plain(problem, solver, **options)
        return replace(solution, point=solution.point + 1e-3, status="solved")

    monkeypatch.setattr(validate, "solve", boasting)
    monkeypatch.setattr(validate, "REGULARIZERS", (psi,))
    monkeypatch.setattr(validate, "CONDITIONS", (4.0,))
    assert main(["validate", "--quick", "--out", str(tmp_path)]) == 1
    assert "FALSE CLAIM: exact on " in capsys.readouterr().out


def test_converge_draws_runs_that_end_at_an_optimum_of_zero(tmp_path):
    arguments = ["converge", "--problem", "lasso", "--weight", "1e3", "--epochs", "2", "--methods", "RMDA", "RAMDA"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "converge.png").stat().st_size > 10_000


def test_converge_names_the_method_that_diverges(tmp_path, capsys):
    arguments = ["converge", "--problem", "lasso", "--epochs", "40", "--methods", "RMDA:lr=1e200"]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("ramda-theory converge: RMDA, lr 1e+200")
    assert message.count("\n") == 1


def test_a_reader_that_leaves_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m ramda_theory workloads | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.mark.parametrize("psi", REGULARIZERS, ids=lambda psi: type(psi).__name__)
def test_validate_with_torch_tensors(psi):
    """The same verdicts as with NumPy arrays, against the same references."""
    found = [list(cases_of(psi, (8, 6), 1e4, 0, place)) for place in (None, torch.device("cpu"))]
    for ours, torchs in zip(*found, strict=True):
        assert (ours.name, ours.solver, ours.status) == (torchs.name, torchs.solver, torchs.status)
        assert torchs.claim_holds
        assert torchs.error <= 10 * ours.error + 1e-12


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_validate_on_a_device_that_is_not_there(tmp_path, capsys):
    assert main(["validate", "--device", "cuda", "--out", str(tmp_path / "v")]) == 2
    assert "device is cuda, but torch finds no NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_validate_on_a_gpu(tmp_path):
    assert main(["validate", "--quick", "--device", "cuda", "--out", str(tmp_path)]) == 0
