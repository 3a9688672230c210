"""The kinds of members there are: how each is fitted, and how each is loaded."""

from nstudent.config.members import NETWORK, kind_of
from nstudent.config.types import Section
from nstudent.models.members import Kind
from nstudent.models.network_member import NetworkKind
from nstudent.models.probe_member import ProbeKind

KINDS: dict[str, Kind] = {NETWORK: NetworkKind(), "probe": ProbeKind()}
"""By the names of their settings in ``config.members.MEMBERS``."""


def kind_for(settings: Section) -> Kind:
    """What fits and loads the members that these settings describe.

    Raises:
        ConfigError: They are of no kind in the table.
    """
    return KINDS[kind_of(settings)]
