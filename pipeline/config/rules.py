"""What follows from the rest of the configuration where a key is left open."""

from typing import Literal

from nstudent.config.members import MemberConfig, ModelConfig, ProbeConfig
from nstudent.config.schema import Config, TrainingConfig


def probe_members(config: Config) -> tuple[MemberConfig, ...]:
    """The probes of a run: those that are asked for, or one.

    Pretrained features beat gradient histograms on photos by far, and there are none to be had without a download that
    nobody asked for (docs/METHOD.md, "Probe").
    """
    if config.probe.members is not None:
        return config.probe.members
    networks = [each for each in config.teacher.members if isinstance(each, ModelConfig)]
    for network in networks:
        if network.pretrained:
            same = {key: getattr(network, key) for key in ("backbones", "backbone_options", "pretrained")}
            return (ProbeConfig(features="backbones", **same),)
    return (ProbeConfig(),)


def decisions_of_probe(training: TrainingConfig) -> tuple[Literal["probe"], ...]:
    """The role of the probe, if these settings leave a decision to it."""
    return ("probe",) if training.noise.flip is None else ()


def with_decisions(config: Config, mirrored: bool | None) -> Config:
    """The configuration with every decision taken that was left open.

    Args:
        config: May leave ``noise.flip`` open in any of its trainings.
        mirrored: What the probe has found; ``None``: there is none, or it was not asked, and images are mirrored.
    """
    found: dict[str, TrainingConfig] = {}
    for name in ("teacher", "filter", "student"):
        training: TrainingConfig = getattr(config, name)
        if training.noise.flip is None:
            noise = training.noise.model_copy(update={"flip": mirrored is not False})
            found[name] = training.model_copy(update={"noise": noise})
    return config.model_copy(update=found) if found else config
