"""A run folder given by a stranger, in which somebody goes on training: nothing is written through its links."""

from pathlib import Path

import pytest
from nstudent.errors import ArtifactError
from nstudent.storage.commit import open_partial
from nstudent.storage.files import atomic_write, read_json, sweep, write_json


def test_a_link_in_place_of_the_file_beside_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.yaml.writing").symlink_to(precious)
    (run / "config.yaml").symlink_to(precious)
    atomic_write(run / "config.yaml", b"seed: 0\n")
    assert precious.read_text() == "mine"
    assert (run / "config.yaml").read_bytes() == b"seed: 0\n"
    assert not (run / "config.yaml").is_symlink()
    sweep(run)
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
    assert precious.read_text() == "mine"


def test_a_step_is_not_made_in_a_folder_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    write_json(elsewhere / "asked.json", "asked")
    (tmp_path / "01-teacher.partial").symlink_to(elsewhere)
    for asked in ("asked", "something else"):
        with pytest.raises(ArtifactError, match=r"01-teacher\.partial is a link"):
            open_partial(tmp_path / "01-teacher", asked)
    assert (elsewhere / "precious").read_text() == "mine"


def test_the_lock_is_not_a_way_to_empty_a_file(tmp_path: Path) -> None:
    from nstudent.storage.lock import hold

    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", ".holder.json", "..holder.json.writing"):
        (run / name).symlink_to(precious)
    try:
        with hold(run):
            pass
    except ArtifactError as error:
        assert str(run) in str(error)  # noqa: PT017 - refused or harmless: both will do
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("content", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', "[NaN]", "[-Infinity]"])
def test_json_means_one_thing(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")
