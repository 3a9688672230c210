"""The folder for the hub: nstudent loads it, timm too where it is one network, and its card tells the truth."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from finished_runs import TREE, add_classifier, photo, pixels
from nstudent.classifier import Classifier
from nstudent.config.members import HeadName, ModelConfig, ProbeConfig
from nstudent.export.hub import write_hub_folder
from nstudent.export.program import load_for_export
from nstudent.models.network_member import NetworkMember
from nstudent.taxonomy.tree import Taxonomy

pytestmark = pytest.mark.slow


def _folder(tmp_path: Path, *members: ModelConfig | ProbeConfig, **recipe: object) -> tuple[Path, Path]:
    run_dir = add_classifier(tmp_path / "run", members, **recipe)
    return run_dir, write_hub_folder(run_dir, tmp_path / "hub").folder


def test_timm_gives_the_logits_of_all_levels_of_one_network(tmp_path: Path) -> None:
    options: dict[str, bool | int | float | str | tuple[int, ...]] = {"channels": (8, 16, 16, 24)}
    run_dir, folder = _folder(tmp_path, ModelConfig(head="independent", backbone_options=options))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    ensemble = load_for_export(run_dir)
    member = ensemble.members[0]
    assert isinstance(member, NetworkMember)
    images = ensemble.images(torch.from_numpy(pixels(3)))
    known = network.pretrained_cfg
    mean, std = (torch.tensor(known[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(
            network((images - mean) / std), torch.cat(member.network(images), dim=1), atol=1e-4, rtol=1e-4
        )
    assert known["label_names"][:3] == ["coarse: loop", "coarse: stroke", "mid: one loop"]
    assert list(known["input_size"]) == [3, 32, 32]


@pytest.mark.parametrize("head", ["fine_to_coarse", "branching"])
def test_timm_gives_the_features_where_it_has_no_such_head(tmp_path: Path, head: HeadName) -> None:
    run_dir, folder = _folder(tmp_path, ModelConfig(head=head, image_size=24))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    member = load_for_export(run_dir).members[0]
    assert isinstance(member, NetworkMember)
    wanted = member.network.backbones[0].network.state_dict()
    found = network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 24, 24]


@pytest.mark.parametrize(
    "members",
    [
        (ModelConfig(), ModelConfig()),
        (ModelConfig(stem="small"),),
        (ModelConfig(wide_channels=4),),
        (ModelConfig(backbones=("test_resnet", "test_resnet")),),
        (ProbeConfig(),),
    ],
    ids=["pool", "other stem", "wide convolution", "two backbones", "probe"],
)
def test_what_timm_cannot_build_has_no_files_of_timm(tmp_path: Path, members: tuple[ModelConfig, ...]) -> None:
    run_dir, folder = _folder(tmp_path, *members)
    assert not (folder / "config.json").exists()
    assert not (folder / "model.safetensors").exists()
    assert "timm loads" not in (folder / "README.md").read_text()
    image = photo(tmp_path / "x.png")
    assert Classifier.load(folder, "cpu").predict([image]) == Classifier.load(run_dir, "cpu").predict([image])


def test_the_examples_of_the_card_run(tmp_path: Path) -> None:
    _, folder = _folder(tmp_path, ModelConfig(head="independent"), temperatures=(1.2, 0.9, 1.1))
    photo(folder / "photo.jpg")
    examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=folder, env=dict(os.environ), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_names_of_classes_do_nothing_in_the_card(tmp_path: Path) -> None:
    tree = Taxonomy.from_labels([("<script>alert(1)</script>",), ("a|b\n# c [d](http://e)",)], ("le|vel",))
    _, folder = _folder(tmp_path, ModelConfig(), taxonomy=tree)
    text = (folder / "README.md").read_text()
    table = text[text.index("| level |") : text.index("## Use")]
    assert "<script" not in text
    assert "](http" not in text
    assert len(table.strip().splitlines()) == 3
    assert all(line.count("|") == 4 for line in table.strip().splitlines())


def test_the_card_says_that_a_folder_without_its_run_has_no_scores(tmp_path: Path) -> None:
    _, folder = _folder(tmp_path, ModelConfig())
    text = (folder / "README.md").read_text()
    assert "The run has no scores here." in text
    assert "trained from scratch" in text
    assert all(name in text for names in TREE.classes for name in names)
