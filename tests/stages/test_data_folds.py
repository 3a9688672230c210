"""Folds that are written down with the data: only where they are asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from nstudent.data.dataset import Dataset
from nstudent.errors import ArtifactError, ConfigError
from nstudent.storage import hdf5
from small_folders import Bench, classes, divided, plant, png


def test_labelled_images_are_divided_class_by_class_and_copies_stay_together(bench: Bench) -> None:
    plant(bench.root, classes(each=12) | {f"pet/cat/copy-{i}.png": png(i) for i in range(12)})
    dataset = Dataset(bench.run(folds=3, validation=4, test=4, near_duplicates="ignore", rounds=0))
    folds, ids = dataset.folds(), dataset.labelled
    assert folds.shape == (len(ids),)
    assert set(folds.tolist()) == {0, 1, 2}
    for label in np.unique(dataset.labels[ids], axis=0):
        sizes = np.bincount(folds[(dataset.labels[ids] == label).all(axis=1)], minlength=3)
        assert sizes.max() - sizes.min() <= 2, "a pair of copies is in one fold"
    fold_of = {dataset.name(image): fold for image, fold in zip(ids, folds, strict=True)}
    pairs = [(f"pet/cat/{i}.png", f"pet/cat/copy-{i}.png") for i in range(12)]
    both = [pair for pair in pairs if fold_of.keys() >= set(pair)]
    assert len(both) > 5
    assert all(fold_of[one] == fold_of[other] for one, other in both)


def test_without_the_key_nothing_is_written_and_asking_for_folds_says_so(bench: Bench) -> None:
    plant(bench.root, classes(each=8))
    artifact = bench.run(rounds=0)
    assert "folds.h5" not in artifact.manifest.files
    assert "data.folds" not in artifact.manifest.asked["settings"], "run folders made before the key stay up to date"
    with pytest.raises(ConfigError, match=r"not divided into folds: set data\.folds"):
        Dataset(artifact).folds()


def test_the_other_files_of_the_data_do_not_depend_on_folds(bench: Bench) -> None:
    plant(bench.root, classes(each=8))
    without = bench.run("one", rounds=0).manifest.files
    divided = bench.run("two", folds=2, rounds=0).manifest
    assert {name: entry for name, entry in divided.files.items() if name != "folds.h5"} == without
    assert divided.asked["settings"]["data.folds"] == 2


def test_an_image_stays_in_its_fold_where_labels_are_flipped_for_a_study(bench: Bench) -> None:
    plant(bench.root, classes(each=8))
    one, other = (Dataset(bench.run(f"run{n}", folds=3, label_noise=n, rounds=0)) for n in (0.0, 0.5))
    assert not np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.folds(), other.folds())


def test_whether_validation_was_drawn_or_given_is_written_down_beside_the_folds(bench: Bench) -> None:
    plant(bench.root, divided())
    given = Dataset(bench.run("given", folds=2))
    # The test images stay where the source has put them.
    shutil.rmtree(bench.root / "validation")
    drawn = Dataset(bench.run("drawn", folds=2))

    assert not given.validation_is_drawn()
    assert len(drawn.validation)
    assert drawn.validation_is_drawn()


def test_without_folds_it_is_not_known_whether_validation_was_drawn(bench: Bench) -> None:
    plant(bench.root, classes(each=8))
    with pytest.raises(ConfigError, match=r"set data\.folds"):
        Dataset(bench.run(rounds=0)).validation_is_drawn()


def test_folds_of_a_version_that_did_not_say_whether_validation_was_drawn_are_to_be_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(bench.root, classes(each=8))
    write = hdf5.write

    def of_before(path: Path, arrays: dict[str, np.ndarray], about: dict[str, object]) -> None:
        write(path, arrays, {name: value for name, value in about.items() if name != "validation_drawn"})

    monkeypatch.setattr("nstudent.stages.data.hdf5.write", of_before)
    dataset = Dataset(bench.run(folds=2, rounds=0))
    with pytest.raises(ArtifactError, match=r"remove 00-data and run `nstudent stage data`"):
        dataset.validation_is_drawn()


@pytest.mark.parametrize(("folds", "said"), [("1", "write 0 for none"), ("-1", "folds"), ("2.5", "folds")])
def test_a_number_of_folds_that_is_none_is_refused(bench: Bench, folds: str, said: str) -> None:
    plant(bench.root, classes(each=8))
    with pytest.raises(ConfigError, match=said):
        bench.run(folds=float(folds) if "." in folds else int(folds), rounds=0)
