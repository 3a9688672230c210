"""``report.html``: everything that a run has to show, in one page that needs no network and runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from nstudent.errors import ArtifactError
from nstudent.report import classes, curves, heap, summary, tree
from nstudent.report.limits import MAX_BYTES, Limits
from nstudent.report.mark import REPORT, mark
from nstudent.report.material import Material
from nstudent.report.pictures import Pictures
from nstudent.report.sheets import sheets
from nstudent.report.so_far import so_far
from nstudent.runs.kept_config import CONFIG
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import atomic_write

_LONGEST, _LONGEST_SENTENCE = 160, 2_000
"""Characters of a text that is shown: of a name, and of a sentence with names in it."""
_LESS = (1, 2, 4, 8, 16, 64)


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run folder, and return its path. A run without scores shows what it has so far.

    Raises:
        ArtifactError: It is not the folder of a run, or a file of it is damaged.
        ConfigError: Its configuration cannot be read.
    """
    path = Path(run_dir) / REPORT
    atomic_write(path, render(Path(run_dir)))
    return path


def render(run_dir: Path) -> bytes:
    """The page as UTF-8, at most ``MAX_BYTES`` of it: of a run that has more to show, less is shown of everything.

    Raises:
        ArtifactError: It is not the folder of a run, or a file of it is damaged.
        ConfigError: Its configuration cannot be read.
    """
    material = Material.read(run_dir)
    for by in _LESS:
        page = _page(material, Limits().divided(by)).encode()
        if len(page) <= MAX_BYTES:
            return page
    raise ArtifactError(f"the report of {run_dir} would be larger than {MAX_BYTES:,} bytes: too many levels or rounds")


def _page(material: Material, limits: Limits) -> str:
    gathered = summary.summary(material, limits)
    taught = heap.taught(material)
    pictures = None
    if material.has("data"):
        pictures = Pictures(Artifact(material.run_dir / material.step("data")), material.data, limits.picture_px)
    shown, left_out = curves.trainings(material, limits)
    found: Mapping[str, Any] = {
        "name": material.config.run_name,
        "mark": mark(material.run_dir, material.step("scores"), CONFIG) if material.has_scores else "no scores",
        "verdict": material.verdict,
        "so_far": so_far(material, taught, limits),
        "summary": gathered,
        "trainings": shown,
        "trainings_left_out": left_out,
        "levels": classes.levels(material, taught, limits) if material.has_scores else [],
        "on_tree": tree.on_tree(material),
        "severities": classes.severities(material) if material.has_scores else [],
        "heap_levels": heap.heap_levels(material, limits),
        "sheets": sheets(material, pictures, limits) if pictures else [],
        "missing": pictures.missing if pictures else "",
    }
    return _environment().get_template("report.html").render(found)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nstudent.report"),
        # Every text is escaped, whatever the template is called: the names in it come from strangers.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.filters.update(percent=_percent, count=_count, lines=_lines, whole=_whole, picture=_picture, plot=_plot)
    return environment


def _finalized(value: Any) -> Any:
    """What is written of a value: text is one printable line of a length that a page can show."""
    return _printable(value, _LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value


def _printable(text: str, most: int) -> str:
    """Text that steers nothing, such as the direction of writing, its middle left out where it is too long."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _lines(text: str) -> Markup:
    """Text of many lines, escaped, each of them printable."""
    return Markup("\n").join(_printable(line, 500) for line in text.split("\n"))


def _whole(text: str) -> Markup:
    """A whole sentence, escaped."""
    return escape(_printable(text, _LONGEST_SENTENCE))


def _picture(address: str) -> Markup:
    """The address of a picture, which is longer than any text; it is checked to be nothing else."""
    assert address.startswith("data:image/jpeg;base64,"), "only pictures that lie in the page are shown"
    return escape(address)


def _plot(points: str) -> Markup:
    """The points of a line, which are longer than any text."""
    return escape(points)


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}"


def _count(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"
