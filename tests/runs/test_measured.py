"""What a run has measured, read from the folders of its steps."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from measured_runs import FILTER, LABELS, STUDENT, choice, data, filtered, gain, scores, trained
from nstudent.evaluation.scores import SCORES
from nstudent.runs.measured import Measured
from nstudent.runs.step_metrics import LabelMetrics, ScoreMetrics
from nstudent.storage.artifact import MANIFEST, Manifest, Metrics
from nstudent.storage.files import write_json

LABELLED = LabelMetrics(9, {}, 9, 9, (), 1.0)


def leave(run_dir: Path, name: str, role: str, metrics: Metrics, *inputs: str, number: int = 0) -> None:
    """A folder with the manifest of a step, whose time in seconds is the number before its name."""
    read = dict.fromkeys(inputs, "id")
    made = Manifest("some", role, number, {}, read, {}, metrics=metrics.to_json(), seconds=float(name[:2]))
    (run_dir / name).mkdir()
    write_json(run_dir / name / MANIFEST, asdict(made))


def test_what_the_steps_of_a_run_report_is_read_from_their_folders(tmp_path: Path) -> None:
    found = scores(gain(0.014, 0.006, 0.023))
    judged = replace(filtered(), image_passes=500)
    leave(tmp_path, "00-data", "data", data())
    leave(tmp_path, "01-teacher", "classifier", trained(), "00-data")
    leave(tmp_path, LABELS, "labels", LABELLED, "00-data", "01-teacher", number=1)
    leave(tmp_path, FILTER, "selection", judged, "00-data", LABELS, number=1)
    leave(tmp_path, STUDENT, "classifier", trained(0.5), LABELS, FILTER, number=1)
    leave(tmp_path, "07-choose", "labeller", choice(), "00-data", "01-teacher", STUDENT, number=1)
    read = ("07-choose", STUDENT, FILTER, LABELS, "01-teacher", "00-data")
    leave(tmp_path, "08-evaluate", "scores", ScoreMetrics("pool of all", found.final.test, None), *read)
    write_json(tmp_path / "08-evaluate" / SCORES, found.to_json())

    measured = Measured.read(tmp_path, "08-evaluate")
    assert list(measured.seconds) == sorted(read), "in the order of the run"
    assert measured == Measured(
        scored=found,
        data=data(),
        trained={"01-teacher": trained(), STUDENT: trained(0.5)},
        labels={LABELS: LABELLED},
        filters={FILTER: judged},
        choices={"07-choose": choice()},
        rounds={"00-data": 0, "01-teacher": 0, LABELS: 1, FILTER: 1, STUDENT: 1, "07-choose": 1},
        labels_of={FILTER: LABELS},
        seconds={"00-data": 0, "01-teacher": 1, LABELS: 4, FILTER: 5, STUDENT: 6, "07-choose": 7},
    )
