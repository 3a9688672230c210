"""The report as a page: what it says, that nothing in it can run, and that it is never large."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from nstudent.cli.report import reported
from nstudent.errors import ArtifactError
from nstudent.evaluation.refit_scores import REFIT_SCORES, RefitScores
from nstudent.evaluation.scores import HEADLINE, Difference
from nstudent.report import page as room
from nstudent.report.limits import MAX_BYTES
from nstudent.report.mark import REPORT
from nstudent.report.material import Material
from nstudent.report.page import render, write_report
from nstudent.storage.files import write_json
from written_run import WrittenRun

SECTIONS = (
    *("findings", "scores", "curves", "classes", "confusion", "sure", "severity", "heap", "pictures", "cost", "again"),
)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style></pre></svg><iframe src=javascript:alert(1)>",
    r"$\frac{1}{0}$ &lt;b&gt; ]]> <!--",
    "\u202egnp.exe\u2028\x07",
    "<a href='http://example.org/'>click</a>",
)


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, its addresses, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        found = dict(attrs)
        self.addresses += [found[name] or "" for name in ("href", "src", "action", "data") if name in found]
        self.styles += [found["style"] or ""] if "style" in found else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> str:
    return render(WrittenRun(tmp_path / "run", dropped=((0, 1),)).write()).decode()


def test_the_answer_stands_first_in_the_words_of_the_run(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    text = Tags(render(folder).decode()).text
    said = Material.read(folder).verdict
    assert said.startswith("Your unlabelled images helped: +1.4 points")
    assert 0 < text.index(said) < text.index("Findings")


def test_it_has_every_section_in_its_order(page: str) -> None:
    assert re.findall(r'<h2 id="(\w+)">', page) == list(SECTIONS)
    assert re.findall(r'<a href="#(\w+)">', page)[: len(SECTIONS)] == list(SECTIONS)


def test_every_finding_stands_there_with_its_figures_and_a_link(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    page = render(folder).decode()
    found = Material.read(folder).findings
    assert found
    cards = page.split('<h2 id="findings">')[1].split("<h2")[0].split('<div class="card">')[1:]
    assert len(cards) == len(found)
    for card, finding in zip(cards, found, strict=True):
        assert finding.sentence in Tags(card).text
        assert card.count('class="bar"') == len(finding.figures)
        assert re.search(r'href="#\w+"', card)


def test_it_is_the_same_bytes_each_time_and_changes_nothing_else(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    path = write_report(folder)
    assert path == folder / REPORT
    assert path.read_bytes() == render(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != REPORT} == before


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    found = Tags(page)
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in page
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "use"}
    assert not [name for _, names in found.tags for name in names if name.startswith("on")]
    assert found.addresses
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in found.addresses)
    assert "url(" not in page
    assert "@import" not in page


def hostile_run(folder: Path, names: tuple[str, ...], levels: tuple[str, ...], photo: str) -> WrittenRun:
    """A run with two classes below each of these, whose levels and images are called so, too."""
    labels = [(name, f"{name} {number}") for name in names for number in range(2)]
    count = np.arange(len(labels))
    return WrittenRun(
        folder,
        labels=labels,
        levels=levels,
        test=count,
        said=np.roll(count, 1),
        heap=count,
        names=photo,
        dropped=((0, 1),),
        rounds=2,
    )


def test_names_of_classes_levels_and_files_add_no_markup(tmp_path: Path) -> None:
    harmless = tuple(f"class {letter}" for letter in "abcdefgh")
    plain = hostile_run(tmp_path / "plain", harmless, ("coarse", "fine"), "photo {}.jpg").write()
    sorted_like_plain = tuple(sorted(HOSTILE))
    photo = "<img src=x onerror=alert({}) \udcff"
    hostile = hostile_run(tmp_path / "hostile", sorted_like_plain, (HOSTILE[0], HOSTILE[1]), photo).write()
    one, other = (Tags(render(folder).decode()) for folder in (plain, hostile))
    assert other.tags == one.tags
    assert [address for address in other.addresses if not address.startswith(("#", "data:image/jpeg;base64,"))] == []
    assert other.styles == one.styles


def test_names_are_shown_as_they_are_and_steer_nothing(tmp_path: Path) -> None:
    folder = hostile_run(tmp_path / "run", HOSTILE, ("coarse", "fine"), "{}\udcff").write()
    content = render(folder)
    text = Tags(content.decode()).text
    for name in HOSTILE[:6]:
        assert name in text
    assert r"\u202egnp.exe\u2028\x07" in text
    assert not {"\u202e", "\u2028", "\x07"} & set(text)
    assert r"\udcff" in text


def test_a_name_of_any_length_is_cut_in_its_middle(tmp_path: Path) -> None:
    long = "a" * 5000
    folder = WrittenRun(
        tmp_path / "run",
        labels=[(long + "1",), (long + "2",)],
        levels=("only",),
        test=np.array([0, 1]),
        said=np.array([1, 1]),
        heap=np.array([0, 1]),
    ).write()
    text = Tags(render(folder).decode()).text
    assert "aaa1" in text
    assert "aaa2" in text
    assert "a" * 100 not in text


@pytest.mark.slow
def test_no_run_makes_a_page_of_more_than_five_megabytes(tmp_path: Path) -> None:
    """Hundreds of classes with long hostile names, every answer wrong, photos of noise, many rounds."""
    labels = [(f"{i % 7}" + '<"&' * 60, f"{i % 90} " + "'>&" * 60, f"{i} " + '"&<' * 60) for i in range(400)]
    count = np.arange(len(labels))
    run = WrittenRun(
        tmp_path / "run",
        labels=labels,
        levels=("a<" * 60, "b<" * 60, "c<" * 60),
        test=count,
        said=np.roll(count, 1),
        heap=count,
        rounds=12,
        names="<" * 100 + "{}" + "&" * 100,
        side=128,
        dropped=tuple((row, 2) for row in range(100)),
        epochs=tuple({"epoch": n, "loss": 1 / n, "learning_rate": 0.1, "validation": 0.5} for n in range(1, 3000)),
    )
    folder = run.write()
    whole = len(room._page(Material.read(folder), room.Limits()).encode())
    assert whole > MAX_BYTES, "the example is too small to try anything"
    content = render(folder)
    assert len(content) <= MAX_BYTES
    assert re.findall(r'<h2 id="(\w+)">', content.decode()) == list(SECTIONS)


def test_more_than_the_limit_is_refused_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    monkeypatch.setattr(room, "MAX_BYTES", 1000)
    with pytest.raises(ArtifactError, match="larger than 1,000 bytes"):
        write_report(folder)
    assert not (folder / REPORT).exists()


@pytest.mark.slow
def test_no_torch_is_imported_for_it(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run", dropped=((0, 1),), rounds=2).write()
    code = (
        "import sys; from nstudent.report.page import write_report\n"
        f"write_report({str(folder)!r})\n"
        "print([name for name in ('torch', 'torchvision', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_no_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a run folder: it has no config\.yaml"):
        write_report(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    path = next((folder / "04-pseudolabel").glob("labels-*.h5"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"labels-.*has changed since it was made"):
        write_report(folder)


def test_a_run_without_rounds_has_its_report(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run", rounds=0).write()
    page = Tags(render(folder).decode())
    assert "No unlabelled image was labelled in this run." in page.text
    assert "No unlabelled image was used, because rounds is 0." in page.text


def test_the_page_to_make_it_again_holds_what_differs_from_the_defaults(tmp_path: Path) -> None:
    from nstudent.config.file import check
    from nstudent.config.yaml_text import parse_yaml

    run = WrittenRun(tmp_path / "run")
    text = Tags(render(run.write()).decode()).text
    page = text.split("The complete configuration is config.yaml in the folder of the run.")[1].split(
        "nstudent run-all"
    )[0]
    assert "teacher" not in page
    assert check(parse_yaml(page.strip(), "page"), "page") == run.config


def test_what_each_step_took_is_summed_up(page: str) -> None:
    rows = page.split('<h2 id="cost">')[1].split("<h2")[0]
    assert rows.count("<td>1.0</td>") == 9
    assert "<td>all steps</td><td>9.0</td>" in rows


SCORES = "08-evaluate"


def test_a_report_that_fails_does_not_fail_the_run(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    (folder / REPORT).mkdir()
    assert re.fullmatch(r"no report could be written: .*; nstudent report .* tries it again", reported(folder, SCORES))
    (folder / REPORT).rmdir()
    assert reported(folder, SCORES) == f"report:  {folder / REPORT}"
    assert (folder / REPORT).read_bytes() == render(folder)


def test_a_run_that_has_not_changed_keeps_its_report(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    reported(folder, SCORES)
    before = (folder / REPORT).stat().st_mtime_ns
    reported(folder, SCORES)
    assert (folder / REPORT).stat().st_mtime_ns == before
    page = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(page.replace("name: written", "name: other"))
    reported(folder, SCORES)
    assert "<h1>other</h1>" in (folder / REPORT).read_text()


def test_what_was_trained_again_stands_beside_what_was_chosen(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    folder, scores = run.write(), run.scores()
    again = replace(scores.final, name="08-refit", validation={})
    gap = {HEADLINE: Difference(0.021, 0.004, 0.038, 0.99)}
    plain = Tags(render(folder).decode()).text
    assert "trained again" not in plain.lower()
    (step,) = folder.glob("*-evaluate")
    for labels_alone, gain in ((None, None), (replace(again, name="teacher, refit"), gap)):
        write_json(step / REFIT_SCORES, RefitScores(again, gap, labels_alone, gain, {}).to_json())
        said = " ".join(Tags(render(folder).decode()).text.split())
        assert "Trained again on labels and validation together" in said
        assert "that is 08-refit, which the run gives" in said
        assert "against what was chosen2.1 [0.4, 3.8]" in said, "in two cells"
        assert ("against teacher, refit" in said) is (gain is not None)
