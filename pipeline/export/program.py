"""The classifier of a run as one torch module: decoded images in, calibrated probabilities and labels out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nstudent.classifier import final_step
from nstudent.config.members import kind_of
from nstudent.errors import ArtifactError, ConfigError, summary
from nstudent.labels.decoders import build_decoder
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.members import Exportable
from nstudent.models.voting import Voting
from torch import Tensor, nn

INPUT = "pixels"
"""Name of the input: uint8 (images, side, side, 3), RGB."""
PATH, CONFIDENCE = "path", "confidence"
_MOST_APART = 1e-4
"""Largest difference of a probability between an exported program and the classifier."""
_EXAMPLES = 2
"""Number of images that a program is traced with; it takes any number."""

Answers = Sequence[npt.NDArray[Any]]


def output_names(levels: Sequence[str]) -> list[str]:
    """Names of the outputs in their order: ``probability/LEVEL`` for each level, ``path``, ``confidence``."""
    return [*(f"probability/{level}" for level in levels), PATH, CONFIDENCE]


class Program(nn.Module):
    """Everything between the decoded square and the label.

    That is the normalisation, the members, their temperatures and weights, the path posterior, and the decoder.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        """Take in the members of an ensemble that is on the CPU and computes in float32.

        Raises:
            ConfigError: A member is of a kind that cannot be exported.
        """
        super().__init__()
        recipe = ensemble.recipe
        for number, (member, settings) in enumerate(zip(ensemble.members, recipe.members, strict=True)):
            if not isinstance(member, Exportable):
                raise ConfigError(
                    f"member {number} is of the kind '{kind_of(settings)}', which cannot be exported: "
                    "use the run folder with nstudent predict, or train a run without such members"
                )
        self.members = nn.ModuleList(m.module() for m in ensemble.members if isinstance(m, Exportable))
        self._voting = Voting(recipe)
        self._decoder = build_decoder(recipe.decoder, recipe.outputs)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Label some images.

        Args:
            pixels: uint8 (images, side, side, 3).

        Returns:
            Per level the calibrated distribution, float32 (images, outputs); the classes of the label, int32
            (images, levels), -1 below its end; their probabilities, float32 (images, levels).
        """
        images = pixels.permute(0, 3, 1, 2).float().div(255.0)
        levels = self._voting.calibrate(self._voting.pool([member(images) for member in self.members]))
        found = self._decoder.decode(levels)
        return (*levels, found.paths, found.confidence)


def load_for_export(run_dir: Path) -> Ensemble:
    """The classifier of a run on the CPU, computing in float32: programs do so wherever they run.

    Raises:
        ArtifactError: The folder holds no finished classifier, or a damaged one.
    """
    return Ensemble.load(final_step(run_dir), Placement(torch.device("cpu"), "float32"))


def traced(ensemble: Ensemble) -> torch.export.ExportedProgram:
    """The program of an ensemble as torch.export traces it, for any number of images.

    Raises:
        ConfigError: A member cannot be exported.
    """
    side = ensemble.recipe.image_size
    program = Program(ensemble).eval()
    example = torch.zeros((_EXAMPLES, side, side, 3), dtype=torch.uint8)
    images = {0: torch.export.Dim("images", min=1)}
    with exporting("torch.export"):
        return torch.export.export(program, (example,), dynamic_shapes=(images,), strict=False)


@contextmanager
def exporting(what: str) -> Iterator[None]:
    """Turn whatever a tracer raises into one line: it knows the operation, and a person can choose another network.

    Raises:
        ConfigError: Instead of any error that is not ours.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # Tracers warn of their own insides.
        warnings.simplefilter("ignore")
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{what} cannot export this classifier: {summary(error)}; train one with another backbone"
            ) from error


def check(run: Callable[[npt.NDArray[np.uint8]], Answers], ensemble: Ensemble, pixels: npt.NDArray[np.uint8]) -> float:
    """Compare the probabilities of an exported program with those of the classifier.

    Args:
        run: Runs the program.
        ensemble: The classifier, on the CPU and in float32.
        pixels: Images, uint8 (images, side, side, 3). They are given to the program together, and the first one alone.

    Returns:
        The largest difference of a probability.

    Raises:
        ArtifactError: It is larger than 1e-4.
    """
    apart = 0.0
    for given in (pixels, pixels[:1]):
        wanted, found = ensemble.probabilities(given), run(given)
        shapes = [level.shape for level in found[: len(wanted)]]
        if shapes != [level.shape for level in wanted]:
            raise ArtifactError(f"the exported program gives {shapes} for {len(given)} images: train another backbone")
        gaps = [float(np.abs(a - b).max()) for a, b in zip(wanted, found, strict=False)]
        # NaN is larger than nothing.
        apart = max(apart, *gaps) if all(map(np.isfinite, gaps)) else float("inf")
    if apart > _MOST_APART:
        raise ArtifactError(
            f"the exported program differs from the classifier by up to {apart:.1e} in a probability, and may by "
            f"{_MOST_APART:.0e}: train a classifier with another backbone"
        )
    return apart
