import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml

from dudi_kit.errors import RunDirectoryError
from dudi_kit.report.card import model_card
from dudi_kit.report.read import read_run
from dudi_kit.report.write import write_card, write_report

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Nesting(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(page):
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    return parser.tags


def test_a_whole_run_is_one_page_that_fetches_nothing(run_dir):
    page = write_report(run_dir).read_text("utf-8")
    tags = parse(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    outside = [
        v for _, attrs in tags for k, v in attrs.items() if k in {"src", "href", "xlink:href"} and not v.startswith("#")
    ]
    assert outside == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(page.encode()) < 1_000_000
    for text in [
        "sea-quickstart",
        "recipe teacher.yaml (17.4 M parameters)",
        "8 min 41 s",
        "row without a response",
        "2.13.0",
    ]:
        assert text in page


def test_nothing_is_said_to_be_missing_from_a_whole_run(run_dir):
    assert read_run(run_dir).notes == []


def test_text_from_outside_is_escaped(run_dir):
    recipe = json.loads((run_dir / "recipe.resolved.json").read_text())
    recipe |= {"name": "<script>name", "description": "<script>description"}
    (run_dir / "recipe.resolved.json").write_text(json.dumps(recipe))
    lines = [{"step": 1, "loss": 1.0, "signals": {"<script>$x": {"loss": 1.0, "by_language": {"<script>": 1.0}}}}]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_dir / "env.json").write_text(json.dumps({"<script>key": "<script>value"}))
    (run_dir / "ledger.json").write_text(json.dumps({"<script>event": {"<script>language": 1}}))
    page = write_report(run_dir).read_text("utf-8")
    assert "<script" not in page
    for text in ["name", "description", "alert(1)", "alert(&#39;recipe&#39;)", "key", "value", "event", "language"]:
        assert f"&lt;script&gt;{text}" in page
    parse(page)


def test_an_empty_run_directory_has_a_report_of_what_is_missing(tmp_path):
    page = write_report(tmp_path).read_text("utf-8")
    parse(page)
    for name in [
        "recipe.yaml",
        "recipe.resolved.json",
        "lock.json",
        "plan.json",
        "env.json",
        "metrics.jsonl",
        "ledger.json",
    ]:
        assert f"{name} is missing" in page
    for who in ["teacher", "before", "after"]:
        assert f"evaluation/{who}.json is missing" in page
        assert f"evaluation/{who}.answers.jsonl is missing" in page


def test_an_unknown_ledger_is_not_an_empty_one(run_dir):
    for path in run_dir.glob("evaluation/*.json"):
        path.unlink()
    (run_dir / "ledger.json").write_text("{}")
    assert "no row was dropped" in write_report(run_dir).read_text("utf-8")
    (run_dir / "ledger.json").unlink()
    page = write_report(run_dir).read_text("utf-8")
    assert "no row was dropped" not in page
    assert "is not known" in page


def test_a_model_that_the_recipe_does_not_evaluate_is_not_missed(run_dir):
    for path in run_dir.glob("evaluation/teacher*"):
        path.unlink()
    recipe = json.loads((run_dir / "recipe.resolved.json").read_text())
    recipe["evaluation"] = {"models": ["before", "after"]}
    (run_dir / "recipe.resolved.json").write_text(json.dumps(recipe))
    assert read_run(run_dir).notes == []
    recipe["evaluation"] = {"models": ["teacher", "before", "after"]}
    (run_dir / "recipe.resolved.json").write_text(json.dumps(recipe))
    assert "evaluation/teacher.json is missing: scores of teacher" in read_run(run_dir).notes


def test_a_killed_runs_last_line_is_left_out_and_said(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 401, "loss": 0.')
    run = read_run(run_dir)
    assert run.steps[-1]["step"] == 400
    assert run.notes == ["metrics.jsonl: the last line is cut off (the run was killed?); 400 lines were read"]


def test_bad_lines_doubled_steps_and_losses_that_are_no_number_are_told(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', "rubbish", '{"step": 2, "loss": NaN}', "[]", '{"step": 1, "loss": 3.0}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert (run.steps[0]["step"], run.steps[0]["loss"]) == (1, 3.0)
    assert "metrics.jsonl: 2 of 5 lines can't be read; first: 2, 4" in run.notes
    assert "metrics.jsonl: the loss is not a finite number at 1 steps; first: step 2" in run.notes
    write_report(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', '{"a": 1}', '{"a": {"b": {}}}', "\udcff"])
def test_damaged_files_are_notes_and_never_failures(run_dir, text):
    for path in [*run_dir.glob("*.json*"), *run_dir.glob("evaluation/*"), run_dir / "recipe.yaml"]:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    parse(write_report(run_dir).read_text("utf-8"))
    (run_dir / "final").mkdir()
    write_card(run_dir, run_dir / "final")


def test_odd_but_readable_plans_and_recipes_do_not_fail(run_dir):
    (run_dir / "recipe.resolved.json").write_text('{"teacher": "x", "student": {"architecture": []}, "name": 3}')
    (run_dir / "plan.json").write_text('{"parameters": "many", "teacher_parameters": {}}')
    (run_dir / "env.json").write_text('{"began": "yesterday \\ud800", "seconds": "5", "processes": []}')
    parse(write_report(run_dir).read_text("utf-8"))


def test_an_old_report_is_replaced_and_nothing_is_left_beside_it(run_dir):
    before = {path.name for path in run_dir.iterdir()}
    write_report(run_dir)
    write_report(run_dir)
    assert {path.name for path in run_dir.iterdir()} == before | {"report.html"}


def test_a_large_run_stays_under_a_megabyte(run_dir, metrics_line):
    from dudi_kit.evaluate.scores import Scores, load_answers, load_scores, save_answers, save_scores
    from dudi_kit.recipe.languages import LANGUAGES

    for who in ["teacher", "before", "after"]:
        path = run_dir / "evaluation" / f"{who}.json"
        scores = load_scores(path)
        topic = scores.tasks["topic"]
        languages = dict.fromkeys(LANGUAGES, topic.languages["th"])
        many = {f"task {i}": type(topic)(languages, topic.mean) for i in range(10)}
        save_scores(Scores(many, scores.bits_per_byte, scores.bits_per_byte_mean, scores.missing), path)
        path = run_dir / "evaluation" / f"{who}.answers.jsonl"
        row = load_answers(path)[0]
        long = {"prompt": "ก" * 5000, "answer": "ข" * 5000, "reference": "ค" * 5000}
        rows = [type(row)(**{**vars(row), **long, "task": t, "language": x}) for t in many for x in LANGUAGES]
        save_answers(rows, path)
    lines = [metrics_line(step) for step in range(1, 2001)]
    for line in lines:
        for signal in line["signals"].values():
            signal["by_language"] = dict.fromkeys(LANGUAGES, signal["loss"])
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_dir / "recipe.yaml").write_text("# long\n" * 50_000)
    assert write_report(run_dir).stat().st_size < 1_000_000


def test_a_card_without_a_model_is_refused_and_makes_no_folder(run_dir):
    with pytest.raises(RunDirectoryError, match="train first"):
        write_card(run_dir, run_dir / "final")
    assert not (run_dir / "final").exists()


def test_the_card_names_languages_scores_and_an_unknown_licence(run_dir):
    (run_dir / "final").mkdir()
    text = write_card(run_dir, run_dir / "final").read_text("utf-8")
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["language"] == ["id", "km", "lo", "my", "ta", "th", "vi"]
    assert matter["license"] == "unknown"
    assert "base_model" not in matter
    assert "| th Thai | **75.0** | 52.0 | 66.0 | +14.0 |" in text
    assert "## Limitations" in text


def test_the_card_lists_hub_models_only(run_dir):
    run = read_run(run_dir)
    run.recipe = {"teacher": {"model": "owner/big", "revision": "v1"}, "student": {"model": "./mine/small"}}
    assert yaml.safe_load(model_card(run).split("---\n")[1])["base_model"] == ["owner/big"]


def test_the_card_tells_no_path_of_the_authors_machine(run_dir):
    run = read_run(run_dir)
    run.recipe = {"teacher": {"recipe": "/home/me/teacher.yaml"}, "student": {"model": "/home/me/models/small"}}
    assert "/home/me" not in model_card(run)
    assert "Teacher: recipe teacher.yaml" in model_card(run)


def test_a_recipe_cannot_break_out_of_the_cards_code_block(run_dir):
    (run_dir / "recipe.yaml").write_text("a: |\n  ````\n  # not a heading\n")
    assert "`````yaml\n" in model_card(read_run(run_dir))


def test_the_report_imports_no_torch():
    code = "import sys, dudi_kit.report.write, dudi_kit.report.terminal; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_samples_of_the_student_are_shown_as_it_learned_and_escaped(run_dir):
    texts = {"prompt": "<b>x</b>", "reference": "y", "ended": False, "same_as_reference": False}
    said = [{"step": n, "language": "th", "sample": f"said after {n}", **texts} for n in range(1, 8)]
    (run_dir / "logs").mkdir(exist_ok=True)
    lines = "".join(json.dumps(line) + "\n" for line in said)
    (run_dir / "logs/rollouts.jsonl").write_text(lines + '{"step": 8, "langu', encoding="utf-8")
    page = write_report(run_dir).read_text("utf-8")
    assert [n for n in range(1, 8) if f"said after {n}" in page] == [1, 4, 7]
    assert "<b>x</b>" not in page
    assert "logs/rollouts.jsonl: 1 of 8 lines" in page
