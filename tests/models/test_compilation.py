"""torch.compile. Capturing is torch's own; machine code for it is made nowhere here, because that takes a minute."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models import compilation
from nstudent.models.compilation import compile_network
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.models.network_member import NetworkMember
from torch import nn
from trees import outputs_of

CPU = torch.device("cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often torch captured something, in a list."""
    graphs = []

    def backend(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "_BACKEND", backend)
    return graphs


class Network(nn.Module):
    """With a ``forward`` of its own, as every network here: torch 2.11 captures none of torch's own by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.mark.slow
def test_a_compiled_network_is_the_same_under_the_same_names(compiled: list[Any]) -> None:
    inputs, plain = torch.rand(5, 4), network()
    ours = network()
    compile_network(ours, "default")
    copied = deepcopy(ours)
    torch.testing.assert_close(ours(inputs), plain(inputs))
    assert len(compiled) == 1
    assert ours.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(copied(inputs), plain(inputs))
    assert len(compiled) == 1, "a copy, such as the average of the weights, runs as it is"


@pytest.mark.slow
def test_a_batch_of_another_size_leaves_the_sizes_fixed(compiled: list[Any]) -> None:
    """A batch that was halved for want of memory must not turn every size into a variable: layouts get slow."""
    ours = network()
    compile_network(ours, "default")
    for rows in (8, 4, 2):
        ours(torch.rand(rows, 4))
    # One that took sizes for variables would have captured two.
    assert len(compiled) == 3


@pytest.mark.slow
def test_more_networks_than_torch_expects_are_compiled_all_the_same(compiled: list[Any]) -> None:
    """A run has members, a filter, a baseline and students, each in training and in labelling: torch stops at 8."""
    torch._dynamo.reset()
    for width in range(2, 8):
        ours = build_network(ModelConfig(backbones=("test_resnet",), head_width=width), outputs_of(3, 4), ("key",))
        compile_network(ours, "default")
        before = len(compiled)
        ours.train()(torch.rand(2, 3, 32, 32))
        assert len(compiled) > before
        before = len(compiled)
        ours.eval()(torch.rand(2, 3, 32, 32))
        assert len(compiled) > before


@pytest.mark.parametrize(("mode", "captured"), [("none", 0), ("default", 1), ("reduce-overhead", 1)])
def test_it_is_compiled_where_that_was_asked_for(mode: str, captured: int, compiled: list[Any]) -> None:
    ours = network()
    Placement(CPU, "float32", mode).compile(ours)
    ours(torch.rand(5, 4))
    assert len(compiled) == captured


class OfOneLevel(Network):
    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        return (self.layers(inputs),)


def test_the_network_of_a_member_is_compiled_once_it_is_said_that_it_is_worth_it(compiled: list[Any]) -> None:
    member = NetworkMember(OfOneLevel(), "softmax", outputs_of(4), Placement(CPU, "float32", "default"))
    inputs = torch.rand(5, 4)
    (plain,) = member.distributions(inputs)
    assert compiled == []
    member.compile()
    (found,) = member.distributions(inputs)
    assert len(compiled) == 1
    torch.testing.assert_close(found, plain)


def test_what_torch_cannot_compile_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: list[Any]) -> None:
        raise RuntimeError("no compiler\nis installed")

    monkeypatch.setattr(compilation, "_BACKEND", broken)
    ours = network()
    compile_network(ours, "default")
    with pytest.raises(
        ConfigError, match=r"torch cannot compile this network here .*no compiler is installed"
    ) as error:
        ours(torch.rand(5, 4))
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("set compile=none")


def test_running_out_of_memory_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is then cut into portions, compiled or not."""

    def full(*inputs: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(compilation, "_BACKEND", lambda graph, inputs: full)
    ours = network()
    compile_network(ours, "default")
    with pytest.raises(torch.OutOfMemoryError):
        ours(torch.rand(5, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own affair
def test_a_compiled_network_that_computes_activations_twice_counts_every_batch_once(compiled: list[Any]) -> None:
    """Also made into machine code it does (by hand, torch 2.14.1 on a CPU): to 1e-4 of the plain one after 3 steps."""

    def trained(checkpointing: bool) -> dict[str, torch.Tensor]:
        ours = build_network(ModelConfig(), outputs_of(3, 4), ("key",), checkpointing=checkpointing).train()
        if checkpointing:
            compile_network(ours, "default")
        optimizer = torch.optim.SGD(ours.parameters(), 0.01)
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            optimizer.zero_grad()
            torch.stack([level.square().sum() for level in ours(images)]).sum().backward()
            optimizer.step()
        return ours.state_dict()

    both, plain = trained(True), trained(False)
    assert compiled
    assert [name for name in plain if not torch.equal(both[name], plain[name])] == []
