"""What a run makes, and what happens when a step fails. With stages that cost nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from costless_runs import ONE_ROUND, TWO_ROUNDS, planned, reasons, states, steps_made
from nstudent import load_config, run_all, run_stage
from nstudent.errors import ArtifactError, ConfigError, DataError, NstudentError, RefusedError, TrainingError
from nstudent.evaluation.scores import HEADLINE
from nstudent.runs.status import StepState, status
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.storage.artifact import Manifest

if TYPE_CHECKING:
    from conftest import FakeStages


def test_a_run_makes_every_step_and_a_second_run_none(tmp_path: Path, fake_stages: FakeStages) -> None:
    assert steps_made(tmp_path) == dict.fromkeys(ONE_ROUND, "not made yet")
    assert fake_stages.made == ONE_ROUND
    assert states(tmp_path) == dict.fromkeys(ONE_ROUND, "done")
    fake_stages.forget()
    assert steps_made(tmp_path) == {}
    assert fake_stages.made == []


def test_each_step_reads_what_the_plan_says(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    assert fake_stages.read == planned(1) | {
        "03-choose": ONE_ROUND[:3],
        "07-choose": [*ONE_ROUND[:3], "06-student"],
        "08-evaluate": ONE_ROUND[:-1],
    }


def test_the_folder_holds_the_steps_and_the_whole_configuration(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "student.epochs=7")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        *ONE_ROUND,
        "config.yaml",
        "final.json",
    ]
    assert load_config(tmp_path / "config.yaml") == load_config(
        None, ["rounds=1", "probe.members=[]", "student.epochs=7"]
    )


def test_the_folder_is_named_after_the_run(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_all(load_config(None, ["rounds=0", "probe.members=[]", "name=mine"])) == Path("runs/mine")
    assert (tmp_path / "runs" / "mine" / "03-evaluate").is_dir()


def test_a_copied_run_is_up_to_date(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert states(tmp_path / "there") == dict.fromkeys(ONE_ROUND, "done")
    assert steps_made(tmp_path / "there") == {}


def test_in_a_copy_with_a_changed_key_only_what_follows_from_it_is_made(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    steps_made(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    made = steps_made(tmp_path / "there", "name=strict", "pseudolabel.threshold=0.9")
    assert next(iter(made)) == "04-pseudolabel"
    assert not made.keys() & {"00-data", "01-teacher", "02-baseline"}


# --- interruptions and damage ---


def test_a_step_that_fails_is_made_again_and_what_was_done_stays(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"05-filter": TrainingError("every pseudo-label was rejected")}
    with pytest.raises(TrainingError):
        steps_made(tmp_path)
    assert fake_stages.made == ONE_ROUND[:6]
    assert states(tmp_path) == dict.fromkeys(ONE_ROUND, "missing") | dict.fromkeys(ONE_ROUND[:5], "done") | {
        "05-filter": "partial"
    }
    assert reasons(tmp_path) == {"05-filter": "the same command goes on from here"}
    fake_stages.failing = {}
    fake_stages.forget()
    assert steps_made(tmp_path)["05-filter"] == "unfinished: goes on from where it was"
    assert fake_stages.made == ONE_ROUND[5:]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("number", range(9))
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, fake_stages: FakeStages, number: int
) -> None:
    name = ONE_ROUND[number]
    fake_stages.failing = {name: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        steps_made(tmp_path / "killed")
    fake_stages.failing = {}
    assert list(steps_made(tmp_path / "killed")) == ONE_ROUND[number:]
    steps_made(tmp_path / "whole")
    ids = [[Manifest.read(tmp_path / run / step).id for step in ONE_ROUND] for run in ("killed", "whole")]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("error", [RefusedError("no better than chance"), ConfigError("max_gmacs"), DataError("empty")])
def test_what_ended_in_a_refusal_is_no_unfinished_work(
    tmp_path: Path, fake_stages: FakeStages, error: NstudentError
) -> None:
    fake_stages.failing = {"01-teacher": error}
    with pytest.raises(type(error)):
        run_all(load_config(None, ["probe.members=[]", "teacher.epochs=1"]), tmp_path)
    (stopped,) = [state for state in status(tmp_path) if state.state == "partial"]
    assert stopped.reason == str(error)
    fake_stages.failing = {}
    assert steps_made(tmp_path, "teacher.epochs=10")["01-teacher"] == "not made yet"
    assert not list(tmp_path.glob("*.partial"))
    assert not list((tmp_path / "01-teacher").glob("*refused*"))


def test_a_step_that_was_refused_goes_on_from_its_checkpoint_at_the_same_settings(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    fake_stages.failing = {"01-teacher": RefusedError("no better than chance")}
    for _ in range(2):
        with pytest.raises(RefusedError):
            run_all(load_config(None, ["probe.members=[]"]), tmp_path)
        assert (tmp_path / "01-teacher.partial" / "scratch" / "checkpoint").exists()
        (tmp_path / "01-teacher.partial" / "scratch" / "kept").touch()
    assert (tmp_path / "01-teacher.partial" / "scratch" / "kept").exists()


def test_work_that_was_interrupted_is_not_thrown_away_for_other_settings(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    fake_stages.failing = {"01-teacher": TrainingError("another process has ended")}
    with pytest.raises(TrainingError):
        run_all(load_config(None, ["probe.members=[]", "teacher.epochs=1"]), tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    for make in (run_all, lambda config, folder: run_stage(config, "teacher", folder)):
        with pytest.raises(ArtifactError, match=r"unfinished work .*teacher\.epochs changed from 1 to 10"):
            make(load_config(None, ["probe.members=[]", "teacher.epochs=10"]), tmp_path)
        # The configuration in the folder is that of the work in it: `status` says that the same command goes on.
        assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_step_finds_the_checkpoint_of_its_interrupted_attempt(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"01-teacher": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        steps_made(tmp_path)
    checkpoint = tmp_path / "01-teacher.partial" / "scratch" / "checkpoint"
    assert checkpoint.read_text() == "half"
    # Another learning rate is another teacher: half of the old one is of no use to it, and not to be lost by a slip.
    with pytest.raises(ArtifactError, match=r"teacher\.learning_rate changed from 0\.003 to 0\.1.*delete the folder"):
        steps_made(tmp_path, "teacher.learning_rate=0.1")
    assert checkpoint.read_text() == "half"


def test_a_step_that_does_not_resume_keeps_nothing_of_an_interrupted_attempt(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    """Scores of other settings are of no use, and must not end a run that comes back after hours of training."""
    fake_stages.failing = {"08-evaluate": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        steps_made(tmp_path)
    left = tmp_path / "08-evaluate.partial" / "predictions-01-teacher-of-before.h5"
    left.write_text("half")
    fake_stages.failing = {}
    assert "08-evaluate" in steps_made(tmp_path, "teacher.epochs=3")
    assert "08-evaluate" in steps_made(tmp_path, "teacher.epochs=4")
    assert left.name not in Manifest.read(tmp_path / "08-evaluate").files


def test_a_crash_after_the_manifest_needs_no_second_training(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    (tmp_path / "06-student").rename(tmp_path / "06-student.partial")
    assert steps_made(tmp_path) == {}


def test_a_damaged_input_is_named_and_nothing_is_lost(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    manifest = tmp_path / "04-pseudolabel" / "manifest.json"
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(ArtifactError, match=r"04-pseudolabel/manifest\.json is damaged"):
        steps_made(tmp_path)
    assert states(tmp_path)["04-pseudolabel"] == "stale"
    shutil.rmtree(manifest.parent)
    assert list(steps_made(tmp_path)) == ["04-pseudolabel"]


def test_a_damaged_student_does_not_hide_the_other_steps(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    (tmp_path / "06-student" / "manifest.json").write_text("{")
    assert states(tmp_path)["06-student"] == "stale"
    assert "damaged" in reasons(tmp_path)["06-student"]
    assert states(tmp_path)["01-teacher"] == "done"


def test_a_missing_manifest_has_a_mend_that_helps(tmp_path: Path, fake_stages: FakeStages) -> None:
    """'Run it again' would only say the same again: the folder has to go first."""
    steps_made(tmp_path)
    (tmp_path / "01-teacher" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"01-teacher.*delete"):
        steps_made(tmp_path)


def test_a_damaged_configuration_is_no_obstacle(tmp_path: Path, fake_stages: FakeStages) -> None:
    """It is only a copy of what the command says, and is written anew."""
    steps_made(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        status(tmp_path)
    assert steps_made(tmp_path) == {}
    assert states(tmp_path)["08-evaluate"] == "done"


# --- one stage at a time ---


def test_one_stage_at_a_time(tmp_path: Path, fake_stages: FakeStages) -> None:
    config = load_config(None, ["rounds=2", "probe.members=[]"])
    for stage in ("data", "teacher", "baseline", "choose", "pseudolabel", "filter", "student", "choose", "pseudolabel"):
        run_stage(config, stage, tmp_path)
    assert fake_stages.made == TWO_ROUNDS[:9]
    assert run_stage(config, "teacher", tmp_path) == tmp_path / "01-teacher"
    assert len(fake_stages.made) == 9


def test_a_choice_takes_what_was_trained_so_far(tmp_path: Path, fake_stages: FakeStages) -> None:
    """Who runs stages one by one need not train the baseline to get labels; what comes later makes the choice stale."""
    config = load_config(None, ["rounds=1", "probe.members=[]"])
    for stage in ("data", "teacher", "choose", "pseudolabel"):
        run_stage(config, stage, tmp_path)
    assert fake_stages.read["03-choose"] == ["00-data", "01-teacher"]
    run_stage(config, "baseline", tmp_path)
    run_all(config, tmp_path)
    assert fake_stages.read["03-choose"] == ["00-data", "01-teacher", "02-baseline"]
    assert fake_stages.made.count("04-pseudolabel") == 2


def test_labels_without_a_choice_name_the_stage_to_run(tmp_path: Path, fake_stages: FakeStages) -> None:
    config = load_config(None, ["rounds=1", "probe.members=[]"])
    for stage in ("data", "teacher"):
        run_stage(config, stage, tmp_path)
    with pytest.raises(
        ArtifactError, match=r"pseudolabel needs 03-choose, .* run `nstudent stage choose` with the same"
    ):
        run_stage(config, "pseudolabel", tmp_path)


def test_scores_are_made_of_the_last_choice_and_of_no_earlier_one(tmp_path: Path, fake_stages: FakeStages) -> None:
    config = load_config(None, ["rounds=1", "probe.members=[]"])
    for stage in ("data", "teacher", "choose", "pseudolabel", "filter", "student"):
        run_stage(config, stage, tmp_path)
    with pytest.raises(ArtifactError, match=r"evaluate needs 07-choose, .* run `nstudent stage choose` with the same"):
        run_stage(config, "evaluate", tmp_path)


def test_a_stage_without_its_inputs_names_the_one_to_run(tmp_path: Path, fake_stages: FakeStages) -> None:
    with pytest.raises(ArtifactError, match=r"teacher needs 00-data, .* run `nstudent stage data` with the same"):
        run_stage(load_config(), "teacher", tmp_path)
    assert fake_stages.made == []


def test_a_stage_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'distil': choose from data, probe, teacher"):
        run_stage(load_config(), "distil", tmp_path)
    with pytest.raises(ConfigError, match="no student step: with rounds=0"):
        run_stage(load_config(None, ["rounds=0", "probe.members=[]"]), "student", tmp_path)


# --- until a stage ---


def test_until_the_student_neither_the_last_choice_nor_the_scores_are_made(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    config = load_config(None, ["rounds=2", "probe.members=[]"])
    assert run_all(config, tmp_path, until="student") == tmp_path
    assert fake_stages.made == TWO_ROUNDS[:-2]
    assert json.loads((tmp_path / "final.json").read_text()) == {"step": "07-choose"}
    fake_stages.forget()
    run_all(config, tmp_path)
    assert fake_stages.made == ["11-choose", "12-evaluate"]
    assert json.loads((tmp_path / "final.json").read_text()) == {"step": "11-choose"}
    assert states(tmp_path) == dict.fromkeys(TWO_ROUNDS, "done")


@pytest.mark.parametrize(
    ("stage", "made"),
    [
        ("data", ONE_ROUND[:1]),
        ("teacher", ONE_ROUND[:2]),
        ("baseline", ["00-data", "02-baseline"]),
        ("filter", ONE_ROUND[:6]),
        ("choose", ONE_ROUND[:8]),
        ("evaluate", ONE_ROUND),
    ],
)
def test_until_a_stage_what_it_is_made_from_is_made(
    tmp_path: Path, fake_stages: FakeStages, stage: str, made: list[str]
) -> None:
    run_all(load_config(None, ["rounds=1", "probe.members=[]"]), tmp_path, until=stage)
    assert fake_stages.made == made


def test_until_the_student_the_rounds_end_where_they_came_to_nothing(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.leave_nothing_after("05-filter")
    run_all(load_config(None, ["rounds=2", "probe.members=[]"]), tmp_path, until="student")
    assert fake_stages.made == ONE_ROUND[:6]


def test_until_a_step_that_stands_aside_it_is_made_before_the_call_returns(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = SimpleNamespace(job=None, end=lambda: None)
    monkeypatch.setattr("nstudent.runs.jobs._processes_beside", lambda run, steps: 1)
    monkeypatch.setattr("nstudent.runs.jobs._JobProcess", lambda run: beside)
    monkeypatch.setattr("nstudent.runs.jobs.Jobs._poll", lambda jobs, seconds=0.0: None)
    run_all(load_config(None, ["rounds=1", "probe.members=[]"]), tmp_path, until="baseline")
    assert fake_stages.made == ["00-data", "02-baseline"]


def test_until_a_stage_that_is_not_there(tmp_path: Path, fake_stages: FakeStages) -> None:
    with pytest.raises(ConfigError, match=r"no stage 'distil': choose from data, probe, teacher, .*, evaluate"):
        run_all(load_config(), tmp_path, until="distil")
    with pytest.raises(ConfigError, match="no student step: with rounds=0"):
        run_all(load_config(None, ["rounds=0", "probe.members=[]"]), tmp_path, until="student")
    assert list(tmp_path.iterdir()) == []


# --- status ---


def test_status_says_what_would_be_made_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "pseudolabel.threshold=0.6")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("threshold: 0.6", "threshold: 0.7"))
    assert states(tmp_path)["02-baseline"] == "done"
    assert reasons(tmp_path)["04-pseudolabel"] == "pseudolabel.threshold changed from 0.6 to 0.7"


def test_status_shows_what_a_step_reports(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    found: Mapping[str, StepState] = {state.step.name: state for state in status(tmp_path)}
    assert found["06-student"].metrics == TrainedMetrics({HEADLINE: 0.5}, 1.0, 10, history=())


def test_status_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run folder: it has no config"):
        status(tmp_path)


def test_status_changes_nothing(tmp_path: Path, fake_stages: FakeStages) -> None:
    """It holds no lock: the rename that it would finish may be another process's own, a moment later."""
    steps_made(tmp_path)
    shutil.copytree(tmp_path / "06-student", tmp_path / "06-student.partial")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    status(tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_manifests_are_plain_json(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    manifest = json.loads((tmp_path / "06-student" / "manifest.json").read_text())
    assert manifest["stage"] == "student"
    assert manifest["round"] == 1
    assert list(manifest["inputs"]) == planned(1)["06-student"]
