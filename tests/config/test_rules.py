"""What follows where a key is left open."""

import pytest
from nstudent.config.file import load_config
from nstudent.config.members import ProbeConfig
from nstudent.config.rules import probe_members
from nstudent.errors import ConfigError


def test_a_network_is_no_probe() -> None:
    with pytest.raises(ConfigError, match=r"probe\.members\.1 is a network, .*teacher\.members"):
        load_config(None, ["probe.members=[{kind: probe}, {}]"])


@pytest.mark.parametrize(
    ("words", "probes"),
    [
        ((), (ProbeConfig(),)),
        (("probe.members=[]",), ()),
        (("probe.members=[{kind: probe, mirror: true}]",), (ProbeConfig(mirror=True),)),
        (("student.model={pretrained: true}",), (ProbeConfig(),)),
        (
            ("teacher.members=[{backbones: [resnet18]}, {backbones: [vgg11, resnet34], pretrained: weights}]",),
            (ProbeConfig(features="backbones", backbones=("vgg11", "resnet34"), pretrained="weights"),),
        ),
        (
            ("teacher.members=[{kind: probe}, {pretrained: true, backbone_options: {widths: 8}}]",),
            (ProbeConfig(features="backbones", backbone_options={"widths": 8}, pretrained=True),),
        ),
    ],
)
def test_the_probe_looks_at_what_the_teacher_begins_with(
    words: tuple[str, ...], probes: tuple[ProbeConfig, ...]
) -> None:
    assert probe_members(load_config(None, words)) == probes
