"""Rows of benchmark runs: what they say of a run, which runs are made, and the tables that are read from them."""

import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nstudent import load_config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import core_data
import pool
import rows
import settings
import tables

Json = dict[str, Any]

# A package `nstudent` for a process of its own: as a run, it leaves a folder with scores, fails, or never ends.
FAKE_RUN = """
import json, os, pathlib, sys, time
words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
folder = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1])
if words.get("data.labelled") == "forever":
    time.sleep(600)
if words.get("data.labelled") == "shared" and "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
    raise SystemExit("the GPU is shared")
if words.get("data.labelled") == "failing":
    raise SystemExit("no such labels")
for name, content in json.loads(pathlib.Path(__file__).with_name("run.json").read_text()).items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
"""


def intervals(headline: float, name: str) -> Json:
    around = {"value": headline, "low": headline - 0.01, "high": headline + 0.01}
    return {name: around, "accuracy/coarse": None}


def manifest(stage: str, **metrics: Any) -> Json:
    return {"stage": stage, "seconds": 30.0, "environment": {"torch": "2.10"}, "metrics": metrics}


def classifier(validation: float, test: float, name: str) -> Json:
    scores = {"validation": intervals(validation, name), "test": intervals(test, name)}
    for part in scores.values():
        part["exact path" if name == "contest alone" else "whole path"] = part[name]
    return {"gmacs": 0.5, "image_passes": 100, **scores}


DATA = {"labelled": 10, "unlabelled": 20, "validation": 5, "test": 6}


def old_run(final: str = "05-student", student_on_validation: float = 0.9) -> dict[str, Json]:
    """The JSON files of a run of before there were pools. The baseline is better than the teacher."""
    gain = {"value": 0.02, "low": 0.01, "high": 0.03, "probability": 1.0}
    compared = {step: {"contest alone": gain, "exact path": gain} for step in ("01-teacher", "02-baseline")}
    made = {
        "01-teacher": classifier(0.7, 0.71, "contest alone"),
        "02-baseline": classifier(0.8, 0.85, "contest alone"),
        "05-student": classifier(student_on_validation, 0.87, "contest alone"),
    }
    return {
        "00-data/manifest.json": manifest("data", **DATA),
        **{f"{step}/manifest.json": manifest(step.split("-")[1]) for step in made},
        "06-evaluate/manifest.json": manifest("evaluate"),
        "06-evaluate/scores.json": {
            "final": final,
            "classifiers": made,
            "gain": {step: gains for step, gains in compared.items() if step != final},
            "pseudo_labels": {"03-pseudolabel": {"fine": {"precision": 0.5, "kept": 3, "share": 0.25}}},
            "given_labels": {},
        },
    }


def new_run() -> dict[str, Json]:
    """The JSON files of a run whose final classifier is a pool."""
    single = classifier(0.8, 0.85, "level accuracy")
    pooled = {"name": "pool of all", "parts": {"01-teacher": 0.4, "05-student": 0.6}, "minutes": 2.0}
    pooled |= {**classifier(0.9, 0.9, "level accuracy"), "training_gmacs": None}
    alone = {**pooled, "name": "01-teacher", "parts": {"01-teacher": 1.0}, **classifier(0.8, 0.85, "level accuracy")}
    difference = {"level accuracy": {"value": 0.05, "low": 0.0, "high": 0.1, "probability": 0.97}}
    candidate = {"name": "pool of all", "parts": pooled["parts"], "saw_heap": True, "gmacs": 1.0, "validation": 0.9}
    candidate |= {"gain": None, "expected": 0.01, "temperatures": [1.0], "ends": None}
    scores = {
        "final": pooled,
        "classifiers": {"01-teacher": single, "05-student": single},
        "heap_gain": {"with_heap": pooled, "labels_alone": alone, "difference": difference, "differing": 3},
        "equal_passes": None,
        "calibration": {"coarse": {"error": 0.03, "perfect": 0.01}},
        "pseudo_labels": {},
        "given_labels": {},
    }
    return {
        "00-data/manifest.json": manifest("data", **DATA),
        "01-teacher/manifest.json": manifest("teacher"),
        "03-choose/manifest.json": manifest("choose", candidates=[]),
        "05-student/manifest.json": manifest("student"),
        "06-choose/manifest.json": manifest("choose", candidates=[candidate]),
        "07-evaluate/manifest.json": manifest("evaluate"),
        "07-evaluate/scores.json": scores,
    }


