"""What docs/USE.md shows, done with a finished run."""

import csv
import hashlib
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from nstudent import cli
from nstudent.answers.depth import depth_of
from nstudent.answers.proposed_tree import tree_from_run
from nstudent.answers.seen_before import seen_before
from nstudent.classifier import Classifier
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.data.given_images import named_images
from nstudent.data.sources.digits import open_source
from nstudent.errors import ArtifactError, ConfigError
from nstudent.export.hub import write_hub_folder
from nstudent.export.program_files import write_onnx
from nstudent.progress import Silence
from nstudent.runs.run import run_all
from nstudent.runs.step_metrics import ChoiceMetrics, TrainedMetrics
from nstudent.storage.artifact import Artifact, Manifest
from PIL import Image

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "USE.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, new photos, and photos with labels."""
    shutil.copytree(finished, tmp_path / "runs" / "photos")
    source = open_source(load_config(None, []).data)
    records = source.catalogue().records
    lines = ["path,coarse,mid,fine"]
    for number in range(40):
        label = records[number].label
        folder = tmp_path / "labelled" / Path(*(name for name in label if name != "-"))
        for place in (tmp_path / "new", tmp_path / "more" / "deep", folder):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(source.read(number))).save(place / f"{number}.jpg", quality=95)
        lines.append(",".join([str((folder / f"{number}.jpg").relative_to(tmp_path / "labelled")), *label]))
    (tmp_path / "labelled" / "labels.csv").write_text("\n".join(lines))
    for name in ("photos", "heap"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_every_command_of_the_page_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 10
    for line in lines:
        listed, _, command = line.rpartition(" | ")
        names = "".join(f"{path}\n" for path in sorted(Path("new").glob("*.jpg"))) if listed else ""
        monkeypatch.setattr(sys, "stdin", io.StringIO(names))
        assert _run(command, monkeypatch) == 0, (line, capsys.readouterr().err)
        said = capsys.readouterr()
        if "--risk" in line:
            assert re.search(r"coarse: (answered|no answers)", said.err)
            assert len(said.out.splitlines()) == 40
    with open("labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert json.loads(Path("evaluation/scores.json").read_text())["images"] == 40
    assert Path("runs/photos/export/onnx/classifier.onnx").exists()
    card = Path("for-the-hub/README.md").read_text()
    assert "| whole path |" in card
    assert "100 images labelled for training" in card


def test_the_lines_that_decode_a_file_are_those_of_the_example() -> None:
    import nstudent.export

    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for name in ("onnx", "pt2"):
        example = (Path(nstudent.export.__file__).parent / "templates" / f"classifier.{name}.txt").read_text()
        for line in block.replace("square = ", "return ").splitlines():
            assert line in example


def test_one_small_network_for_a_phone_is_chosen_exported_and_loaded_by_timm(
    go_on: Path, tiny: Callable[..., Config]
) -> None:
    limit = TrainedMetrics.of(Manifest.read(go_on / "06-student")).gmacs
    small = run_all(tiny(f"final.max_gmacs={limit}"), go_on)
    taken = ChoiceMetrics.of(Manifest.read(small / "07-choose")).taken
    assert taken.gmacs <= limit
    assert len(taken.parts) == 1
    hub = write_hub_folder(small, small / "hub").folder
    network = timm.create_model(f"local-dir:{hub}", pretrained=True)
    assert 0 < sum(each.numel() for each in network.parameters()) < 1_000_000
    assert (write_onnx(small, small / "onnx").folder / "classifier.onnx").exists()


def test_with_a_risk_labels_are_cut_where_the_held_out_images_say(folder: Path) -> None:
    depth = depth_of(folder / "runs" / "photos", 0.02)
    classifier = Classifier.load(folder / "runs" / "photos", "cpu")
    images = sorted((folder / "new").glob("*.jpg"))
    whole, cut = classifier.predict(images), list(classifier.stream(named_images(images), depth=depth))
    for full, short in zip(whole, cut, strict=True):
        kept: dict[str, Any] = {}
        for each in depth.levels:
            found = full.labels.get(each.level)
            if found is None or each.threshold is None or found.probability < each.threshold:
                break
            kept[each.level] = found
        assert short.labels == kept
    assert whole != cut


def test_a_risk_needs_scores_of_the_very_classifier(folder: Path, tmp_path: Path) -> None:
    run_dir = folder / "runs" / "photos"
    for risk in (0.0, 1.0, -1.0):
        with pytest.raises(ConfigError, match="--risk"):
            depth_of(run_dir, risk)
    shutil.rmtree(next(run_dir.glob("*-evaluate")))
    with pytest.raises(ArtifactError, match="has no scores of it: nstudent run-all"):
        depth_of(run_dir, 0.05)


def test_a_run_knows_the_images_that_it_learnt_from_and_no_others(finished: Path, tmp_path: Path) -> None:
    source, dataset = open_source(load_config(None, []).data), Dataset(Artifact(finished / "00-data"))
    source.catalogue()

    def digests(ids: Iterable[int]) -> set[bytes]:
        return {hashlib.sha256(np.asarray(source.read(image)).tobytes()).digest() for image in ids}

    seen = seen_before(finished)
    assert seen is not None
    assert seen == digests([*dataset.labelled, *dataset.unlabelled, *dataset.validation])
    assert len(dataset.test) > 0
    assert not seen & digests(dataset.test)
    # A folder with the classifier alone cannot know.
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("00-data"))
    assert seen_before(tmp_path / "run") is None


@pytest.mark.slow
def test_of_a_classifier_without_its_images_it_is_said_that_nobody_knows_what_it_has_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "Whether the classifier has learnt from these photos is not known"
    for step, is_said in (("none", False), ("00-data", True)):
        shutil.rmtree(folder / "runs" / "photos" / step, ignore_errors=True)
        assert _run("nstudent evaluate runs/photos labelled", monkeypatch) == 0
        assert (said in capsys.readouterr().out) is is_said


def test_a_tree_is_proposed_from_what_the_classifier_takes_for_what(finished: Path) -> None:
    dataset = Dataset(Artifact(finished / "00-data"))
    there = {int(row[-1]) for row in dataset.labels[dataset.validation] if row[-1] >= 0}
    found = tree_from_run(finished, [2], Silence())
    assert found.sizes == [2, len(there)]
    names = dataset.taxonomy.classes[-1]
    assert sorted(name for group in found.groups for name in group.classes) == sorted(names[c] for c in there)
    assert f"the classes that the classifier of {finished.name} confuses" in found.origin
