"""``nstudent config ...``: what can be set, what is set, and where each value comes from."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer
from nstudent.cli.arguments import ConfigOption, Overrides, complete_key
from nstudent.errors import one_line

if TYPE_CHECKING:
    from nstudent.config.explained import Explained

app = typer.Typer(no_args_is_help=True, help="See what can be set, what is set, and where it comes from.")
_WIDTH = 80
_NAME = 22
"""Columns of the name of a key; the longest has so many."""


@app.command("show")
def config_show_command(
    overrides: Overrides = None,
    config: ConfigOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what is as it is by default.")] = False,
) -> None:
    """Print the whole configuration of a run, with the origin of every value behind it.

    An origin is the default, the file given by --config, or the command line. The text is itself a file that --config
    takes. What a run was made with: nstudent config show --config RUN_DIR/config.yaml --changed
    """
    from nstudent.config.origins import as_page, resolved
    from nstudent.runs.sized_config import sized

    typer.echo(as_page(resolved(config, sized(config, overrides or [])), changed=changed), nl=False)


@app.command("schema")
def config_schema_command() -> None:
    """Print the JSON schema of a configuration file, by which editors complete keys and mark mistakes.

    Write it beside your file (nstudent config schema > nstudent.schema.json), and make this the first line of the file:

    `# yaml-language-server: $schema=nstudent.schema.json`
    """
    from nstudent.config.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command("explain")
def config_explain_command(
    key: Annotated[
        str,
        typer.Argument(
            help="A key, such as student.epochs, or a group of keys, such as data. Default: all groups.",
            metavar="KEY",
            autocompletion=complete_key,
        ),
    ] = "",
) -> None:
    """Say what a key means, which values it takes, what it is by default, and when to change it."""
    from nstudent.config.explained import explained

    for entry in explained(key):
        _print(entry)


def _print(entry: Explained) -> None:
    if entry.kind:
        typer.echo(f"{entry.key} (kind: {entry.kind})")
    elif entry.key:
        typer.echo(entry.key)
    if entry.key:
        typer.echo(_wrapped(f"{entry.meaning}." if not entry.meaning.endswith(".") else entry.meaning, "  "))
    if entry.takes:
        typer.echo(_wrapped(f"takes:    {entry.takes}", "  ", "            "))
        typer.echo(
            _wrapped(f"default:  {one_line(json.dumps(entry.default, ensure_ascii=False))}", "  ", "            ")
        )
    if entry.when:
        typer.echo(_wrapped(f"change:   {entry.when}", "  ", "            "))
    for name in entry.below:
        typer.echo(_in_a_list(name, entry.kind))


def _in_a_list(key: str, kind: str) -> str:
    """A key or group among others of its group, with the first sentence of what it means, for that kind of member."""
    from nstudent.config.explained import explained

    entries = explained(key)
    meaning = next((entry.meaning for entry in entries if entry.kind == kind), entries[0].meaning)
    first = meaning.split(". ")[0].removesuffix(".")
    start = f"  {key.rpartition('.')[2]:<{_NAME}}  "
    return _wrapped(textwrap.shorten(first, 2 * (_WIDTH - len(start)), placeholder=" ..."), start, " " * len(start))


def _wrapped(text: str, start: str, further: str | None = None) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start if further is None else further,
        break_long_words=False,
        break_on_hyphens=False,
    )