def written(files: dict[str, Json], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def row(files: dict[str, Json], folder: Path, seed: int = 0, setting: str = "digits", variant: str = "null") -> Json:
    key = {"setting": setting, "variant": variant, "seed": seed, "commit": "abc", "device": "cpu"}
    return {**key, **rows.of_run(written(files, folder))}


def test_a_run_of_before_there_were_pools_has_its_best_single_classifier_on_each_side(tmp_path: Path) -> None:
    made = rows.of_run(written(old_run(), tmp_path))
    assert (made["labels_alone"]["name"], made["with_heap"]["name"], made["final"]["name"]) == (
        "02-baseline",
        "05-student",
        "05-student",
    )
    assert made["heap_gain"]["level accuracy"] == {"value": 0.02, "low": 0.01, "high": 0.03, "probability": 1.0}
    assert made["final"]["test"] == {"level accuracy": 0.87, "whole path": 0.87, "accuracy/coarse": None}
    assert made["images"] == DATA
    assert made["classifiers"]["05-student"]["stage"] == "student"


def test_a_difference_that_such_a_run_did_not_measure_has_no_interval(tmp_path: Path) -> None:
    made = rows.of_run(written(old_run(final="01-teacher", student_on_validation=0.6), tmp_path))
    assert made["heap_gain"]["level accuracy"] == {"value": 0.02}
    assert made["final"]["name"] == "01-teacher"
    assert made["equal_passes"]["level accuracy"] == {"value": 0.02}


def test_the_sides_and_the_last_candidates_of_a_run_are_kept_as_it_says_them(tmp_path: Path) -> None:
    made = rows.of_run(written(new_run(), tmp_path))
    assert made["final"]["parts"] == {"01-teacher": 0.4, "05-student": 0.6}
    assert made["labels_alone"]["test"]["level accuracy"] == 0.85
    assert made["heap_gain"]["level accuracy"]["low"] == 0.0
    assert [each["name"] for each in made["candidates"]] == ["pool of all"]


def test_a_run_without_scores_has_no_row(tmp_path: Path) -> None:
    files = {name: content for name, content in old_run().items() if "evaluate" not in name}
    with pytest.raises(FileNotFoundError):
        rows.of_run(written(files, tmp_path))


def test_of_two_rows_of_one_run_the_last_counts(tmp_path: Path) -> None:
    file = tmp_path / "rows" / "core.jsonl"
    first = row(old_run(), tmp_path / "run")
    for each in (first, {**first, "seed": 1}, {**first, "device": "cuda"}):
        rows.append(file, each)
    assert [(each["seed"], each["device"]) for each in rows.read([file])] == [(0, "cuda"), (1, "cpu")]
    assert rows.read([tmp_path / "none.jsonl"]) == []


def test_rows_that_are_there_are_not_made_again_and_first_seeds_and_long_runs_come_first(tmp_path: Path) -> None:
    there = [{"setting": "digits", "variant": "null", "seed": 0, "commit": "abc"}]
    (tmp_path / "grocery_64.h5").touch()
    (tmp_path / "lite0.safetensors").touch()
    data = settings.Data((tmp_path,), tmp_path)
    asked = pool.Asked(["grocery", "digits"], {"null": ["a=b"]}, [1, 0], [pool.Code("abc", None)])
    found = pool.tasks(asked, there, data)
    assert [(task.key.setting, task.key.seed) for task in found] == [("grocery", 0), ("digits", 1), ("grocery", 1)]
    assert all(task.variant == ["a=b"] for task in found)
    assert pool.tasks(asked, [{**there[0], "commit": "other"}], data)[0].key.seed == 0
    assert len(pool.tasks(asked, [{**there[0], "commit": "other"}], data)) == 4


def test_a_file_that_is_missing_is_named_with_where_it_is_to_be_had(tmp_path: Path) -> None:
    asked = pool.Asked(["cifar"], {"null": []}, [0], [pool.Code("abc", None)])
    with pytest.raises(SystemExit, match=r"cifar10n_lite_lossless.npz is missing .*12,000"):
        pool.tasks(asked, [], settings.Data((tmp_path,), tmp_path / "made"))


def task(words: list[str], seed: int = 0, device: str = "cpu", seconds: float = 1.0) -> pool.Task:
    return pool.Task(rows.Key("digits", "null", seed, "abc"), words, ["rounds=1"], device, seconds)


def fake_pool(folder: Path, files: dict[str, Json], seconds: float) -> pool.Pool:
    package = folder / "code" / "nstudent"
    package.mkdir(parents=True)
    # Without it this would be a namespace package, which gives way to an installed one.
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_RUN)
    (package / "run.json").write_text(json.dumps(files))
    work = folder / "work"
    work.mkdir()
    ends = time.monotonic() + seconds
    return pool.Pool({"cpu": 2, "cuda": 2}, {"abc": folder / "code"}, work, folder / "rows.jsonl", ends)


