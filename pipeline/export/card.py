"""The model card of an exported classifier: its data, its scores, its limits and the licences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from jinja2 import Environment, PackageLoader, StrictUndefined
from nstudent.classifier import final_step
from nstudent.config.members import ProbeConfig
from nstudent.errors import NstudentError, one_line
from nstudent.evaluation.scores import OF_A_LEVEL, SCORES, Scores, read_scores
from nstudent.export.description import description
from nstudent.models.ensemble import Ensemble
from nstudent.runs.measured import Measured
from nstudent.storage.artifact import Artifact, Manifest

CARD = "README.md"
_MOST_CLASSES = 200
"""Classes of a level that are listed."""
_ESCAPED = str.maketrans({c: f"&#{ord(c)};" for c in "&<>|`*_[]{}()#!\\"})
"""What means something in Markdown or HTML: names of classes come from strangers."""


def card(run_dir: Path, ensemble: Ensemble, file: str) -> str:
    """The model card, Markdown with the header that the Hugging Face hub reads.

    Args:
        run_dir: The run folder.
        ensemble: Its classifier.
        file: Main file beside the card: an exported program, the weights for timm, or empty if there is neither.
    """
    final = final_step(run_dir)
    about: Mapping[str, Any] = {
        "file": file,
        "about": description(ensemble.recipe, final),
        "most": _MOST_CLASSES,
        "gmacs": ensemble.gmacs,
        "backbones": _backbones(ensemble),
        "measured": _measured(run_dir),
        "of_a_level": OF_A_LEVEL,
        "head": getattr(ensemble.recipe.members[0], "head", None),
    }
    environment = Environment(
        loader=PackageLoader("nstudent.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = _plain
    return environment.get_template("README.md").render(about)


def _plain(text: object) -> str:
    """Text as Markdown shows it, on one line."""
    return one_line(str(text)).translate(_ESCAPED)


def _backbones(ensemble: Ensemble) -> list[dict[str, str]]:
    """Each backbone once: its name, where its weights come from, and the licence of those."""
    found: dict[str, dict[str, str]] = {}
    for settings in ensemble.recipe.members:
        is_deep = not isinstance(settings, ProbeConfig) or settings.features != "gradients"
        for name in getattr(settings, "backbones", ()) if is_deep else ():
            found[name] = {"name": name, **_origin(name, getattr(settings, "pretrained", False))}
    return list(found.values())


def _origin(name: str, pretrained: bool | str) -> dict[str, str]:
    if pretrained is False:
        return {"origin": "trained from scratch", "licence": "none: no weights of others"}
    if isinstance(pretrained, str):
        return {"origin": "weights from a file", "licence": "not known: see where the file came from"}
    known = timm.get_pretrained_cfg(name)
    licence = known.license if known is not None else None
    return {"origin": "weights of timm", "licence": licence or "not stated by timm: see its model page"}


def _measured(run_dir: Path) -> Measured | None:
    """What the run has measured; ``None`` if it has no scores here."""
    try:
        steps = [path.parent.name for path in sorted(run_dir.glob("[0-9]*-*/" + SCORES))]
        step = next(name for name in reversed(steps) if Manifest.read(run_dir / name).role == "scores")
        read_scores(Scores, Artifact(run_dir / step).path(SCORES))
        measured = Measured.read(run_dir, step)
    except (NstudentError, StopIteration):
        return None
    # Scores of a run that was gone on with since are those of another classifier.
    return measured if final_step(run_dir).name in Manifest.read(run_dir / step).inputs else None
