"""The preview shows what training reads: the same ids, the same mask, and nothing that is not there."""

import re
import tempfile
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Turn
from dudi_kit.data.tokenizers import train_tokenizer
from dudi_kit.models.generation import Continuation
from dudi_kit.pipeline.marks import Kind, Marker, Span
from dudi_kit.pipeline.preview import Seen, Wanted, choose, look, readings
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.load import load_recipe
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.train import assembly, step
from dudi_kit.train.clock import NoClock
from dudi_kit.train.engine import Student
from dudi_kit.train.step import Pair
from tests.data.tiny import SENTENCES
from tests.small import (
    ROWS,
    TEACHER,
    call,
    changed,
    listing,
    tokenizer,
    write_chain,
    write_recipe,
    write_rows,
    write_shell,
)

CHATML = (Path(step.__file__).parents[1] / "data/templates/chatml.jinja").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over two model folders, whose teacher has a template of its own; some rows are too long."""
    made = tmp_path_factory.mktemp("preview")
    for model in ("student", "teacher"):
        shell = write_shell(made / "models" / model, tokenizer())
        LlamaForCausalLM(LlamaConfig.from_pretrained(shell)).save_pretrained(shell)
    (made / "teacher.jinja").write_text(f"Be kind.\n{CHATML}")
    models = {"teacher": {"model": "./models/teacher", "chat_template": "teacher.jinja"}}
    data = {"data__max_length": 60, "data__on_too_long": "truncate"}
    write_chain(made, **models, student={"model": "./models/student"}, **data)
    long = [{**row, "response": row["response"] * 5} for row in ROWS[:3]]
    endless = [{**row, "prompt": row["prompt"] * 9} for row in ROWS[:1]]
    write_rows(made / "rows.jsonl", [*ROWS, *long, *endless])
    return made


def seen_in(file: Path) -> Seen:
    with tempfile.TemporaryDirectory() as workspace:
        return look(load_recipe(file), Path(workspace))


def ids_of(spans: list[Span], *kinds: Kind) -> list[int]:
    return [token for span in spans if span.kind in kinds for token in span.ids]


def training_loop(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a training process makes of a planned run directory; only the engine is stood in for."""
    monkeypatch.setattr(assembly, "prepare", lambda _, student, optimizer: Student(student, optimizer, nullcontext))
    recipe = recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    accelerator: Any = SimpleNamespace(device="cpu", print=print, process_index=0, num_processes=1)
    around: Any = SimpleNamespace(clock=NoClock())
    return assembly.make_loop(run, recipe, read_plan(run), accelerator, around)


def test_the_ids_shown_are_the_ids_trained_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("plan", folder / "student.yaml", "-o", tmp_path).exit_code == 0
    loop = training_loop(RunDir(tmp_path / "student"), monkeypatch)
    read: list[tuple[list[list[int]], list[list[int]]]] = []
    own = loop.objective.join

    def join(prompts: Any, responses: Any, **options: Any) -> Any:
        batch = own(prompts, responses, **options)
        masks = batch.response_mask_BR
        learned = [ids[mask].tolist() for ids, mask in zip(batch.response_ids_BR, masks, strict=True)]
        columns = zip(batch.input_ids_LT[batch.line_B].tolist(), batch.asked_B.tolist(), strict=True)
        read.append(([ids[: first + 1] for ids, first in columns], learned))
        return batch

    monkeypatch.setattr(loop.objective, "join", join)
    pairs = [Pair(row, Continuation([5, 6], ended=True)) for row in loop.rows]
    loop.objective(loop.models, pairs, loop.objective.counts(pairs))
    (prompts, responses), (teacher_prompts, _) = read

    seen = seen_in(folder / "student.yaml")
    number = len(seen.made.rows)
    assert number == len(loop.rows) == 15, "the row whose prompt alone is too long is in neither"
    cut = 0
    for place, row in enumerate(seen.made.rows):
        student, off, on = readings(seen, row)
        assert ids_of(student.spans, Kind.PROMPT) == prompts[place] == prompts[number + place]
        assert ids_of(student.spans, Kind.LOSS) == responses[place]
        assert ids_of(off.spans, Kind.PROMPT, Kind.DEMONSTRATION) == teacher_prompts[place]
        assert ids_of(on.spans, Kind.PROMPT, Kind.DEMONSTRATION) == teacher_prompts[number + place]
        response = seen.sides.examples[row.index].response
        whole = responses[place] + ids_of(student.spans, Kind.CUT)
        assert whole == seen.sides.student.response_ids(response)
        cut += len(whole) > len(responses[place])
    assert cut >= 1