def test_a_row_is_written_for_each_run_that_ends_and_the_others_are_told(tmp_path: Path) -> None:
    made = fake_pool(tmp_path, old_run(), 600)
    made.work([task([]), task(["data.labelled=failing"], seed=1)])
    (kept,) = rows.read([tmp_path / "rows.jsonl"])
    assert (kept["setting"], kept["seed"], kept["commit"], kept["words"]) == ("digits", 0, "abc", ["rounds=1"])
    assert kept["final"]["name"] == "05-student"
    (said,) = made.missing
    assert "digits-null-1-abc: failed" in said
    assert "no such labels" in said
    assert not (tmp_path / "work" / "digits-null-0-abc").exists()


@pytest.mark.slow
def test_what_is_under_way_at_the_end_is_stopped_and_nothing_begins_that_cannot_end(tmp_path: Path) -> None:
    made = fake_pool(tmp_path, old_run(), 1.5)
    made.took["fashion"] = [settings.SETTINGS["fashion"].seconds]
    long = task([], seed=1, seconds=500)
    made.work([task(["data.labelled=forever"]), long])
    assert [said.split(":")[1].split(",")[0].split(" after")[0] for said in made.missing] == [" not begun", " stopped"]
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.slow
def test_a_run_that_fails_on_a_shared_gpu_is_made_once_more_without_sharing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    made = fake_pool(tmp_path, old_run(), 600)
    made.work([task(["data.labelled=shared"], device="cuda"), task(["data.labelled=failing"], seed=1, device="cuda")])
    assert [kept["seed"] for kept in rows.read([tmp_path / "rows.jsonl"])] == [0]
    assert len([said for said in made.missing if said.startswith("digits-null-1")]) == 2


def test_the_gates_loss_is_the_best_on_test_less_the_final_classifier(tmp_path: Path) -> None:
    chosen_wrong = row(old_run(final="01-teacher"), tmp_path / "first")
    chosen_right = row(old_run(), tmp_path / "second", seed=1)
    table = tables.final_table(tables.grouped([chosen_wrong, chosen_right]))
    assert table[2].startswith("| digits | null (abc) | 2 | 85.0 ± 0.0 | 87.0 ± 0.0 | 79.0 ± 11.3 |")
    assert table[2].endswith("| 87.0 ± 0.0 | 8.0 ± 11.3 |")
    elsewhere = [{**each, "setting": "grocery"} for each in (chosen_right,)]
    assert tables.final_table(tables.grouped([chosen_wrong, chosen_right, *elsewhere]))[-1].endswith("**4.0** |")


def test_final_classifiers_are_compared_with_those_of_the_same_seed(tmp_path: Path) -> None:
    before = [row(old_run(), tmp_path / str(seed), seed) for seed in (0, 1)]
    before[1]["final"]["test"]["level accuracy"] = 0.95
    after = [{**row(new_run(), tmp_path / f"new-{seed}", seed), "commit": "def"} for seed in (1, 0, 2)]
    table = tables.against_table(tables.grouped([*before, *after]), "null", "abc")
    assert table[2] == "| null (def) | digits | +3.0 -5.0 | -1.0 ± 5.7 |"
    other = [{**row(new_run(), tmp_path / "other", setting="grocery"), "commit": "def"}]
    other.append(row(old_run(), tmp_path / "before", setting="grocery"))
    both = tables.against_table(tables.grouped([*before, *after, *other]), "null", "abc")
    assert both[-1] == "| null (def) | **mean of 2 settings** |  | **+1.0** |"


def test_one_table_holds_both_sides_the_gains_the_labels_and_the_cost(tmp_path: Path) -> None:
    made = [row(new_run(), tmp_path / str(seed), seed) for seed in (0, 1)]
    made[1]["labels_alone"]["test"]["level accuracy"] += 0.02
    for each in made:
        each["pseudo_labels"] = row(old_run(), tmp_path / "labels")["pseudo_labels"]
        each["labels_alone"]["image_passes"], each["with_heap"]["image_passes"] = 4000, 7000
    (line,) = tables.page_table(tables.grouped(made))[2:]
    assert line == (
        "| digits | null (abc) | 0, 1 | 86.0 ± 1.4 | 90.0 ± 0.0 | 90.0 ± 0.0 | +5.0 ± 0.0 | - | fine 50.0 ± 0.0 | "
        "0.500 | 4, 7 |"
    )
    (line,) = tables.page_table(tables.grouped(made[:1]))[2:]
    assert "±" not in line, "one seed has no spread"


