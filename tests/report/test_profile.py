"""The report's section on the time of a step, and how `--profile` gets to the training."""

from pathlib import Path

import pytest

from dudi_kit.report.read import read_run
from dudi_kit.report.write import write_report
from dudi_kit.train.profile import Profile, StepTime, summed_up
from tests.small import call, write_chain


def write_profile(run_dir: Path, ranks: int) -> None:
    steps = [StepTime({"teacher": 0.5, "waiting": 0.25, "other": 0.25}, new_shapes=n == 0) for n in range(3)]
    made = [summed_up(rank, steps, 2_000_000_000) for rank in range(ranks)]
    profile = Profile(name="<b>small</b>", device="cpu", first_step=1, last_step=3, ranks=made)
    (run_dir / "logs").mkdir(exist_ok=True)
    (run_dir / "logs/profile.json").write_text(profile.model_dump_json())


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_profiled_run_has_a_section_with_stages_and_ranks(run_dir, ranks):
    write_profile(run_dir, ranks)
    page = write_report(run_dir).read_text("utf-8")
    section = page[page.index('<section id="profile">') :].partition("</section>")[0]
    for text in ("<td>teacher</td><td>0.5000</td><td>50.0 %</td>", "steps 1 to 3 (2, and 1 with new shapes)"):
        assert text in section
    assert ("<td>0.7500</td><td>1.0000</td><td>2,000</td>" in section) is (ranks > 1)


def test_without_a_profile_there_is_no_section_and_a_damaged_one_is_a_note(run_dir):
    assert 'id="profile"' not in write_report(run_dir).read_text("utf-8")
    write_profile(run_dir, 1)
    file = run_dir / "logs/profile.json"
    file.write_text(file.read_text()[:100])
    assert 'id="profile"' not in write_report(run_dir).read_text("utf-8")
    assert any("logs/profile.json can't be read" in note for note in read_run(run_dir).notes)


@pytest.mark.parametrize("options", [["--profile"], []])
def test_the_option_is_for_every_run_of_the_chain(tmp_path, monkeypatch, options):
    asked = []

    def train(run, processes, *, resume, profile):
        asked.append(profile)
        run.final.mkdir()

    monkeypatch.setattr("dudi_kit.pipeline.stations.start_training", train)
    command = ("train", write_chain(tmp_path), "--output", tmp_path / "out", *options)
    assert call(*command).exit_code == 0
    assert asked == [bool(options)] * 3
    again = call(*command)
    assert ("nothing is measured" in again.stderr) is bool(options)
