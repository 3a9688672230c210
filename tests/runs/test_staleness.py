"""What makes a step stale, and which students count. With stages that cost nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from costless_runs import ONE_ROUND, TWO_ROUNDS, states, steps_made
from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.schema import Config
from nstudent.config.types import Later, Section
from nstudent.data.sources.seen import Seen
from nstudent.runs.plan import STAGES
from nstudent.storage.artifact import Manifest

if TYPE_CHECKING:
    from conftest import FakeStages

ASKED_KEYS = Path(__file__).parent / "asked_keys.json"


def test_a_changed_key_is_named_and_what_follows_from_it_is_made_again(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "filter.epochs=4")
    assert steps_made(tmp_path, "filter.epochs=9") == {
        "05-filter": "filter.epochs changed from 4 to 9",
        "06-student": "05-filter was asked for differently",
        "07-choose": "06-student was asked for differently",
        "08-evaluate": "07-choose was asked for differently",
    }


@pytest.mark.parametrize(
    ("word", "first", "made"),
    [
        ("seed=1", "00-data", ONE_ROUND),
        ("data.image_size=16", "00-data", ["00-data"]),
        ("absent=class", "01-teacher", ONE_ROUND[1:]),
        ("precision=float32", "01-teacher", ONE_ROUND[1:]),
        ("augment=image", "01-teacher", ONE_ROUND[1:]),
        ("teacher.learning_rate=0.1", "01-teacher", ["01-teacher", *ONE_ROUND[3:]]),
        ("student.epochs=9", "02-baseline", ONE_ROUND[2:]),
        ("pseudolabel.threshold=0.9", "04-pseudolabel", ONE_ROUND[4:]),
        ("evaluate.confidence=0.9", "08-evaluate", None),
    ],
)
def test_a_key_makes_stale_what_depends_on_it(
    tmp_path: Path, fake_stages: FakeStages, word: str, first: str, made: list[str] | None
) -> None:
    steps_made(tmp_path)
    reasons = steps_made(tmp_path, word)
    assert reasons[first].startswith(f"{word.partition('=')[0]} changed from ")
    assert made is None or list(reasons) == made


def test_own_beliefs_make_the_student_stale_and_not_the_baseline_that_has_no_heap(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    steps_made(tmp_path)
    assert steps_made(tmp_path, "student.consistency=null") == {}
    reasons = steps_made(tmp_path, "student.consistency={}")
    assert list(reasons) == ONE_ROUND[6:]
    assert reasons["06-student"].startswith("student.consistency.begins was not set")


def test_the_baseline_goes_by_how_long_meta_pseudo_labels_train_and_by_nothing_else_of_them(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    method = "student.method=meta_pseudo_labels"
    steps_made(tmp_path)
    assert steps_made(tmp_path, "student.method=noisy_student") == {}
    assert list(steps_made(tmp_path, method)) == ONE_ROUND[2:]
    assert steps_made(tmp_path, method, "student.meta={}") == {}, "what is left open is at its default"
    assert list(steps_made(tmp_path, method, "student.meta.feedback=2.0")) == ONE_ROUND[6:]
    reasons = steps_made(tmp_path, method, "student.meta.feedback=2.0", "student.meta.finetune_epochs=3")
    assert list(reasons) == ONE_ROUND[2:]


@pytest.mark.parametrize(
    "word",
    [
        *("workers=3", "threads=1", "jobs=3", "device=cpu", "name=other", "checkpoint_minutes=3"),
        *("deterministic=true", "cuda_graphs=false"),
        *("pseudolabel.batch_size=7", "evaluate.batch_size=7", "student.checkpoint_activations=true"),
    ],
)
def test_a_key_that_changes_speed_alone_makes_nothing_again(tmp_path: Path, fake_stages: FakeStages, word: str) -> None:
    steps_made(tmp_path)
    assert steps_made(tmp_path, word) == {}


def _leaves(section: type[Section], prefix: str = "") -> set[str]:
    """Dotted keys two levels deep: what the settings of a stage are made of."""
    keys = set()
    for key, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys |= _leaves(field.annotation, f"{key}.") if is_section and not prefix else {f"{prefix}{key}"}
    return keys


def test_every_key_decides_what_some_step_makes_or_is_known_not_to(tmp_path: Path, fake_stages: FakeStages) -> None:
    """A key that no fingerprint holds is a key whose change is ignored."""
    steps_made(tmp_path)
    asked: set[str] = set()
    for name in ONE_ROUND:
        asked |= Manifest.read(tmp_path / name).asked["settings"].keys()
    only_speed = {"workers", "threads", "jobs", "device", "checkpoint_minutes", "deterministic", "cuda_graphs"}
    only_speed |= {"pseudolabel.batch_size", "evaluate.batch_size"}
    only_speed |= {f"{section}.checkpoint_activations" for section in ("teacher", "filter", "student")}
    # Keys that came later are asked for if they are not what was done before them.
    later = {key for key in _leaves(Config) if _is_later(key)}
    # The number of rounds, and whether there is a probe, decide which steps there are.
    # Where the data lie decides nothing: what they are does, and that is looked at.
    places = {"data.root", "data.table", "data.unlabelled_root"}
    assert _leaves(Config) - asked == only_speed | later | places | {"name", "rounds", "probe.members"}


def _is_later(key: str) -> bool:
    section: type[Section] = Config
    *groups, last = key.split(".")
    for group in groups:
        section = section.model_fields[group].annotation  # type: ignore[assignment]
    return any(isinstance(mark, Later) for mark in section.model_fields[last].metadata)


def _dotted(value: Any, prefix: str = "") -> set[str]:
    """The keys of a JSON object and of those within it, as in ``student.noise.flip``."""
    if isinstance(value, dict) and not prefix.endswith("backbone_options."):
        return {found for key, below in value.items() for found in _dotted(below, f"{prefix}{key}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _dotted(value[0], prefix)
    return {prefix.rstrip(".")}


def test_what_the_default_run_asks_for_has_the_keys_that_it_always_had() -> None:
    """A key more would make every step of every run folder there is stale."""
    asked = {name: sorted(_dotted(stage.settings(Config()))) for name, stage in STAGES.items()}
    if not ASKED_KEYS.exists():
        ASKED_KEYS.write_text(json.dumps(asked, indent=1) + "\n")
        pytest.skip("asked_keys.json was written; run the test again")
    known = json.loads(ASKED_KEYS.read_text())
    assert asked.keys() == known.keys()
    for name, keys in asked.items():
        new, gone = set(keys) - set(known[name]), set(known[name]) - set(keys)
        assert not new, f"{sorted(new)}: mark what is new with Later(the value that changes nothing)"
        assert not gone, f"{sorted(gone)}: older run folders were asked for these"


def test_the_decoder_is_asked_of_choices_and_scores_and_of_no_training() -> None:
    asked = {name: (stage.settings(Config()), stage.settings(Config(decoder="crm"))) for name, stage in STAGES.items()}

    assert {name for name, (auto, crm) in asked.items() if auto != crm} == {"choose", "evaluate"}
    assert {each[1]["decoder"] for name, each in asked.items() if name in ("choose", "evaluate")} == {"crm"}


def test_a_key_that_came_later_is_left_out_wherever_it_stands() -> None:
    class Inner(Section):
        old: int = 1
        new: Annotated[int, Later(7)] = 7

    class Outer(Section):
        inner: Inner = Inner()
        several: tuple[Inner, ...] = (Inner(), Inner(new=8))
        numbers: tuple[int, ...] = (1, 2)

    assert Outer().asked() == {"inner": {"old": 1}, "several": [{"old": 1}, {"old": 1, "new": 8}], "numbers": [1, 2]}
    assert Outer(inner=Inner(old=2, new=6)).asked()["inner"] == {"old": 2, "new": 6}


def test_a_key_that_came_later_is_asked_for_if_it_is_not_what_was_done_before() -> None:
    """Run folders from before such a key stay up to date, and nobody's change is overlooked."""
    config = Config()
    assert "student.loss" not in STAGES["student"].settings(config)
    other = config.model_copy(update={"student": config.student.model_copy(update={"loss": "another"})})
    assert STAGES["student"].settings(other)["student.loss"] == "another"
    assert STAGES["baseline"].settings(other)["student.loss"] == "another"


