"""What the identification figure shows: the worst of every window, the settings worth showing, and honest labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.commands.settings import Setting
from ramda_theory.plots.identification import choose_shown, draw_structures, short_name, worst_in_bins
from ramda_theory.plots.style import COLOURS, DASHES, line_style, new_figure, save_figure
from ramda_theory.structure import GroupSupport, Rank, SignPattern


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
