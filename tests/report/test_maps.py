"""Pictures of a whole evaluation: what is in them, what is missing, and that colour is never needed."""

import re

from dudi_kit.report.maps import LINE_STYLE, Cell, competency_map, language_radar

SCORES = {
    "teacher": {"id": 70.0, "th": 60.0, "vi": 65.0, "my": 40.0},
    "before": {"id": 20.0, "th": 10.0, "vi": 15.0},
    "after": {"id": 40.0, "th": 30.0, "vi": 35.0, "my": 12.0},
}
CELLS = {
    "understanding": {"id": Cell(71.25, (66.0, 76.0)), "th": Cell(33.0, None)},
    "reasoning": {"th": Cell(5.5, (0.0, 12.0))},
}


def _texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_radar_names_every_language_and_model() -> None:
    svg = language_radar(SCORES)  # type: ignore[arg-type]
    assert svg is not None
    assert {"id", "th", "vi", "my", *SCORES} <= set(_texts(svg))


def test_a_radar_of_zeros_is_not_blown_up() -> None:
    svg = language_radar({"after": {"id": 0.0, "th": 0.0, "vi": 0.0}})
    assert svg is not None
    assert ">10<" in svg
    assert ">0.01<" not in svg


def test_two_languages_make_no_radar() -> None:
    assert language_radar({"after": {"id": 1.0, "th": 2.0}}) is None


def test_a_missing_score_is_a_gap_and_not_zero() -> None:
    """Burmese has no score of `before`: its line has fewer markers than the others."""
    full, gap = ({**SCORES, "before": values} for values in ({**SCORES["before"], "my": 0.0}, SCORES["before"]))
    drawn = [language_radar(scores) for scores in (full, gap)]  # type: ignore[arg-type]
    assert drawn[0] is not None
    assert drawn[1] is not None
    assert drawn[0].count("<use") == drawn[1].count("<use") + 1


def test_models_differ_without_colour() -> None:
    styles = [(style["linestyle"], style["marker"]) for style in LINE_STYLE.values()]
    assert len(set(styles)) == len(styles)


def test_the_map_writes_every_score_with_its_interval_and_a_dash_where_there_is_none() -> None:
    svg = competency_map(CELLS)
    assert svg is not None
    texts = _texts(svg)
    assert {"71.2", "66–76", "33.0", "5.5", "0–12", "–", "id", "th", "understanding", "reasoning"} <= set(texts)
    assert texts.count("–") == 1


def test_nothing_makes_no_map() -> None:
    assert competency_map({}) is None


def test_pictures_are_the_same_each_time_and_fetch_nothing() -> None:
    first, second = competency_map(CELLS), competency_map(CELLS)
    assert first == second
    assert first is not None
    assert "<image" not in first
    assert 'href="http' not in first
