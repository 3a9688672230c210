"""Several GPUs of one machine, as far as a CPU holds it: devices are those of fake tensors, which compute nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.file import load_config
from nstudent.data.batches import Batch, Batches, Examples
from nstudent.data.dataset import Dataset, PixelStore
from nstudent.data.resident import ResidentPixels
from nstudent.labels.targets import GivenTargets
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.pixels import training_pixels
from nstudent.training.preparation import Ahead
from torch._subclasses.fake_tensor import FakeTensorMode
from torchrun_processes import said, torchrun

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that only a machine with a GPU can pin."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)


def fake() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.mark.slow
def test_two_processes_take_a_gpu_each_and_wait_for_it_half_an_hour_at_most() -> None:
    week = 7 * 24 * 60
    found = said(*torchrun(2), Path(__file__).with_name("shared_gpus.py"))
    assert found == [[0, 0, week, 30], [1, 1, week, 30]]


@pytest.mark.usefixtures("unpinned")
@pytest.mark.parametrize("roomy", [FIRST, SECOND])
def test_images_live_on_the_gpu_of_the_process_if_that_one_has_room(
    roomy: torch.device, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have filled the other GPU: each looks at its own."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30 if device == roomy else 0, 2**30))
    config = load_config(None, ["device=cpu", "workers=0"])
    with fake():
        pixels = {device: training_pixels(config, digits, device) for device in (FIRST, SECOND)}
        assert pixels[roomy][np.arange(3)].device == roomy
    assert isinstance(pixels[roomy], ResidentPixels)
    assert isinstance(pixels[FIRST if roomy == SECOND else SECOND], PixelStore)


@pytest.mark.usefixtures("unpinned")
def test_a_thread_finds_the_images_of_the_second_process_on_the_second_gpu(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new thread the current GPU is the first one, whatever the process has chosen."""
    ids = digits.labelled
    examples = Examples(ids, GivenTargets(digits.labels[ids], Outputs(digits.taxonomy)))
    with fake():
        resident = ResidentPixels(digits.pixels, len(digits), digits.image_size, SECOND)
    batches = Batches(resident, [(examples, 4)], None, ("gpus",), process=(1, 2))
    send, goals = torch.Tensor.to, []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, goal, **how: goals.append(goal) or send(tensor, goal, **how))

    def in_the_thread() -> Iterator[Batch]:
        for step in range(2):
            with fake():
                batch = batches[step]
            yield batch

    prepared = list(Ahead(in_the_thread()))
    assert [batch.images.device for batch in prepared] == [SECOND, SECOND]
    assert set(goals) == {SECOND}
    assert prepared[0].images.shape == (2, digits.image_size, digits.image_size, 3)
