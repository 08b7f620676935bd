"""Plans of whole chains, made without a weight."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import MambaConfig

from dudi_kit.data.encode import Encoder
from dudi_kit.data.ledger import Ledger
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import DataError, ModelError, RecipeError, VocabularyMismatch
from dudi_kit.models import loading
from dudi_kit.plan.build import build_plan, teaching_of
from dudi_kit.plan.chain import Stage, build_chain
from dudi_kit.plan.engine import ds_config
from dudi_kit.plan.schema import Plan, read_plan, write_plan
from dudi_kit.recipe.load import load_recipe
from tests.small import ROWS, tokenizer, write_chain, write_rows, write_shell


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that plans may load a weight."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a plan loads no weights")

    monkeypatch.setattr(loading, "load_model", refuse)
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", refuse)


def chain(file: Path) -> Stage:
    return build_chain(load_recipe(file).recipe, file, file.parent / "out")


def planned(file: Path, processes: int = 1) -> tuple[Plan, Stage, Ledger]:
    """The plan of a recipe; the stages before it are planned too, as `run` does."""
    main = chain(file)
    for stage in main.in_order():
        ledger = Ledger()
        plan = build_plan(stage, processes=processes, ledger=ledger)
    return plan, main, ledger


def with_models(folder: Path, *, teacher: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A recipe over two model folders that have everything but weights. teacher: options of its `write_shell`."""
    made = tokenizer()
    write_shell(folder / "models" / "student", made)
    write_shell(folder / "models" / "teacher", **{"made": made, "width": 32, **(teacher or {})})
    models = {"teacher": {"model": "./models/teacher"}, "student": {"model": "./models/student"}}
    return write_chain(folder, **{**models, **changes})


# What is decided


def test_the_plan_of_a_chain_from_scratch(tmp_path: Path) -> None:
    plan, stage, ledger = planned(write_chain(tmp_path, training__batch_size=8, training__micro_batch_size=2), 2)
    assert (plan.name, plan.lock) == ("student", stage.lock)
    assert {code: share.rows for code, share in plan.languages.items()} == {"en": 4, "id": 4, "th": 4}
    assert all(share.tokens > 4 * 8 and share.rows_per_epoch == 4 for share in plan.languages.values())
    assert (plan.processes, plan.batch_size, plan.micro_batch_size, plan.accumulation) == (2, 8, 2, 2)
    assert (plan.rows_per_epoch, plan.steps) == (12, 2)
    assert plan.vocabulary is not None
    assert plan.vocabulary.reason in plan.notices
    assert (plan.teacher_parameters, plan.parameters) == (plan.parameters, plan.teacher_parameters)
    assert stage.teacher is not None
    assert stage.start is not None
    assert plan.teacher is not None
    assert plan.start is not None
    assert plan.teacher.path == str(stage.teacher.run.final), "the teacher that is yet to be trained"
    assert plan.start.path == str(stage.start.run.final)
    assert plan.teacher_room == 512 - 8
    assert plan.deepspeed["train_batch_size"] == 8
    assert plan.launch[:3] == ["python", "-m", "torch.distributed.run"]
    assert plan.launch[-1] == str(stage.run.path)
    assert plan.outside == []
    assert not ledger.counts


def test_the_students_tokenizer_is_the_teachers_and_lies_in_the_run_directory(tmp_path: Path) -> None:
    plan, stage, _ = planned(write_chain(tmp_path))
    assert stage.teacher is not None
    mine, teachers = (run.tokenizer / "tokenizer.json" for run in (stage.run, stage.teacher.run))
    assert mine.read_text() == teachers.read_text()
    assert plan.vocabulary is not None
    assert plan.vocabulary.size <= 400


def test_a_plan_survives_the_way_through_its_file(tmp_path: Path) -> None:
    plan, stage, _ = planned(write_chain(tmp_path))
    write_plan(stage.run, plan)
    assert read_plan(stage.run) == plan


