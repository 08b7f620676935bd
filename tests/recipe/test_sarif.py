"""SARIF as code scanning needs it, and the table of codes that it is made from."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dudi_kit.recipe import load
from dudi_kit.recipe.codes import CODES
from dudi_kit.recipe.diagnostics import Finding
from dudi_kit.recipe.sarif import sarif
from tests.recipe.test_golden import CASES

SOURCE = Path(load.__file__).parent
MAKERS = {"Problem", "Complaint", "refuse", "note", "stop", "_file_problem"}
"""What is called with a code, the first of its texts."""


def found(**changes: Any) -> tuple[str, Finding]:
    facts = {"file": "recipes/a b.yaml", "line": 5, "column": 12, "code": "unknown-key", "path": "training.sede"}
    return "recipes/a b.yaml", Finding(**(facts | {"message": "no such key", "width": 4} | changes))


def test_a_finding_becomes_a_result_with_rule_file_and_region() -> None:
    report = sarif([found(hint="did you mean 'seed'?")])
    assert (report["version"], len(report["runs"])) == ("2.1.0", 1)
    (result,) = report["runs"][0]["results"]
    assert result["message"] == {"text": "training.sede: no such key (did you mean 'seed'?)"}
    assert result["level"] == "error"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "recipes/a%20b.yaml"}
    assert place["region"] == {"startLine": 5, "startColumn": 12, "endColumn": 16}
    assert report["runs"][0]["columnKind"] == "unicodeCodePoints"


def test_each_result_points_to_its_rule_which_has_what_github_shows() -> None:
    run = sarif([found(), found(code="unpinned", severity="warning"), found()])["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["unknown-key", "unpinned"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["unknown-key", "unpinned", "unknown-key"]
    assert [result["level"] for result in run["results"]] == ["error", "warning", "error"]
    for rule in rules:
        assert all(rule[part]["text"] for part in ("shortDescription", "fullDescription", "help"))


def test_what_has_no_line_is_shown_at_the_first_one() -> None:
    missing = sarif([found(line=0, column=0, code="missing-file")])["runs"][0]["results"][0]
    override = sarif([found(file="command line", line=0)])["runs"][0]["results"][0]
    for result in (missing, override):
        place = result["locations"][0]["physicalLocation"]
        assert place == {"artifactLocation": {"uri": "recipes/a%20b.yaml"}, "region": {"startLine": 1}}


def test_absolute_files_become_file_uris_and_no_finding_an_empty_run() -> None:
    place = sarif([found(file="/a/ü.yaml")])["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "file:///a/%C3%BC.yaml"}
    assert sarif([])["runs"][0]["results"] == []


def test_addresses_stay_as_they_are() -> None:
    place = sarif([found(file="https://a.org/x.yaml")])["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "https://a.org/x.yaml"}


def codes_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in MAKERS:
            texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            yield from texts[:1]


def test_every_code_of_the_source_has_a_meaning_and_every_meaning_a_code() -> None:
    written = {code for file in SOURCE.rglob("*.py") for code in codes_in(file)}
    answered = {code for *_, answer in CASES for code in re.findall(r"(?:error|warning)\[([a-z-]+)\]", answer)}
    assert answered <= written
    assert written == set(CODES)