def test_a_member_that_is_a_network_is_asked_for_without_its_kind(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEMBERS, "oracle", type("Oracle", (MemberConfig,), {}))
    steps_made(tmp_path, "teacher.members=[{}, {}]")
    assert steps_made(tmp_path, "teacher.members=[{kind: network}, {}]") == {}
    reason = steps_made(tmp_path, "teacher.members=[{}, {kind: oracle}]")["01-teacher"]
    assert reason.startswith("teacher.members.1.backbones changed from ")


def test_members_of_two_kinds_with_the_same_keys_are_asked_for_differently(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("oracle", "augur"):
        monkeypatch.setitem(MEMBERS, kind, type(kind.title(), (MemberConfig,), {}))
    steps_made(tmp_path, "teacher.members=[{kind: oracle}]")
    reason = steps_made(tmp_path, "teacher.members=[{kind: augur}]")["01-teacher"]
    assert reason == "teacher.members.0.kind changed from 'oracle' to 'augur'"


def test_folds_are_asked_of_the_data_only_if_there_are_to_be_some(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    assert steps_made(tmp_path, "data.folds=0") == {}
    made = steps_made(tmp_path, "data.folds=5")
    assert made["00-data"] == "data.folds was not set, or not known to the version that made it"
    assert steps_made(tmp_path, "data.folds=4")["00-data"] == "data.folds changed from 5 to 4"


@pytest.mark.parametrize("word", ["evaluate.resamples=7", "evaluate.confidence=0.9"])
def test_other_intervals_ask_for_other_scores_alone(tmp_path: Path, fake_stages: FakeStages, word: str) -> None:
    steps_made(tmp_path)
    assert list(steps_made(tmp_path, word)) == ["08-evaluate"]


def test_changed_data_is_noticed(tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    steps_made(tmp_path)
    monkeypatch.setattr("nstudent.runs.source_seen.source_seen", lambda config: Seen("other files"))
    fake_stages.content = {"00-data": "other"}
    reasons = steps_made(tmp_path)
    assert list(reasons) == ONE_ROUND
    assert reasons["01-teacher"] == "00-data was made again"
    assert reasons["00-data"].startswith("the source has changed: it holds something else")


def test_a_newer_version_of_a_stage_makes_its_steps_again(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_made(tmp_path)
    monkeypatch.setitem(STAGES, "filter", dataclasses.replace(STAGES["filter"], version=STAGES["filter"].version + 1))
    reasons = steps_made(tmp_path)
    assert list(reasons) == ["05-filter", "06-student", "07-choose", "08-evaluate"]
    assert reasons["05-filter"] == "made by another version of the stage"


def test_a_step_made_again_with_other_bytes_makes_its_readers_stale(tmp_path: Path, fake_stages: FakeStages) -> None:
    """Nothing else was asked for: only the ids say that the teacher is another one."""
    steps_made(tmp_path)
    shutil.rmtree(tmp_path / "01-teacher")
    fake_stages.content["01-teacher"] = "another teacher"
    # What was chosen has the bytes it had.
    assert steps_made(tmp_path) == {
        "01-teacher": "not made yet",
        "03-choose": "01-teacher was made again",
        "07-choose": "01-teacher was made again",
        "08-evaluate": "01-teacher was made again",
    }


def test_a_step_made_again_with_the_same_bytes_makes_nothing_stale(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    shutil.rmtree(tmp_path / "01-teacher")
    assert steps_made(tmp_path) == {"01-teacher": "not made yet"}


# --- rounds that cannot go on ---


def test_where_a_filter_leaves_nothing_there_is_no_student_and_the_last_choice_is_made_without_one(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    fake_stages.leave_nothing_after("05-filter")
    assert list(steps_made(tmp_path, "rounds=2")) == [*ONE_ROUND[:6], "11-choose", "12-evaluate"]
    assert fake_stages.read["11-choose"] == ["00-data", "01-teacher", "02-baseline"]
    assert fake_stages.read["12-evaluate"] == [*ONE_ROUND[:6], "11-choose"]
    assert states(tmp_path) == {name: "not needed" if name in TWO_ROUNDS[6:11] else "done" for name in TWO_ROUNDS}
    assert steps_made(tmp_path, "rounds=2") == {}


def test_in_the_second_round_the_first_student_stays_among_the_choices(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.leave_nothing_after("09-filter")
    assert list(steps_made(tmp_path, "rounds=2")) == [*TWO_ROUNDS[:10], "11-choose", "12-evaluate"]
    assert fake_stages.read["11-choose"] == ["00-data", "01-teacher", "02-baseline", "06-student"]


def test_a_filter_that_leaves_something_after_all_brings_its_rounds_back(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    fake_stages.leave_nothing_after("05-filter")
    steps_made(tmp_path, "rounds=2")
    fake_stages.leave_nothing_after()
    reasons = steps_made(tmp_path, "rounds=2", "filter.epochs=20")
    assert list(reasons) == TWO_ROUNDS[5:]
    assert fake_stages.read["12-evaluate"] == ["00-data", *TWO_ROUNDS[1:-1]]


def test_what_a_former_round_left_is_not_gathered(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path, "rounds=2")
    fake_stages.leave_nothing_after("05-filter")
    reasons = steps_made(tmp_path, "rounds=2", "filter.epochs=20")
    assert list(reasons) == ["05-filter", "11-choose", "12-evaluate"]
    assert fake_stages.read["11-choose"] == ["00-data", "01-teacher", "02-baseline"]


def test_a_round_that_is_no_longer_needed_is_given_as_the_reason(tmp_path: Path, fake_stages: FakeStages) -> None:
    """Equal settings, but a remade filter leaves nothing: the last choice has fewer inputs than before."""
    steps_made(tmp_path, "rounds=2")
    shutil.rmtree(tmp_path / "05-filter")
    fake_stages.leave_nothing_after("05-filter")
    reasons = steps_made(tmp_path, "rounds=2")
    assert "another version" not in reasons["11-choose"]
    assert reasons["11-choose"].startswith(("06-student", "10-student"))


def test_more_rounds_make_the_last_choice_of_before_a_labeller_and_train_nothing_again(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    steps_made(tmp_path)
    assert list(steps_made(tmp_path, "rounds=2")) == TWO_ROUNDS[7:]


def test_the_limit_of_the_final_classifier_is_asked_of_the_last_choice_alone(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    """What labels may cost more, and labels and students are not to be made again for the limit."""
    steps_made(tmp_path, "rounds=2")
    assert list(steps_made(tmp_path, "rounds=2", "final.max_gmacs=0.5")) == ["11-choose", "12-evaluate"]
    asked = {name: Manifest.read(tmp_path / name).asked["settings"] for name in ("03-choose", "07-choose", "11-choose")}
    assert {name for name, settings in asked.items() if "final.max_gmacs" in settings} == {"11-choose"}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps whose classifier a user was given."""
    from nstudent import classifier
    from nstudent.config.schema import Config, ModelConfig
    from nstudent.models.recipe import Recipe
    from nstudent.taxonomy.tree import Taxonomy

    names: list[str] = []
    taxonomy = Taxonomy.from_tree({"a": None, "b": None}, ("coarse",))
    recipe = Recipe.of(Config(), taxonomy, [ModelConfig()])
    monkeypatch.setattr(classifier.Recipe, "read", lambda artifact: recipe)
    monkeypatch.setattr(classifier.Ensemble, "load", lambda artifact, placement: names.append(artifact.name))
    return names


def test_the_classifier_is_what_the_last_choice_took(
    tmp_path: Path, fake_stages: FakeStages, loaded: list[str]
) -> None:
    from nstudent import Classifier

    steps_made(tmp_path, "rounds=2")
    Classifier.load(tmp_path, "cpu")
    assert loaded == ["11-choose"]


def test_the_classifier_is_the_one_that_was_scored(tmp_path: Path, fake_stages: FakeStages, loaded: list[str]) -> None:
    """Folders of an earlier run with other settings still lie there: what they hold is not this run's result."""
    from nstudent import Classifier

    steps_made(tmp_path, "rounds=2")
    steps_made(tmp_path, "rounds=1", "probe.members=[]")
    assert (tmp_path / "11-choose").exists()
    Classifier.load(tmp_path, "cpu")
    assert loaded == ["07-choose"]
