"""The plan, what is up to date and why not, and what happens when a step fails. With stages that cost nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nstudent import load_config, plan, run_all, run_stage
from nstudent.artifact import Manifest
from nstudent.config import Config, Section
from nstudent.errors import ArtifactError, ConfigError, TrainingError
from nstudent.run import STAGES
from nstudent.status import StepState, status

if TYPE_CHECKING:
    from conftest import FakeStages

ONE_ROUND = ["00-data", "01-teacher", "02-baseline", "03-pseudolabel", "04-filter", "05-student", "06-evaluate"]
TWO_ROUNDS = [*ONE_ROUND[:-1], "06-pseudolabel", "07-filter", "08-student", "09-evaluate"]


class Told:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("these stages have no long work")


def _run(run_dir: Path, *overrides: str) -> dict[str, str]:
    """Run everything; why each step was made, in order."""
    told = Told()
    run_all(load_config(None, ["rounds=1", *overrides]), run_dir, told)
    said = dict(line.split(": ", 1) for line in told.lines)
    return {name: reason for name, reason in said.items() if reason != "up to date"}


def _states(run_dir: Path) -> dict[str, str]:
    return {found.step.name: found.state for found in status(run_dir)}


def _reasons(run_dir: Path) -> dict[str, str]:
    return {found.step.name: found.reason for found in status(run_dir) if found.reason}


# --- the plan ---


def _planned(rounds: int) -> dict[str, list[str]]:
    return {step.name: [name for _, name in step.inputs] for step in plan(load_config(None, [f"rounds={rounds}"]))}


def test_the_plan_without_rounds() -> None:
    assert _planned(0) == {"00-data": [], "01-teacher": ["00-data"], "02-evaluate": ["00-data"]}


_FIRST_ROUND = {
    "00-data": [],
    "01-teacher": ["00-data"],
    "02-baseline": ["00-data"],
    "03-pseudolabel": ["00-data", "01-teacher"],
    "04-filter": ["00-data", "03-pseudolabel"],
    "05-student": ["00-data", "01-teacher", "03-pseudolabel", "04-filter"],
}


def test_the_plan_of_one_round() -> None:
    assert _planned(1) == _FIRST_ROUND | {"06-evaluate": ["00-data"]}


def test_in_the_second_round_the_student_is_the_teacher() -> None:
    assert _planned(2) == _FIRST_ROUND | {
        "06-pseudolabel": ["00-data", "05-student"],
        "07-filter": ["00-data", "06-pseudolabel"],
        "08-student": ["00-data", "05-student", "06-pseudolabel", "07-filter"],
        "09-evaluate": ["00-data"],
    }


def test_the_evaluation_gathers_everything_that_is_scored() -> None:
    assert [plan(load_config(None, [f"rounds={n}"]))[-1].gathered for n in (0, 1, 2)] == [
        ("01-teacher",),
        tuple(ONE_ROUND[1:-1]),
        tuple(TWO_ROUNDS[1:-1]),
    ]


def test_steps_know_their_round() -> None:
    rounds = {step.name: step.round for step in plan(load_config(None, ["rounds=2"]))}
    assert [rounds[name] for name in TWO_ROUNDS] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]


# --- a run ---


def test_a_run_makes_every_step_and_a_second_run_none(tmp_path: Path, fake_stages: FakeStages) -> None:
    assert _run(tmp_path) == dict.fromkeys(ONE_ROUND, "not made yet")
    assert fake_stages.made == ONE_ROUND
    assert _states(tmp_path) == dict.fromkeys(ONE_ROUND, "done")
    fake_stages.forget()
    assert _run(tmp_path) == {}
    assert fake_stages.made == []


def test_each_step_reads_what_the_plan_says(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    assert fake_stages.read == _planned(1) | {"06-evaluate": ["00-data", *ONE_ROUND[1:-1]]}


def test_the_folder_holds_the_steps_and_the_whole_configuration(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path, "student.epochs=7")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        *ONE_ROUND,
        "config.yaml",
        "final.json",
    ]
    assert load_config(tmp_path / "config.yaml") == load_config(None, ["rounds=1", "student.epochs=7"])


def test_the_folder_is_named_after_the_run(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_all(load_config(None, ["rounds=0", "name=mine"])) == Path("runs/mine")
    assert (tmp_path / "runs" / "mine" / "02-evaluate").is_dir()


def test_a_copied_run_is_up_to_date(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert _states(tmp_path / "there") == dict.fromkeys(ONE_ROUND, "done")
    assert _run(tmp_path / "there") == {}


# --- what makes a step stale ---


def test_a_changed_key_is_named_and_what_follows_from_it_is_made_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path, "filter.epochs=4")
    assert _run(tmp_path, "filter.epochs=9") == {
        "04-filter": "filter.epochs changed from 4 to 9",
        "05-student": "04-filter was asked for differently",
        "06-evaluate": "04-filter was asked for differently",
    }


@pytest.mark.parametrize(
    ("word", "first", "made"),
    [
        ("seed=1", "00-data", ONE_ROUND),
        ("data.image_size=16", "00-data", ONE_ROUND),
        ("absent=class", "01-teacher", ONE_ROUND[1:]),
        ("precision=float32", "01-teacher", ONE_ROUND[1:]),
        ("augment=image", "01-teacher", ONE_ROUND[1:]),
        ("teacher.learning_rate=0.1", "01-teacher", ["01-teacher", *ONE_ROUND[3:]]),
        ("student.epochs=9", "02-baseline", ["02-baseline", "05-student", "06-evaluate"]),
        ("student.promote_above=0.9", "05-student", ["05-student", "06-evaluate"]),
        ("pseudolabel.threshold=0.9", "03-pseudolabel", ONE_ROUND[3:]),
        ("evaluate.confidence=0.9", "06-evaluate", None),
    ],
)
def test_a_key_makes_stale_what_depends_on_it(
    tmp_path: Path, fake_stages: FakeStages, word: str, first: str, made: list[str] | None
) -> None:
    _run(tmp_path)
    reasons = _run(tmp_path, word)
    assert reasons[first].startswith(f"{word.partition('=')[0]} changed from ")
    assert made is None or list(reasons) == made


@pytest.mark.parametrize(
    "word",
    [
        *("workers=3", "threads=1", "device=cpu", "name=other", "checkpoint_minutes=3"),
        *("pseudolabel.batch_size=7", "evaluate.batch_size=7", "student.checkpoint_activations=true"),
    ],
)
def test_a_key_that_changes_speed_alone_makes_nothing_again(tmp_path: Path, fake_stages: FakeStages, word: str) -> None:
    _run(tmp_path)
    assert _run(tmp_path, word) == {}


def _leaves(section: type[Section], prefix: str = "") -> set[str]:
    """Dotted keys two levels deep: what the settings of a stage are made of."""
    keys = set()
    for key, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys |= _leaves(field.annotation, f"{key}.") if is_section and not prefix else {f"{prefix}{key}"}
    return keys


def test_every_key_decides_what_some_step_makes_or_is_known_not_to(tmp_path: Path, fake_stages: FakeStages) -> None:
    """A key that no fingerprint holds is a key whose change is ignored."""
    _run(tmp_path)
    asked: set[str] = set()
    for name in ONE_ROUND:
        asked |= Manifest.read(tmp_path / name).asked["settings"].keys()
    only_speed = {"workers", "threads", "device", "checkpoint_minutes"}
    only_speed |= {"pseudolabel.batch_size", "evaluate.batch_size"}
    only_speed |= {f"{section}.checkpoint_activations" for section in ("teacher", "filter", "student")}
    # The number of rounds decides which steps there are.
    assert _leaves(Config) - asked == only_speed | {"name", "rounds"}


@pytest.mark.parametrize("key", ["evaluate.resamples", "evaluate.confidence"])
def test_what_decides_a_promotion_is_asked_of_the_student(tmp_path: Path, fake_stages: FakeStages, key: str) -> None:
    """The gate is a bootstrap: its number of resamples and its interval stand in the student's manifest."""
    _run(tmp_path)
    assert key in Manifest.read(tmp_path / "05-student").asked["settings"]


