"""A folder whose tree is the taxonomy. No image is decoded here: an empty file with the right name will do."""

import os
from pathlib import Path
from typing import Any

import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source, source_seen
from nstudent.errors import DataError


def plant(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def config(root: Path, **options: Any) -> DataConfig:
    return DataConfig(source="folder", root=str(root), **options)


def found(root: Path, **options: Any) -> dict[str, tuple[tuple[str, ...], str | None]]:
    catalogue = open_source(config(root, **options)).catalogue()
    return {record.name: (record.label, record.split) for record in catalogue.records}


def test_depth_is_the_depth_of_the_label(tmp_path: Path) -> None:
    plant(tmp_path, "a/b/c/1.jpg", "a/b/2.png", "a/3.webp", "4.jpg")

    assert (
        found(tmp_path, levels=("coarse", "mid", "fine"))
        == found(tmp_path)
        == {
            "4.jpg": (("", "", ""), None),
            "a/3.webp": (("a", "-", "-"), None),
            "a/b/2.png": (("a", "b", "-"), None),
            "a/b/c/1.jpg": (("a", "b", "c"), None),
        }
    )


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "validation/a/2.jpg", "test/a/3.jpg", "unlabelled/x/y/z/deep/4.jpg")

    assert found(tmp_path, levels=("coarse",)) == {
        "train/a/1.jpg": (("a",), "train"),
        "validation/a/2.jpg": (("a",), "validation"),
        "test/a/3.jpg": (("a",), "test"),
        "unlabelled/x/y/z/deep/4.jpg": (("",), "unlabelled"),
    }


def test_a_further_folder_is_all_unlabelled(tmp_path: Path) -> None:
    plant(tmp_path / "labelled", "a/1.jpg")
    plant(tmp_path / "heap", "1.jpg", "any/where/2.jpg")

    records = found(tmp_path / "labelled", unlabelled_root=str(tmp_path / "heap"), levels=("c",))

    assert records == {
        "a/1.jpg": (("a",), None),
        "unlabelled:1.jpg": (("",), "unlabelled"),
        "unlabelled:any/where/2.jpg": (("",), "unlabelled"),
    }


def test_reading_gives_the_bytes_of_that_record(tmp_path: Path) -> None:
    plant(tmp_path / "root", "b/2.jpg", "a/1.jpg")
    plant(tmp_path / "heap", "3.jpg")
    source = open_source(config(tmp_path / "root", unlabelled_root=str(tmp_path / "heap"), levels=("c",)))

    names = [record.name for record in source.catalogue().records]

    assert [source.read(i) for i in range(3)] == [b"a/1.jpg", b"b/2.jpg", b"3.jpg"]
    assert names == ["a/1.jpg", "b/2.jpg", "unlabelled:3.jpg"]


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.JPG", "a/.hidden.jpg", "a/notes.txt", ".cache/b/2.jpg", "a/.thumbs/3.jpg", "README.md")

    assert list(found(tmp_path)) == ["a/1.JPG"]


def test_odd_names_are_kept_as_they_are(tmp_path: Path) -> None:
    names = ["고양이/코숏/🐈.jpg", 'a b/c\'d "e"/,;.jpg', "café/x/=1+1.jpg", "[glob]/*/?.jpg"]
    plant(tmp_path, *names)

    records = found(tmp_path)

    assert sorted(records) == sorted(names)
    assert records[names[0]][0] == ("고양이", "코숏")


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    try:
        (tmp_path / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")

    (name,) = found(tmp_path)

    assert os.fsencode(name) == b"a/caf\xe9.jpg"


def test_too_deep_an_image_names_the_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/b/c/d/1.jpg")

    with pytest.raises(DataError, match=r"a/b/c/d/1\.jpg lies 4 folders deep"):
        found(tmp_path)


@pytest.mark.parametrize("empty", ["b", "a/empty", "a/x/y"])
def test_an_empty_class_folder_is_named(tmp_path: Path, empty: str) -> None:
    plant(tmp_path, "a/1.jpg")
    (tmp_path / empty).mkdir(parents=True)

    with pytest.raises(DataError, match="holds no image"):
        found(tmp_path)


def test_an_empty_class_of_one_split_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "test/a/2.jpg")
    (tmp_path / "test" / "b").mkdir()

    with pytest.raises(DataError, match=r"test/b holds no image"):
        found(tmp_path)


def test_no_image_at_all_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        found(tmp_path)


@pytest.mark.parametrize("key", ["root", "unlabelled_root"])
def test_a_missing_folder_names_the_key(tmp_path: Path, key: str) -> None:
    folders = {"root": str(tmp_path), key: str(tmp_path / "gone")}

    with pytest.raises(DataError, match=rf"data\.{key}: there is no folder .*gone"):
        open_source(DataConfig(source="folder", **folders))