def test_every_table_has_a_line_for_what_its_rows_hold(tmp_path: Path) -> None:
    shown = tables.all_tables([row(new_run(), tmp_path / "new"), row(old_run(), tmp_path / "old", seed=1)], None)
    assert "+5.0 [+0.0, +10.0]; +2.0 [+1.0, +3.0]" in shown
    assert "coarse: 2.0" in shown
    assert "fine: 50.0 (25)" in shown
    assert "Labels that people gave" not in shown


def grocery_pack(path: Path) -> Path:
    """Two classes of six training photos each, one of which ends at mid, and two test photos."""
    label = np.array([[0, 0, 0]] * 6 + [[1, 1, -1]] * 6 + [[0, 0, 0], [1, 1, -1]], np.int16)
    with h5py.File(path, "w") as file:
        file["jpeg"] = np.arange(14, dtype=np.uint8)
        file["offset"] = np.arange(15)
        file["label"], file["split"] = label, np.array([0] * 12 + [2] * 2, np.int8)
        file.attrs["meta"] = json.dumps({"levels": [["fruit", "dairy"], ["apple", "milk"], ["gala"]]})
    return path


def test_a_newcomer_has_photos_of_each_class_in_turns_and_a_heap_of_others(tmp_path: Path) -> None:
    core_data.newcomer(grocery_pack(tmp_path / "pack.h5"), tmp_path / "out", seed=0, labelled=4, heap=5)
    train = tmp_path / "out" / "photos" / "train"
    by_class = {path: sorted((train / path).glob("[0-9]*")) for path in ("fruit/apple/gala", "dairy/milk")}
    assert [len(photos) for photos in by_class.values()] == [2, 2]
    heap = {path.stem for path in (tmp_path / "out" / "heap").glob("[0-9]*")}
    assert len(heap) == 5
    assert not heap & {photo.stem for photos in by_class.values() for photo in photos}
    photo = by_class["dairy/milk"][0]
    assert photo.read_bytes() == bytes([int(photo.stem)])
    assert len(list((tmp_path / "out" / "photos" / "test").rglob("*.*"))) == 2


def test_the_first_images_of_an_idx_file_are_an_idx_file() -> None:
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 2, 3) + bytes(range(24))
    assert core_data._first(content, 2) == bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 3) + bytes(range(12))
    assert core_data._first(content, None) == content


@pytest.mark.parametrize("variant", settings.VARIANTS)
def test_the_words_of_a_variant_are_keys_of_the_configuration(variant: str) -> None:
    load_config(None, [*settings.VARIANTS[variant], *settings.one_core("abc")])


def test_the_words_of_every_setting_are_a_configuration(tmp_path: Path) -> None:
    for side in (64, 128):
        grocery_pack(tmp_path / f"grocery_{side}.h5")
    noisy = [f"cifar10n_{labels}.h5" for labels in ("random_label1", "worse_label")]
    for name in ("lite0.safetensors", "fashion-mnist", "cifar10_lite.h5", "cifar100_lite.h5", *noisy):
        (tmp_path / name).touch()
    data = settings.Data((tmp_path,), tmp_path)
    made = {name: load_config(None, entry.words(data, 3)) for name, entry in settings.SETTINGS.items()}
    assert made["newcomer"].data.root == str(tmp_path / "newcomer-3" / "photos")
    assert made["newcomer_128"].data.root == str(tmp_path / "newcomer-128-3" / "photos")
    assert made["grocery"].student.model.backbones == ("tf_efficientnet_lite0",)
    # What the student is beyond its backbone is the default's.
    assert made["grocery"].student.model.head_width == made["digits"].student.model.head_width
    assert len(made["fashion"].data.class_paths or ()) == 10
    assert [Path(made[name].data.root or "").name for name in ("cifar10n", "cifar10n_worse")] == noisy
    assert [made[name].data.labelled for name in ("digits_30", "fashion_250", "grocery_eighth")] == [30, 250, 0.125]
    assert made["grocery_scratch"].teacher.members == made["digits"].teacher.members
    assert made["grocery_scratch"].student.model == made["digits"].student.model
