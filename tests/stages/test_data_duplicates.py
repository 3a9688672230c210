"""The same image twice: equal bytes, two labels, or a copy that only looks the same."""

import io
from typing import Any

import numpy as np
import pytest
from nstudent.data.dataset import CONFLICTING, DUPLICATE, NEAR_DUPLICATE, Dataset
from nstudent.storage.artifact import Artifact
from PIL import Image
from small_folders import Bench, classes, divided, left_out, plant, png, status_by_name

# --- equal bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_image_of_train_that_is_held_out_too_is_an_error(bench: Bench, part: str) -> None:
    files = divided()
    plant(bench.root, files | {"train/pet/cat/copy.png": files[f"{part}/pet/cat/0.png"]})

    message = bench.refused()

    assert "train/pet/cat/copy.png is the same image as" in message
    assert f"{part}/pet/cat/0.png" in message
    assert "data.duplicates=drop" in message


def test_the_less_protected_of_two_equal_images_is_dropped(bench: Bench) -> None:
    files = divided()
    copies = {
        "train/pet/cat/copy.png": files["test/pet/cat/0.png"],
        "validation/pet/cat/copy.png": files["test/pet/cat/0.png"],
        "train/stone/other.png": files["validation/stone/0.png"],
    }
    plant(bench.root, files | copies)

    artifact = bench.run(duplicates="drop")

    assert set(left_out(artifact)) == set(copies)
    assert [name for name, value in status_by_name(artifact).items() if value == DUPLICATE] == sorted(copies)
    assert artifact.manifest.metrics["duplicates"] == 3
    assert artifact.manifest.metrics["test"] == artifact.manifest.metrics["validation"] == 6


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_unlabelled_copies_are_dropped_and_counted(bench: Bench, part: str) -> None:
    files = divided()
    plant(bench.root, files | {"unlabelled/copy.png": files[f"{part}/pet/cat/0.png"]})

    artifact = bench.run()

    assert left_out(artifact) == {"unlabelled/copy.png": f"the same image as {part}/pet/cat/0.png"}
    assert artifact.manifest.metrics["duplicates"] == 1
    assert artifact.manifest.metrics["unlabelled"] == 6


def test_two_equal_images_of_the_heap_are_one(bench: Bench) -> None:
    plant(bench.root, divided() | {"unlabelled/copy.png": png(300)})

    assert bench.run().manifest.metrics["unlabelled"] == 6


def test_two_unreadable_images_are_no_duplicates_of_each_other(bench: Bench) -> None:
    plant(bench.root, divided() | {"train/stone/x.png": b"", "test/stone/x.png": b""})

    metrics = bench.run(max_bad_share=0.5).manifest.metrics

    assert (metrics["unreadable"], metrics["duplicates"]) == (2, 0)


def test_equal_images_of_a_drawn_division_never_end_on_both_sides(bench: Bench) -> None:
    """Nobody is to blame for a copy that the draw put on the other side: it is left out, without an error."""
    files = classes(each=10)
    plant(bench.root, files | {name.replace(".png", "-copy.png"): content for name, content in files.items()})

    artifact = bench.run(labelled=20)
    dataset = Dataset(artifact)

    seen = {part: {dataset.pixels[np.array([i])].tobytes() for i in dataset.ids(part)} for part in range(4)}
    assert sum(len(images) for images in seen.values()) == len(set().union(*seen.values())) == 30
    assert artifact.manifest.metrics["test"] > 0


# --- two labels -------------------------------------------------------------------------------------------------------


def contested() -> dict[str, bytes]:
    """One image under two labels, a second one under three."""
    files = divided()
    return files | {
        "train/stone/cat.png": files["train/pet/cat/0.png"],
        "train/pet/dog/stone.png": files["train/stone/3.png"],
        "train/pet/cat/stone.png": files["train/stone/3.png"],
    }


def test_one_image_under_two_labels_names_both(bench: Bench) -> None:
    plant(bench.root, contested())

    message = bench.refused()

    assert message.startswith("train/stone/cat.png (labelled stone/-) is the same image as train/pet/cat/0.png")
    assert "(labelled pet/cat) (1 more images have several labels)" in message
    assert "data.conflicting_labels=drop" in message


def test_contested_images_of_train_are_left_out_and_listed(bench: Bench) -> None:
    plant(bench.root, contested())

    artifact = bench.run(conflicting_labels="drop")

    dropped = {name for name, status in status_by_name(artifact).items() if status == CONFLICTING}
    assert dropped == left_out(artifact).keys()
    assert dropped == {
        "train/pet/cat/0.png",
        "train/stone/cat.png",
        "train/stone/3.png",
        "train/pet/dog/stone.png",
        "train/pet/cat/stone.png",
    }
    assert (
        left_out(artifact)["train/pet/cat/0.png"] == "labelled pet/cat, and as train/stone/cat.png (labelled stone/-)"
    )
    assert [len(group) for group in artifact.json("findings.json")["conflicting_labels"]] == [2, 3]
    metrics = artifact.manifest.metrics
    assert (metrics["conflicting_labels"], metrics["duplicates"], metrics["labelled"]) == (5, 0, 10)