def test_training_finds_the_teachers_side_in_the_plan(tmp_path: Path) -> None:
    plan, stage, _ = planned(with_models(tmp_path))
    write_plan(stage.run, plan)
    student = Encoder(load_tokenizer(str(stage.run.tokenizer)), who="student")
    teaching = teaching_of(read_plan(stage.run), stage.run, student)
    assert teaching is not None
    assert plan.vocabulary is not None
    assert (teaching.vocabulary.size, teaching.vocabulary.reason) == (plan.vocabulary.size, plan.vocabulary.reason)
    assert (teaching.context, teaching.source) == (512, plan.teacher)
    assert teaching_of(plan.model_copy(update={"teacher": None}), stage.run, student) is None


def test_a_plan_is_the_same_every_time(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    assert planned(file)[0] == planned(file)[0]


def test_without_token_signals_there_is_neither_teacher_nor_vocabulary(tmp_path: Path) -> None:
    write_chain(tmp_path)
    plan, _, _ = planned(tmp_path / "teacher.yaml")
    assert (plan.teacher, plan.vocabulary, plan.teacher_room, plan.teacher_parameters) == (None, None, None, None)
    assert plan.start is None


def test_models_with_padded_rows_are_cut_to_the_shared_pieces_with_a_notice(tmp_path: Path) -> None:
    pieces = len(tokenizer())
    plan, _, _ = planned(with_models(tmp_path, teacher={"rows": pieces + 24}))
    assert plan.vocabulary is not None
    assert plan.vocabulary.size == pieces
    assert any(f"24 of the teacher's {pieces + 24:,} rows" in notice for notice in plan.notices)


def test_deepspeeds_configuration_is_that_of_the_batches(tmp_path: Path) -> None:
    plan, stage, _ = planned(write_chain(tmp_path, training__batch_size=6, training__micro_batch_size=3))
    made = plan.deepspeed
    assert made["train_batch_size"] == plan.batch_size == 6
    assert made["gradient_accumulation_steps"] == plan.accumulation == 2
    assert made.keys() == ds_config(stage.recipe, plan, plan.parameters).keys()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "per_parameter"),
    [
        ({}, 4 + 8),
        ({"training__precision": "bf16"}, 2 + 4 + 8),
        ({"signals__sequence": {"reference": {"type": "refreshed", "every": 2}}}, 4 + 8 + 4),
    ],
    ids=["fp32", "bf16", "refreshed reference"],
)
def test_bytes_of_a_checkpoint_by_hand(tmp_path: Path, changes: dict[str, Any], per_parameter: int) -> None:
    plan, _, _ = planned(write_chain(tmp_path, **changes))
    assert plan.disk.checkpoint_bytes == plan.parameters * per_parameter


def test_parameters_by_hand(tmp_path: Path) -> None:
    """One layer, width 16, tied embeddings: 4 square projections, 3 of the feed-forward part, 3 norms."""
    plan, _, _ = planned(write_chain(tmp_path))
    pieces, width, feed_forward = plan.vocabulary.size, 16, 48  # type: ignore[union-attr]
    assert plan.parameters == pieces * width + 4 * width**2 + 3 * width * feed_forward + 3 * width


# What the recipe reads


def test_a_disk_to_swap_to_is_listed_as_outside_and_changes_no_lock(tmp_path: Path) -> None:
    def swapping(path: str) -> tuple[Plan, Stage, Ledger]:
        offload = {"optimizer": "nvme", "nvme_path": path}
        return planned(write_chain(tmp_path / "recipe", deepspeed={"stage": 3, "offload": offload}))

    (plan, one, _), (_, other, _) = swapping("/fast"), swapping("/other")
    assert plan.outside == ["/fast"]
    assert plan.deepspeed["zero_optimization"]["offload_optimizer"]["nvme_path"] == "/fast"
    assert one.lock == other.lock


