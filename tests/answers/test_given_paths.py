import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from nstudent.answers.given_paths import each_path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/2.jpg", "b/1.png", "b/deep/3.jpg", "b/notes.txt", "a/4.jpg", "[x].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _all(*given: str, listed: Iterable[str] = ()) -> list[str]:
    return list(each_path(given, listed))


def test_files_folders_and_patterns_stand_in_the_order_in_which_they_are_given(photos: Path) -> None:
    assert _all("b/2.jpg", "a", "b/*.jpg", "gone.jpg") == ["b/2.jpg", "a/4.jpg", "b/2.jpg", "gone.jpg"]


def test_a_folder_is_all_images_below_it_and_no_other_files(photos: Path) -> None:
    assert _all("b") == ["b/1.png", "b/2.jpg", "b/deep/3.jpg"]


def test_two_stars_go_to_any_depth_and_name_each_image_once(photos: Path) -> None:
    assert _all("b/**/*.jpg") == ["b/2.jpg", "b/deep/3.jpg"]
    assert sorted(_all("b/**")) == ["b/1.png", "b/2.jpg", "b/deep/3.jpg", "b/notes.txt"]


def test_a_file_that_has_the_very_name_of_a_pattern_is_that_file(photos: Path) -> None:
    assert _all("[x].jpg") == ["[x].jpg"]


def test_a_list_is_read_line_by_line_and_names_keep_their_blanks(photos: Path) -> None:
    assert _all("-", listed=["a\n", "\n", " b .jpg\r\n", "b/*.jpg\n"]) == ["a/4.jpg", " b .jpg", "b/*.jpg"]


def test_nothing_is_read_ahead_of_what_is_wanted() -> None:
    def lines() -> Iterable[str]:
        yield "first.jpg\n"
        raise AssertionError("read ahead")

    assert next(each_path(["-"], lines())) == "first.jpg"


def test_a_pattern_that_matches_nothing_is_passed_on_as_one_image_that_cannot_be_read(photos: Path) -> None:
    assert _all("*.gif", "a") == ["*.gif", "a/4.jpg"]


def test_a_folder_without_images_is_passed_on_as_one_image_that_cannot_be_read(photos: Path) -> None:
    (photos / "empty").mkdir()
    assert _all("empty", "a") == ["empty", "a/4.jpg"]


def test_a_file_that_is_named_like_a_pattern_is_that_file_alone(tmp_path: Path) -> None:
    for name in ("a[1].png", "a1.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(each_path([str(tmp_path / "a[1].png")], [])) == [str(tmp_path / "a[1].png")]


def test_any_depth_of_a_pattern_goes_through_no_link_to_a_folder(photos: Path) -> None:
    """Two links in a circle would be followed forty times in every order."""
    os.symlink(".", "b/circle")
    os.symlink("b", "c")
    assert _all("b/**/*.jpg") == ["b/2.jpg", "b/deep/3.jpg"]
    assert _all("**/deep/**/*.jpg") == ["b/deep/3.jpg"]
    assert _all("**/2.jpg", "*/2.jpg") == ["b/2.jpg", "b/2.jpg", "c/2.jpg"]
    assert _all(os.path.abspath("b") + "/**/3.*") == [os.path.abspath("b/deep/3.jpg")]
