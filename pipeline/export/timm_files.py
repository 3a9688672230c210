"""The files of a network that timm loads from a folder, or from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from nstudent.classifier import final_step
from nstudent.config.members import ModelConfig
from nstudent.errors import ArtifactError
from nstudent.export.held_out import check_images
from nstudent.export.program import exporting
from nstudent.models.ensemble import Ensemble
from nstudent.models.heads import LAST_LAYERS
from nstudent.models.network import Backbone, Network
from nstudent.storage.files import atomic_write, write_json
from safetensors.torch import save
from torch import nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files that timm reads."""
_MOST_APART = 1e-4


def write_timm_files(run_dir: Path, folder: Path, ensemble: Ensemble, network: Network) -> str:
    """Write ``config.json`` and ``model.safetensors``, which ``timm.create_model("local-dir:FOLDER")`` loads.

    With the head ``independent`` timm's network gives the logits of all levels side by side; other heads are no
    classifier that timm knows, and it gives the features that they read.

    Args:
        run_dir: The run, for images to compare with.
        folder: Folder that is there.
        ensemble: Classifier of one network.
        network: That network, of one backbone of timm's.

    Returns:
        How far timm's network differs from that of the run, in words.

    Raises:
        ArtifactError: It differs by more than 1e-4.
        ConfigError: timm cannot build the network.
    """
    recipe = ensemble.recipe
    settings, backbone = recipe.members[0], network.backbones[0]
    assert isinstance(settings, ModelConfig)
    assert isinstance(backbone, Backbone)
    # The layers of this head are one linear layer side by side; those of the others are no layer that timm knows.
    rows = list(network.head.get_submodule(LAST_LAYERS).children()) if settings.head == "independent" else []
    outputs = sum(recipe.outputs.sizes) if rows else 0
    name, options = settings.backbones[0], dict(settings.backbone_options)
    with exporting("timm"):
        made = timm.create_model(name, pretrained=False, num_classes=outputs, **options).eval()
        made.load_state_dict({**made.state_dict(), **backbone.network.state_dict()})
        if rows:
            _lay_in(made.get_classifier(), [layer for layer in rows if isinstance(layer, nn.Linear)])
    checked = _compared(run_dir, ensemble, network, made)
    atomic_write(folder / WEIGHTS, save({key: each.contiguous() for key, each in made.state_dict().items()}))
    write_json(folder / CONFIG, _config(ensemble, made, outputs))
    return checked


def _lay_in(classifier: nn.Module, rows: list[nn.Linear]) -> None:
    with torch.no_grad():
        classifier.get_parameter("weight").copy_(torch.cat([layer.weight for layer in rows]))
        classifier.get_parameter("bias").copy_(torch.cat([layer.bias for layer in rows]))


def _config(ensemble: Ensemble, made: Any, outputs: int) -> dict[str, Any]:
    """What timm reads: the layout that ``timm.models.save_for_hf`` writes."""
    recipe, settings, known = ensemble.recipe, ensemble.recipe.members[0], made.pretrained_cfg
    assert isinstance(settings, ModelConfig)
    side = settings.side_seen(recipe.image_size)
    taxonomy = recipe.taxonomy
    names = [f"{level}: {name}" for level, all_ in zip(taxonomy.levels, taxonomy.classes, strict=True) for name in all_]
    has_nothing = any(recipe.outputs.has_nothing(level) for level in range(taxonomy.num_levels))
    kept = ("first_conv", "classifier", "license", "fixed_input_size")
    return {
        "architecture": settings.backbones[0],
        "num_classes": outputs,
        "num_features": made.num_features,
        "model_args": dict(settings.backbone_options),
        **({"label_names": names} if outputs and not has_nothing else {}),
        "pretrained_cfg": {
            **{key: known[key] for key in kept if known.get(key) is not None},
            "num_classes": outputs,
            "input_size": [3, side, side],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(known["mean"]),
            "std": list(known["std"]),
            "custom_load": False,
        },
    }


def _compared(run_dir: Path, ensemble: Ensemble, network: Network, made: nn.Module) -> str:
    """How far timm's network differs from the network of the run, in words."""
    side = ensemble.recipe.image_size
    pixels, which = check_images(run_dir, final_step(run_dir), side)
    backbone = network.backbones[0]
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        images = network.seen(ensemble.images(torch.from_numpy(pixels)))
        found = made((images - backbone.mean) / backbone.std)
        wanted = torch.cat(network(images), dim=1) if found.shape[1] == sum(ensemble.recipe.outputs.sizes) else None
        # Those of shallower maps, which a head may read as well, stand before the features of the whole network.
        wanted = backbone(images)[:, -found.shape[1] :] if wanted is None else wanted
    apart = float(np.abs(found.numpy() - wanted.numpy()).max())
    if not apart <= _MOST_APART:
        raise ArtifactError(f"timm's network differs from that of the run by {apart:.0e}: export to onnx or torch")
    return f"timm's network differs from that of the run by at most {apart:.0e} on {which}"
