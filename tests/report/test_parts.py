"""What the report says of the members of ensembles and the parts of pools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nstudent.evaluation.scores import Difference
from nstudent.report.page import render
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import ChoiceMetrics, Contribution, TrainedMetrics
from nstudent.storage.artifact import Metrics
from test_so_far import cells
from written_run import WrittenRun


def part(weight: float, gain: float) -> Contribution:
    return Contribution(weight, 0.25, Difference(gain, gain - 0.01, gain + 0.02, 0.8))


class _WithParts(WrittenRun):
    """A run whose teacher has two members, and whose last choice is a pool of two classifiers."""

    def _classifier(self, step: Step, folder: Path) -> Metrics:
        made = super()._classifier(step, folder)
        assert isinstance(made, TrainedMetrics)
        return replace(made, members=(part(0.5, 0.004), part(0.5, -0.012))) if step.stage.name == "teacher" else made

    def _choice(self) -> Metrics:
        made = super()._choice()
        assert isinstance(made, ChoiceMetrics)
        pool, alone = made.candidates
        return replace(made, candidates=(replace(pool, contributions={"01-teacher": part(0.4, 0.02)}), alone))


def test_each_part_stands_in_the_report_with_its_share_its_cost_and_what_it_adds(tmp_path: Path) -> None:
    rows = cells(render(_WithParts(tmp_path / "run").write()).decode(), "cost")
    assert ["01-teacher", "member 0", "50", "0.25", "+0.4", "-0.6", "+2.4"] in rows
    assert ["01-teacher", "member 1", "50", "0.25", "-1.2", "-2.2", "+0.8"] in rows
    assert ["pool of all", "01-teacher", "40", "0.25", "+2.0", "+1.0", "+4.0"] in rows


def test_a_run_without_parts_has_no_table_of_them(tmp_path: Path) -> None:
    assert "What each part costs" not in render(WrittenRun(tmp_path / "run").write()).decode()
