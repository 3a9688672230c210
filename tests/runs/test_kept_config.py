"""Where the paths of a run's configuration count from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.runs.kept_config import CONFIG, STARTED, keep_config, kept_config, with_paths_found

RUN = Path("runs") / "photos"


def config(*words: str) -> Config:
    return load_config(None, ["data.source=folder", "data.root=photos", "data.unlabelled_root=heap", *words])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos and a run, in which the run was started; afterwards the working folder is another one."""
    folder = tmp_path / "project"
    for name in ("photos", "heap", "weights", RUN):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    keep_config(config("student.model.pretrained=weights"), RUN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def found(run_dir: Path) -> Config:
    return with_paths_found(kept_config(run_dir), run_dir)


def test_paths_count_from_where_the_run_was_started(project: Path) -> None:
    here = found(project / RUN)
    assert here.data.root == str(project / "photos")
    assert here.data.unlabelled_root == str(project / "heap")
    assert here.student.model.pretrained == str(project / "weights")
    assert kept_config(project / RUN).data.root == "photos", "what is kept is what was given"


def test_another_folder_of_that_name_below_the_working_folder_is_not_taken(project: Path) -> None:
    Path("photos").mkdir()
    assert found(project / RUN).data.root == str(project / "photos")


def test_a_run_and_its_data_that_were_copied_together_are_found_together(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "copy")
    assert found(tmp_path / "copy" / RUN).data.root == str(tmp_path / "copy" / "photos")
    shutil.rmtree(project)
    assert found(tmp_path / "copy" / RUN).data.root == str(tmp_path / "copy" / "photos")


def test_a_run_that_was_copied_alone_counts_from_the_working_folder(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / RUN, tmp_path / "far" / "away" / "run")
    assert found(tmp_path / "far" / "away" / "run").data.root == "photos"


def test_what_is_noted_tells_nothing_of_the_machine(project: Path) -> None:
    assert json.loads((project / RUN / STARTED).read_text()) == {"above": 2}


def test_a_run_folder_behind_a_link_counts_from_where_it_lies(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(project / RUN)
    assert found(link).data.root == str(project / "photos")


def test_paths_that_lead_nowhere_stay_as_they_were_given(project: Path) -> None:
    (project / "photos").rmdir()
    assert found(project / RUN).data.root == "photos"


def test_absolute_paths_and_weights_of_timm_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    keep_config(config(f"data.root={project / 'heap'}", "student.model.pretrained=true"), RUN)
    monkeypatch.chdir(project.parent)
    assert found(project / RUN).data.root == str(project / "heap")
    assert found(project / RUN).student.model.pretrained is True


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"above": "2"}', '{"above": 0}', '{"above": -1}', '{"above": 99}']
)
def test_without_a_note_of_that_folder_paths_count_from_the_working_folder(project: Path, content: str | None) -> None:
    (project / RUN / STARTED).unlink()
    if content is not None:
        (project / RUN / STARTED).write_text(content)
    assert found(project / RUN).data.root == "photos"


def test_a_run_that_goes_on_from_a_folder_beside_it_counts_from_the_working_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "other").mkdir()
    monkeypatch.chdir(project / "other")
    keep_config(config(), project / RUN)
    assert not (project / RUN / STARTED).exists()
    assert found(project / RUN).data.root == "photos"


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a run folder: it has no config\.yaml"):
        kept_config(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_in_place_of_the_configuration_is_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CONFIG)
    with pytest.raises(ArtifactError, match=r"is not a run folder: it has no config\.yaml"):
        kept_config(tmp_path)
    keep_config(config(), tmp_path)
    assert kept_config(tmp_path) == config()
