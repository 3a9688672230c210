"""Labels as the data stage takes them: what contradicts the tree, what is odd, and what is not enough."""

from typing import Any

import pytest
from nstudent.data.dataset import THINNED, Dataset
from nstudent.storage.artifact import Artifact
from small_folders import Bench, classes, divided, plant, png, status_by_name


def test_a_label_that_contradicts_the_taxonomy_names_the_file(bench: Bench) -> None:
    plant(bench.root, classes() | {"stone/cat/wrong.png": png(900)})

    message = bench.refused(taxonomy={"pet": ["cat", "dog"], "stone": []})

    assert message.startswith("stone/cat/wrong.png: ")
    assert "contradicts the taxonomy" in message


def test_a_class_that_the_taxonomy_lacks_names_the_file(bench: Bench) -> None:
    plant(bench.root, classes())

    assert bench.refused(taxonomy={"pet": ["cat"], "stone": []}).startswith("pet/dog/0.png: ")


def test_a_class_without_an_image_may_stand_in_the_taxonomy(bench: Bench) -> None:
    plant(bench.root, divided())

    artifact = bench.run(taxonomy={"pet": ["cat", "dog", "fish"], "stone": []})

    assert Dataset(artifact).taxonomy.classes == (("pet", "stone"), ("cat", "dog", "fish"))


def test_a_level_without_any_class_names_the_level(bench: Bench) -> None:
    """A folder of two levels under the three that are the default: no network can have an output for the third."""
    plant(bench.root, divided())

    message = bench.refused(levels=["coarse", "fine", "finest"])

    assert "finest" in message
    assert "data.levels" in message


def test_no_unlabelled_images_names_the_ways_out(bench: Bench) -> None:
    plant(bench.root, classes())

    message = bench.refused()

    assert "data.unlabelled_root" in message
    assert "rounds=0" in message
    assert bench.run(rounds=0).manifest.metrics["unlabelled"] == 0


def test_without_unlabelled_images_nothing_is_decoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(bench.root, classes())

    def decoded(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("nstudent.stages.data.fill", decoded)
    # What a look at the top of the folder cannot know.
    assert "data.unlabelled_root" in bench.refused(labelled=1000)


def test_the_heap_is_thinned_to_the_number_asked_for(bench: Bench) -> None:
    plant(bench.root, divided())

    artifact = bench.run(unlabelled=2)

    assert len(Dataset(artifact).unlabelled) == artifact.manifest.metrics["unlabelled"] == 2
    assert list(status_by_name(artifact).values()).count(THINNED) == 4


# --- what is odd and legal --------------------------------------------------------------------------------------------


def found(artifact: Artifact) -> dict[str, list[Any]]:
    return artifact.json("findings.json")


def test_a_class_with_one_image_stays_in_train_and_is_reported(bench: Bench) -> None:
    plant(bench.root, classes(each=20) | {"pet/fox/only.png": png(700), "rare/only.png": png(701)})

    artifact = bench.run(labelled=10)
    dataset = Dataset(artifact)

    split = {dataset.name(i): int(dataset.split[i]) for i in range(len(dataset))}
    assert split["pet/fox/only.png"] == split["rare/only.png"] == 0
    assert {"pet/fox", "rare"} <= set(found(artifact)["one_training_image"])
    assert artifact.manifest.metrics["findings"]["one_training_image"] == len(found(artifact)["one_training_image"])


def test_a_class_that_only_test_shows_is_legal_and_reported(bench: Bench) -> None:
    plant(bench.root, divided() | {"test/pet/owl/1.png": png(500), "validation/sky/1.png": png(501)})

    artifact = bench.run()

    assert found(artifact)["held_out_only"] == ["pet/owl", "sky"]
    assert artifact.manifest.metrics["findings"]["held_out_only"] == 2
    assert Dataset(artifact).taxonomy.classes == (("pet", "sky", "stone"), ("cat", "dog", "owl"))


def test_a_name_under_two_parents_is_two_classes_and_reported(bench: Bench) -> None:
    plant(bench.root, divided() | {"train/stone/cat/1.png": png(500)})

    artifact = bench.run()

    assert found(artifact)["several_parents"] == [{"level": "fine", "name": "cat", "parents": ["pet", "stone"]}]


def test_a_source_in_order_has_no_findings(bench: Bench) -> None:
    plant(bench.root, divided())

    assert not any(found(bench.run()).values())


# --- what is not enough -----------------------------------------------------------------------------------------------


def test_images_of_one_label_have_nothing_to_tell_apart(bench: Bench) -> None:
    plant(bench.root, {f"pet/cat/{i}.png": png(i) for i in range(20)})

    assert "nothing to tell apart" in bench.refused(rounds=0)


def test_one_image_asks_for_more(bench: Bench) -> None:
    plant(bench.root, {"pet/cat/1.png": png(1)})

    assert "label more images" in bench.refused(rounds=0)


def test_nothing_but_unlabelled_images_is_refused(bench: Bench) -> None:
    plant(bench.root, {f"{i}.png": png(i) for i in range(5)})

    assert "no label names a class" in bench.refused()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_split_whose_images_are_all_unreadable_is_refused(bench: Bench, part: str) -> None:
    broken = {name: b"<html>" + name.encode() for name in divided() if name.startswith(part)}
    plant(bench.root, divided() | broken)

    message = bench.refused(max_bad_share=0.9)

    assert f"no usable {'labelled' if part == 'train' else part} image is left" in message


# --- the order of levels ----------------------------------------------------------------------------------------------


def table(bench: Bench, levels: list[str]) -> dict[str, Any]:
    rows = {f"{fine}-{i}": (coarse, mid, fine) for coarse, mid, fine in LEAVES for i in range(4)}
    plant(bench.root, {f"{name}.png": png(i) for i, name in enumerate(rows)})
    lines = ["path,coarse,mid,fine", *(f"{name}.png,{','.join(row)}" for name, row in rows.items())]
    (bench.root / "t.csv").write_text("\n".join(lines))
    return {"source": "csv", "table": "t.csv", "levels": levels, "rounds": 0}


LEAVES = [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "c"), ("B", "B1", "d"), ("B", "B1", "e")]


@pytest.mark.parametrize(
    "levels", [["fine", "mid", "coarse"], ["mid", "coarse", "fine"], ["coarse", "fine", "mid"], ["fine", "mid"]]
)
def test_levels_out_of_order_are_noticed(bench: Bench, levels: list[str]) -> None:
    message = bench.refused(**table(bench, levels))

    assert "data.levels seems to be in the wrong order" in message
    assert "data.taxonomy" in message


@pytest.mark.parametrize("levels", [["coarse", "mid", "fine"], ["coarse", "fine"], ["mid", "fine"], ["fine"]])
def test_levels_in_order_are_taken(bench: Bench, levels: list[str]) -> None:
    assert bench.run(**table(bench, levels)).manifest.metrics["terminals"] == 5


def test_every_label_that_does_not_fit_is_counted(bench: Bench) -> None:
    plant(bench.root, classes() | {f"stone/cat/{i}.png": png(900 + i) for i in range(3)})

    message = bench.refused(taxonomy={"pet": ["cat", "dog"], "stone": []})

    assert message.startswith("stone/cat/0.png: ")
    assert message.endswith("(2 more images have a label that does not fit)")
