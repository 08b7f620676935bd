import math
from dataclasses import replace

import pytest

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm.aggregate import TaskScore, aggregate
from dudi_kit.evaluate.seahelm.official import OFFICIAL, SEA_LANGUAGES

WHOLE = [
    TaskScore(name, language, task.competency, task.metric, 40.0, group=task.group)
    for name, task in OFFICIAL.items()
    for language in sorted(task.languages)
]
BOARD = [replace(score, run=run) for score in WHOLE for run in range(8)]


def nlu(task, language, value, **settings):
    return TaskScore(task, language, "nlu", "balanced_accuracy", value, **settings)


def test_means_by_hand_weigh_tasks_groups_competencies_and_languages_alike():
    ours = aggregate([
        nlu("sentiment", "id", 10.0),
        nlu("metaphor", "id", 20.0),
        TaskScore("translation-en-xx", "id", "nlg", "chrf++", 60.0, group="translations"),
        TaskScore("translation-xx-en", "id", "nlg", "chrf++", 80.0, group="translations"),
        TaskScore("abssum", "id", "nlg", "rouge_l", 30.0),
        nlu("sentiment", "jv", 5.0),
    ], "run-json")  # fmt: skip
    assert ours.tasks["id"]["nlg"]["translations"].value == 70.0
    assert ours.tasks["id"]["nlg"]["abssum"].name == "SEA-HELM abssum in id"
    assert ours.tasks["jv"]["nlu"]["sentiment"].name == "sentiment in jv by balanced_accuracy"
    assert ours.competencies["id"]["nlg"].value == 50.0
    assert ours.languages["id"].value == (15 + 50) / 2
    assert ours.overall.value == (32.5 + 5) / 2


def test_only_the_whole_official_set_is_called_a_sea_helm_score():
    assert aggregate(WHOLE, "run-json").overall.name == "SEA-HELM score, run-json"
    assert aggregate(BOARD, "leaderboard").overall.name == "SEA-HELM score, leaderboard"


@pytest.mark.parametrize("position", [0, 7, len(WHOLE) // 2, len(WHOLE) - 1])
@pytest.mark.parametrize(
    "change", [{"value": None}, {"whole": False}, {"metric": "chrf++"}, {"group": "mine"}, {"competency": "nlu2"}]
)
def test_anything_else_is_not(position, change):
    changed = replace(WHOLE[position], **change)
    ours = aggregate([*WHOLE[:position], changed, *WHOLE[position + 1 :]], "run-json")
    assert not ours.overall.whole
    assert not ours.overall.name.startswith("SEA-HELM")
    assert not ours.languages[changed.language].whole
    assert sum(mean.whole for mean in ours.languages.values()) == len(SEA_LANGUAGES) - 1


def test_a_language_task_or_run_too_many_or_too_few_is_not_the_score():
    assert aggregate(WHOLE, "leaderboard").overall.name.startswith("mean over 7 languages")  # one run of eight
    assert not aggregate([*WHOLE, nlu("sentiment", "jv", 1.0)], "run-json").overall.whole
    assert not aggregate([*WHOLE, nlu("belebele-qa-mc", "id", 1.0)], "run-json").overall.whole
    without_thai = aggregate([score for score in WHOLE if score.language != "th"], "run-json").overall
    assert without_thai.missing == ("th",)
    assert without_thai.name == "mean over 6 of 7 languages (score, run-json)"


def test_missing_is_left_out_and_named_and_never_0():
    ours = aggregate(
        [nlu("sentiment", "id", 30.0), nlu("metaphor", "id", None), nlu("sentiment", "th", None)], "run-json"
    )
    assert ours.competencies["id"]["nlu"].value == 30.0
    assert ours.competencies["id"]["nlu"].missing == ("metaphor", "qa")
    assert ours.competencies["id"]["nlu"].name == "mean over 1 of 3 tasks (nlu in id)"
    assert "nlg" in ours.languages["id"].missing
    assert ours.languages["th"].value is None
    assert ours.overall.covers == ("id",)
    assert set(ours.overall.missing) == set(SEA_LANGUAGES) - {"id"}


def test_the_leaderboard_means_over_runs_and_the_seven_sea_languages():
    ours = aggregate([nlu("sentiment", "id", v, run=i) for i, v in enumerate([10.0, None, 30.0])]
                     + [nlu("sentiment", "jv", 90.0)], "leaderboard")  # fmt: skip
    task = ours.tasks["id"]["nlu"]["sentiment"]
    assert (task.value, task.covers, task.missing) == (20.0, ("run 0", "run 2"), ("run 1",))
    assert ours.overall.value == 20.0
    assert ours.languages["jv"].value == 90.0


def test_nothing_at_all_has_no_mean():
    assert aggregate([], "run-json").overall.value is None


@pytest.mark.parametrize(("scores", "message"), [
    ([nlu("sentiment", "id", 1.0), nlu("sentiment", "id", 2.0)], "2 scores of run 0"),
    ([nlu("sentiment", "id", math.nan)], "nan is no score"),
    ([nlu("sentiment", "id", 1.0), nlu("sentiment", "id", 2.0, run=1)], "run-json is of one run"),
])  # fmt: skip
def test_faults_of_the_caller_are_refused(scores, message):
    with pytest.raises(DataError, match=message):
        aggregate(scores, "run-json")
