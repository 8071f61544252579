"""What the identification figure shows: the worst of every window, the settings worth showing, and honest labels."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.diagnostics import StructureTrace
from ramda_theory.drawing import draw_raster, draw_subproblem
from ramda_theory.drawing.raster import wrong_shares
from ramda_theory.drawing.style import COLOURS, DASHES, line_style, new_figure, save_figure
from ramda_theory.experiments.identify_figure import choose_shown, draw_structures, short_name, worst_in_bins
from ramda_theory.experiments.settings import Setting
from ramda_theory.regularizers import L1, GroupLasso
from ramda_theory.structure import GroupSupport, Rank, SignPattern
from ramda_theory.subproblem import Subproblem


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=60), bins=st.integers(1, 20))
def test_no_error_is_hidden_by_the_drawing(values, bins):
    """Every step lies in a window whose drawn value is its largest."""
    ends, worst = worst_in_bins(np.array(values), bins)
    assert len(ends) == len(worst) <= bins and ends[-1] == len(values)
    start = 0
    for end, value in zip(ends, worst, strict=True):
        assert value == max(values[start:end])
        start = end


def entry(setting: Setting, time: int | None, wrong: int = 0, seed: int = 0):
    return SimpleNamespace(setting=setting, seed=seed, w_hat=SimpleNamespace(time=time, final_error=wrong))


def test_the_best_setting_of_each_method_is_shown():
    runs = [
        entry(Setting("RAMDA", 1e-1), None, 3),
        entry(Setting("RAMDA", 1e-2), 50),
        entry(Setting("RMDA", 1.0), None, 5),
        entry(Setting("RMDA", 2.0), None, 2),
        entry(Setting("RMDA", 3.0), None, 9, seed=1),
    ]
    assert choose_shown(runs, 2) == [runs[1], runs[3]]
    assert choose_shown(runs, 3) == [runs[0], runs[1], runs[3]]
    assert choose_shown(runs, 9) == runs[:4]  # the first seed alone


def test_short_names_tell_settings_apart():
    one, two, other = (entry(s, 1) for s in (Setting("RAMDA", 0.1), Setting("RAMDA", 0.2), Setting("RMDA", 0.1)))
    names = [short_name([one, two, other], e) for e in (one, two, other)]
    assert names == ["RAMDA\nlr 0.1", "RAMDA\nlr 0.2", "RMDA"]


def test_structures_are_counted_against_the_target():
    target = SignPattern(np.array([1, 0, -1, 0], np.int8))
    other = SignPattern(np.array([1, 1, 1, 0], np.int8))
    figure = new_figure(6, 2)
    draw_structures(figure, [("optimum", target), ("run", other)], target, image=True)
    assert [axis.get_xlabel() for axis in figure.axes] == ["2 nonzero\n0 wrong", "3 nonzero\n2 wrong"]
    drawn = figure.axes[1].images[0].get_array()
    assert drawn.tolist() == [[1, 2], [2, 0]]  # rightly nonzero, wrongly nonzero, of the wrong sign, rightly zero


@pytest.mark.parametrize("target", [Rank(2, 4, 5), GroupSupport(np.ones((5, 1), np.int8), 2)], ids=["rank", "groups"])
def test_any_structure_can_be_drawn(target, tmp_path):
    def drawn(suffix: str) -> bytes:
        figure = new_figure(6, 2)
        draw_structures(figure, [("optimum", target)], target, image=False)
        return save_figure(figure, tmp_path / f"figure.{suffix}").read_bytes()

    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert drawn(suffix)[:4] == magic
        assert drawn(suffix) == drawn(suffix)  # no date inside


def test_eight_curves_differ_in_colour_and_in_dashes():
    looks = [line_style(index) for index in range(8)]
    assert len({look["color"] for look in looks}) == len(COLOURS) == 8
    assert len({str(look["linestyle"]) for look in looks}) == len(DASHES) == 8


def test_structures_fill_rows_and_leave_the_rest_empty():
    target = SignPattern(np.array([1, 0, -1, 0], np.int8))
    figure = new_figure(6, 2)
    draw_structures(figure, [(str(k), target) for k in range(3)], target, image=True, rows=2, title="seen")
    assert [axis.axison for axis in figure.axes] == [True, True, True, False]
    assert figure.legends[0].get_title().get_text() == "pixels seen"


@given(seed=st.integers(0, 99), steps=st.integers(1, 40), windows=st.integers(1, 12))
def test_the_raster_holds_the_share_of_wrong_steps(seed, steps, windows):
    """Against a plain loop over steps and pieces."""
    patterns = np.random.default_rng(seed).integers(-1, 2, (steps, 3)).astype(np.int8)
    target = SignPattern(np.array([1, 0, -1], np.int8))
    trace = StructureTrace()
    for pattern in patterns:
        trace.append(SignPattern(pattern))
    edges, shares = wrong_shares(trace, target, windows)
    assert edges[0] == 0 and edges[-1] == steps and len(edges) - 1 <= windows
    for piece in range(3):
        for window, (first, last) in enumerate(itertools.pairwise(edges)):
            wrong = [int(patterns[step, piece] != target.pattern[piece]) for step in range(first, last)]
            assert shares[piece, window] == pytest.approx(sum(wrong) / len(wrong))


def test_the_raster_draws_the_pieces_in_order_and_shows_a_single_wrong_step():
    target = SignPattern(np.array([0, 0], np.int8))
    trace = StructureTrace()
    for step in range(100):
        trace.append(SignPattern(np.array([0, step == 10], np.int8)))
    image = draw_raster(new_figure(4, 2).subplots(), trace, target, np.array([1, 0]), windows=2)
    drawn = np.asarray(image.get_array()).reshape(2, 2)
    assert drawn[0, 0] > 0.25 and np.count_nonzero(drawn) == 1


def test_a_subproblem_of_two_variables_is_drawn_with_its_tolerances_and_paths():
    problem = Subproblem(np.zeros((1, 2)), np.array([[-2.0, -1.0]]), np.array([[1.0, 4.0]]), 1.0, GroupLasso(0.5, (1,)))
    axes = new_figure(3, 3).subplots()
    draw_subproblem(axes, problem, [1.0, 0.1], {"path": np.zeros((3, 1, 2))}, (-1, 2, -1, 1), points=31)
    assert [line.get_label() for line in axes.lines] == ["path"]
    outlines = [drawn for drawn in axes.collections if list(drawn.levels) == [0.1, 1.0]]
    point = outlines[0].get_paths()[1].vertices[0]
    assert float(problem.residual(point[None])) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match="two variables, got 3"):
        three = Subproblem(np.zeros(3), np.ones(3), np.ones(3), 1.0, L1(1.0))
        draw_subproblem(axes, three, [1.0], {}, (0, 1, 0, 1))
