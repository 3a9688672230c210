import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.errors import ConfigError
from nstudent.labels.selection import Selection
from nstudent.models.cost import Spent
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.stage import Context
from nstudent.stages import filter as filter_stage
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.files import read_json
from nstudent.storage.hdf5 import mapped


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


def test_more_dropped_than_the_config_allows_ends_the_rounds(tiny: Callable[..., Config], go_on: Path) -> None:
    run_stage(tiny("filter.max_dropped_share=0.0", "filter.epochs=1"), "filter", go_on)
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert re.search(r"would drop \d+% .*filter\.max_dropped_share \(0%\)", metrics["ended"])
    assert metrics["shown"] == 0
    assert metrics["classes_gone"], "every class that had labels is gone"
    with pytest.raises(ConfigError, match=r"this run has no student step: the filter would drop"):
        run_stage(tiny("filter.max_dropped_share=0.0", "filter.epochs=1"), "student", go_on)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "iterations"),
    [([0.5, 0.4, 0.9, 0.9], 2), ([0.5, 0.6, 0.6, 0.9], 3), ([0.1, 0.2, 0.3, 0.4], 4)],
    ids=["worse", "the same", "better to the last"],
)
def test_it_stops_where_validation_no_longer_improves(
    scores: list[float],
    iterations: int,
    tiny: Callable[..., Config],
    go_on: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def iterate(context: Context, bench: Any, heap: Any, found: Any, keep: Any, iteration: int) -> Any:
        return scores[iteration], keep, Spent(10, 1.0)

    monkeypatch.setattr(filter_stage, "_iterate", iterate)
    run_stage(tiny("filter.iterations=4"), "filter", go_on)
    made = Manifest.read(go_on / "05-filter").metrics["iterations"]
    assert [each["validation"] for each in made] == scores[:iterations]


def test_what_is_kept_is_what_stood_after_the_best_iteration(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is only known to be worse once it is over."""
    scores, labels = [0.5, 0.7, 0.6], {}
    iterations = []

    def iterate(context: Context, bench: Any, heap: Any, found: Any, keep: Any, iteration: int) -> Any:
        labels["pseudo"] = found.pseudo
        dropped = np.ones(found.pseudo.shape, dtype=bool)
        dropped[iteration] = False
        iterations.append(keep.pseudo.copy())
        given = np.ones(found.given.shape, dtype=bool)
        return scores[iteration], filter_stage._Keep(given, dropped), Spent(10, 1.0)

    monkeypatch.setattr(filter_stage, "_iterate", iterate)
    run_stage(tiny("filter.iterations=5"), "filter", go_on)
    before, after = keeps(go_on)
    expected = before.copy()
    expected[1] = False
    assert np.array_equal(after, expected)
    assert len(iterations) == 3, "the third is worse: no fourth is tried"
    # Each begins from what the best one before it has left.
    assert iterations[0].all()
    assert not iterations[1][0].any()
    assert not iterations[2][1].any()
    assert iterations[2][0].all()
    metrics = Manifest.read(go_on / "05-filter").metrics
    assert (metrics["image_passes"], metrics["training_gmacs"]) == (30, 3.0)


def test_its_cost_is_counted_with_the_passes_of_the_mean_teacher(finished: Path) -> None:
    metrics = Manifest.read(finished / "05-filter").metrics
    (iteration,) = metrics["iterations"]
    # 3 epochs of 4 steps (100 labels, 32 of them in each), with 96 images of the heap beside.
    assert metrics["image_passes"] == iteration["image_passes"] == 3 * 4 * 128
    per_pass = metrics["training_gmacs"] / metrics["image_passes"]
    teacher = Manifest.read(finished / "01-teacher").metrics
    assert per_pass == pytest.approx(4 * teacher["gmacs"], rel=1e-3)


@pytest.mark.slow
def test_without_the_heap_in_its_batches_it_still_runs(tiny: Callable[..., Config], go_on: Path) -> None:
    """filter.unlabelled_ratio=0 trains on the given labels alone; no pseudo-label is ever seen, so none is dropped."""
    run_stage(tiny("filter.unlabelled_ratio=0", "filter.epochs=1"), "filter", go_on)
    before, after = keeps(go_on)
    assert np.array_equal(before, after)