def test_the_stamp_changes_with_the_data(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg")
    before = source_seen(config(tmp_path)).stamp
    assert source_seen(config(tmp_path)).stamp == before

    plant(tmp_path, "a/2.jpg")
    added = source_seen(config(tmp_path)).stamp
    (tmp_path / "a" / "2.jpg").write_bytes(b"longer than it was")
    edited = source_seen(config(tmp_path)).stamp
    (tmp_path / "a" / "2.jpg").rename(tmp_path / "a" / "3.jpg")

    assert len({before, added, edited, source_seen(config(tmp_path)).stamp}) == 4


def test_a_class_folder_beside_the_splits_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "dog/b/3.jpg")

    with pytest.raises(DataError, match=r"dog lies beside the split folders"):
        found(tmp_path)


@pytest.mark.parametrize("link", ["a/again", "a/b/elsewhere", "b"])
def test_a_link_to_a_folder_is_named_and_not_followed(tmp_path: Path, link: str) -> None:
    """In a circle it would never end; passed over in silence, its images would be missing."""
    plant(tmp_path / "root", "a/b/1.jpg")
    plant(tmp_path / "other", "2.jpg")
    target = tmp_path / ("root/a" if link == "a/again" else "other")
    (tmp_path / "root" / link).symlink_to(target, target_is_directory=True)

    with pytest.raises(DataError, match=rf"root/{link} is a link to a folder, and not followed: put the folder"):
        found(tmp_path / "root")


def test_a_linked_folder_of_the_heap_is_named(tmp_path: Path) -> None:
    plant(tmp_path / "root", "a/1.jpg")
    plant(tmp_path / "heap", "2.jpg")
    plant(tmp_path / "elsewhere", "3.jpg")
    (tmp_path / "heap" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)

    with pytest.raises(DataError, match="heap/more is a link to a folder"):
        found(tmp_path / "root", unlabelled_root=str(tmp_path / "heap"))


def test_a_link_to_an_image_is_an_image(tmp_path: Path) -> None:
    plant(tmp_path / "store", "1.jpg")
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "1.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    source = open_source(config(tmp_path / "root"))

    assert [record.name for record in source.catalogue().records] == ["a/1.jpg"]
    assert source.read(0) == b"1.jpg"


def test_the_stamp_of_a_dead_link_is_taken(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg")
    before = source_seen(config(tmp_path)).stamp
    (tmp_path / "a" / "2.jpg").symlink_to("gone.jpg")

    assert source_seen(config(tmp_path)).stamp != before


def test_names_of_the_greatest_length_and_of_both_spellings_of_an_accent(tmp_path: Path) -> None:
    names = [f"a/{'x' * 251}.jpg", "a/\u00e9.jpg", "a/e\u0301.jpg", "a/A.jpg", "a/a.jpg"]
    plant(tmp_path, *names)

    assert sorted(found(tmp_path)) == sorted(names)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "\x1b[31m"])
