"""A dry run is instant, and notices what is not there all the same."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from nstudent import load_config, plan, run_all
from nstudent.config.network_names import check_network_name, network_names
from nstudent.data.sources import NO_HEAP
from nstudent.errors import ConfigError, DataError, NstudentError
from nstudent.runs.preflight import check_heap, check_named
from nstudent.storage import hdf5


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


def _idx(folder: Path) -> None:
    for split in ("train", "t10k"):
        for kind, numbers in (
            ("images-idx3", np.zeros((2, 4, 4), np.uint8)),
            ("labels-idx1", np.arange(2, dtype="u1")),
        ):
            head = struct.pack(f">HBB{numbers.ndim}I", 0, 8, numbers.ndim, *numbers.shape)
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + numbers.tobytes())


def _hdf5(path: Path, split: list[int], label: list[list[int]]) -> None:
    hdf5.write(path, {"split": np.array(split, dtype=np.int8), "label": np.array(label, dtype=np.int32)}, {})


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources of every kind, with unlabelled images and without."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("flat/cat/1.png", "flat/dog/1.png", "flat/.hidden"),
        *("divided/train/cat/1.png", "divided/val/cat/2.png", "divided/seg_test/cat/3.png"),
        *("heaped/train/cat/1.png", "heaped/Unlabeled/2.png"),
        *("nameless/cat/1.png", "nameless/2.png"),
        *("inner/train/cat/1.png", "inner/train/2.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "plain.csv").write_text("path,class\na.png,cat\nb.png,dog\n")
    (tmp_path / "split.csv").write_text("path,class,split\na.png,cat,train\nb.png,,unlabeled\n")
    (tmp_path / "empty.csv").write_text("path,class\na.png,cat\nb.png, \n")
    (tmp_path / "odd.csv").write_text("who,knows\n1,2\n")
    _hdf5(tmp_path / "plain.h5", [0, 1, 2], [[0, 0], [1, -1], [1, -2]])
    _hdf5(tmp_path / "split.h5", [0, 1, 3], [[0, 0], [1, 1], [1, 1]])
    _hdf5(tmp_path / "unknown.h5", [0, 1, 0], [[0, 0], [1, 1], [-2, -2]])
    (tmp_path / "idx").mkdir()
    _idx(tmp_path / "idx")


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize(
    ("words", "none"),
    [
        ("data.source=folder data.root=flat", True),
        ("data.source=folder data.root=flat data.unlabelled_root=heaped", False),
        ("data.source=folder data.root=flat data.labelled=0.5", False),
        ("data.source=folder data.root=flat rounds=0", False),
        ("data.source=folder data.root=divided", True),
        ("data.source=folder data.root=heaped", False),
        ("data.source=folder data.root=heaped data.split_folders=none", True),
        ("data.source=folder data.root=nameless", False),
        ("data.source=folder data.root=inner", False),
        ("data.source=csv data.root=. data.table=plain.csv", True),
        ("data.source=csv data.root=. data.table=split.csv", False),
        ("data.source=csv data.root=. data.table=empty.csv", False),
        ("data.source=csv data.root=. data.table=odd.csv", False),
        ("data.source=hdf5 data.root=plain.h5", True),
        ("data.source=hdf5 data.root=split.h5", False),
        ("data.source=hdf5 data.root=unknown.h5", False),
        ("data.source=idx data.root=idx data.class_paths=[a,b] data.levels=[c]", True),
        ("", False),
    ],
)
def test_a_source_that_can_have_no_unlabelled_images_is_known_at_once(words: str, none: bool) -> None:
    config = load_config(None, words.split())
    try:
        check_heap(config, plan(config))
        found = False
    except DataError as error:
        found = str(error) == NO_HEAP
    assert found is none


@pytest.mark.usefixtures("sources")
def test_a_run_without_unlabelled_images_ends_before_it_has_made_anything() -> None:
    with pytest.raises(DataError, match="there are no unlabelled images to learn from"):
        run_all(load_config(None, ["data.source=folder", "data.root=flat"]), "run")
    assert not [path for path in Path("run").rglob("*") if path.name.startswith(("00-", "config"))]


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
