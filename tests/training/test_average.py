import torch
from nstudent.training.average import WeightAverage
from timm.utils import ModelEmaV3
from torch import nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_the_average_is_timms_bit_for_bit() -> None:
    ours_of, theirs_of = network(), network()
    ours, theirs = WeightAverage(ours_of), ModelEmaV3(theirs_of)
    for step in range(5):
        for each in (ours_of, theirs_of):
            torch.manual_seed(step)
            each(torch.randn(6, 3, 8, 8)).square().mean().backward()
            with torch.no_grad():
                for weight in each.parameters():
                    weight -= 0.1 * weight.grad
        theirs.decay = 0.3 + step / 10
        ours.update(0.3 + step / 10)
        theirs.update(theirs_of)
    for name, tensor in theirs.module.state_dict().items():
        assert torch.equal(ours.module.state_dict()[name], tensor), name
        assert name.endswith("num_batches_tracked") or not torch.equal(tensor, theirs_of.state_dict()[name])


def test_it_goes_on_where_weights_were_loaded_or_laid_out_anew() -> None:
    followed = network()
    average = WeightAverage(followed)
    followed.to(memory_format=torch.channels_last)
    followed.load_state_dict({name: torch.ones_like(tensor) for name, tensor in network().state_dict().items()})
    average.update(0.0)
    assert all((tensor == 1).all() for tensor in average.module.state_dict().values())


def test_a_weight_that_is_a_single_number_is_averaged_too() -> None:
    followed = nn.Module()
    followed.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
    average = WeightAverage(followed)
    with torch.no_grad():
        followed.temperature.fill_(3.0)
    average.update(0.5)
    assert average.module.temperature.item() == 2.0


def test_it_is_in_evaluation_mode_and_its_own() -> None:
    followed = network().train()
    average = WeightAverage(followed)
    with torch.no_grad():
        followed[0].weight.add_(1)
    assert not average.module.training
    assert followed.training
    assert not torch.equal(average.module[0].weight, followed[0].weight)
