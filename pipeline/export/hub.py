"""The classifier of a run as a folder for the Hugging Face hub: for nstudent, and for timm where it is one network."""

from __future__ import annotations

from pathlib import Path

from nstudent.classifier import final_step
from nstudent.config.members import ModelConfig
from nstudent.export.card import CARD, card
from nstudent.export.program import load_for_export
from nstudent.export.program_files import Exported
from nstudent.export.timm_files import WEIGHTS, write_timm_files
from nstudent.models.ensemble import Ensemble
from nstudent.models.network import Backbone, Network
from nstudent.models.network_member import NetworkMember
from nstudent.storage.artifact import FINAL, MANIFEST
from nstudent.storage.files import atomic_write, make_folder, read_json, write_json


def write_hub_folder(run_dir: Path, folder: Path) -> Exported:
    """Write a folder that nstudent loads, and timm too where the classifier is one network of one plain backbone.

    Args:
        run_dir: The run folder.
        folder: It is made if it is missing. ``Classifier.load`` and ``nstudent predict`` take it like a run folder.

    Raises:
        ArtifactError: The run folder holds no finished classifier, or a damaged one.
        ConfigError: timm cannot build the network for the folder.
    """
    ensemble, final = load_for_export(run_dir), final_step(run_dir)
    make_folder(folder / final.name)
    for name, path in zip(final.manifest.files, final.paths(list(final.manifest.files)), strict=True):
        atomic_write(folder / final.name / name, path.read_bytes())
    write_json(folder / final.name / MANIFEST, read_json(final.folder / MANIFEST))
    write_json(folder / FINAL, {"step": final.name})
    checked = "the weights are those of the run"
    network = _for_timm(ensemble)
    if network is not None:
        checked = write_timm_files(run_dir, folder, ensemble, network)
    atomic_write(folder / CARD, card(run_dir, ensemble, WEIGHTS if network is not None else "").encode())
    return Exported(folder, checked)


def _for_timm(ensemble: Ensemble) -> Network | None:
    """The only network of a classifier, if timm has all that is before its head; else ``None``."""
    settings, member = ensemble.recipe.members[0], ensemble.members[0]
    if len(ensemble.members) > 1 or not isinstance(settings, ModelConfig) or not isinstance(member, NetworkMember):
        return None
    network = member.network
    if not isinstance(network, Network) or len(network.backbones) > 1 or settings.stem != "timm":
        return None
    backbone = network.backbones[0]
    # timm knows the networks of nstudent only where nstudent is imported.
    of_timm = isinstance(backbone, Backbone) and type(backbone.network).__module__.startswith("timm.")
    return network if of_timm else None
