"""What a figure's line says, and how figures are chosen."""

import json

import pytest

from benchmarks import catalogue
from benchmarks.catalogue import UnknownFigure
from benchmarks.figure import Bound, Figure, Reference, of_rounds, of_samples

LIMIT = Reference(name="popen_two_pipes", value=2_000.0)


def a_rate(*rounds: float) -> Figure:
    return of_rounds("noop_rate", rounds, unit="instances/s", reference=LIMIT, agents=2)


def test_a_line_tells_the_median_the_reference_their_ratio_the_spread_the_goal_and_the_noise() -> None:
    line = a_rate(1_000.0, 1_300.0, 1_100.0).line([Bound(key="ratio", at_least=0.5)], {"load1": 0.25})

    assert json.loads(line) == {
        "figure": "noop_rate",
        "value": 1_100.0,
        "unit": "instances/s",
        "reference": "popen_two_pipes",
        "reference_value": 2_000.0,
        "ratio": 0.55,
        "min": 1_000.0,
        "max": 1_300.0,
        "n": 3,
        "agents": 2,
        "goal": "ratio >= 0.5",
        "met": True,
        "noise": {"load1": 0.25},
    }
    assert "\n" not in line


def test_a_goal_with_several_bounds_is_met_when_all_of_them_are() -> None:
    figure = of_samples("dispatch_ms", [2.0] * 98 + [9.0, 9.0], unit="ms", reference=LIMIT)
    slow_tail = json.loads(figure.line([Bound(key="p50", at_most=3), Bound(key="p99", at_most=8)], {}))
    fine = json.loads(figure.line([Bound(key="p50", at_most=3), Bound(key="p99", at_most=9)], {}))

    assert (slow_tail["goal"], slow_tail["met"]) == ("p50 <= 3, p99 <= 8", False)
    assert fine["met"] is True


def test_a_goal_may_be_about_an_extra_key() -> None:
    line = a_rate(1_000.0).line([Bound(key="agents", at_most=1)], {})
    assert json.loads(line)["met"] is False


def test_a_figure_without_a_goal_says_nothing_about_one() -> None:
    line = json.loads(a_rate(1_000.0).line([], {}))
    assert "goal" not in line
    assert "met" not in line


def test_samples_are_told_by_their_median_and_their_99th_percentile() -> None:
    figure = of_samples("notice_ms", [float(x) for x in range(100, 0, -1)], unit="ms", reference=LIMIT)
    assert (figure.value, figure.extra, figure.lowest, figure.highest) == (
        51.0,
        {"p50": 51.0, "p99": 100.0},
        1.0,
        100.0,
    )


def test_numbers_are_rounded_to_what_a_shared_machine_can_tell_apart() -> None:
    line = json.loads(a_rate(1_234.567).line([], {"cal_ms": [33.33333, 35.0]}))
    assert (line["value"], line["noise"]) == (1_235.0, {"cal_ms": [33.33, 35.0]})


def test_a_reference_that_measured_nothing_gives_no_ratio() -> None:
    nothing = Reference(name="popen_two_pipes", value=0.0)
    line = of_rounds("noop_rate", [1.0], unit="instances/s", reference=nothing).line([], {})
    assert json.loads(line)["ratio"] is None


def test_every_figure_has_one_name() -> None:
    assert len(set(catalogue.names())) == len(catalogue.names())


def test_all_figures_are_chosen_when_none_is_named() -> None:
    assert catalogue.chosen([]) == catalogue.names()


def test_figures_are_chosen_in_the_catalogues_order() -> None:
    assert catalogue.chosen(["null_rate", "noop_rate"]) == ["noop_rate", "null_rate"]


def test_an_unknown_figure_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownFigure, match="there is no figure nul_rate: did you mean null_rate"):
        catalogue.chosen(["noop_rate", "nul_rate"])


def test_an_unknown_figure_like_no_other_is_answered_with_all_that_there_are() -> None:
    with pytest.raises(UnknownFigure, match="there are spawn_limit, noop_rate, "):
        catalogue.chosen(["zzz"])