def test_a_contested_image_of_test_stays_there(bench: Bench) -> None:
    files = divided()
    plant(bench.root, files | {"train/stone/copy.png": files["test/pet/cat/0.png"]})

    artifact = bench.run(conflicting_labels="drop")

    assert list(left_out(artifact)) == ["train/stone/copy.png"]
    assert artifact.manifest.metrics["test"] == 6


def test_a_label_that_says_less_does_not_contradict(bench: Bench) -> None:
    """A table may hold a copy whose fine class nobody gave."""
    plant(bench.root, {f"{i}.png": png(i) for i in range(20)} | {"copy.png": png(0)})
    labels = [("pet", "cat") if i % 2 else ("pet", "dog") for i in range(20)]
    rows = [f"{i}.png,{','.join(label)}" for i, label in enumerate(labels)]
    (bench.root / "t.csv").write_text("\n".join(["path,coarse,fine", *rows, "copy.png,pet,"]))

    artifact = bench.run(source="csv", table="t.csv", rounds=0)

    assert artifact.json("findings.json")["conflicting_labels"] == []


# --- copies that are not equal bytes ----------------------------------------------------------------------------------


def photo(seed: int) -> Image.Image:
    """Patches of colour at three scales, as far from another seed's as two photos are."""
    random = np.random.default_rng(seed)
    layers = [Image.fromarray(random.integers(0, 256, (n, n, 3), np.uint8)).resize((96, 96), 3) for n in (3, 6, 12)]
    return Image.fromarray(np.mean([np.asarray(layer, float) for layer in layers], axis=0).astype(np.uint8))


def saved(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif_turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


COPIES = {
    "encoded": lambda image: saved(image, "JPEG", quality=60),
    "smaller": lambda image: saved(image.resize((60, 60))),
    "larger": lambda image: saved(image.resize((150, 150))),
    "brighter": lambda image: saved(image.point(lambda value: min(255, int(value * 1.1 + 5)))),
    "turned": exif_turned,
}


def photos(**more: Any) -> dict[str, bytes]:
    """A division of photos, 24 in all, without copies."""
    names = [f"{part}/{c}/{i}.png" for part in ("train", "validation", "test") for c in ("a", "b") for i in range(3)]
    names += [f"unlabelled/{i}.png" for i in range(6)]
    return {name: saved(photo(seed)) for seed, name in enumerate(names)} | more


def run_on_photos(bench: Bench, files: dict[str, bytes], **options: Any) -> Artifact:
    plant(bench.root, files)
    return bench.run(levels=["class"], image_size=64, **options)


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_held_out_photos_are_left_out_of_train_and_heap(bench: Bench, copy: str) -> None:
    names = list(photos())
    of = {
        "train/a/copy.png": "validation/a/0.png",
        "train/b/copy.png": "test/b/2.png",
        "unlabelled/copy 1.png": "validation/b/1.png",
        "unlabelled/copy 2.png": "test/a/0.png",
    }

    artifact = run_on_photos(
        bench, photos() | {name: COPIES[copy](photo(names.index(original))) for name, original in of.items()}
    )

    assert left_out(artifact) == {name: f"shows the same as {original}" for name, original in of.items()}
    assert [name for name, status in status_by_name(artifact).items() if status == NEAR_DUPLICATE] == sorted(of)
    pairs = artifact.json("findings.json")["near_duplicates"]
    assert {pair["name"]: pair["of"] for pair in pairs} == of
    assert all(pair["distance"] <= 4 and pair["difference"] <= 0.12 for pair in pairs)
    metrics = artifact.manifest.metrics
    assert (metrics["near_duplicates"], metrics["labelled"], metrics["unlabelled"]) == (4, 6, 6)


def test_a_copy_between_validation_and_test_is_reported_and_stays(bench: Bench) -> None:
    original = photo(list(photos()).index("test/a/1.png"))

    artifact = run_on_photos(bench, photos() | {"validation/a/copy.jpg": COPIES["encoded"](original)})

    assert left_out(artifact) == {}
    assert [pair["of"] for pair in artifact.json("findings.json")["near_duplicates"]] == ["test/a/1.png"]
    assert artifact.manifest.metrics["validation"] == 7


def test_a_copy_within_train_is_no_leak(bench: Bench) -> None:
    artifact = run_on_photos(bench, photos() | {"train/a/copy.jpg": COPIES["encoded"](photo(0))})

    assert artifact.json("findings.json")["near_duplicates"] == []
    assert artifact.manifest.metrics["labelled"] == 7


@pytest.mark.parametrize(("choice", "found"), [("report", 1), ("ignore", 0)])
def test_what_is_done_about_copies_is_a_choice(bench: Bench, choice: str, found: int) -> None:
    copy = {"train/a/copy.jpg": COPIES["encoded"](photo(list(photos()).index("test/a/1.png")))}

    artifact = run_on_photos(bench, photos() | copy, near_duplicates=choice)

    assert left_out(artifact) == {}
    assert artifact.manifest.metrics["findings"]["near_duplicates"] == found
    assert artifact.manifest.metrics["labelled"] == 7
