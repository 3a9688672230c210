import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.config.members import ProbeConfig
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.labels.evidence import Weights
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import Selection
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.probes import OutOfFoldProbes
from nstudent.progress import Silence
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import FilterIteration
from nstudent.session import Session
from nstudent.stages import filter as filter_stage
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.files import read_json
from nstudent.storage.hdf5 import mapped
from nstudent.trainer import Trainer


def keeps(folder: Path) -> list[np.ndarray]:
    """What was kept before the filter and after it, (rows, levels) each."""
    return [Selection.load(Artifact(folder / step)).keep for step in ("04-pseudolabel", "05-filter")]


def given_keep(folder: Path) -> np.ndarray:
    return mapped(folder / "05-filter" / "labelled.h5")["keep"].astype(bool)


def test_disabled_it_passes_everything_through(tiny: Callable[..., Config], go_on: Path) -> None:
    run_stage(tiny("filter.enabled=false"), "filter", go_on)
    before, after = keeps(go_on)
    assert np.array_equal(before, after)
    assert given_keep(go_on).all()
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert set(metrics["dropped"].values()) == {0}
    assert metrics["iterations"] == []


def test_it_drops_labels_and_adds_none(finished: Path) -> None:
    before, after = keeps(finished)
    assert after.any()
    assert not (after & ~before).any()
    assert (before & ~after).any()
    metrics = Manifest.read(finished / "05-filter").metrics
    assert list(metrics["dropped"].values()) == (before & ~after).sum(axis=0).tolist()
    assert list(metrics["kept"].values()) == after.sum(axis=0).tolist()


def test_what_is_left_of_a_label_is_a_path(finished: Path) -> None:
    _, after = keeps(finished)
    assert np.array_equal(after, np.logical_and.accumulate(after, axis=1))


def test_given_labels_stay_where_nobody_asked_to_doubt_them(finished: Path) -> None:
    assert given_keep(finished).all()
    assert given_keep(finished).shape == (100, 3)


@pytest.mark.slow
def test_it_finds_flipped_labels_among_the_given_ones(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """A third of the labels are wrong. Dropping at random would find as many of them as their share is."""
    words = (
        "data.label_noise=0.33",
        "data.labelled=300",
        "filter.labelled=true",
        "filter.epochs=12",
        "filter.unlabelled_ratio=1",
        "teacher.epochs=8",
        "student.epochs=1",
    )
    folder = run_all(tiny(*words), tmp_path)
    dataset = Dataset(Artifact(folder / "00-data"))
    wrong = dataset.labels[dataset.labelled] != dataset.hidden_truth()[dataset.labelled]
    assert wrong.any(axis=1).mean() == pytest.approx(0.33, abs=0.01)
    dropped = ~given_keep(folder)
    assert dropped.any()
    named = dataset.labels[dataset.labelled] >= 0
    assert wrong[dropped & named].mean() > 1.5 * wrong[named].mean()
    scores = read_json(folder / "08-evaluate" / "scores.json")
    assert list(scores["given_labels"]) == ["05-filter"]


class Verdicts:
    """Stands in for the trainings of a filter: iteration after iteration a log-likelihood, and what it would drop."""

    def __init__(self, scores: Sequence[float], dropped: Sequence[Any]) -> None:
        self._made = list(zip(scores, dropped, strict=True))
        self.begun: list[Any] = []
        """What each iteration was trained on."""

    def __call__(self, judge: Any, number: int, keep: Any) -> Any:
        self.begun.append(keep)
        score, rows = self._made[number]
        stands = judge._heap.keep.copy()
        stands[rows] = False
        kept, refused = judge._within_limit(filter_stage._Keep(np.ones(keep.given.shape, dtype=bool), stands))
        made = FilterIteration(0.5, 1, 10, 1.0, log_likelihood=score)
        both = (Weights(1.0, 0.25),) * 3
        return filter_stage._Iteration(made, kept, both, both, (0.0,) * 3, refused)


def judged_by(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float], dropped: Sequence[Any]) -> Verdicts:
    verdicts = Verdicts(scores, dropped)
    monkeypatch.setattr(filter_stage._Judge, "_iteration", lambda *arguments: verdicts(*arguments))
    return verdicts


NOTHING = slice(0, 0)


