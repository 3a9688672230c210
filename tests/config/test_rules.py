"""What follows where a key is left open."""

import pytest
from nstudent.config.file import load_config
from nstudent.config.members import ProbeConfig
from nstudent.config.rules import decisions_of_probe, probe_members, with_decisions
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


@pytest.mark.parametrize(("found", "mirrored"), [(True, True), (False, False), (None, True)])
def test_a_decision_that_is_left_open_is_the_probes(found: bool | None, mirrored: bool) -> None:
    config = load_config(None, ["teacher.noise.flip=null", "filter.noise.flip=null", "student.noise.flip=false"])
    assert decisions_of_probe(config.teacher) == ("probe",)
    assert decisions_of_probe(config.student) == ()
    taken = with_decisions(config, found)
    assert (taken.teacher.noise.flip, taken.filter.noise.flip, taken.student.noise.flip) == (mirrored, mirrored, False)
    given = load_config(None, [f"{name}.noise.flip={str(mirrored).lower()}" for name in ("teacher", "filter")])
    assert taken == given


def test_where_nothing_is_open_nothing_changes() -> None:
    assert with_decisions(load_config(), True) == load_config()
