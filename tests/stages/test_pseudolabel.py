import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.errors import ArtifactError, StoppedError
from nstudent.labels.selection import Selection
from nstudent.labels.store import LabelStore
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.models.recipe import Recipe
from nstudent.progress import Silence
from nstudent.runs.run import run_stage
from nstudent.session import Session
from nstudent.stages import pseudolabel
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.sealed import SealedFiles

STEP = "04-pseudolabel"
SHARD = "labels-000000000-000000240.h5"


@pytest.fixture(scope="module")
def store(finished: Path) -> LabelStore:
    return LabelStore.open(Artifact(finished / STEP))


def test_every_image_of_the_heap_has_its_row(store: LabelStore, finished: Path) -> None:
    assert np.array_equal(store.images, Dataset(Artifact(finished / "00-data")).unlabelled)


def test_paths_are_legal_final_labels(store: LabelStore, finished: Path) -> None:
    assert (Dataset(Artifact(finished / "00-data")).taxonomy.terminal_of(store.paths) >= 0).all()


def test_the_labels_are_those_of_the_un_noised_labeller_as_it_is_calibrated(
    store: LabelStore, finished: Path, tiny: Callable[..., Config]
) -> None:
    """The ensemble in evaluation mode gives the same distributions; a noised one would not."""
    dataset = Dataset(Artifact(finished / "00-data"))
    labeller = Ensemble.load(Artifact(finished / "03-choose"), Placement.from_config(tiny()))
    said = predict(labeller, dataset.pixels, dataset.unlabelled, batch_size=256)
    for stored, level in zip(store.probabilities, said, strict=True):
        assert stored[np.arange(240)].tobytes() == level.astype(np.float16).tobytes()


def test_the_labels_say_how_their_labeller_was_calibrated(finished: Path, tiny: Callable[..., Config]) -> None:
    known = Recipe.read(Artifact(finished / "03-choose")).calibration
    assert known is not None
    for said in (json.loads((finished / STEP / "labels.json").read_text()), Manifest.read(finished / STEP).metrics):
        assert said["temperatures"] == list(known.temperatures)
        assert said["ends"] == list(known.ends)


def test_no_class_is_more_probable_than_the_one_above_it(store: LabelStore) -> None:
    assert (store.confidence[:, 1:] <= store.confidence[:, :-1] + 1e-5).all()


def test_made_twice_the_labels_are_the_same_bytes(finished: Path, go_on: Path, tiny: Callable[..., Config]) -> None:
    # balance=false makes the step stale; the labels do not depend on it.
    run_stage(tiny("pseudolabel.balance=false"), "pseudolabel", go_on)
    # The joined view, too: left alone, HDF5 writes the time into it.
    for name in (SHARD, "labels.h5", "labels.json"):
        assert (go_on / STEP / name).read_bytes() == (finished / STEP / name).read_bytes(), name
    assert Manifest.read(go_on / STEP).fingerprint != Manifest.read(finished / STEP).fingerprint


def test_labels_do_not_depend_on_how_they_are_cut_into_shards(
    store: LabelStore, go_on: Path, tiny: Callable[..., Config]
) -> None:
    run_stage(tiny("pseudolabel.shard_rows=100"), "pseudolabel", go_on)
    cut = LabelStore.open(Artifact(go_on / STEP))
    assert len(list((go_on / STEP).glob("labels-*.h5"))) == 3
    assert np.array_equal(cut.images, store.images)
    assert np.array_equal(cut.paths, store.paths)
    np.testing.assert_allclose(cut.confidence, store.confidence, atol=1e-6)


