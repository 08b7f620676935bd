"""Findings as SARIF 2.1.0, which code scanning of GitHub, GitLab and editors read."""

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import quote

from dudi_kit import __version__
from dudi_kit.recipe.codes import CODES
from dudi_kit.recipe.confine import is_address
from dudi_kit.recipe.diagnostics import COMMAND_LINE, Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(findings: Iterable[tuple[str, Finding]]) -> dict[str, Any]:
    """One run with these findings, each with the recipe that it was found in.

    What is wrong in the command line has no file of its own: it is shown at the recipe's first line.
    """
    findings = list(findings)
    codes = sorted({finding.code for _, finding in findings})
    driver = {"name": "dudi-kit", "semanticVersion": __version__, "rules": [_rule(code) for code in codes]}
    results = [_result(recipe, finding, codes.index(finding.code)) for recipe, finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    meaning, advice = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": meaning},
        "fullDescription": {"text": f"{meaning}. {advice}"},
        "help": {"text": advice},
    }


def _result(recipe: str, finding: Finding, rule: int) -> dict[str, Any]:
    start = finding.column
    region = {"startLine": finding.line, "startColumn": start, "endColumn": start + finding.width}
    if not finding.line:
        region = {"startLine": 1}
    file = recipe if finding.file == COMMAND_LINE else finding.file
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": finding.sentence},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(file)}, "region": region}}],
    }


def _uri(name: str) -> str:
    """Relative to where the command was called, as code scanning wants it; absolute where the file was named so."""
    if is_address(name):
        return name
    file = FilePath(name)
    return file.as_uri() if file.is_absolute() else quote(file.as_posix())
