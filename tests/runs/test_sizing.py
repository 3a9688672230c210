"""The size of images that follows from the limit of cost."""

from collections.abc import Callable
from pathlib import Path

import nstudent
import pytest
from nstudent import cli
from nstudent.config.members import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.cost import check_cost, gmacs, largest_side
from nstudent.models.network import build_network
from nstudent.runs.sized_config import sized
from nstudent.runs.sizing import largest_image_size
from trees import outputs_of
from typer.testing import CliRunner

TWO = "teacher.members=[{}, {backbones: [test_efficientnet]}]"


def cost(side: int) -> float:
    models = (ModelConfig(), ModelConfig(backbones=("test_efficientnet",), backbone_options={}))
    return gmacs([build_network(model, outputs_of(2, 3, 5), ("key",)) for model in models], side)


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 96])
def test_it_is_the_largest_multiple_of_32_within_the_limit_of_the_whole_teacher(side: int) -> None:
    just, less = cost(side) * 1.001, cost(side) * 0.999
    assert largest_image_size(None, [TWO, f"teacher.max_gmacs={just}"]) == side
    if side > 32:
        assert largest_image_size(None, [TWO, f"teacher.max_gmacs={less}"]) == side - 32
    assert check_cost(cost, side, just) <= just


def test_a_size_between_two_that_a_network_does_not_take_is_found() -> None:
    def picky(side: int) -> float:
        if side != 224:
            raise RuntimeError("made for 224 px")
        return 1.0

    assert largest_side(picky, 2.0, 1024) == 224
    with pytest.raises(ConfigError, match=r"max_gmacs is 0\.5, and no multiple of 32 px fits: raise the limit"):
        largest_side(picky, 0.5, 1024)


SHAPES: dict[str, Callable[[int], float]] = {
    "all of it": lambda side: 2e-5 * side**2,
    "a large member with a size of its own": lambda side: 17.0 + 2e-6 * side**2,
    "a member that sees no more than 384 px": lambda side: 1e-4 * min(side, 384) ** 2 + 2e-6 * side**2,
    "every patch looks at all others": lambda side: 3e-4 * side**2 + 3e-10 * side**4,
    "a member with a size of its own alone": lambda side: 0.4,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_however_the_cost_grows_no_larger_size_would_fit(shape: str) -> None:
    cost_at = SHAPES[shape]
    for side in range(32, 1025, 32):
        if cost_at(side) < cost_at(side + 32):
            assert largest_side(cost_at, 1.0001 * cost_at(side), 1024) == side
    assert largest_side(cost_at, 1.0001 * cost_at(1024), 1024) == 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "set teacher.max_gmacs"),
        (["teacher.members=[{kind: probe}]", "teacher.max_gmacs=1"], "for a teacher of networks alone"),
        (["teacher.max_gmacs=1e-9"], "no multiple of 32 px fits"),
    ],
)
def test_where_nothing_follows_a_line_says_why(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        largest_image_size(None, words)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_pages_and_words_may_leave_it_open_and_a_number_stays(tmp_path: Path) -> None:
    page, limit = tmp_path / "page.yaml", cost(64) * 1.001
    page.write_text(f"data: {{image_size: auto}}\nteacher: {{max_gmacs: {limit}}}\n")
    assert sized(page, [TWO]) == [TWO, "data.image_size=64"]
    assert sized(page, ["data.image_size=48"]) == ["data.image_size=48"]
    assert sized(None, []) == []
    words = [TWO, f"teacher.max_gmacs={limit}", "data.image_size=auto"]
    shown = CliRunner().invoke(cli.app, ["config", "show", "--changed", *words])
    assert "image_size: 64" in shown.output
    # Python and the command line read a page in one place.
    assert nstudent.load_config(page, [TWO]).data.image_size == 64
    assert nstudent.load_config(page, [TWO, "data.image_size=48"]).data.image_size == 48
    with pytest.raises(ConfigError, match=r"set teacher\.max_gmacs"):
        nstudent.load_config(None, ["data.image_size=auto"])