def test_changed_data_is_noticed(tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(tmp_path)
    monkeypatch.setattr("nstudent.run_folder.source_stamp", lambda config: "other files")
    reasons = _run(tmp_path)
    assert list(reasons) == ONE_ROUND
    assert reasons["00-data"].startswith("source changed from 'scikit-learn ")


def test_a_newer_version_of_a_stage_makes_its_steps_again(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path)
    monkeypatch.setitem(STAGES, "filter", dataclasses.replace(STAGES["filter"], version=STAGES["filter"].version + 1))
    reasons = _run(tmp_path)
    assert list(reasons) == ["04-filter", "05-student", "06-evaluate"]
    assert reasons["04-filter"] == "made by another version of the stage"


def test_a_step_made_again_with_other_bytes_makes_its_readers_stale(tmp_path: Path, fake_stages: FakeStages) -> None:
    """Nothing else was asked for: only the ids say that the teacher is another one."""
    _run(tmp_path)
    shutil.rmtree(tmp_path / "01-teacher")
    fake_stages.content["01-teacher"] = "another teacher"
    assert _run(tmp_path) == {
        "01-teacher": "not made yet",
        "03-pseudolabel": "01-teacher was made again",
        "05-student": "01-teacher was made again",
        "06-evaluate": "01-teacher was made again",
    }


def test_a_step_made_again_with_the_same_bytes_makes_nothing_stale(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    shutil.rmtree(tmp_path / "01-teacher")
    assert _run(tmp_path) == {"01-teacher": "not made yet"}


# --- the promotion gate ---


def test_rounds_after_a_student_that_was_not_promoted_are_not_needed(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.not_promoted = {"05-student"}
    assert list(_run(tmp_path, "rounds=2")) == [*ONE_ROUND[:-1], "09-evaluate"]
    assert fake_stages.read["09-evaluate"] == ["00-data", *ONE_ROUND[1:-1]]
    assert _states(tmp_path) == {name: "not needed" if name in TWO_ROUNDS[6:9] else "done" for name in TWO_ROUNDS}
    assert _run(tmp_path, "rounds=2") == {}


def test_a_student_that_is_promoted_after_all_brings_its_rounds_back(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.not_promoted = {"05-student"}
    _run(tmp_path, "rounds=2")
    fake_stages.not_promoted = set()
    reasons = _run(tmp_path, "rounds=2", "student.promote_above=0.1")
    assert list(reasons) == ["05-student", *TWO_ROUNDS[6:]]
    assert fake_stages.read["09-evaluate"] == ["00-data", *TWO_ROUNDS[1:-1]]


def test_what_a_former_promotion_left_is_not_gathered(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path, "rounds=2")
    fake_stages.not_promoted = {"05-student"}
    reasons = _run(tmp_path, "rounds=2", "student.promote_above=0.9")
    assert list(reasons) == ["05-student", "09-evaluate"]
    assert fake_stages.read["09-evaluate"] == ["00-data", *ONE_ROUND[1:-1]]


def test_a_round_that_is_no_longer_needed_is_given_as_the_reason(tmp_path: Path, fake_stages: FakeStages) -> None:
    """Equal settings, but a remade teacher is not beaten any more: the evaluation has fewer inputs than before."""
    _run(tmp_path, "rounds=2")
    shutil.rmtree(tmp_path / "05-student")
    fake_stages.not_promoted = {"05-student"}
    reason = _run(tmp_path, "rounds=2")["09-evaluate"]
    assert "another version" not in reason
    assert reason.startswith(("06-pseudolabel", "07-filter", "08-student"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps whose classifier a user was given."""
    from nstudent import classifier
    from nstudent.models.ensemble import Recipe
    from nstudent.taxonomy import Taxonomy

    names: list[str] = []
    recipe = Recipe((), Taxonomy.from_tree({"a": None, "b": None}, ("coarse",)), "ignore", 32, 1_000)
    monkeypatch.setattr(classifier.Recipe, "read", lambda artifact: recipe)
    monkeypatch.setattr(classifier.Ensemble, "load", lambda artifact, placement: names.append(artifact.name))
    return names


def test_the_classifier_is_the_last_one_promoted(tmp_path: Path, fake_stages: FakeStages, loaded: list[str]) -> None:
    from nstudent import Classifier

    fake_stages.not_promoted = {"08-student"}
    _run(tmp_path, "rounds=2")
    Classifier.load(tmp_path, "cpu")
    assert loaded == ["05-student"]


@pytest.mark.parametrize(
    ("left_behind", "word", "final"),
    [(set(), "rounds=1", "05-student"), ({"05-student"}, "student.promote_above=0.9", "01-teacher")],
    ids=["fewer rounds", "no longer promoted"],
)
def test_the_classifier_is_the_one_that_was_scored(
    tmp_path: Path, fake_stages: FakeStages, loaded: list[str], left_behind: set[str], word: str, final: str
) -> None:
    """Folders of an earlier run with other settings still lie there: what they hold is not this run's result."""
    from nstudent import Classifier

    _run(tmp_path, "rounds=2")
    fake_stages.not_promoted = left_behind
    _run(tmp_path, "rounds=2", word)
    Classifier.load(tmp_path, "cpu")
    assert loaded == [final]


# --- interruptions and damage ---


def test_a_step_that_fails_is_made_again_and_what_was_done_stays(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"04-filter": TrainingError("every pseudo-label was rejected")}
    with pytest.raises(TrainingError):
        _run(tmp_path)
    assert fake_stages.made == ONE_ROUND[:5]
    assert _states(tmp_path) == dict.fromkeys(ONE_ROUND, "missing") | dict.fromkeys(ONE_ROUND[:4], "done") | {
        "04-filter": "partial"
    }
    fake_stages.failing = {}
    fake_stages.forget()
    _run(tmp_path)
    assert fake_stages.made == ONE_ROUND[4:]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("number", range(7))
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, fake_stages: FakeStages, number: int
) -> None:
    name = ONE_ROUND[number]
    fake_stages.failing = {name: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "killed")
    fake_stages.failing = {}
    assert list(_run(tmp_path / "killed")) == ONE_ROUND[number:]
    _run(tmp_path / "whole")
    ids = [[Manifest.read(tmp_path / run / step).id for step in ONE_ROUND] for run in ("killed", "whole")]
    assert ids[0] == ids[1]


def test_a_step_finds_the_checkpoint_of_its_interrupted_attempt(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"01-teacher": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    checkpoint = tmp_path / "01-teacher.partial" / "scratch" / "checkpoint"
    assert checkpoint.read_text() == "half"
    # Another learning rate is another teacher: half of the old one is of no use to it, and not to be lost by a slip.
    with pytest.raises(ArtifactError, match=r"teacher\.learning_rate changed from 0\.003 to 0\.1.*delete the folder"):
        _run(tmp_path, "teacher.learning_rate=0.1")
    assert checkpoint.read_text() == "half"


def test_a_crash_after_the_manifest_needs_no_second_training(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    (tmp_path / "05-student").rename(tmp_path / "05-student.partial")
    assert _run(tmp_path) == {}


def test_a_damaged_input_is_named_and_nothing_is_lost(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    manifest = tmp_path / "03-pseudolabel" / "manifest.json"
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(ArtifactError, match=r"03-pseudolabel/manifest\.json is damaged"):
        _run(tmp_path)
    assert _states(tmp_path)["03-pseudolabel"] == "stale"
    shutil.rmtree(manifest.parent)
    assert list(_run(tmp_path)) == ["03-pseudolabel"]


def test_a_damaged_student_does_not_hide_the_other_steps(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    (tmp_path / "05-student" / "manifest.json").write_text("{")
    assert _states(tmp_path)["05-student"] == "stale"
    assert "damaged" in _reasons(tmp_path)["05-student"]
    assert _states(tmp_path)["01-teacher"] == "done"


def test_a_missing_manifest_has_a_mend_that_helps(tmp_path: Path, fake_stages: FakeStages) -> None:
    """'Run it again' would only say the same again: the folder has to go first."""
    _run(tmp_path)
    (tmp_path / "01-teacher" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"01-teacher.*delete"):
        _run(tmp_path)


def test_a_damaged_configuration_is_no_obstacle(tmp_path: Path, fake_stages: FakeStages) -> None:
    """It is only a copy of what the command says, and is written anew."""
    _run(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        status(tmp_path)
    assert _run(tmp_path) == {}
    assert _states(tmp_path)["06-evaluate"] == "done"


# --- one stage at a time ---


def test_one_stage_at_a_time(tmp_path: Path, fake_stages: FakeStages) -> None:
    config = load_config(None, ["rounds=2"])
    for stage in ("data", "teacher", "pseudolabel", "filter", "baseline", "student", "pseudolabel"):
        run_stage(config, stage, tmp_path)
    assert fake_stages.made == [*ONE_ROUND[:2], *ONE_ROUND[3:5], "02-baseline", "05-student", "06-pseudolabel"]
    assert run_stage(config, "teacher", tmp_path) == tmp_path / "01-teacher"
    assert len(fake_stages.made) == 7


def test_a_stage_without_its_inputs_names_the_one_to_run(tmp_path: Path, fake_stages: FakeStages) -> None:
    with pytest.raises(ArtifactError, match=r"teacher needs 00-data, .* run `nstudent stage data` first"):
        run_stage(load_config(), "teacher", tmp_path)
    assert fake_stages.made == []


def test_a_stage_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'distil': choose from data, teacher"):
        run_stage(load_config(), "distil", tmp_path)
    with pytest.raises(ConfigError, match="no student step: with rounds=0"):
        run_stage(load_config(None, ["rounds=0"]), "student", tmp_path)


# --- status ---


def test_status_says_what_would_be_made_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path, "pseudolabel.threshold=0.6")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("threshold: 0.6", "threshold: 0.7"))
    assert _states(tmp_path)["02-baseline"] == "done"
    assert _reasons(tmp_path)["03-pseudolabel"] == "pseudolabel.threshold changed from 0.6 to 0.7"


def test_status_shows_what_a_step_reports(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    found: Mapping[str, StepState] = {state.step.name: state for state in status(tmp_path)}
    assert found["05-student"].metrics == {"promoted": True, "validation": {"contest alone": 0.5}}


def test_status_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run folder: it has no config"):
        status(tmp_path)


def test_status_changes_nothing(tmp_path: Path, fake_stages: FakeStages) -> None:
    """It holds no lock: the rename that it would finish may be another process's own, a moment later."""
    _run(tmp_path)
    shutil.copytree(tmp_path / "05-student", tmp_path / "05-student.partial")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    status(tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_manifests_are_plain_json(tmp_path: Path, fake_stages: FakeStages) -> None:
    _run(tmp_path)
    manifest = json.loads((tmp_path / "05-student" / "manifest.json").read_text())
    assert manifest["stage"] == "student"
    assert manifest["round"] == 1
    assert list(manifest["inputs"]) == _planned(1)["05-student"]