def test_an_interrupted_labelling_makes_only_the_missing_shards(go_on: Path, tiny: Callable[..., Config]) -> None:
    class Counter(Silence):
        images = 0

        def advance(self, amount: int, **shown: Any) -> None:
            self.images += amount

    class StopAtTheSecond(Counter):
        def advance(self, amount: int, **shown: Any) -> None:
            super().advance(amount)
            if self.images > 100:
                raise KeyboardInterrupt

    config = tiny("pseudolabel.shard_rows=100", "pseudolabel.batch_size=50")
    with pytest.raises(KeyboardInterrupt):
        run_stage(config, "pseudolabel", go_on, Session(progress=StopAtTheSecond()))
    (first,) = (go_on / f"{STEP}.partial").glob("labels-*.h5")
    os.utime(first, (1, 1))
    counter = Counter()
    run_stage(config, "pseudolabel", go_on, Session(progress=counter))
    assert counter.images == 240, "those that are there already are counted"
    made = {path.name: path.stat().st_mtime for path in (go_on / STEP).glob("labels-*.h5")}
    assert len(made) == 3
    assert [name for name, when in made.items() if when == 1] == [first.name]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_that_cannot_be_written_ends_the_step(
    number: int, go_on: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written in a thread, while the next one is made."""
    write = SealedFiles.write

    def full(sealed: SealedFiles, name: str, content: bytes) -> None:
        if name.startswith(f"labels-{100 * number:09d}"):
            raise ArtifactError("the disk is full")
        write(sealed, name, content)

    monkeypatch.setattr(SealedFiles, "write", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        run_stage(tiny("pseudolabel.shard_rows=100"), "pseudolabel", go_on)


def test_a_level_is_kept_only_where_it_and_those_above_are_sure(go_on: Path, tiny: Callable[..., Config]) -> None:
    folder = run_stage(tiny("pseudolabel.threshold=[0.5, 0.6, 0.9]"), "pseudolabel", go_on)
    keep, confidence = Selection.load(Artifact(folder)).keep, LabelStore.open(Artifact(folder)).confidence
    assert np.array_equal(keep[:, 0], confidence[:, 0] >= 0.5)
    assert np.array_equal(keep[:, 1], keep[:, 0] & (confidence[:, 1] >= 0.6))
    assert np.array_equal(keep[:, 2], keep[:, 1] & (confidence[:, 2] >= np.float32(0.9)))
    assert keep[:, 0].sum() > keep[:, 2].sum() > 0, "some keep only the coarse part of their path"


def test_plain_h5py_reads_the_joined_file(finished: Path) -> None:
    with h5py.File(finished / STEP / "labels.h5") as file:
        assert file["path"].shape == (240, 3)
        assert file["probability/fine"].shape == (240, 8)
        np.testing.assert_allclose(file["probability/coarse"][:].astype(np.float32).sum(axis=1), 1, atol=2e-3)


def test_the_metrics_count_what_is_kept(finished: Path) -> None:
    metrics, selection = Manifest.read(finished / STEP).metrics, Selection.load(Artifact(finished / STEP))
    assert metrics["labelled_images"] == 240
    assert list(metrics["kept"].values()) == selection.keep.sum(axis=0).tolist()
    assert metrics["shown"] == (selection.copies > 0).sum()
    assert metrics["copies"] == selection.copies.sum()


def test_of_many_classes_the_most_probable_are_stored_and_taught(
    finished: Path, go_on: Path, tiny: Callable[..., Config], store: LabelStore
) -> None:
    config = tiny("pseudolabel.top_k=4")
    folder = run_stage(config, "pseudolabel", go_on)
    top = LabelStore.open(Artifact(folder))

    for name in ("images", "paths", "confidence"):
        assert np.array_equal(getattr(top, name), getattr(store, name)), "only what is stored of a distribution differs"
    with h5py.File(folder / "labels.h5") as file:
        assert file["top/fine/class"].shape == file["top/fine/probability"].shape == (240, 4)
        assert file["probability/coarse"].shape[1] <= 4
    rows = np.arange(240)
    fine, whole = top.probabilities[-1][rows], store.probabilities[-1][rows].astype(np.float32)
    assert fine.shape == whole.shape
    best = np.argsort(-fine, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(np.take_along_axis(fine, best, 1), np.take_along_axis(whole, best, 1))
    np.testing.assert_allclose(fine.sum(axis=1), whole.sum(axis=1), atol=2e-3)


@pytest.mark.slow
def test_labels_do_not_depend_on_the_batch_size(go_on: Path, tiny: Callable[..., Config]) -> None:
    def made(*words: str) -> tuple[np.ndarray, np.ndarray]:
        found = LabelStore.open(Artifact(run_stage(tiny("pseudolabel.balance=false", *words), "pseudolabel", go_on)))
        return found.paths, found.confidence

    paths, confidence = made()
    for batch_size in (1, 7, 100):
        # Every run differs in a key that counts, or it would be up to date.
        other_paths, other_confidence = made(
            f"pseudolabel.shard_rows={200 + batch_size}", f"pseudolabel.batch_size={batch_size}"
        )
        assert np.array_equal(other_paths, paths)
        np.testing.assert_allclose(other_confidence, confidence, atol=1e-5)


class _StopsAfter(Silence):
    """Asks to stop once so many images are labelled."""

    def __init__(self, images: int) -> None:
        self._left = images

    def advance(self, amount: int, **shown: Any) -> None:
        self._left -= amount
        if self._left < 0:
            raise StoppedError("somebody wants the machine")


def test_stopped_within_a_shard_it_goes_on_there_to_the_same_bytes(
    finished: Path, go_on: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt gets further than the one before it, however large a shard is."""
    config = tiny("pseudolabel.balance=false", "pseudolabel.batch_size=20")
    whole = Path(shutil.copytree(go_on, go_on.with_name("whole")))
    run_stage(config, "pseudolabel", whole)
    walked: list[int] = []
    batches = pseudolabel.batches

    def counted(labeller: Any, pixels: Any, ids: Any, *given: Any) -> Any:
        walked.append(len(ids))
        return batches(labeller, pixels, ids, *given)

    monkeypatch.setattr(pseudolabel, "batches", counted)
    for images in (50, 130, 130):
        with pytest.raises(StoppedError):
            run_stage(config, "pseudolabel", go_on, Session(progress=_StopsAfter(images)))
    run_stage(config, "pseudolabel", go_on)
    assert walked == sorted(walked, reverse=True)
    assert walked[0] == 240 > walked[-1] > 0
    assert Manifest.read(go_on / STEP).files == Manifest.read(whole / STEP).files


@pytest.mark.parametrize("rotten", ["shard", "kept rows"])
@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"", lambda content: content[::-1]])
def test_what_rots_in_an_unfinished_labelling_is_made_again(
    go_on: Path, tiny: Callable[..., Config], rotten: str, damage: Callable[[bytes], bytes]
) -> None:
    config = tiny("pseudolabel.shard_rows=100", "pseudolabel.batch_size=20")
    whole = Path(shutil.copytree(go_on, go_on.with_name("whole")))
    run_stage(config, "pseudolabel", whole)
    with pytest.raises(StoppedError):
        run_stage(config, "pseudolabel", go_on, Session(progress=_StopsAfter(170)))
    partial = go_on / f"{STEP}.partial"
    (path,) = (partial if rotten == "shard" else partial / "scratch").glob("labels-*.h5")
    path.write_bytes(damage(path.read_bytes()))
    run_stage(config, "pseudolabel", go_on)
    assert Manifest.read(go_on / STEP).files == Manifest.read(whole / STEP).files
