"""A dry run is instant, and notices what is not there all the same."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from nstudent import load_config, plan
from nstudent.config.network_names import check_network_name, network_names
from nstudent.errors import ConfigError, NstudentError
from nstudent.runs.preflight import check_named


def _missing(*words: str) -> str:
    config = load_config(None, list(words))
    try:
        check_named(config, plan(config))
    except NstudentError as error:
        return str(error)
    return ""


def test_the_embedded_run_names_nothing_that_is_missing() -> None:
    assert _missing() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.source=folder", "data.root=nowhere"], "data.root: there is no folder nowhere"),
        (["data.source=folder", "data.root=.", "data.unlabelled_root=nowhere"], "data.unlabelled_root: there is no"),
        (["data.source=csv", "data.root=.", "data.table=no.csv"], "data.table: there is no file no.csv"),
        (["data.source=hdf5", "data.root=no.h5"], "data.root: there is no file no.h5"),
        (["data.taxonomy=no.yaml"], "data.taxonomy: cannot read no.yaml"),
        (["student.model={pretrained: no.safetensors}"], "student.model.pretrained: cannot read no.safetensors"),
        (["teacher.members=[{}, {pretrained: w}]"], "teacher.members.1.pretrained: cannot read w"),
        (["student.model={backbones: [resnet19]}"], "student.model.backbones: timm has no network 'resnet19' (near: r"),
        (
            ["teacher.members=[{}, {backbones: [x]}]"],
            "teacher.members.1.backbones: timm has no network 'x'",
        ),
        (["filter.enabled=true", "filter.model={backbones: [x]}"], "filter.model.backbones: timm has no network 'x'"),
        (["filter.model={backbones: [x]}"], ""),
        (["rounds=0", "student.model={backbones: [x]}"], ""),
        (["student.model={backbones: [resnet18.a1_in1k, wrn_28_2, vit_tiny_patch16_224]}"], ""),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = _missing(*words)
    assert found.startswith(said) if said else found == ""


@pytest.mark.slow
def test_a_weights_folder_lacks_the_file_of_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    assert "cannot read weights/test_resnet.safetensors" in _missing("student.model={pretrained: weights}")


@pytest.mark.slow
def test_the_names_are_those_that_timm_knows() -> None:
    import nstudent.models.wide_resnet  # noqa: F401
    import timm

    # Tests register networks of their own.
    own = {name for name in timm.list_models() if timm.models.model_entrypoint(name).__module__.startswith("test")}
    assert set(timm.list_models()) - own <= network_names()
    assert all(timm.is_model(name) for name in network_names())


def test_without_timms_files_no_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.config.network_names.network_names", frozenset)
    check_network_name("student.model", "a_network_of_tomorrow")


def test_a_tag_of_weights_is_no_part_of_the_name() -> None:
    check_network_name("k", "resnet18.some_tag")
    with pytest.raises(ConfigError, match=r"k: timm has no network 'resnet_18\.tag'"):
        check_network_name("k", "resnet_18.tag")


@pytest.mark.slow
def test_a_dry_run_imports_neither_torch_nor_timm(python: Callable[..., CompletedProcess[str]]) -> None:
    script = "import sys; sys.argv = ['nstudent', 'run-all', '--dry-run']\nfrom nstudent import cli\n"
    script += "try: cli.main()\nfinally: print(sorted({'torch', 'timm', 'cv2', 'matplotlib'} & set(sys.modules)))"
    assert python("-c", script).stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["run-all", "--dry-run"], ["data", "check"]])
def test_the_command_names_what_is_missing(
    nstudent: Callable[..., CompletedProcess[str]], arguments: list[str]
) -> None:
    done = nstudent(*arguments, "data.source=folder", "data.root=nowhere")
    assert done.returncode == 2
    assert done.stderr == "nstudent: data.root: there is no folder nowhere: correct the path or mount the disk\n"
    assert sys.platform != "linux" or "Traceback" not in done.stdout