def test_files_outside_the_recipes_folder_are_listed(tmp_path: Path) -> None:
    outside = write_rows(tmp_path / "shared.jsonl", ROWS)
    dataset = {"path": "../shared.jsonl", "language": {"column": "language"}, "english": {}}
    plan, _, _ = planned(write_chain(tmp_path / "mine", data__train={"rows": dataset}))
    assert plan.outside == [str(outside)]


def test_a_folder_that_is_reached_through_a_link_is_the_recipes_own(tmp_path: Path) -> None:
    write_chain(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    plan, _, _ = planned(tmp_path / "link" / "student.yaml")
    assert plan.outside == []


def test_a_link_to_a_recipe_counts_as_lying_where_the_link_lies(tmp_path: Path) -> None:
    file = write_chain(tmp_path / "here")
    file.rename(tmp_path / "far.yaml")
    file.symlink_to(tmp_path / "far.yaml")
    assert planned(file)[0].outside == []


def test_a_prompt_that_begins_with_a_slash_is_no_path(tmp_path: Path) -> None:
    form = {"type": "template", "prompt": "/no_think {{ prompt }}", "response": "{{ response }}"}
    dataset = {"path": "rows.jsonl", "language": {"column": "language"}, "english": {}, "format": form}
    assert planned(write_chain(tmp_path, data__train={"rows": dataset}))[0].outside == []


# What does not fit


def test_a_row_longer_than_the_students_context_is_named_with_its_tokens(tmp_path: Path) -> None:
    file = with_models(tmp_path, data__max_length=512)
    write_shell(tmp_path / "models" / "student", tokenizer(), context=64)
    rows = [*ROWS, ROWS[0] | {"prompt": "kucing " * 60}]
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(RecipeError) as caught:
        planned(file)
    said = str(caught.value)
    assert said.startswith("student: its context is 64 tokens and ")
    assert "rows.jsonl:13 (rows) needs " in said
    assert "data.on_too_long: skip" in said
    assert "(prompt " in said


def test_samples_that_do_not_fit_the_students_context_name_their_setting(tmp_path: Path) -> None:
    wide = {"rollouts__max_new_tokens": 500, "data__max_length": 512}
    file = with_models(tmp_path, **wide)
    with pytest.raises(RecipeError, match=r"student: its context is 512 .* rollouts\.max_new_tokens 500\)"):
        planned(file)
    off_policy_only = {"sequence": {"weight": 0}, "on_policy": {"weight": 0}}
    planned(with_models(tmp_path, signals=off_policy_only, **wide))


def test_a_prompt_longer_than_the_teachers_context_is_named(tmp_path: Path) -> None:
    file = with_models(tmp_path, teacher={"context": 24})
    with pytest.raises(RecipeError, match=r"teacher: its context is 24 tokens and .*rows\.jsonl:\d+ \(rows\) needs "):
        planned(file)


@pytest.mark.parametrize("limit", ["context", "max_tokens"])
def test_rows_whose_demonstration_is_too_long_for_the_teacher_are_taught_with_less_and_counted(
    tmp_path: Path, limit: str
) -> None:
    by_recipe = {"verbalizer__demonstration": {"max_tokens": 250}} if limit == "max_tokens" else {}
    teacher = {"context": 258} if limit == "context" else {}
    file = with_models(tmp_path, teacher=teacher, **by_recipe)
    write_rows(tmp_path / "rows.jsonl", [*ROWS, ROWS[0] | {"english_prompt": "cat " * 200}])
    plan, _, ledger = planned(file)
    assert plan.teacher_room == 250
    event = "demonstration cut to 1 of 2 parts: longer than the teacher's room"
    assert ledger.as_json() == {event: {"id": 1}}
    assert any(notice.startswith(f"{event}: 1 (id 1); first: ") for notice in plan.notices)


def test_max_tokens_over_the_teachers_context_does_not_lift_it(tmp_path: Path) -> None:
    file = with_models(tmp_path, teacher={"context": 108}, verbalizer__demonstration={"max_tokens": 5_000})
    assert planned(file)[0].teacher_room == 100


def test_a_response_with_a_piece_that_the_teacher_lacks_is_refused_with_row_and_piece(tmp_path: Path) -> None:
    """Student and teacher agree on the teacher's pieces, and the student has one more."""
    file = with_models(tmp_path, verbalizer__vocabulary__mapping="shared")
    longer = tokenizer()
    extra = len(longer)
    longer.add_tokens(["ฮะฮะ"])
    write_shell(tmp_path / "models" / "student", longer)
    planned(file)
    rows = [*ROWS, ROWS[1] | {"response": "แมว ฮะฮะ"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(VocabularyMismatch) as caught:
        planned(file)
    said = str(caught.value)
    assert "rows.jsonl:13 (rows)" in said
    assert f"piece {extra:,}" in said
    assert "only the student has" in said


def test_a_teacher_with_another_tokenizer_is_aligned_and_its_coverage_stands_in_the_plan(tmp_path: Path) -> None:
    other = tokenizer(["entirely different words with other pairs of letters"] * 3)
    plan, stage, _ = planned(with_models(tmp_path, teacher={"made": other}))
    assert plan.vocabulary is not None
    assert plan.vocabulary.mapping == "align"
    assert plan.vocabulary.coverage.keys() == {"en", "id", "th"}
    for shares in plan.vocabulary.coverage.values():
        assert shares.full + shares.span == pytest.approx(1)
        assert 0 < shares.full < 1
    assert any(notice.startswith("share of response tokens with the teacher's distribution") for notice in plan.notices)
    write_plan(stage.run, plan)
    student = Encoder(load_tokenizer(str(stage.run.tokenizer)), who="student")
    teaching = teaching_of(read_plan(stage.run), stage.run, student)
    assert teaching is not None
    assert teaching.vocabulary.mapping == "align"
    assert teaching.vocabulary.size == plan.vocabulary.size


def test_tokenizers_of_two_families_are_refused_where_the_recipe_asks_for_one(tmp_path: Path) -> None:
    other = tokenizer(["entirely different words with other pairs of letters"] * 3)
    file = with_models(tmp_path, teacher={"made": other}, verbalizer__vocabulary__mapping="shared")
    with pytest.raises(VocabularyMismatch, match=r"have different tokenizers: piece \d+ is .* to auto, remap or align"):
        planned(file)


def test_a_batch_that_can_not_be_split_over_the_processes_is_refused(tmp_path: Path) -> None:
    file = with_models(tmp_path, training__batch_size=4, training__micro_batch_size=2)
    with pytest.raises(RecipeError, match="4 rows can't be split into 3 processes × 2 rows"):
        planned(file, processes=3)


def test_rows_that_all_fall_out_leave_nothing_to_train_on(tmp_path: Path) -> None:
    file = with_models(tmp_path, data__max_length=9, data__on_too_long="skip")
    event = r"prompt alone over max_length, row left out: 12 \(en 4, id 4, th 4\); first: "
    with pytest.raises(DataError, match=rf"data\.train: no row is left to train on\. {event}"):
        planned(file)


def test_scoring_while_it_trains_is_told_and_has_its_place_on_the_disk(tmp_path: Path) -> None:
    held_out = {"rows": {"path": "rows.jsonl", "language": {"column": "language"}}}
    during = {"evaluation": {"during_training": {"every": 9, "limit": 3}}, "data__held_out": held_out}
    plan, _, _ = planned(write_chain(tmp_path, **during))
    told = [notice for notice in plan.notices if notice.startswith("evaluation.during_training")]
    assert told == [
        "evaluation.during_training.every: 9 is more than the run's 2 steps; the student is scored before the first "
        "and after the last only",
        "evaluation.during_training: 2 scorings of bits per byte, at most 3 rows of a language each; bits per byte "
        "picks the best step, and the final model is the last one's",
    ]
    (tmp_path / "unscored").mkdir()
    unscored, _, _ = planned(write_chain(tmp_path / "unscored"))
    assert unscored.disk.checkpoints == 1
    assert plan.disk.checkpoints == 4  # the newest two, the best, and the one that is being written


def test_skipped_and_cut_rows_stand_in_the_notices_by_language(tmp_path: Path) -> None:
    file = with_models(tmp_path, data__on_too_long="skip", data__on_bad_row="skip")
    write_rows(tmp_path / "rows.jsonl", [*ROWS, ROWS[1] | {"response": ""}, ROWS[0] | {"response": "ya " * 300}])
    plan, _, ledger = planned(file)
    assert ledger.as_json() == {
        "bad row left out: empty text": {"th": 1},
        "row over max_length left out": {"id": 1},
    }
    assert sum(share.rows for share in plan.languages.values()) == 12
    assert any("bad row left out: empty text: 1 (th 1); first: " in notice for notice in plan.notices)


def test_a_weight_of_a_dataset_and_the_temperature_show_in_the_shares(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row["language"] != "th"] + ROWS[1:2]
    file = write_chain(tmp_path, data__language_temperature=1000.0)
    write_rows(tmp_path / "rows.jsonl", rows)
    shares = planned(file)[0].languages
    assert {code: share.rows for code, share in shares.items()} == {"en": 4, "id": 4, "th": 1}
    assert {code: share.rows_per_epoch for code, share in shares.items()} == {"en": 3, "id": 3, "th": 3}


def test_the_same_recipe_in_another_folder_has_the_same_lock(tmp_path: Path) -> None:
    one, two = (planned(write_chain(tmp_path / name))[0] for name in ("one", "two"))
    assert one.lock == two.lock


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ("student", r"student\.model: the weights of .*/student are quantised by fp8, .* can't be trained"),
        ("teacher", r"teacher\.quantization: the weights of .*/teacher are quantised by fp8 already"),
    ],
)
def test_weights_that_were_packed_before_are_refused_where_they_do_not_serve(
    tmp_path: Path, packed: str, said: str
) -> None:
    file = with_models(tmp_path, teacher__quantization="nf4")
    config = tmp_path / "models" / packed / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match=said):
        planned(file)


