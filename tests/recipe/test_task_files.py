"""Task files: every mistake with its place, and what a recipe may ask of a task."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dudi_kit.cli import app
from dudi_kit.recipe.diagnostics import InvalidRecipeError
from dudi_kit.recipe.load import check_recipe
from dudi_kit.recipe.task_files import folded, load_task, shipped

GOOD = """\
task: 1
name: mood
competency: understanding
description: The mood of a text.
licence: CC0
metric: balanced_accuracy
fields: [text]
shots: {instruct: 0, base: 1}
sources:
  - data: rows/{language}.jsonl
    columns: {text: text, label: label}
    examples: {hold_out: 2}
languages:
  id:
    answer_tag: "Jawaban:"
    format: "Bentuk: {answer_tag} $OPTION"
    question: "Teks: {text}"
    labels: {good: Baik, bad: Buruk}
"""


TWO_REVISIONS = """- {hub: o/n, revision: v1, columns: {text: text, label: label}, examples: {hold_out: 2}}
  - {hub: o/n, revision: v2, columns: {text: text, label: label}, examples: {hold_out: 2}}
  - data: rows/{language}.jsonl"""


def findings(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    """(line, code) of each, in their order; the file's name is in all of them."""
    file = tmp_path / "mood.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        load_task(str(file))
    except InvalidRecipeError as invalid:
        return [(finding.line, finding.code) for finding in invalid.findings if finding.file == str(file)]
    return []


def test_the_good_one_is_good(tmp_path: Path) -> None:
    assert findings(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("balanced_accuracy", "balanced_acuracy", (6, "bad-choice")),
        ("{good: Baik, bad: Buruk}", "{good: Baik, bad: BAIK}", (18, "duplicate")),
        ("{good: Baik, bad: Buruk}", "{good: Café, bad: Cafe\u0301}", (18, "duplicate")),
        ("Teks: {text}", "Teks: {txt}", (17, "bad-placeholder")),
        ("Teks: {text}", "Teks:", (17, "missing-placeholder")),
        ("Bentuk: {answer_tag} $OPTION", "Bentuk: $OPTION", (16, "missing-placeholder")),
        ("    examples: {hold_out: 2}\n", "", (10, "needs-examples")),
        ("{hold_out: 2}", "{hold_out: 2, path: a.jsonl}", (12, "exclusive")),
        ("{hold_out: 2}", "{split: dev}", (12, "not-here")),
        ("rows/{language}.jsonl", "../rows.jsonl", (10, "outside")),
        ("rows/{language}.jsonl", "/etc/passwd", (10, "outside")),
        (", label: label}", "}", (11, "missing-key")),
        ("columns: {text", "colums: {text", (11, "unknown-key")),
        ("    labels: {good: Baik, bad: Buruk}\n", "", (14, "needs-labels")),
        ("data: rows/{language}.jsonl", "hub: ../rows\n    revision: main", (10, "bad-model-name")),
        ("  id:", "  xx:", (14, "bad-value")),
        ("- data: rows/{language}.jsonl", TWO_REVISIONS, (15, "exclusive")),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, expected: tuple[int, str]) -> None:
    assert old in GOOD
    assert expected in findings(tmp_path, GOOD.replace(old, new))


def test_a_language_without_data_is_told(tmp_path: Path) -> None:
    start = GOOD.index("sources:")
    without = GOOD[:start] + GOOD[GOOD.index("languages:") :]
    assert findings(tmp_path, without) == [(10, "needs-data")]


def test_the_nearest_metric_is_offered(tmp_path: Path) -> None:
    file = tmp_path / "mood.yaml"
    file.write_text(GOOD.replace("balanced_accuracy", "balanced_acuracy"), encoding="utf-8")
    with pytest.raises(InvalidRecipeError, match="did you mean 'balanced_accuracy'"):
        load_task(str(file))


@pytest.mark.parametrize("name", shipped())
def test_every_task_that_ships_is_valid_and_called_as_its_file(name: str) -> None:
    assert load_task(name).name == name


def test_every_language_has_a_task() -> None:
    languages = {language for name in shipped() for language in load_task(name).languages}
    assert {"id", "vi", "th", "ta", "tl", "ms", "my", "jv", "su", "km", "lo", "en"} <= languages


