"""Names of the networks there are, read from timm's files: importing timm takes seconds, and torch with it."""

import difflib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nstudent.errors import ConfigError

_REGISTERED = re.compile(r"^@register_model[^\n]*\ndef (\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^\s*['\"](\w+)['\"]\s*:", re.MULTILINE)


@cache
def network_names() -> frozenset[str]:
    """Every network that timm or this package registers; empty if timm's files are not where they are looked for."""
    found = set()
    for path in _files():
        text = path.read_text(encoding="utf-8")
        found.update(_REGISTERED.findall(text))
        for block in _RENAMED.findall(text):
            found.update(_KEY.findall(block))
    return frozenset(found)


def check_network_name(key: str, name: str) -> None:
    """Refuse a network that there is not; one whose weights have a tag (``NAME.TAG``) goes by its name.

    Args:
        key: Key of the configuration that names it.
        name: The name.

    Raises:
        ConfigError: There is none of that name; the message names the nearest.
    """
    known = network_names()
    if known and name.partition(".")[0] not in known:
        near = difflib.get_close_matches(name, sorted(known), n=3)
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ConfigError(f"{key}: timm has no network '{name:.80}'{hint}: see timm.list_models()")


def _files() -> Iterator[Path]:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return
    timms = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py"))
    if timms:
        yield from timms
        yield from sorted(Path(__file__).parent.parent.joinpath("models").glob("*.py"))
