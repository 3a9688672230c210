"""The kinds of members there are: how a recipe describes each, and how each is loaded."""

from dataclasses import dataclass

from nstudent.config.schema import ModelConfig
from nstudent.config.types import Section
from nstudent.errors import ConfigError
from nstudent.models.members import Loader
from nstudent.models.network_member import load_network
from nstudent.tables import chosen


@dataclass(frozen=True)
class Kind:
    """One kind of member."""

    settings: type[Section]
    """What describes such a member in a recipe."""
    load: Loader
    """What makes the member again out of its settings and its file."""


NETWORK = "network"
KINDS: dict[str, Kind] = {NETWORK: Kind(ModelConfig, load_network)}
"""By the name in a recipe (``kind`` of a member)."""


def kind_of(settings: Section) -> str:
    """Name of the kind of member that these settings describe.

    Raises:
        ConfigError: They are of no kind in the table.
    """
    for name, kind in KINDS.items():
        if type(settings) is kind.settings:
            return name
    raise ConfigError(f"{type(settings).__name__} describes no kind of member: choose from {', '.join(KINDS)}")


def read_settings(entry: dict[str, object]) -> Section:
    """The settings in a recipe's entry for a member; one without a kind is a network.

    Raises:
        ConfigError: There is no such kind.
        ValidationError: The settings do not fit the kind.
    """
    kind = chosen(KINDS, str(entry.get("kind", NETWORK)), "kind")
    return kind.settings.model_validate({key: value for key, value in entry.items() if key != "kind"})