def test_a_root_that_is_no_path_names_the_key(path: str) -> None:
    with pytest.raises(DataError, match=r"data\.root: there is no folder") as caught:
        open_source(DataConfig(source="folder", root=path))
    assert str(caught.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_an_error_about_a_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c" / os.fsdecode(b"caf\xe9")
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(b"x")

    with pytest.raises(DataError, match="4 folders deep") as caught:
        found(tmp_path)
    assert "caf\\udce9" in str(caught.value).encode().decode()


# --- splits under other names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "dev", "testing"),
        ("TRAIN", "Valid", "Test"),
        ("train_set", "val2017", "tst"),
    ],
)
def test_usual_names_of_splits_are_understood_in_any_spelling(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    plant(tmp_path, f"{train}/a/1.jpg", f"{validation}/a/2.jpg", f"{test}/a/3.jpg", "Unlabeled/x/4.jpg")

    assert found(tmp_path) == {
        f"{train}/a/1.jpg": (("a",), "train"),
        f"{validation}/a/2.jpg": (("a",), "validation"),
        f"{test}/a/3.jpg": (("a",), "test"),
        "Unlabeled/x/4.jpg": (("",), "unlabelled"),
    }


def test_other_names_of_splits_are_said(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "val/a/2.jpg")

    assert "folders taken as splits: val as validation" in open_source(config(tmp_path)).catalogue().notes


def test_the_order_of_images_is_that_of_the_splits(tmp_path: Path) -> None:
    plant(tmp_path, "test/a/1.jpg", "train/b/2.jpg", "validation/a/3.jpg", "unlabelled/4.jpg", "train/a/5.jpg")

    assert list(found(tmp_path)) == [
        *("train/a/5.jpg", "train/b/2.jpg", "validation/a/3.jpg", "test/a/1.jpg", "unlabelled/4.jpg")
    ]


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabeled images"])
def test_a_heap_may_stand_beside_class_folders(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "cat/1.jpg", "dog/2.jpg", f"{name}/3.jpg")

    assert found(tmp_path)[f"{name}/3.jpg"] == (("",), "unlabelled")
    assert found(tmp_path)["cat/1.jpg"] == (("cat",), None)


def test_images_beside_split_folders_are_unlabelled_and_not_lost(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "val/a/2.jpg", "3.jpg")

    assert found(tmp_path)["3.jpg"] == (("",), None)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    plant(tmp_path, "bus/1.jpg", "car/2.jpg", "train/3.jpg")

    with pytest.raises(DataError, match=r"train was taken for a split.*data\.split_folders=none"):
        found(tmp_path)
    assert found(tmp_path, split_folders="none")["train/3.jpg"] == (("train",), None)


def test_a_class_within_a_split_may_be_called_like_a_split(tmp_path: Path) -> None:
    plant(tmp_path, "train/train/1.jpg", "train/bus/2.jpg", "val/train/3.jpg", "val/bus/4.jpg")

    assert found(tmp_path)["val/train/3.jpg"] == (("train",), "validation")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("eval/a/1.jpg", "train/a/2.jpg"), "eval in .* looks like a split, and not which: rename it to validation or"),
        (("train/a/1.jpg", "Train/a/2.jpg"), "Train and train in .* both say train|train and Train in"),
        (("val/a/1.jpg", "validation/a/2.jpg"), "both say validation: make them one folder"),
        (("seg_train/a/1.jpg", "seg_test/a/2.jpg"), "seg_train and seg_test in .* rename them to train and test"),
        (("set/train/a/1.jpg", "set/val/a/2.jpg"), "train and val below the top of .* set data.root to the folder"),
        (("a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg"), "test and train below the top of"),
        (("train/train/a/1.jpg", "test/test/a/2.jpg"), "test and train below the top of"),
        (("set/x_train/a/1.jpg", "set/x_val/a/2.jpg"), "x_train and x_val below the top of"),
        (("train/a/1.jpg", "test/2.jpg"), "test/2.jpg is for test and lies in no class folder: .* to unlabelled"),
    ],
)
def test_what_looks_like_splits_is_never_taken_for_classes(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    plant(tmp_path, *names)

    with pytest.raises(DataError, match=said):
        found(tmp_path)


def test_an_empty_split_is_named_and_folders_beside_splits_may_be_empty(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "annotations/1.xml")
    assert list(found(tmp_path)) == ["train/a/1.jpg"]

    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match=r"the folder .*test holds no image: fill it or remove it"):
        found(tmp_path)


# --- levels, and what is no class -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "levels"),
    [("a/1.jpg", ("class",)), ("a/b/1.jpg", ("coarse", "fine")), ("a/b/c/1.jpg", ("coarse", "mid", "fine"))],
)
def test_levels_follow_from_the_depth_of_the_class_folders(tmp_path: Path, name: str, levels: tuple[str, ...]) -> None:
    plant(tmp_path, f"train/{name}", f"val/{name}", "unlabelled/w/x/y/z/2.jpg", "3.jpg")

    catalogue = open_source(config(tmp_path)).catalogue()

    assert catalogue.levels == levels
    assert {len(record.label) for record in catalogue.records} == {len(levels)}
    assert any(f"data.levels=[{', '.join(levels)}]" in note for note in catalogue.notes)


def test_what_may_be_odd_about_levels_that_follow_from_the_folders_is_said(tmp_path: Path) -> None:
    plant(tmp_path, "images/cat/1.jpg", "images/dog/2.jpg", "images/dog/3.jpg", "images/4.jpg")

    (note,) = open_source(config(tmp_path)).catalogue().notes

    assert "; 1 of 4 images lie above the deepest" in note
    assert "; all lie in 'images', which should go if it is no class" in note
    plant(tmp_path, "drawings/cat/5.jpg")
    (note,) = open_source(config(tmp_path)).catalogue().notes
    assert "all lie in" not in note


