"""The configuration as a JSON schema, by which an editor completes a page and marks what is wrong in it."""

from typing import Any

from nstudent.config.members import MEMBERS, NETWORK
from nstudent.config.schema import Config
from pydantic.json_schema import models_json_schema

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a page (draft 2020-12), with the meaning of every key as its description."""
    schema = Config.model_json_schema()
    defs = schema.setdefault("$defs", {})
    _, kinds = models_json_schema([(kind, "validation") for kind in MEMBERS.values()])
    defs |= kinds["$defs"]
    for name, kind in MEMBERS.items():
        entry = {**defs[kind.__name__], "properties": {"kind": {"const": name}, **defs[kind.__name__]["properties"]}}
        # A member without a kind is a network.
        defs[f"Member_{name}"] = entry if name == NETWORK else {**entry, "required": ["kind"]}
    for group in defs.values():
        for key in group.get("properties", {}).values():
            for each in (key, *key.get("anyOf", ())):
                if names := each.get("items", {}).pop("kinds", None):
                    each["items"] = {"anyOf": [{"$ref": f"#/$defs/Member_{name}"} for name in names]}
    return {"$schema": _DRAFT, **schema}
