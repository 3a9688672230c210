import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nstudent.config.schema import Config
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import ChoiceMetrics
from nstudent.storage.artifact import Manifest


def test_it_has_the_students_architecture_noise_and_number_of_steps(finished: Path) -> None:
    models = [json.loads((finished / step / "model.json").read_text()) for step in ("02-baseline", "06-student")]
    # Each is calibrated by itself.
    fitted = {"member_temperatures", "temperatures", "ends"}
    assert [{key: value for key, value in model.items() if key not in fitted} for model in models] == [
        {key: value for key, value in models[0].items() if key not in fitted}
    ] * 2
    baseline, student = (Manifest.read(finished / step).metrics for step in ("02-baseline", "06-student"))
    assert baseline["gmacs"] == student["gmacs"]
    assert len(baseline["history"][0]) == len(student["history"][0])
    assert baseline["image_passes"] == student["image_passes"], "labelled ones in place of the heap's"
    rates = [[epoch["learning_rate"] for epoch in made["history"][0]] for made in (baseline, student)]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.slow
def test_it_sees_no_pseudo_label(tiny: Callable[..., Config], go_on: Path, finished: Path) -> None:
    """Other pseudo-labels leave it as it is: it is not even made again."""
    before = (go_on / "02-baseline" / "manifest.json").stat().st_mtime_ns
    run_all(tiny("pseudolabel.threshold=0.8"), go_on)
    assert (go_on / "02-baseline" / "manifest.json").stat().st_mtime_ns == before
    assert Manifest.read(go_on / "06-student").id != Manifest.read(finished / "06-student").id


@pytest.mark.slow
def test_without_rounds_there_is_none(tiny: Callable[..., Config], untrained: Path) -> None:
    folder = run_all(tiny("rounds=0", "teacher.epochs=12"), untrained)
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {"curves"} == {
        *("00-data", "01-teacher", "02-choose", "03-evaluate")
    }


def test_it_can_be_chosen(finished: Path) -> None:
    for choice in ("03-choose", "07-choose"):
        names = [each.name for each in ChoiceMetrics.of(Manifest.read(finished / choice)).candidates]
        assert "02-baseline" in names


@pytest.mark.slow
def test_it_follows_the_students_settings(tiny: Callable[..., Config], go_on: Path) -> None:
    before = Manifest.read(go_on / "02-baseline").id
    run_stage(tiny("student.epochs=2"), "baseline", go_on)
    assert Manifest.read(go_on / "02-baseline").id != before