class Heard(Silence):
    """Keeps what is said to a person, in one line."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += f" {text}"


@pytest.mark.parametrize(
    ("scores", "iterations"),
    [([-0.5, -0.6, -0.1, -0.1], 2), ([-0.5, -0.4, -0.6, -0.1], 3), ([-0.4, -0.3, -0.2, -0.1], 4)],
    ids=["worse at once", "worse", "better to the last"],
)
def test_it_stops_where_validation_no_longer_improves(
    scores: list[float],
    iterations: int,
    tiny: Callable[..., Config],
    go_on: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged_by(monkeypatch, scores, [NOTHING] * 4)
    run_stage(tiny("filter.iterations=4"), "filter", go_on)
    made = Manifest.read(go_on / "05-filter").metrics["iterations"]
    assert [each["log_likelihood"] for each in made] == scores[:iterations]


def test_what_is_kept_is_what_stood_after_the_best_iteration(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is only known to be worse once it is over."""
    verdicts = judged_by(monkeypatch, [-0.5, -0.3, -0.4, -0.1], [slice(0, 1), slice(1, 3), slice(3, 9), NOTHING])
    run_stage(tiny("filter.iterations=4"), "filter", go_on)
    before, after = keeps(go_on)
    expected = before.copy()
    expected[1:3] = False
    assert np.array_equal(after, expected)
    assert len(verdicts.begun) == 3, "the third is worse: no fourth is tried"
    # Each begins from what the one before it has left, and a dropped label can come back.
    assert np.array_equal(verdicts.begun[0].pseudo, before)
    assert not verdicts.begun[1].pseudo[0].any()
    assert not verdicts.begun[2].pseudo[1].any()
    assert np.array_equal(verdicts.begun[2].pseudo[0], before[0])
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert (metrics["image_passes"], metrics["training_gmacs"]) == (30, 3.0)
    assert metrics["weights"]["fine"] == {"labeller": 1.0, "filter": 0.25}


