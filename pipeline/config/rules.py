"""What follows from the rest of the configuration where a key is left open."""

from nstudent.config.members import MemberConfig, ModelConfig, ProbeConfig
from nstudent.config.schema import Config


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
