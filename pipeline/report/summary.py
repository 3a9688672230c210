"""The parts of a report that come from the scores and the manifests: answer, findings, scores, rounds, cost, page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nstudent.config.schema import Config
from nstudent.config.yaml_text import dump_yaml
from nstudent.evaluation.refit_scores import RefitScores
from nstudent.evaluation.scores import COMPARED, HEADLINE, OF_A_LEVEL, Interval, LevelCalibration, Scores
from nstudent.report.charts import (
    Bar,
    IntervalChart,
    ReliabilityChart,
    bars,
    interval_chart,
    reliability_chart,
)
from nstudent.report.limits import Limits
from nstudent.report.material import Material
from nstudent.runs.finding import Finding
from nstudent.runs.step_metrics import (
    ChoiceMetrics,
    Contribution,
    FilterMetrics,
    RefitMetrics,
    TrainedMetrics,
    read_metrics,
)
from nstudent.runs.words import legend

_SECTION_OF = {
    "nothing to learn from": "heap",
    "wrong labels": "heap",
    "other images": "heap",
    "filter weaker than the classifier it judges": "heap",
    "filter drops much": "heap",
    "classes gone": "heap",
    "few labels kept": "heap",
    "classes without labels": "heap",
    "still rising": "curves",
    "few unlabelled images": "heap",
    "labels alone are strong": "scores",
    "small validation": "scores",
    "small test": "scores",
    "probabilities off": "sure",
    "answers too deep": "sure",
}
"""Section of the page in which more of each finding is shown."""


_OF_DIFFERENCES = frozenset({"still rising", "labels alone are strong", "small validation", "small test"})
"""Findings whose figures are differences in points: no share of anything that a bar could show."""


@dataclass(frozen=True)
class ShownFinding:
    """A finding with its figure."""

    finding: Finding
    bars: tuple[Bar, ...]
    section: str


@dataclass(frozen=True)
class ScoreRow:
    """The test scores of one classifier, by name of the score."""

    name: str
    is_final: bool
    cells: tuple[Interval | None, ...]


@dataclass(frozen=True)
class Cost:
    """What one step took."""

    step: str
    role: str
    seconds: float
    training_gmacs: float | None
    image_passes: int | None
    image_gmacs: float | None
    """Billions of multiply-adds to label one image."""


@dataclass(frozen=True)
class Part:
    """A member of an ensemble, or a classifier in the pool that was chosen last: what it costs and adds."""

    whole: str
    """What it is a part of: the step of the ensemble, or the name of the pool."""
    name: str
    contribution: Contribution


@dataclass(frozen=True)
class Reliability:
    """How the confidence of a level agrees with how often it is right, on test."""

    chart: ReliabilityChart
    calibration: LevelCalibration


@dataclass(frozen=True)
class OnTest:
    """What the test images say of the classifiers of a run."""

    confidence: float
    names: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    chart: IntervalChart | None
    gain_chart: IntervalChart | None
    rounds: IntervalChart | None
    """Score of the student of each round, below the best of the labels alone; ``None`` without a round."""
    reliability: tuple[Reliability, ...]
    refit: RefitScores | None
    """What was trained again on labels and validation together; ``None`` if nothing was."""

    @property
    def words(self) -> dict[str, str]:
        """What the names of the classifiers and scores mean, by the word."""
        return legend((row.name for row in self.rows), self.names)


@dataclass(frozen=True)
class Summary:
    """What the first and the last sections of a page show."""

    findings: tuple[ShownFinding, ...]
    numbers: tuple[tuple[str, str], ...]
    """What there was to learn from, name and number."""
    test: OnTest | None
    """``None`` if the run has no scores yet."""
    costs: tuple[Cost, ...]
    parts: tuple[Part, ...]
    seconds: float
    page: str
    """What the configuration has other than by default, as YAML."""
    whole_page: str
    whole_page_cut: bool
    environment: tuple[tuple[str, str], ...]


def summary(material: Material, limits: Limits) -> Summary:
    """Gather the parts."""
    scores = material.measured.scored
    costs = tuple(_costs(material))
    whole = dump_yaml(material.config.model_dump(mode="json"))
    *_, last = [{}, *(manifest.environment for manifest in material.manifests.values())]
    return Summary(
        findings=tuple(_shown(finding) for finding in material.findings),
        numbers=tuple(_numbers(material)),
        test=_on_test(material, scores) if scores else None,
        costs=costs,
        parts=tuple(_parts(material)),
        seconds=sum(cost.seconds for cost in costs),
        page=dump_yaml(_changed(material.config))[: limits.characters],
        whole_page=whole[: limits.characters],
        whole_page_cut=len(whole) > limits.characters,
        environment=tuple(sorted((str(name), str(version)) for name, version in last.items())),
    )


def _on_test(material: Material, scores: Scores) -> OnTest:
    names, rows = _score_table(scores)
    return OnTest(
        confidence=scores.confidence,
        names=tuple(name.removeprefix(OF_A_LEVEL) for name in names),
        rows=rows,
        chart=interval_chart(
            f"{HEADLINE} on test, %", [(row.name, row.cells[0]) for row in rows if row.cells[0]], points=False
        ),
        gain_chart=_gain_chart(scores),
        rounds=_rounds(material, scores),
        reliability=tuple(
            Reliability(reliability_chart(level, found.bins, found.uncalibrated_bins), found)
            for level, found in scores.calibration.items()
        ),
        refit=material.measured.refit,
    )


def _shown(finding: Finding) -> ShownFinding:
    figures = [] if finding.kind in _OF_DIFFERENCES else list(finding.figures.items())
    return ShownFinding(finding, bars(figures), _SECTION_OF[finding.kind])


def _numbers(material: Material) -> list[tuple[str, str]]:
    data = material.measured.data
    if data is None:
        return []
    left_out = data.unreadable + data.duplicates + data.near_duplicates + data.conflicting_labels
    named = zip(material.images.taxonomy.levels, data.classes, strict=True)
    return [
        ("labelled images", f"{data.labelled:,}"),
        ("unlabelled images", f"{data.unlabelled:,}"),
        ("validation images", f"{data.validation:,}"),
        ("test images", f"{data.test:,}"),
        ("images left out", f"{left_out:,}"),
        *((f"classes at level {level}", f"{number:,}") for level, number in named),
    ]


def _score_table(scores: Scores) -> tuple[list[str], tuple[ScoreRow, ...]]:
    tests = scores.test
    levels = dict.fromkeys(name for test in tests.values() for name in test if name.startswith(OF_A_LEVEL))
    # With one level all scores are the same number.
    names = [*COMPARED, *levels] if len(levels) != 1 else [HEADLINE]
    rows = tuple(
        ScoreRow(step, step == scores.final.name, tuple(test.get(name) for name in names))
        for step, test in tests.items()
    )
    return names, rows


def _gain_chart(scores: Scores) -> IntervalChart | None:
    gain = scores.heap_gain
    rows = []
    if gain:
        rows = [(f"{gain.labels_alone.name} (chosen on validation)", gain.difference[HEADLINE])]
        rows += [(name, gap.difference[HEADLINE]) for name, gap in gain.others.items()]
    title = f"{gain.with_heap.name} against the labels alone, points of {HEADLINE} on test" if gain else ""
    return interval_chart(title, rows, points=True)


def _rounds(material: Material, scores: Scores) -> IntervalChart | None:
    """The students by round, and above them what the labels alone reach."""
    measured, gain = material.measured, scores.heap_gain
    rows: list[tuple[str, Interval]] = []
    if gain and (alone := gain.labels_alone.test.get(HEADLINE)):
        rows.append((f"labels alone: {gain.labels_alone.name}", alone))
    for name in measured.students:
        if name in scores.classifiers and (test := scores.classifiers[name].test.get(HEADLINE)):
            rows.append((f"round {measured.rounds[name]}: {name}", test))
    title = f"{HEADLINE} on test by round, %"
    return interval_chart(title, rows, points=False) if measured.students else None


def _costs(material: Material) -> list[Cost]:
    found = []
    for name, manifest in material.manifests.items():
        metrics = read_metrics(manifest)
        trained = metrics if isinstance(metrics, TrainedMetrics | FilterMetrics | RefitMetrics) else None
        found.append(
            Cost(
                step=name,
                role=manifest.role,
                seconds=manifest.seconds,
                training_gmacs=trained.training_gmacs if trained else None,
                image_passes=trained.image_passes if trained else None,
                image_gmacs=metrics.gmacs if isinstance(metrics, TrainedMetrics | RefitMetrics) else None,
            )
        )
    return found


def _parts(material: Material) -> list[Part]:
    """The members of the ensembles in the order of the run, and then the parts of the last choice, if it is a pool."""
    found: list[Part] = []
    pool: list[Part] = []
    for name, manifest in material.manifests.items():
        metrics = read_metrics(manifest)
        if isinstance(metrics, TrainedMetrics):
            found += [Part(name, f"member {number}", each) for number, each in enumerate(metrics.members or ())]
        elif isinstance(metrics, ChoiceMetrics):
            pool = [Part(metrics.chosen, *each) for each in (metrics.taken.contributions or {}).items()]
    return found + pool


def _changed(config: Config) -> dict[str, Any]:
    """The keys of a configuration that have another value than by default, with those around them."""
    return _differing(config.model_dump(mode="json"), Config().model_dump(mode="json"))


def _differing(ours: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in ours.items():
        before = default.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inside := _differing(value, before):
                found[key] = inside
        elif value != before:
            found[key] = value
    return found