def test_a_verdict_that_drops_too_much_of_a_level_is_not_applied_and_the_run_goes_on(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the images lose all levels: of every level that is a third or so, and one is over the limit."""
    verdicts = judged_by(monkeypatch, [-0.5, -0.4], [slice(0, 80)] * 2)
    heard = Heard()
    run_stage(tiny("filter.max_dropped_share=0.1", "filter.iterations=2"), "filter", go_on, Session(progress=heard))
    before, after = keeps(go_on)
    assert np.array_equal(before, after)
    metrics = Manifest.read(go_on / "05-filter").metrics
    (why,) = metrics["refused"]
    assert re.search(
        r"would drop \d+% of the \w+ pseudo-labels \(filter\.max_dropped_share is 10%\): they all stay", why
    )
    assert metrics["ended"] == ""
    assert set(metrics["dropped"].values()) == {0}
    assert len(verdicts.begun) == 1, "there is nothing to go on from"
    assert why in heard.text


def test_the_limit_is_one_of_levels_and_not_of_images(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fine labels and no other would fall: no image loses its whole label."""
    verdicts = judged_by(monkeypatch, [-0.5], [NOTHING])
    monkeypatch.setattr(
        filter_stage._Judge,
        "_iteration",
        lambda judge, number, keep: _without_the_fine_level(judge, verdicts(judge, number, keep)),
    )
    run_stage(tiny("filter.epochs=4"), "filter", go_on)
    before, after = keeps(go_on)
    assert before[:, 2].any()
    assert np.array_equal(before, after)
    assert "100% of the fine pseudo-labels" in Manifest.read(go_on / "05-filter").metrics["refused"][0]


def _without_the_fine_level(judge: Any, found: Any) -> Any:
    pseudo = found.stands.pseudo.copy()
    pseudo[:, 2] = False
    stands, refused = judge._within_limit(dataclasses.replace(found.stands, pseudo=pseudo))
    return dataclasses.replace(found, stands=stands, refused=refused)


def test_a_short_filter_that_has_learnt_nothing_is_not_heard(tiny: Callable[..., Config], go_on: Path) -> None:
    """Such a filter once dropped what it had not learnt yet, and left a student that says one class of everything."""
    words = ("filter.epochs=1", "filter.threshold=0.3", "filter.learning_rate=0.0001", "filter.max_dropped_share=1")
    run_stage(tiny(*words), "filter", go_on)
    before, after = keeps(go_on)
    assert np.array_equal(before, after), "pseudolabel.threshold is .3, too"
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert metrics["validation"] < metrics["labeller_validation"]
    assert {each["filter"] for each in metrics["weights"].values()} == {0.0}
    assert metrics["classes_gone"] == []


def test_given_labels_alone_may_be_doubted(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The finished run has no probe, which would be a step of its own.
    monkeypatch.setattr("nstudent.probes.probe_members", lambda config: (ProbeConfig(),))
    run_stage(tiny("filter.enabled=false", "filter.labelled=true", "filter.epochs=1"), "filter", go_on)
    before, after = keeps(go_on)
    assert np.array_equal(before, after)
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert len(metrics["iterations"]) == 1
    assert metrics["given_error_rate"].keys() == {"coarse", "mid", "fine"}
    assert all(weights["probe"] > 0 for weights in metrics["given_weights"].values())
    assert "weights" not in metrics


def test_a_probe_that_is_worth_nothing_is_not_asked_about_given_labels(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    of = OutOfFoldProbes.of
    monkeypatch.setattr("nstudent.probes.probe_members", lambda config: (ProbeConfig(), ProbeConfig(mirror=False)))
    monkeypatch.setattr("nstudent.probes.fit_pool_weights", lambda *_: (0.0, 1.0))
    monkeypatch.setattr(OutOfFoldProbes, "of", lambda *arguments: asked.append(of(*arguments)) or asked[-1])
    run_stage(tiny("filter.enabled=false", "filter.labelled=true", "filter.epochs=1"), "filter", go_on)
    (both,) = asked
    dataset = Dataset(Artifact(go_on / "00-data"))
    assert both.labelled[0].sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    right = (both.labelled[0].argmax(axis=1) == dataset.labels[dataset.labelled][:, 0]).mean()
    assert 0.7 < right < 1.0, "a fit to these very labels would make no mistake"


def test_given_labels_are_judged_by_the_self_ensemble_alone_where_there_is_no_probe(
    tiny: Callable[..., Config], go_on: Path
) -> None:
    words = ("filter.enabled=false", "filter.labelled=true", "filter.epochs=1")
    run_stage(tiny(*words), "filter", go_on)
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert {weights["probe"] for weights in metrics["given_weights"].values()} == {0.0}


@pytest.mark.slow
def test_the_momentum_of_the_averages_is_that_of_a_pass_whatever_is_drawn_how_often(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pass of 4 steps each of 100 labelled images is drawn 1.28 times, and each of 240 of the heap 1.6 times."""
    momenta, make = {}, Trainer.running_average

    def noted(trainer: Trainer, num_rows: int, momentum: float) -> RunningAverage:
        momenta[num_rows] = momentum
        return make(trainer, num_rows, momentum)

    monkeypatch.setattr(Trainer, "running_average", noted)
    words = ("filter.epochs=1", "filter.average_momentum=0.8", "filter.unlabelled_ratio=3")
    run_stage(tiny(*words), "filter", go_on)
    held_out = len(Dataset(Artifact(go_on / "00-data")).validation)
    assert momenta == {100: pytest.approx(0.8 ** (1 / 1.28)), 240: pytest.approx(0.8 ** (1 / 1.6)), held_out: 0.8}


def test_what_was_dropped_and_which_classes_have_no_image_is_said(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = HeapLabels.open(Artifact(go_on / "04-pseudolabel"))
    tree = Dataset(Artifact(go_on / "00-data")).taxonomy
    terminal = labels.labels.terminals(tree)
    whole = labels.keep.sum(axis=1) >= (tree.terminal_rows >= 0).sum(axis=1)[terminal]
    chosen = np.bincount(terminal[whole & (labels.copies > 0)]).argmax()
    rows = np.flatnonzero(terminal == chosen)
    judged_by(monkeypatch, [-0.5], [rows])
    heard = Heard()
    run_stage(tiny("filter.epochs=4"), "filter", go_on, Session(progress=heard))
    metrics = Manifest.read(go_on / "05-filter").metrics
    name = "/".join(tree.names(tree.terminals[chosen]).values())
    assert metrics["classes_gone"] == [name]
    assert f"classes that no pseudo-label names any more: {name}" in heard.text
    dropped, had = labels.keep[rows].sum(axis=0), labels.keep.sum(axis=0)
    assert f"pseudo-labels dropped: coarse {dropped[0]} of {had[0]}, mid {dropped[1]} of {had[1]}" in heard.text
    assert (
        "the filter network is weaker on validation than the classifier whose labels it judges (50.0 and" in heard.text
    )


def test_its_cost_is_counted_with_the_passes_of_the_mean_teacher(finished: Path) -> None:
    metrics = Manifest.read(finished / "05-filter").metrics
    (iteration,) = metrics["iterations"]
    # 3 epochs of 4 steps (100 labels, 32 of them in each), with 77 images of the 240 of the heap beside.
    assert metrics["image_passes"] == iteration["image_passes"] == 3 * 4 * 109
    teacher = Manifest.read(finished / "01-teacher").metrics
    # The held-out images are predicted once a pass.
    held_out = 3 * len(Dataset(Artifact(finished / "00-data")).validation)
    assert metrics["training_gmacs"] == pytest.approx((4 * 3 * 4 * 109 + held_out) * teacher["gmacs"], rel=1e-3)


@pytest.mark.slow
def test_without_the_heap_in_its_batches_it_still_runs(tiny: Callable[..., Config], go_on: Path) -> None:
    """filter.unlabelled_ratio=0 trains on the given labels alone; no pseudo-label is ever seen, so none is dropped."""
    run_stage(tiny("filter.unlabelled_ratio=0", "filter.epochs=1"), "filter", go_on)
    before, after = keeps(go_on)
    assert np.array_equal(before, after)
