"""What stands beside an exported program or in its metadata, so that its answers can be read without the run."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from nstudent.export.program import INPUT, output_names
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import Artifact


def description(recipe: Recipe, final: Artifact) -> dict[str, Any]:
    """What a program takes and gives, as a JSON object.

    ``classes`` names the outputs of each level in their order; the last one is null where it speaks for 'nothing'.
    """
    taxonomy, outputs = recipe.taxonomy, recipe.outputs
    return {
        "made by": f"nstudent {metadata.version('nstudent')}",
        "step": final.name,
        "id": final.manifest.id,
        "input": {"name": INPUT, "type": "uint8", "shape": ["images", recipe.image_size, recipe.image_size, 3]},
        "image_size": recipe.image_size,
        "max_pixels": recipe.max_pixels,
        "outputs": output_names(taxonomy.levels),
        "levels": list(taxonomy.levels),
        "classes": {
            level: [*names, None] if outputs.has_nothing(number) else list(names)
            for number, (level, names) in enumerate(zip(taxonomy.levels, taxonomy.classes, strict=True))
        },
        "taxonomy": taxonomy.to_json(),
    }
