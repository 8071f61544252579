"""A run killed with SIGKILL goes on from its last checkpoint to the weights of the run that was not, bit for bit."""

import signal
import subprocess
import sys

import interrupted
import pytest
import torch

STEPS = 23
DEATHS = {"7": 5, "save 3": 10, "18": 15}
"""When the process dies (in every stage, and while a checkpoint is written), and the step it then goes on from."""


def run(folder, die_at):
    """Exit code of a process that trains in ``folder``."""
    command = [sys.executable, interrupted.__file__, str(folder), str(STEPS), die_at]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
    return answer.returncode


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """(w, What) of every case: of the run that died three times, and of the one that did not."""
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    for die_at, resumes_from in DEATHS.items():
        assert run(broken, die_at) == -signal.SIGKILL
        saved = torch.load(broken / "checkpoint.pt", weights_only=True)
        assert saved["step"] == resumes_from
    assert run(broken, "never") == 0
    first, points = torch.load(broken / "end.pt", weights_only=False)
    assert first == 15
    return points, interrupted.main(whole, STEPS)[1]


@pytest.mark.parametrize("case", interrupted.CASES)
def test_killed_runs_end_where_the_others_do(ends, case):
    for ours, theirs in zip(ends[0][case], ends[1][case], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    if case.startswith("RAMDA"):
        zero = (ends[1][case][1][0] == 0).all(dim=0)
        assert bool(zero.any())
        assert not bool(zero.all())
