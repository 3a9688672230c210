"""Tables of alternatives: heads, losses, decoders and the like, each under the name that a configuration gives it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from nstudent.errors import ConfigError

Entry = TypeVar("Entry")


def chosen(table: Mapping[Any, Entry], name: str, key: str) -> Entry:
    """The entry of a table with this name.

    Args:
        table: Entries by name; the names may be of a ``Literal`` type.
        name: What the configuration says.
        key: Key of the configuration that says it, for the message.

    Raises:
        ConfigError: There is no such entry; the message lists those that there are.
    """
    for known, entry in table.items():
        if known == name:
            return entry
    raise ConfigError(f"{key}: there is no '{name}': choose from {', '.join(table)}")
