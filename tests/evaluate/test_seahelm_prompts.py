"""Prompts out of a checkout that is laid out as SEA-HELM's is; the texts are made up."""

from pathlib import Path

import pytest

from dudi_kit.data.example import Turn
from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm_prompts import seahelm_frame
from dudi_kit.evaluate.task_rows import Wishes
from dudi_kit.recipe.task_places import Homes
from tests.evaluate.test_task_rows import home as home
from tests.evaluate.test_task_rows import load, mood

CONFIG = """\
mood-task:
  metadata: {version: 1.1}
  name: mood_task
  competency: nlu
  fewshot_num_examples: {instruct: 0, base: 5}
  languages:
    id:
      filepath: owner/Mood
      max_tokens: 32
      prompt_template:
        preamble: |-
          Baik atau buruk?

          Bentuk:
          "{answer_tag} ANSWER"
        task_template: |-
          Kalimat:
          ```
          {text}
          ```
        answer_template: |-
          {answer_tag} {label}
        answer_tag: "Jawab:"
mood-task-logprobs:
  metadata: ${mood-task.metadata}
  languages: ${mood-task.languages}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "SEA-HELM"
    config = folder / "seahelm_tasks/nlu/mood/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG, encoding="utf-8")
    return folder


def test_its_conversation_is_read_in_place_of_ours(home: Homes, checkout: Path) -> None:
    loaded = load(mood(seahelm="mood-task"), "id", Wishes(shots=1), Homes(home.data, checkout))
    assert (loaded.prompts, loaded.tag) == ("SEA-HELM", "Jawab:")
    assert loaded.rows[0].prompt[0] == Turn(
        "user", 'Baik atau buruk?\n\nBentuk:\n"Jawab: ANSWER"\n\nKalimat:\n```\nsunny\n```'
    ) or loaded.rows[0].prompt[0] == Turn(
        "user", 'Baik atau buruk?\n\nBentuk:\n"Jawab: ANSWER"\n\nKalimat:\n```\nrainy\n```'
    )
    assert loaded.rows[0].answers == ("Jawab: Baik", "Jawab: Buruk")


def test_its_text_to_complete_ends_as_its_template_does(home: Homes, checkout: Path) -> None:
    row = load(mood(seahelm="mood-task"), "id", Wishes(mode="base", shots=0), Homes(home.data, checkout)).rows[0]
    assert row.prompt == ('Baik atau buruk?\n\nBentuk:\n"Jawab: ANSWER"\n\nKalimat:\n```\ntext 0 {label}\n```\n\n')
    assert row.opening == ""


def test_what_it_has_no_prompt_for_is_asked_in_ours(home: Homes, checkout: Path) -> None:
    assert load(mood(seahelm="mood-task"), "en", Wishes(), Homes(home.data, checkout)).prompts == "dudi-kit"
    assert load(mood(), "id", Wishes(), Homes(home.data, checkout)).prompts == "dudi-kit"


def test_a_label_that_it_does_not_offer_is_an_error(checkout: Path) -> None:
    labels = {"good": "Bagus", "bad": "Buruk"}
    languages = mood().model_dump(mode="json", exclude_defaults=True)["languages"]
    languages["id"]["labels"] = labels
    task = mood(seahelm="mood-task", languages=languages)
    with pytest.raises(DataError, match="does not offer the label 'Bagus'"):
        seahelm_frame(task, "id", "instruct", checkout)
    languages["id"]["seahelm_labels"] = {"good": "Baik"}
    frame = seahelm_frame(mood(seahelm="mood-task", languages=languages), "id", "instruct", checkout)
    assert frame is not None
    assert frame.labels == {"good": "Baik", "bad": "Buruk"}


def test_a_field_that_rows_lack_is_an_error(checkout: Path) -> None:
    config = checkout / "seahelm_tasks/nlu/mood/config.yaml"
    config.write_text(CONFIG.replace("{text}", "{sentence}"), encoding="utf-8")
    with pytest.raises(DataError, match=r"shows \{sentence\}, which rows of mood lack"):
        seahelm_frame(mood(seahelm="mood-task"), "id", "instruct", checkout)


def test_another_folder_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no checkout of SEA-HELM"):
        seahelm_frame(mood(seahelm="mood-task"), "id", "instruct", tmp_path)