def test_the_demonstration_is_what_the_bare_prompt_lacks(folder: Path) -> None:
    seen = seen_in(folder / "student.yaml")
    row = next(row for row in seen.made.rows if row.language == "th")
    _, off, on = readings(seen, row)
    assert ids_of(off.spans, Kind.DEMONSTRATION) == []
    shown = seen.sides.student.tokenizer.decode(ids_of(on.spans, Kind.DEMONSTRATION))
    example = seen.sides.examples[row.index]
    assert example.english is not None
    assert all(text in shown for text in (example.response, example.english.prompt, example.english.response))
    assert ids_of(on.spans, Kind.PROMPT) == ids_of(off.spans, Kind.PROMPT)


def test_the_whole_command_without_colours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    before = listing(folder)
    result = call("preview", folder / "student.yaml", "-n", 15)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "15 of 16 rows are trained on" in text
    assert "! prompt alone over max_length, row left out: 1 (id 1)" in text
    assert text.count("── ") >= 15
    assert re.search(r"⟦[^⟧]*<\|im_end\|>∎⟧", text), "the end of turn is in the loss, and marked"
    assert re.search(r"✂⟨[^⟩]*<\|im_end\|>∎⟩", text), "where y was cut, it is not"
    assert re.search(r"\d+ cut from the end of y", text)
    assert "«" in text
    assert re.search(r"\d+ of 60 tokens \(data.max_length\)", text)
    assert "at most 8 tokens for on_policy, sequence" in text
    assert "\x1b" not in text
    assert "�" not in text
    assert listing(folder) == before, "nothing is written"


def test_a_teacher_that_is_yet_to_be_trained_is_planned_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_chain(tmp_path)
    before = listing(tmp_path)
    result = call("preview", file, "--language", "th", "-n", "2")
    assert result.exit_code == 0, result.output
    heads = re.findall(r"── (\w+) ·", result.stdout)
    assert heads == ["th", "th"]
    assert "the same prompt as the student's" in result.stdout
    assert listing(tmp_path) == before


def test_rows_are_spread_over_languages_and_the_seed_picks_others(folder: Path) -> None:
    seen = seen_in(folder / "student.yaml")
    rows = choose(seen, Wanted(3, None, None, seed=0))
    assert {row.language for row in rows} == {"en", "id", "th"}
    picked = [[row.index for row in choose(seen, Wanted(3, None, None, seed=s))] for s in (0, 0, 1, 2)]
    assert picked[0] == picked[1]
    assert picked[0] != picked[2] or picked[0] != picked[3]
    assert len(choose(seen, Wanted(99, None, None, seed=0))) == 15


def test_what_is_not_there_is_told_with_what_is(folder: Path) -> None:
    result = call("preview", folder / "student.yaml", "-l", "my", "-d", "rows")
    assert result.exit_code == 1
    assert "no training row of language my and dataset rows" in result.stderr
    assert "en (rows), id (rows), th (rows)" in result.stderr


def test_a_row_without_a_demonstration_says_why(folder: Path) -> None:
    result = call("preview", folder / "student.yaml", "--verbalizer.demonstration.max_tokens=10")
    assert "taught without a demonstration: longer than the teacher's room" in result.stdout
    assert "«" not in result.stdout.split("──")[1]


def test_a_response_that_no_signal_reads_is_not_shown_as_learned(folder: Path) -> None:
    only = ["--signals.sequence.weight=0", "--signals.off_policy.weight=0"]
    result = call("preview", folder / "student.yaml", "-n", 1, *only)
    assert "read by no signal of this recipe" in result.stdout
    assert "⟦" not in result.stdout


def test_a_recipe_without_a_teacher(tmp_path: Path) -> None:
    write_chain(tmp_path)
    shown = changed(TEACHER, data__train={"shown": {**TEACHER["data"]["train"]["rows"], "demonstrate": True}})
    result = call("preview", write_recipe(tmp_path / "teacher.yaml", shown), "-n", 1, "-l", "id")
    assert result.exit_code == 0, result.output
    assert "in the loss of sft" in result.stdout
    assert "teacher" not in result.stdout.split("── ")[1]
    assert "Jawaban" in result.stdout.replace("│", ""), "a student that reads demonstrations is seen to"