def test_folders_that_all_hold_the_same_classes_are_no_classes_unless_the_levels_are_named(tmp_path: Path) -> None:
    names = [f"{part}/{name}/1.jpg" for part in ("fold1", "fold2") for name in ("cat", "dog")]
    plant(tmp_path, *names)

    with pytest.raises(DataError, match=r"fold1, fold2 and all others .* write data\.levels=\[coarse, fine\]; if not"):
        found(tmp_path)
    assert len(found(tmp_path, levels=("coarse", "fine"))) == 4
    plant(tmp_path, "fold2/fox/1.jpg")
    assert len(found(tmp_path)) == 5


def test_levels_that_are_named_stand(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/2.jpg")

    assert open_source(config(tmp_path, levels=("kind", "make"))).catalogue().levels == ("kind", "make")


def test_images_without_any_class_folder_say_where_they_belong(tmp_path: Path) -> None:
    plant(tmp_path, "1.jpg", "2.jpg")

    with pytest.raises(DataError, match=r"holds no image in a class folder: put them in .*class/image\.jpg"):
        found(tmp_path)


@pytest.mark.parametrize("name", [" ", "-", "–", '""', "\u200b"])
def test_a_folder_whose_name_means_nothing_is_no_class(tmp_path: Path, name: str) -> None:
    plant(tmp_path, "a/1.jpg", f"{name}/2.jpg")

    with pytest.raises(DataError, match="has a name that means absent or unknown: rename it"):
        found(tmp_path)


def test_a_folder_that_is_named_like_an_image_is_no_class(tmp_path: Path) -> None:
    plant(tmp_path, "cat/1.jpg", "cat/000.PNG/thumb.jpg")

    with pytest.raises(DataError, match=r"the class folder '000\.PNG' .* is named like an image"):
        found(tmp_path)


def test_thumbnails_of_a_network_drive_are_no_classes(tmp_path: Path) -> None:
    plant(tmp_path, "cat/1.jpg", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "dog/2.jpg")

    catalogue = open_source(config(tmp_path)).catalogue()

    assert (len(catalogue.records), catalogue.levels) == (2, ("class",))
    assert [each.name for each in catalogue.passed_over] == ["cat/@eaDir"]


def test_a_class_folder_without_a_file_that_is_taken_says_what_it_holds(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/2.txt")

    with pytest.raises(DataError, match=r"b holds no image \(not taken there: 1 not an image \(\.txt\)\)"):
        found(tmp_path)


# --- folders within folders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["heap", "cat/../heap", "linked from outside", "linked from inside"])
def test_a_heap_within_the_root_is_no_class(tmp_path: Path, way: str) -> None:
    root = tmp_path / "root"
    plant(root, "cat/1.jpg", "dog/2.jpg")
    if way == "linked from inside":
        plant(tmp_path / "heap", "3.jpg", "4.jpg")
        (root / "heap").symlink_to(tmp_path / "heap")
    else:
        plant(root, "heap/3.jpg", "heap/4.jpg")
        (tmp_path / "heap").symlink_to(root / "heap")
    heap = tmp_path / "heap" if way == "linked from outside" else root / ("heap" if "linked" in way else way)

    records = found(root, unlabelled_root=str(heap))

    assert records == {
        "cat/1.jpg": (("cat",), None),
        "dog/2.jpg": (("dog",), None),
        "unlabelled:3.jpg": (("",), "unlabelled"),
        "unlabelled:4.jpg": (("",), "unlabelled"),
    }


def test_labelled_images_within_the_heap_are_not_listed_twice(tmp_path: Path) -> None:
    plant(tmp_path, "labelled/cat/1.jpg", "labelled/dog/2.jpg", "3.jpg")

    records = found(tmp_path / "labelled", unlabelled_root=str(tmp_path))

    assert sorted(records) == ["cat/1.jpg", "dog/2.jpg", "unlabelled:3.jpg"]


def test_a_heap_that_is_the_root_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, "cat/1.jpg")

    with pytest.raises(DataError, match=r"data\.unlabelled_root is data\.root itself"):
        open_source(config(tmp_path, unlabelled_root=f"{tmp_path}/cat/.."))


def test_the_stamp_is_of_the_images_alone(tmp_path: Path) -> None:
    """A run within the root, a text beside the images and a hidden file are not read, and make nothing stale."""
    plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
    before = source_seen(config(tmp_path)).stamp

    plant(tmp_path, "notes.txt", "cat/.DS_Store", "cat/@eaDir/1.jpg/x.jpg", "runs/a/config.yaml", "runs/a/.lock")
    plant(tmp_path, "runs/a/03-evaluate/scores.png")
    assert source_seen(config(tmp_path)).stamp == before

    (tmp_path / "cat" / "3").write_bytes(b"\xff\xd8\xff\xe0")
    assert source_seen(config(tmp_path)).stamp != before
