"""Every file below a folder is an image, or is counted with the reason why it is not taken."""

import io
import os
from pathlib import Path

import pytest
from nstudent.data.sources.listing import PassedOver, list_folder, summary_of
from nstudent.errors import DataError
from PIL import Image


def image(form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    return buffer.getvalue()


def plant(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def passed_over(root: Path) -> dict[str, tuple[str, int]]:
    return {each.name: (each.reason, each.files) for each in list_folder(root).passed_over}


def test_images_are_taken_by_their_content_where_the_name_says_nothing(tmp_path: Path) -> None:
    names = ["a/1.jfif", "a/2.jpe", "a/3.JPG", "a/4", "a/5.heic", "a/6.img", "a/7.jp2"]
    plant(tmp_path, *names, content=image())

    listing = list_folder(tmp_path)

    assert listing.images == names
    assert not listing.passed_over


def test_every_other_file_is_counted_with_its_reason(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "a/notes.txt", "a/Thumbs.db", "a/.DS_Store", "README")
    plant(tmp_path, "a/2.jpg.part", "a/3.jpg~", "a/4.nef", content=image("TIFF"))

    assert list_folder(tmp_path).images == ["a/1.jpg"]
    assert passed_over(tmp_path) == {
        "README": ("not an image (no suffix)", 1),
        "a/.DS_Store": ("hidden", 1),
        "a/2.jpg.part": ("unfinished downloads or backup copies", 1),
        "a/3.jpg~": ("unfinished downloads or backup copies", 1),
        "a/4.nef": ("raw files of cameras (export them as JPEG or TIFF)", 1),
        "a/Thumbs.db": ("not an image (.db)", 1),
        "a/notes.txt": ("not an image (.txt)", 1),
    }


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "lost+found", "__MACOSX", "#recycle", "System Volume Information"),
        *(".thumbnails", ".git", "@__thumb", "__pycache__", "@Recycle"),
    ],
)
def test_folders_of_machines_are_passed_over_with_all_that_they_hold(tmp_path: Path, folder: str) -> None:
    plant(tmp_path, "cat/1.png", f"cat/{folder}/1.png/SMALL.jpg", f"cat/{folder}/2.jpg")
    reason = "hidden" if folder[0] == "." else f"in {folder} (a folder of a machine)"

    listing = list_folder(tmp_path)

    assert listing.images == ["cat/1.png"]
    assert listing.folders == ["cat"]
    assert passed_over(tmp_path) == {f"cat/{folder}": (reason, 2)}


def test_what_is_no_file_is_taken_under_the_name_of_an_image_alone(tmp_path: Path) -> None:
    """Named like an image it is quarantined when it is read. Nothing waits for a pipe."""
    plant(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dead").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")

    assert list_folder(tmp_path).images == ["1.jpg", "pipe.jpg"]
    assert {name: reason for name, (reason, _) in passed_over(tmp_path).items()} == {
        "pipe": "pipes or devices",
        "dead": "links to nothing",
        "loop": "links to nothing",
    }


def test_the_order_is_that_of_the_parts_of_the_paths(tmp_path: Path) -> None:
    names = ["a/2.jpg", "a b/1.jpg", "a/b/1.jpg", "a.jpg", "a-b/1.jpg", "A/1.jpg"]
    plant(tmp_path, *names)

    assert list_folder(tmp_path).images == [path.as_posix() for path in sorted(map(Path, names))]


def test_a_link_to_an_image_is_an_image_and_one_to_a_folder_is_named(tmp_path: Path) -> None:
    plant(tmp_path / "store", "blob", content=image())
    (tmp_path / "root").mkdir()
    (tmp_path / "root/1").symlink_to(tmp_path / "store/blob")
    (tmp_path / "root/more").symlink_to(tmp_path / "store")

    listing = list_folder(tmp_path / "root")

    assert (listing.images, listing.linked_folders) == (["1"], ["more"])
    with pytest.raises(DataError, match="root/more is a link to a folder, and not followed"):
        listing.refuse_linked_folders()


@pytest.mark.parametrize("way", ["heap", "cat/../heap", "link"])
def test_a_folder_that_is_set_apart_is_no_part_however_it_is_reached(tmp_path: Path, way: str) -> None:
    plant(tmp_path / "root", "cat/1.jpg", "heap/2.jpg", "heap/3.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "root/heap")
    apart = tmp_path / "link" if way == "link" else tmp_path / "root" / way

    listing = list_folder(tmp_path / "root", [apart])

    assert (listing.images, listing.passed_over, list(listing.empty_folders())) == (["cat/1.jpg"], [], [])


def test_a_folder_that_holds_the_root_sets_nothing_apart(tmp_path: Path) -> None:
    plant(tmp_path / "root", "cat/1.jpg")

    assert list_folder(tmp_path / "root", [tmp_path, tmp_path / "root"]).images == ["cat/1.jpg"]


@pytest.mark.parametrize("mark", [".lock", "00-data/manifest.json", "00-data.partial/asked.json"])
def test_runs_are_no_part_and_neither_are_packs(tmp_path: Path, mark: str) -> None:
    plant(tmp_path, "cat/1.jpg", "runs/a/config.yaml", f"runs/a/{mark}", "runs/a/03-evaluate/scores.png")
    plant(tmp_path, *(f"packs/p/{name}" for name in ("manifest.json", "records.h5", "info.json", "x.png")))
    plant(tmp_path, "packs/q.partial/asked.json", "packs/.p.lock/.lock", "packs/.p.lock/.holder.json")

    listing = list_folder(tmp_path)

    assert (listing.images, listing.passed_over, list(listing.empty_folders())) == (["cat/1.jpg"], [], [])


def test_a_folder_of_images_with_a_page_beside_them_is_no_run(tmp_path: Path) -> None:
    plant(tmp_path, "set/config.yaml", "set/01-cats/manifest.json", "set/01-cats/1.jpg")

    assert list_folder(tmp_path).images == ["set/01-cats/1.jpg"]


def test_a_root_that_is_a_run_itself_has_its_steps_left_out(tmp_path: Path) -> None:
    plant(tmp_path, "config.yaml", ".lock", "03-evaluate/scores.png", "cat/1.jpg", "01-teacher.partial/x.png")

    assert list_folder(tmp_path).images == ["cat/1.jpg"]


def test_empty_folders_are_those_without_an_image_at_any_depth(tmp_path: Path) -> None:
    plant(tmp_path, "a/b/1.jpg", "c/notes.txt")
    (tmp_path / "d/e").mkdir(parents=True)

    assert list(list_folder(tmp_path).empty_folders()) == ["c", "d", "d/e"]


def test_the_summary_counts_by_reason_and_names_the_most_common() -> None:
    files = [PassedOver(f"{i}", f"reason {i % 8}", files=1 + i % 8) for i in range(16)]

    assert summary_of([]) == ""
    assert summary_of(files).startswith("16 reason 7, 14 reason 6")
    assert summary_of(files).endswith("6 reason 2, 6 others")


def test_a_tree_deeper_than_the_stack_is_listed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(300):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("1.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)

    assert [name.count("/") for name in list_folder(tmp_path).images] == [300]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)

    with pytest.raises(DataError, match=r"cannot list the folder .*closed"):
        list_folder(tmp_path)
