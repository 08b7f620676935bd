"""A run directory made of plain data, such as a real run leaves behind."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from dudi_kit.evaluate.scores import (
    AnswerRow,
    BitsPerByte,
    LanguageScores,
    MetricScore,
    Missing,
    Scores,
    TaskScores,
    mean_of,
    save_answers,
    save_scores,
)

TEXTS = {
    "id": ("Kalimat: Harga beras naik lagi. Topik?", "ekonomi"),
    "km": ("ប្រយោគ៖ តម្លៃអង្ករឡើងទៀត។ ប្រធានបទ?", "សេដ្ឋកិច្ច"),
    "lo": ("ປະໂຫຍກ: ລາຄາເຂົ້າຂຶ້ນອີກ. ຫົວຂໍ້?", "ເສດຖະກິດ"),
    "my": ("ဝါကျ- ဆန်ဈေး ထပ်တက်သည်။ ခေါင်းစဉ်?", "စီးပွားရေး"),
    "ta": ("வாக்கியம்: அரிசி விலை மீண்டும் உயர்ந்தது. தலைப்பு?", "பொருளாதாரம்"),
    "th": ("ประโยค: ราคาข้าวขึ้นอีกแล้ว หัวข้อ?", "เศรษฐกิจ"),
    "vi": ("Câu: Giá gạo lại tăng. Chủ đề?", "kinh tế"),
}
STRENGTH = {"teacher": 20.0, "before": 0.0, "after": 11.0}


def scores_of(who: str, languages: list[str]) -> Scores:
    tasks = {}
    for task, metrics in {"topic": ["accuracy", "macro_f1"], "translate": ["chrf"]}.items():
        by_language = {}
        for i, language in enumerate(languages):
            value = 40.0 + 3 * i + STRENGTH[who]
            interval = None if task == "translate" else (value - 7, value + 7)
            values = {metric: MetricScore(value - 2 * j, interval) for j, metric in enumerate(metrics)}
            null = 4 + i if task == "topic" else None
            by_language[language] = LanguageScores(rows=80, metrics=values, null=null, truncated=2, empty=1)
        means = {m: mean_of({k: v.metrics[m].value for k, v in by_language.items()}) for m in metrics}
        tasks[task] = TaskScores(by_language, means)
    bits = {
        x: BitsPerByte((2.5 - STRENGTH[who] / 20 + i / 10) * 9000 * math.log(2), 3000, 9000)
        for i, x in enumerate(languages)
    }
    mean = mean_of({language: result.value for language, result in bits.items()})
    return Scores(
        tasks,
        bits,
        mean,
        [Missing("topic", "su", "no rows")],
        left_out={"held-out row longer than 128 tokens": {"my": 3}},
    )


def answers_of(who: str) -> list[AnswerRow]:
    rows = []
    for task in ("topic", "translate"):
        for language, (prompt, reference) in TEXTS.items():
            for i in range(5):
                right = (i + len(who)) % 3 > 0
                answer = reference if right else ["", "???", "<script>alert(1)</script>"][i % 3]
                where = f"data/{language}.jsonl:{i + 1} ({task})"
                correct = right if task == "topic" else None
                rows.append(AnswerRow(task, language, where, prompt, reference, answer, correct, not right, i == 4, 5))
    return rows


def metrics_line(step: int) -> dict[str, object]:
    def loss(level: float, wobble: float) -> float:
        return level * (0.3 + 0.7 * math.exp(-step / 120)) + 0.05 * math.sin(step * wobble)

    signals = {}
    for n, signal in enumerate(["sequence", "off_policy", "on_policy"]):
        by_language = {x: loss(1.0 + n / 2 + i / 10, 1.3 + i) for i, x in enumerate(TEXTS) if (step + i) % 5}
        signals[signal] = {
            "loss": loss(1.2 + n / 2, 1.7),
            "by_language": by_language,
            "metrics": {"margin": {"all": 0.1, "by_language": {}}},
        }
    return {
        "step": step, "loss": loss(3.0, 1.1), "signals": signals,
        "learning_rate": 1e-4 * (1 - step / 400),
        "rollouts": {"truncated": {"all": 0.2}},
        "grad_norm": 1 + 0.3 * math.sin(step), "tokens_per_second": 900 + 40 * math.cos(step),
    }  # fmt: skip


@pytest.fixture(name="metrics_line")
def metrics_line_fixture() -> Callable[[int], dict[str, object]]:
    return metrics_line


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "thai-topic")


def make_run(folder: Path) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    recipe = {
        "version": 1, "name": "sea-quickstart", "description": "A small teacher, a smaller student, seven languages.",
        "teacher": {"recipe": "teacher.yaml", "dtype": "fp32"},
        "student": {"init": "scratch", "architecture": {"family": "llama", "layers": 4, "hidden_size": 256}},
    }  # fmt: skip
    files = {
        "recipe.resolved.json": recipe,
        "plan.json": {"parameters": 4_210_000, "teacher_parameters": 17_400_000, "steps": 400},
        "lock.json": {"recipe": "sha256:8c1f…", "teacher": "sha256:02ab…"},
        "env.json": {"began": "2026-11-22T10:00:00+0000", "seconds": 521.4, "system": "Linux-6.18", "processes": 1,
                     "python": "3.11.7", "packages": {"torch": "2.13.0"}},
        "evaluation/ledger.json": {"filtered by where": {"th": 20}},
        "ledger.json": {"row without a response": {"th": 2, "vi": 1}, "response cut": {"my": 12, "ta": 9}},
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    (folder / "recipe.yaml").write_text("name: sea-quickstart\n# <script>alert('recipe')</script>\n", encoding="utf-8")
    lines = "".join(json.dumps(metrics_line(step)) + "\n" for step in range(1, 401))
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    for who in STRENGTH:
        languages = [x for x in TEXTS if not (who == "before" and x == "lo")]
        save_scores(scores_of(who, languages), folder / "evaluation" / f"{who}.json")
        save_answers(answers_of(who), folder / "evaluation" / f"{who}.answers.jsonl")
    return folder