def test_a_teacher_that_was_packed_before_may_be_read_as_it_is(tmp_path: Path) -> None:
    file = with_models(tmp_path)
    config = tmp_path / "models" / "teacher" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "fp8"}}))
    assert planned(file)[0].teacher_parameters == planned(with_models(tmp_path / "plain"))[0].teacher_parameters


# Label words


def test_a_plan_tells_what_the_label_words_do_by_language(tmp_path: Path) -> None:
    file = write_chain(tmp_path, data__train__rows__labels="sentiment")
    words = {"id": ["positif", "negatif"], "th": ["เชิงบวก", "เชิงลบ"], "en": ["positive", "negative"]}
    rows = [{**row, "response": words[row["language"]][i % 2]} for i, row in enumerate(ROWS)]
    write_rows(tmp_path / "rows.jsonl", [*rows[:-1], {**rows[-1], "response": "well"}])
    plan, stage, ledger = planned(file)
    by_language = {labels.language: labels for labels in plan.labels}
    assert by_language.keys() == {"id", "th", "en"}
    assert by_language["th"].rows == 4
    assert by_language["th"].targets == {"positive": "เชิงบวก", "negative": "เชิงลบ", "neutral": "เป็นกลาง"}
    assert "label words of sentiment for 12 rows of rows (en 4, id 4, th 4)" in plan.notices
    assert ledger.counts["response that is no word of the set sentiment", "en"] == 1
    write_plan(stage.run, plan)
    assert read_plan(stage.run).labels == plan.labels


