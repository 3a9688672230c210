"""How long a run will take, by what is counted and what is timed."""

import pytest
from nstudent.config.file import load_config
from nstudent.config.members import ProbeConfig
from nstudent.progress import Silence
from nstudent.runs import forecast as module
from nstudent.runs.forecast import Amounts, Forecast, forecast
from nstudent.training import pace
from nstudent.training.pace import seconds_of_features, seconds_per_pass
from nstudent.training.trial import Conditions, PlannedTraining, any_outputs

AMOUNTS = Amounts(labelled=100, unlabelled=960, validation=50, test=150, seconds_each=0.5)
WORDS = ["device=cpu", "threads=1", "jobs=1", "workers=0", "data.image_size=16"]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Networks that were timed; each pass takes a tenth of a second."""
    found: list[str] = []

    def pace(planned: PlannedTraining, conditions: Conditions, config: object) -> float:
        found.append(planned.key)
        return 0.1

    monkeypatch.setattr(module, "seconds_per_pass", pace)
    monkeypatch.setattr(module, "seconds_of_features", lambda *_: 0.2)
    monkeypatch.setattr(module, "_BESIDE_THE_STEPS", 1.0)
    return found


def _forecast(*words: str) -> Forecast:
    return forecast(load_config(None, [*WORDS, *words]), AMOUNTS, Silence())


def test_every_pass_of_every_training_is_counted(tried: list[str]) -> None:
    found = _forecast("teacher.epochs=3", "student.epochs=2")
    # Two members, three times two batches of 50; twice ten batches of 32 + 96.
    assert found.trainings == pytest.approx({"teacher": 60.0, "baseline": 256.0, "student": 256.0})
    assert found.like_the_student == pytest.approx(512.0)
    assert found.total > sum(found.trainings.values()) + found.labelling > sum(found.trainings.values())


def test_a_probe_is_fitted_to_images_and_their_mirror_images_and_answers_like_the_networks(tried: list[str]) -> None:
    found, none = _forecast("student.epochs=2"), _forecast("student.epochs=2", "probe.members=[]")
    assert (found.probe, none.probe) == (pytest.approx(2 * 100 * 0.2), 0)
    plain = _forecast("student.epochs=2", "probe.members=[{kind: probe, mirror: false}]")
    assert plain.probe == pytest.approx(100 * 0.2)
    # The heap once, a validation image 14 times, a test image 4 times.
    said = 960 + 14 * 50 + 4 * 150
    assert found.labelling - none.labelling == pytest.approx(0.2 * said)
    # A pass forward of two members, a baseline and a student.
    assert none.labelling == pytest.approx(4 * 0.1 / 3 * said)
    assert found.total - none.total == pytest.approx(0.2 * said + 40)


@pytest.mark.parametrize(("seconds", "steps"), [(6.0, 2), (1.0, 4), (0.001, 51)])
def test_few_steps_are_timed_where_they_take_long(seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now, taken = [0.0], []

    def step() -> None:
        now[0] += seconds
        taken.append(now[0])

    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    assert pace._seconds(step) == pytest.approx(seconds)
    assert len(taken) == steps


def test_passes_forward_alone_count_a_third(tried: list[str]) -> None:
    plain, believing = _forecast("student.epochs=2"), _forecast("student.epochs=2", "student.consistency.begins=0.45")
    # Twice ten batches; of those after the tenth, 96 images each.
    assert believing.trainings["student"] - plain.trainings["student"] == pytest.approx(10 * 96 * 0.1 / 3)
    assert believing.trainings["baseline"] == plain.trainings["baseline"]


def test_probes_that_learn_from_the_heap_see_the_labels_again_and_some_of_the_heap(tried: list[str]) -> None:
    plain, beside = _forecast("student.epochs=2"), _forecast("student.epochs=2", "probe.heap=400")
    assert beside.probe - plain.probe == pytest.approx((2 * 100 + 400) * 0.2)
    assert beside.labelling > plain.labelling
    assert _forecast("rounds=0", "probe.heap=400") == _forecast("rounds=0")


def test_rounds_repeat_the_student_and_without_rounds_there_is_none(tried: list[str]) -> None:
    once, twice = _forecast("student.epochs=2"), _forecast("student.epochs=2", "rounds=2")
    assert twice.trainings["student"] == pytest.approx(2 * once.trainings["student"])
    assert _forecast("rounds=0").trainings.keys() == {"teacher"}


def test_a_refit_trains_all_but_the_filter_once_more(tried: list[str]) -> None:
    words = ("filter.enabled=true", "student.epochs=2", "rounds=2")
    found, plain = _forecast(*words, "final.refit=true"), _forecast(*words)
    again = sum(plain.trainings[stage] for stage in ("teacher", "baseline", "student"))
    assert found.trainings == pytest.approx(plain.trainings | {"refit": again})
    assert found.total - plain.total == pytest.approx(again)


def test_networks_of_one_architecture_and_batch_are_timed_once(tried: list[str]) -> None:
    _forecast()
    assert tried == ["teacher.members.0", "student.model"]


def test_trainings_side_by_side_share_the_time(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _forecast("student.epochs=2")
    monkeypatch.setattr(module, "trainings_at_once", lambda config: 2)
    beside = _forecast("student.epochs=2")
    assert beside.trainings["teacher"] == pytest.approx(alone.trainings["teacher"] / 2)
    assert beside.trainings["student"] == pytest.approx(alone.trainings["student"])


@pytest.mark.slow
def test_a_larger_network_takes_longer_and_no_weights_are_asked_for() -> None:
    config = load_config(None, [*WORDS, "student.model.pretrained=true", "student.epochs=2"])
    conditions = Conditions(16, any_outputs(("a", "b"), "ignore"))

    def pace(channels: int) -> float:
        options = {"channels": (channels,) * 4}
        model = config.student.model.model_copy(update={"backbone_options": options})
        return seconds_per_pass(
            PlannedTraining("student.model", "student", model, config.student, (8, 24)), conditions, config
        )

    assert 0 < pace(8) < pace(256)


@pytest.mark.slow
def test_a_probe_is_timed_at_the_size_that_its_backbone_sees() -> None:
    config = load_config(None, WORDS)

    def seconds(**settings: object) -> float:
        return seconds_of_features(ProbeConfig.model_validate({"features": "backbones", **settings}), 16, config)

    assert 0 < seconds(image_size=16) < seconds(image_size=160)
