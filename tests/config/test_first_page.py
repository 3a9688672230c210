"""The rules of the first configuration file, and its text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nstudent.config.file import load_config
from nstudent.config.first_page import Entry, Situation, as_text, configured, propose, shortened, wants_weights

PHOTOS = Situation(
    data={"source": "folder", "root": "photos", "unlabelled_root": "my heap"},
    name="photos",
    side=128,
    unlabelled=300,
    weights=False,
)
ROOT = Path(__file__).resolve().parents[2]


def _values(situation: Situation) -> dict[str, Any]:
    return {entry.key: entry.value for entry in propose(situation)}


@pytest.mark.parametrize(
    ("side", "weights", "has_gpu", "px"),
    [
        (8, False, False, 32),
        (63, False, True, 32),
        (64, False, False, 64),
        (1024, False, True, 64),
        (1024, True, False, 224),
        (1024, True, True, 224),
        (64, True, True, 224),
        (63, True, True, 32),
        (None, False, False, 32),
    ],
)
def test_the_size_follows_from_the_images_the_weights_and_the_machine(
    side: int | None, weights: bool, has_gpu: bool, px: int
) -> None:
    assert _values(replace(PHOTOS, side=side, weights=weights, has_gpu=has_gpu))["data.image_size"] == px


@pytest.mark.parametrize(("side", "has_gpu", "seen"), [(1024, False, 128), (1024, True, None), (63, False, None)])
def test_a_cpu_trains_on_less_than_the_probe_sees(side: int, has_gpu: bool, seen: int | None) -> None:
    situation = replace(PHOTOS, side=side, weights=True, has_gpu=has_gpu)
    found = configured(propose(situation))
    networks = [*found.teacher.members, found.student.model]
    assert [network.model_dump()["image_size"] for network in networks] == [seen] * 3
    assert ("without image_size" in as_text(propose(situation), [])) is (seen is not None)


def test_without_weights_everything_but_the_size_is_left_to_the_recipe() -> None:
    assert {key for key in _values(PHOTOS) if not key.startswith("data.")} == {"name"}
    photos = configured(propose(PHOTOS))
    by_hand = load_config(None, ["data.source=folder", "data.root=photos"])
    assert (photos.teacher, photos.student) == (by_hand.teacher, by_hand.student)
    assert not wants_weights(63)
    assert not wants_weights(None)


@pytest.mark.parametrize("weights", [True, "weights/lite0.safetensors"])
def test_with_weights_they_are_in_every_network_and_the_recipe_decides_the_rest(weights: bool | str) -> None:
    found = configured(propose(replace(PHOTOS, weights=weights)))
    networks = [*found.teacher.members, found.student.model]
    assert [network.model_dump()["pretrained"] for network in networks] == [weights] * 3
    # Those that are downloaded differ in kind; a file holds the weights of one network.
    names = ["tf_efficientnet_lite0", "mobilenetv3_large_100" if weights is True else "tf_efficientnet_lite0"]
    assert [network.model_dump()["backbones"] for network in networks] == [(name,) for name in (*names, names[0])]
    members = [f"{{backbones: [{name}], pretrained: {weights}}}".replace("True", "true") for name in names]
    words = ["data.source=folder", "data.root=photos", f"teacher.members=[{', '.join(members)}]"]
    by_hand = load_config(None, words)
    assert (found.teacher, found.student) == (by_hand.teacher, by_hand.student)


def test_rounds_need_unlabelled_images() -> None:
    assert "rounds" not in _values(PHOTOS)
    assert _values(replace(PHOTOS, unlabelled=0))["rounds"] == 0


def test_what_would_stop_the_run_is_let_pass_and_says_why() -> None:
    odd = replace(PHOTOS, contradictions=2, leaks=1, unreadable=4, opened=100)
    found = {entry.key: entry for entry in propose(odd)}
    assert found["data.conflicting_labels"].value == "drop"
    assert found["data.duplicates"].value == "drop"
    assert found["data.max_bad_share"].value == 0.08
    assert "4 of 100" in found["data.max_bad_share"].why
    assert {"data.conflicting_labels", "data.duplicates", "data.max_bad_share"}.isdisjoint(_values(PHOTOS))


def test_a_run_of_more_than_twelve_hours_gets_a_shorter_student_down_to_a_third() -> None:
    entries = propose(replace(PHOTOS, weights=True))
    hour = 3600.0
    assert shortened(entries, 8 * hour, 12 * hour) == entries
    for seconds, epochs in ((14 * hour, 22), (20 * hour, 10), (100 * hour, 10)):
        found = shortened(entries, 8 * hour, seconds)
        assert [entry.value for entry in found if entry.key == "student.epochs"] == [epochs]
        assert len(found) == len(entries) + 1
    assert configured(shortened(propose(PHOTOS), 8 * hour, 14 * hour)).student.epochs == 22


@pytest.mark.parametrize(
    ("given", "name"), [("my photos", "my-photos"), ("a/b: c", "a-b-c"), ("..", "mine"), ("Ä.1", "Ä.1"), ("", "mine")]
)
def test_the_name_of_the_run_is_one_that_a_run_may_have(given: str, name: str) -> None:
    entries = propose(replace(PHOTOS, name=given))
    assert configured(entries).name == name


@pytest.mark.parametrize("weights", [False, True, "it's: a #path.safetensors"])
def test_the_file_is_the_configuration_that_was_proposed(tmp_path: Path, weights: bool | str) -> None:
    odd = replace(
        PHOTOS,
        data={"source": "csv", "root": "a: b # c", "table": "007", "unlabelled_root": "no"},
        weights=weights,
        unlabelled=0,
        contradictions=1,
    )
    entries = shortened(propose(odd), 1e6, 1e6)
    path = tmp_path / "nstudent.yaml"
    path.write_text(as_text(entries, ["a head\nof two lines: {"]))
    assert load_config(path) == configured(entries)
    lines = path.read_text().splitlines()
    assert lines[0] == "# a head\\nof two lines: {"
    assert len(lines) < 40


def test_a_group_of_keys_is_opened_once() -> None:
    text = as_text([Entry("a.b.c", 1), Entry("x", 2, "why"), Entry("a.b.d", 3), Entry("a.e", [])], [])
    lines = [line.split("#")[0].rstrip() for line in text.splitlines() if line]
    assert lines == ["x: 2", "a:", "  b:", "    c: 1", "    d: 3", "  e: []"]
