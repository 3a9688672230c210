"""``nstudent data taxonomy``: a tree for classes without one, written, edited and used."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from finished_runs import add_classifier
from nstudent.answers.proposed_tree import tree_from_wordnet
from nstudent.config.file import load_config
from nstudent.config.yaml_text import as_names, read_words
from nstudent.data.survey import survey
from nstudent.errors import ArtifactError, DataError
from nstudent.progress import Silence
from nstudent.runs.kept_config import kept_config
from PIL import Image
from wordnet_files import write_wordnet

# Classes of one letter look nearly the same.
CLASSES = {"poodle": "a", "cat": "a", "dog": "a", "car": "b", "lorry": "b", "perch": "c", "blorp": "c"}
PAGE = ["data.source=folder", "data.root=photos"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, (name, kind) in enumerate(CLASSES.items()):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for image in range(12):
            pixels = np.random.default_rng([number, image]).integers(0, 60, (24, 24, 3), dtype=np.uint8)
            part = {"a": np.s_[:12], "b": np.s_[:, :12], "c": np.s_[6:18, 6:18]}[kind]
            pixels[part] += 180
            Image.fromarray(pixels).save(folder / f"{image}.png")
    return tmp_path / "photos"


def groups_in(page: Path) -> list[list[str]]:
    return sorted(sorted(below) for below in as_names(read_words(page)).values())


@pytest.mark.slow
def test_a_tree_from_what_looks_alike_is_proposed_and_then_the_tree_of_a_run(
    nstudent: Callable[..., CompletedProcess[str]], photos: Path
) -> None:
    tree = photos.parent / "tree.yaml"
    done = nstudent("data", "taxonomy", "tree.yaml", *PAGE, "--groups", "3")
    assert done.returncode == 0, done.stderr
    assert groups_in(tree) == [["blorp", "perch"], ["car", "lorry"], ["cat", "dog", "poodle"]]
    assert "levels of 3, 7 classes, coarse first" in done.stdout
    # The same page twice, but never over one that may have been edited.
    before = tree.read_text()
    again = nstudent("data", "taxonomy", "tree.yaml", *PAGE)
    assert again.returncode == 2
    assert (
        again.stderr
        == "nstudent: tree.yaml is there already, and may have been edited: remove it, or name another page\n"
    )
    tree.rename(tree.with_name("other.yaml"))
    assert nstudent("data", "taxonomy", "tree.yaml", *PAGE, "--groups", "3").returncode == 0
    assert tree.read_text() == before

    # Edited: a name that says more.
    names = as_names(read_words(tree))
    (pets,) = [name for name, below in names.items() if "poodle" in below]
    tree.write_text(before.replace(f"{pets}:", "pets:"))
    config = load_config(None, ["data.source=folder", f"data.root={photos}", f"data.taxonomy={tree}"])
    found = survey(config.data, 0, Silence())
    assert [level.level for level in found.levels] == ["coarse", "fine"]
    assert found.levels[0].images["pets"] == 36
    assert found.levels[1].images["poodle"] == 12


@pytest.mark.slow
def test_a_run_that_is_there_keeps_its_rounds_and_the_size_may_follow_from_the_limit(
    nstudent: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ["data.image_size=auto", "teacher.max_gmacs=0.02"]
    assert nstudent("stage", "data", "rounds=2", *words).returncode == 0
    done = nstudent("data", "taxonomy", "tree.yaml", *words)
    assert done.returncode == 0, done.stderr
    assert kept_config(tmp_path / "runs" / "digits").rounds == 2


@pytest.mark.slow
def test_the_example_of_the_documents_runs(nstudent: Callable[..., CompletedProcess[str]], photos: Path) -> None:
    lines = (Path(__file__).resolve().parents[2] / "docs" / "DATA.md").read_text(encoding="utf-8").splitlines()
    first = lines.index("    nstudent data taxonomy tree.yaml --config photos.yaml")
    (photos.parent / "photos.yaml").write_text(
        "rounds: 0\ndata: {source: folder, root: photos, image_size: 16, validation: 0.2}\n"
        "teacher: {epochs: 12, batch_size: 10, ema_decay: 0.9, members: [{}]}\nstudent: {epochs: 1}\n"
    )
    for line in lines[first : first + 2]:
        done = nstudent(*line.split()[1:])
        assert done.returncode == 0, done.stderr
    assert "coarse" in done.stdout


def test_a_tree_from_wordnet_names_the_kinds_and_leaves_what_it_does_not_know(photos: Path, tmp_path: Path) -> None:
    config = load_config(None, ["data.source=folder", f"data.root={photos}"])
    folder = write_wordnet(tmp_path / "dict")
    found = tree_from_wordnet(config, folder, [2])
    assert [(group.name, sorted(group.classes)) for group in found.groups] == [
        ("artifact", ["car", "lorry"]),
        ("animal", ["cat", "dog", "perch", "poodle"]),
    ]
    assert found.sizes == [2, 6]
    assert "# Add these classes by hand, because WordNet does not know them: blorp." in found.page
    assert "# 2 classes have several meanings" in found.page
    assert "  dog:  # dog.n.01: a common pet; or dog.n.02\n" in found.page
    # About as many groups as each then has classes.
    assert tree_from_wordnet(config, folder, []).sizes == [2, 6]


def test_classes_that_wordnet_does_not_know_are_refused(tmp_path: Path) -> None:
    for name in ("blorp", "frimp", "dog", "quux"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "x.png")
    config = load_config(None, ["data.source=folder", f"data.root={tmp_path / 'photos'}"])
    with pytest.raises(DataError, match=r"WordNet knows 1 of 4 classes \(not blorp, frimp, quux\): call them by nouns"):
        tree_from_wordnet(config, write_wordnet(tmp_path / "dict"), [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "runs/x", "--wordnet", "dict"], "--run and --wordnet are two ways to a tree: choose one"),
        (["--run", "runs/x"], "runs/x holds no trained classifier"),
        (["--wordnet", "nowhere", *PAGE], "nowhere holds no index.noun of WordNet"),
        (["--groups", "9", *PAGE], "--groups 9: write numbers of groups, coarse first"),
        (["data.source=folder", "data.root=nowhere"], "data.root: there is no folder nowhere"),
    ],
)
def test_what_gives_no_tree_is_one_line(
    nstudent: Callable[..., CompletedProcess[str]], photos: Path, words: list[str], said: str
) -> None:
    done = nstudent("data", "taxonomy", "tree.yaml", *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not (photos.parent / "tree.yaml").exists()


def test_a_classifier_without_the_images_of_its_run_gives_no_tree(tmp_path: Path) -> None:
    from nstudent.answers.proposed_tree import tree_from_run
    from nstudent.config.members import ModelConfig

    run_dir = add_classifier(tmp_path / "run", (ModelConfig(),))
    (run_dir / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ArtifactError, match="holds no images: leave --run out"):
        tree_from_run(run_dir, [], Silence())


def test_of_a_classifier_that_is_hardly_ever_right_it_is_said_that_its_tree_is_chance() -> None:
    from nstudent.answers.proposed_tree import _of_confusion
    from nstudent.evaluation.confusion import Confusion

    # Its probabilities are the same in both cases: soft ones say nothing of how often the largest is right.
    said = np.full((6, 6), 0.1) + 0.4 * np.eye(6)
    lucky, blind = (
        _of_confusion(Confusion(tuple("uvwxyz"), said, 90, (), right), [2], 0, "it") for right in (0.9, 0.2)
    )
    assert "90 held-out images, of which 90% are right" in lucky.origin
    assert not lucky.doubts
    assert "Only 20% are right, so that most of these groups are chance" in " ".join(blind.doubts)