def test_rows_that_declare_nothing_plan_nothing(tmp_path: Path) -> None:
    plan, _, _ = planned(write_chain(tmp_path))
    assert plan.labels == []
    assert not any("label words" in notice for notice in plan.notices)


def test_without_a_teacher_that_is_asked_labels_are_left_alone(tmp_path: Path) -> None:
    off = {"sequence": {"weight": 0}, "off_policy": {"weight": 0}, "on_policy": {"weight": 0}, "sft": {"weight": 1}}
    plan, _, ledger = planned(write_chain(tmp_path, signals=off, data__train__rows__labels="sentiment"))
    assert plan.labels == []
    assert not ledger.counts


def test_a_set_that_is_not_there_is_an_error_of_the_plan(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.train\.rows\.labels: no set of label words is called 'mood'"):
        planned(write_chain(tmp_path, data__train__rows__labels="mood"))


def test_label_words_enter_the_lock_by_their_content(tmp_path: Path) -> None:
    words = tmp_path / "words.yaml"
    words.write_text("mood:\n  up: {id: [a], th: [ก], en: [x]}\n  down: {id: [b], th: [ข], en: [y]}\n", "utf-8")
    changes = {"verbalizer__vocabulary__label_words": "words.yaml", "data__train__rows__labels": "mood"}
    before = chain(write_chain(tmp_path, **changes)).lock
    assert chain(write_chain(tmp_path, **changes)).lock == before
    words.write_text(words.read_text(encoding="utf-8").replace("[x]", "[z]"), encoding="utf-8")
    assert chain(write_chain(tmp_path, **changes)).lock != before


# Adapters


def test_the_plan_counts_an_adapter_and_says_that_the_learning_rate_is_for_whole_models(tmp_path: Path) -> None:
    file = with_models(
        tmp_path,
        student={"model": "./models/student", "adapter": {"rank": 2, "quantization": "nf4"}},
        training={"steps": 2, "batch_size": 4, "precision": "bf16", "checkpoint_every": 1},
    )
    plan, *_ = planned(file)
    attention, feed_forward = 4 * (16 + 16), 3 * (16 + 32)
    assert plan.trained_parameters == 2 * (attention + feed_forward)
    assert plan.disk.checkpoint_bytes == 2 * plan.parameters + plan.trained_parameters * (2 + 4 + 8)
    said = " ".join(plan.notices)
    assert "training.learning_rate: 1e-05 is the default for whole models" in said
    assert "merged into the nf4 weights" in said


def test_a_target_that_the_student_lacks_is_refused_by_the_plan(tmp_path: Path) -> None:
    adapter = {"targets": ["c_attn"]}
    file = with_models(tmp_path, student={"model": "./models/student", "adapter": adapter})
    with pytest.raises(ModelError, match=r"student\.adapter\.targets: 'c_attn' is no linear layer.*q_proj, k_proj"):
        planned(file)


def test_a_cold_start_gets_an_adapter_too(tmp_path: Path) -> None:
    student = {"model": "./models/student", "adapter": {"rank": 2}, "cold_start": {"steps": 1}}
    plan, stage, _ = planned(with_models(tmp_path, student=student))
    assert stage.start is not None
    cold = build_plan(stage.start, processes=1, ledger=Ledger())
    assert cold.trained_parameters == plan.trained_parameters is not None


def test_the_place_of_a_teacher_is_in_the_plan_and_not_in_the_lock(tmp_path: Path) -> None:
    teacher = {"model": "./models/teacher", "placement": "offload", "device_memory": "1MiB"}
    here, *_ = planned(with_models(tmp_path))
    file = write_chain(tmp_path, teacher=teacher, student={"model": "./models/student"})
    there, *_ = planned(file)
    assert there.teacher is not None
    assert (there.teacher.placement, there.teacher.device_memory) == ("offload", "1MiB")
    assert there.lock == here.lock


def test_a_model_that_can_not_keep_packed_rows_apart_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    packed, *_ = planned(with_models(tmp_path, training__packing=True))
    assert packed.lock == planned(with_models(tmp_path))[0].lock
    MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1).save_pretrained(tmp_path / "models" / "teacher")
    file = write_chain(
        tmp_path,
        teacher={"model": "./models/teacher"},
        student={"model": "./models/student"},
        training__packing=True,
    )
    with pytest.raises(RecipeError, match=r"training\.packing: the teacher is a 'mamba', .* choose one of: .*qwen3"):
        planned(file)
