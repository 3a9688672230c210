"""ONNX and torch.export files of a classifier, each written after it has been compared with the classifier."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nstudent.classifier import final_step
from nstudent.errors import ConfigError
from nstudent.export.card import CARD, card
from nstudent.export.description import description
from nstudent.export.held_out import check_images
from nstudent.export.program import INPUT, Answers, check, exporting, load_for_export, output_names, traced
from nstudent.models.ensemble import Ensemble
from nstudent.storage.files import atomic_write, make_folder

ONNX, TORCH = "classifier.onnx", "classifier.pt2"
EXAMPLE = "classify.py"
METADATA = "nstudent"
"""Key of the description in the metadata of an ONNX file; torch.export keeps it as the file ``nstudent.json``."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was checked."""

    folder: Path
    checked: str
    """How far it differs from the classifier and on which images, in words."""


def write_onnx(run_dir: Path, folder: Path) -> Exported:
    """Write the classifier of a run as an ONNX file, with an example program and a model card.

    Args:
        run_dir: The run folder.
        folder: Folder for ``classifier.onnx``, ``classify.py`` and ``README.md``; it is made if it is missing.

    Raises:
        ArtifactError: The folder holds no finished classifier, or the program differs from the classifier.
        ConfigError: A package is missing, or the classifier cannot be exported.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'nstudent[export]'") from error
    ensemble = load_for_export(run_dir)
    names = output_names(ensemble.recipe.taxonomy.levels)
    program = traced(ensemble)
    with exporting("torch.onnx"):
        made = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=names)
        assert made is not None, "with dynamo=True torch returns the program"
        model = made.model_proto
        about = json.dumps(description(ensemble.recipe, final_step(run_dir)))
        onnx.helper.set_model_props(model, {METADATA: about})
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(pixels: npt.NDArray[np.uint8]) -> Answers:
        return list(session.run(names, {INPUT: pixels}))

    return _written(run_dir, folder, ensemble, (ONNX, content, run))


def write_torch(run_dir: Path, folder: Path) -> Exported:
    """Write the classifier of a run as a file of torch.export, with an example program and a model card.

    Args:
        run_dir: The run folder.
        folder: Folder for ``classifier.pt2``, ``classify.py`` and ``README.md``; it is made if it is missing.

    Raises:
        ArtifactError: The folder holds no finished classifier, or the program differs from the classifier.
        ConfigError: The classifier cannot be exported.
    """
    ensemble = load_for_export(run_dir)
    program = traced(ensemble)
    about = json.dumps(description(ensemble.recipe, final_step(run_dir)))
    buffer = io.BytesIO()
    with exporting("torch.export"):
        torch.export.save(program, buffer, extra_files={f"{METADATA}.json": about})
    module = program.module()

    def run(pixels: npt.NDArray[np.uint8]) -> Answers:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(pixels))]

    return _written(run_dir, folder, ensemble, (TORCH, buffer.getvalue(), run))


def _written(run_dir: Path, folder: Path, ensemble: Ensemble, made: tuple[str, bytes, Any]) -> Exported:
    """Compare a program with the classifier, and write it: its name, its content, and what runs it."""
    name, content, run = made
    recipe, final = ensemble.recipe, final_step(run_dir)
    pixels, which = check_images(run_dir, final, recipe.image_size)
    apart = check(run, ensemble, pixels)
    text = card(run_dir, ensemble, name)
    make_folder(folder)
    atomic_write(folder / name, content)
    atomic_write(folder / EXAMPLE, (_TEMPLATES / f"{name}.txt").read_bytes())
    atomic_write(folder / CARD, text.encode())
    return Exported(folder, f"probabilities differ from the classifier's by at most {apart:.0e} on {which}")