@pytest.mark.parametrize(
    "template", ["{{ demonstrations[0].prompt }}{{ demonstrations[0].response }}{{ prompt }}", None]
)
def test_a_demonstration_that_begins_as_the_prompt_does_is_marked_whole(folder: Path, template: str | None) -> None:
    overrides = []
    if template:
        (folder / "own.jinja").write_text(template)
        overrides = [("verbalizer.demonstration.template", str(folder / "own.jinja"))]
    with tempfile.TemporaryDirectory() as workspace:
        seen = look(load_recipe(folder / "student.yaml", overrides), Path(workspace))
    row = next(row for row in seen.made.rows if row.language == "th")
    *_, on = readings(seen, row)
    before, z, after = (seen.sides.student.tokenizer.decode(span.ids) for span in on.spans)
    example = seen.sides.examples[row.index]
    assert before.endswith("<|im_start|>user\n")
    assert after.startswith(example.prompt[-1].content)
    assert z == example.prompt[-1].content + example.response if template else z.startswith("ตัวอย่าง:\n")


# Marks


def made_encoder() -> Encoder:
    made = train_tokenizer(["plain English"], 300)
    resolve_template(made, "chatml", who="student")
    return Encoder(made, who="student")


def drawn(spans: list[Span], width: int, *, coloured: bool) -> tuple[list[str], str]:
    """The lines of the spans, and what a terminal gets."""
    console = Console(
        file=StringIO(), width=width, force_terminal=coloured, color_system="truecolor" if coloured else None
    )
    lines = list(Marker(console).lines(made_encoder(), spans, indent="  "))
    for line in lines:
        console.print(line, soft_wrap=True)
    return [line.plain for line in lines], console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("coloured", [True, False])
@pytest.mark.parametrize("language", SENTENCES)
def test_every_line_fits_and_no_text_is_lost(language: str, coloured: bool) -> None:
    encoder = made_encoder()
    prompt = encoder.prompt_ids([Turn("user", SENTENCES[language] * 3)])
    response = encoder.response_ids(SENTENCES[language])
    lines, _ = drawn([Span(Kind.PROMPT, prompt), Span(Kind.LOSS, response)], 40, coloured=coloured)
    assert all(cell_len(line) <= 40 for line in lines), lines
    kept = re.sub(r"[₀-₉│⟦⟧∎⏎◌\s→]|‹U\+\w+›", "", "".join(lines))
    wanted = re.sub(r"[\s\u200d]", "", encoder.tokenizer.decode(prompt) + encoder.tokenizer.decode(response))
    assert kept == wanted


def test_kinds_are_told_apart_by_colour_and_without() -> None:
    encoder = made_encoder()
    spans = [Span(kind, encoder.response_ids("ab")) for kind in Kind]
    (line,), _ = drawn(spans, 200, coloured=False)
    end = "<|im_end|>"
    assert line == f"  a│b│{end}⟦a│b│{end}∎⟧(a│b│{end}∎)«a│b│{end}»✂⟨a│b│{end}∎⟩"
    (line,), sent = drawn(spans, 200, coloured=True)
    assert "│" not in line
    backgrounds = set(re.findall(r"48;2;\d+;\d+;\d+", sent))
    assert len(backgrounds) == 2 * len(Kind), "two shades of each"
    assert re.search(r"\x1b\[9;", sent), "what was cut is struck through"


def test_a_border_inside_a_prompt_never_cuts_a_character() -> None:
    first, *others = made_encoder().tokenizer("แมว")["input_ids"]
    (line,), _ = drawn([Span(Kind.PROMPT, [first]), Span(Kind.DEMONSTRATION, others)], 200, coloured=False)
    assert line == "  แ₃«ม₃│ว₃»"


def test_control_characters_of_a_row_do_not_reach_the_terminal() -> None:
    ids = made_encoder().response_ids("a\x1b[2Jb\u202ec\td\re")
    (line,), _ = drawn([Span(Kind.LOSS, ids)], 200, coloured=False)
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert "‹U+001B›" in line
    assert "‹U+202E›" in line


def test_the_legend_names_what_was_shown() -> None:
    console = Console(file=StringIO(), width=80)
    marker = Marker(console)
    list(marker.lines(made_encoder(), [Span(Kind.LOSS, [5])], indent=""))
    legend = "\n".join(line.plain for line in marker.legend())
    assert "⟦abc⟧ in the loss" in legend
    assert "demonstration" not in legend
