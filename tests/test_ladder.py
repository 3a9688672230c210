"""The benchmark of the contest diary's rungs: what a rung is, the synthetic tree, and the tables."""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent import load_config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import ladder
import ladder_tables
import pool
import settings
import synthetic_tree

SCORES = dict.fromkeys(ladder_tables.SCORES, 0.5)


def row(variant: str, headline: float, commit: str = "abc", seed: int = 0) -> dict[str, Any]:
    test = {**SCORES, "level accuracy": headline}
    final = {"test": test, "validation": {"level accuracy": 1 - headline}, "gmacs": 0.25, "on_tree": {"severity": 1.5}}
    key = {"setting": "ladder_tree", "variant": variant, "seed": seed, "commit": commit}
    return {**key, "final": final, "inconsistent": 0.125, "seconds": 90.0}


def weights(folder: Path) -> settings.Data:
    (folder / "weights").mkdir()
    for number in (0, 2):
        (folder / "weights" / f"tf_efficientnet_lite{number}.safetensors").touch()
    return settings.Data((folder,), folder)


@pytest.mark.parametrize("setting", settings.LADDER)
def test_every_rung_is_a_configuration(setting: str, tmp_path: Path) -> None:
    networks = ladder.networks_of(setting, weights(tmp_path))
    for part in ladder.PARTS.values():
        for rung in part():
            config = load_config(None, rung.words(networks))
            assert config.teacher.loss == rung.loss
            assert config.student.noise.cutmix == rung.cutmix
            assert len(config.teacher.members) == rung.members


def test_each_rung_of_the_diary_adds_one_thing_to_the_last() -> None:
    rungs = ladder.climbed()
    for last, rung in itertools.pairwise(rungs):
        changed = {name for name, value in dataclasses.asdict(rung).items() if getattr(last, name) != value}
        # A loss and the labels or the heads that it is for are one thing.
        one_thing = ("network", "absent", "class_weights", "head", "cutmix")
        assert changed - {"name"} in [{"head", "loss"}, {"loss", "absent"}, *({key} for key in one_thing)]
    assert set(ladder_tables.DIARY) < {rung.name for rung in rungs}


def test_the_names_of_rungs_are_theirs_alone() -> None:
    names = [rung.name for part in ladder.PARTS.values() for rung in part()]
    assert len(set(names)) == len(names)


def test_the_synthetic_tree_has_the_shape_of_the_contests() -> None:
    paths = synthetic_tree.tree_paths()
    assert paths.shape == (107, 3)
    assert [len(set(paths[:, level]) - {-1}) for level in range(3)] == [12, 53, 42]
    depth = (paths >= 0).sum(axis=1)
    leaf = [
        not ((paths[:, :deep] == path[:deep]).all(axis=1) & (depth > deep)).any()
        for path, deep in zip(paths, depth, strict=True)
    ]
    assert [int(np.sum(leaf & (depth == deep))) for deep in (1, 2, 3)] == [2, 38, 42]
    shares = synthetic_tree.frequencies(paths, np.random.default_rng(0))
    assert shares.sum() == pytest.approx(1)
    assert shares[~np.array(leaf)].sum() == pytest.approx(synthetic_tree.STOPS)
    assert shares.max() > 5 * shares.min() > 0


def test_images_of_a_class_are_like_each_other_and_unlike_others() -> None:
    generator = np.random.default_rng(1)
    textures = synthetic_tree.textures(generator)
    labels = np.array([[0, 0, 0]] * 20 + [[1, 1, -1]] * 20, np.int16)
    images = synthetic_tree.draw_images(labels, textures, generator)
    assert images.shape == (40, 32, 32, 3)
    assert images.dtype == np.uint8
    first, second = images[:20].mean(axis=0), images[20:].mean(axis=0)
    assert np.abs(images[0] - first).mean() < np.abs(images[0] - second).mean()


def test_tables_show_the_newest_rows_of_a_rung_beside_the_diarys_figure() -> None:
    made = [row("late CutMix", 0.5), row("late CutMix", 0.75, "def"), row("decoder crm", 0.25)]
    names = {part: [rung.name for rung in make()] for part, make in ladder.PARTS.items()}
    shown = ladder_tables.ladder_tables(made, names)
    assert "| late CutMix | 93.3 | - | - | 75.0 |" in shown
    assert "50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 1.50 | 12.5 | 0.2500 | 1.5 |" in shown
    assert "### decoders: ladder_tree" in shown
    assert "### pairs" not in shown


def test_what_goes_beyond_the_diary_stands_on_the_rung_that_is_best_on_validation() -> None:
    names = [rung.name for rung in ladder.climbed()]
    made = [row(name, 0.5) for name in names]
    made += [row("class weights", 0.25, seed=1), row("late CutMix", 0.3125, "def")]  # 0.625 and 0.6875 on validation
    rungs = ladder._asked(["beyond", "decoders"], "ladder_tree", made)
    assert [rung.name for rung in rungs] == [rung.name for rung in ladder.beyond(ladder.climbed()[-1])]
    with pytest.raises(SystemExit, match="no row of 'class weights'"):
        ladder._asked(["beyond"], "ladder_tree", [each for each in made if each["variant"] != "class weights"])


def test_a_row_names_no_folder_of_a_machine() -> None:
    networks = ladder.Networks("a", "b", "backbones: [x], pretrained: /some/where/weights", 1)
    (model, *_) = ladder.climbed()[-1].words(networks)
    assert pool._portable(model) == ("teacher.members=[{backbones: [x], pretrained: weights, head: fine_to_coarse}]")
    assert pool._portable("data.root=/a/b/c.h5") == "data.root=c.h5"
    assert pool._portable("student.noise.cutmix=0.5") == "student.noise.cutmix=0.5"
