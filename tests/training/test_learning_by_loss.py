"""Every loss teaches: a small network trained with it knows its images by heart."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fitting import fit
from nstudent.config.schema import NoiseConfig, TrainingConfig
from nstudent.data.dataset import Dataset
from nstudent.models.device import Placement
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.training.loop import Length, Loop
from nstudent.training.losses import LOSSES, build_losses
from nstudent.training.objective import Supervised

STILL = NoiseConfig(shift=0.0, zoom=0.0, rotate=0.0)
CHOICES = [{"loss": name} for name in LOSSES] + [{"logit_adjustment": 1.0}, {"class_weights": "effective_number"}]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(str(value) for value in choice.values()))
def test_a_network_learns_its_images_by_heart(
    choice: dict[str, object], digits: Dataset, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    outputs = Outputs(digits.taxonomy)
    labels = digits.labels[digits.labelled]
    config = TrainingConfig.model_validate({"label_smoothing": 0.0} | choice)
    losses = build_losses(config, labels, outputs, torch.device("cpu"))
    objective = Supervised(*losses, (1.0,) * len(outputs.sizes))
    trained = fit(
        make_loop(Length(16, 8), STILL, objective=objective, checkpoint_seconds=60, ema_decay=0.9, learning_rate=0.005),
        tmp_path,
    )
    images = Placement(torch.device("cpu"), "float32").images(torch.from_numpy(digits.pixels[digits.labelled]))
    with torch.no_grad():
        said = trained.network.eval()(images)
    named = outputs.indices(labels)
    for level, logits in enumerate(said):
        known = named[:, level] != SILENT
        wrong = logits.argmax(dim=1).numpy()[known] != named[known, level]
        assert wrong.sum() <= 1, f"{wrong.sum()} of {known.sum()} images of level {level} are not known"