@pytest.mark.parametrize("name", shipped())
def test_label_words_differ_after_lower_casing(name: str) -> None:
    task = load_task(name)
    for language in task.languages:
        words = [folded(word) for word in task.labels_in(language).values()]
        assert len(set(words)) == len(words), language


# --- in a recipe ------------------------------------------------------------------------------------------------------

RECIPE = """\
name: r
teacher: {model: a/c, revision: v1}
student: {model: a/b, revision: v1}
data: {train: {x: {builtin: train}}}
evaluation:
  data_home: data
  tasks:
    t: USE
"""


def codes(tmp_path: Path, use: str, text: str = RECIPE) -> list[tuple[str, str]]:
    """(path, code) of what is wrong with a recipe that uses a task."""
    (tmp_path / "mood.yaml").write_text(GOOD, encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text(text.replace("USE", use), encoding="utf-8")
    return [(finding.path, finding.code) for finding in check_recipe(file).findings]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("{task: sentiment}", []),
        ("{task: mood.yaml, shots: 2, limit: 9, mode: base, scoring: logprob}", []),
        ("{task: sentimnt}", [("evaluation.tasks.t.task", "unknown-task")]),
        ("{task: none.yaml}", [("evaluation.tasks.t.task", "missing-file")]),
        ("{task: sentiment, languages: [km]}", [("evaluation.tasks.t.languages[0]", "needs-data")]),
        ("{task: sentiment, languages: [id, id]}", [("evaluation.tasks.t.languages[1]", "duplicate")]),
        ("{task: instructions, shots: 1}", [("evaluation.tasks.t.shots", "needs-examples")]),
        ("{task: qa, scoring: logprob}", [("evaluation.tasks.t.scoring", "needs-labels")]),
        ("{task: topic, revisions: {Davlan/sib200: abc}}", []),
        (
            "{task: topic, revisions: {Davlan/sib20: abc}}",
            [("evaluation.tasks.t.revisions.Davlan/sib20", "needs-data")],
        ),
        ("{task: sentiment, mode: chat}", [("evaluation.tasks.t.mode", "bad-choice")]),
        ("{task: sentiment, max_new_tokens: 3}", [("evaluation.tasks.t.max_new_tokens", "unknown-key")]),
    ],
)
def test_what_a_recipe_asks_of_a_task(tmp_path: Path, use: str, expected: list[tuple[str, str]]) -> None:
    assert codes(tmp_path, use) == expected


def test_local_rows_need_a_folder(tmp_path: Path) -> None:
    recipe = RECIPE.replace("  data_home: data\n", "")
    assert codes(tmp_path, "{task: translation_en_xx, languages: [id]}", recipe) == [
        ("evaluation.tasks.t", "needs-data")
    ]
    assert codes(tmp_path, "{task: sentiment, languages: [id]}", recipe) == []  # the hub has them


def test_mistakes_of_a_task_file_are_findings_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD.replace("{text}", "{txt}"), encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("USE", "{task: bad.yaml}"), encoding="utf-8")
    found = check_recipe(file).findings
    assert {(Path(f.file).name, f.code) for f in found} == {
        ("bad.yaml", "bad-placeholder"),
        ("bad.yaml", "missing-placeholder"),
    }


def test_a_recipe_by_reference_names_no_folder_of_benchmarks(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("USE", "{task: sentiment}"), encoding="utf-8")
    assert [f.path for f in check_recipe(file, root=tmp_path).findings] == ["evaluation.data_home"]


# --- on the command line ----------------------------------------------------------------------------------------------


def test_the_list_of_tasks_can_be_narrowed_to_a_language() -> None:
    told = CliRunner().invoke(app, ["tasks", "--language", "km"]).output
    assert "understanding\n" in told
    assert "belebele" in told
    assert "sentiment" not in told


def test_a_task_is_told_with_the_licence_of_each_source(tmp_path: Path) -> None:
    file = tmp_path / "mood.yaml"
    file.write_text(GOOD, encoding="utf-8")
    told = " ".join(CliRunner().invoke(app, ["tasks", str(file)]).output.split())
    assert "id chance 1/2 data: rows/id.jsonl (CC0)" in told


def test_an_unknown_task_is_a_usage_error_with_the_nearest_name() -> None:
    result = CliRunner().invoke(app, ["tasks", "sentimnt"])
    assert result.exit_code == 2
    assert "sentiment" in result.output
