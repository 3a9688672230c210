"""Which networks and options of timm a configuration may name, and how far they go.

A model folder may come from a stranger, and timm's factory also takes paths of checkpoints, cache folders, addresses
of weights, and sizes that fill any memory. So an option is allowed by its name and its range, never refused by it.
"""

import re
from collections.abc import Mapping
from typing import Any

from nstudent.errors import ConfigError

_NETWORK = re.compile(r"\w{1,64}(\.\w{1,64})?", re.ASCII)
"""timm's own names, such as vit_tiny_patch16_224.augreg_in21k; with a colon or a slash it would fetch or open."""
_WORD = re.compile(r"\w{0,40}", re.ASCII)
"""Names of layers and poolings. No dot, slash or colon: never a path or an address."""
_MAX_ENTRIES = 64
MAX_BACKBONES = 16

_WORDS = {"act_layer", "aa_layer", "attn_layer", "global_pool", "norm_layer", "pad_type", "pool_type", "stem_type"}
_SWITCHES = {
    *("avg_down", "class_token", "conv_mlp", "dynamic_img_pad", "dynamic_img_size", "final_norm", "fc_norm"),
    *("no_embed_class", "pre_norm", "qk_norm", "qkv_bias", "strict_img_size", "use_fc_norm", "use_grn"),
    *("use_pos_embed", "zero_init_last"),
}
_LARGEST: dict[str, float] = {
    # Sides, in pixels.
    "img_size": 4096,
    "patch_size": 128,
    "window_size": 64,
    "output_stride": 64,
    # Layers and heads.
    "depth": 256,
    "depths": 256,
    "layers": 256,
    "block_config": 256,
    "num_heads": 256,
    "heads": 256,
    "reg_tokens": 64,
    # Channels.
    **dict.fromkeys(("base_width", "cardinality", "channels", "dims", "embed_dim", "embed_dims"), 16384),
    **dict.fromkeys(("group_size", "groups", "growth_rate", "head_dim", "head_hidden_size"), 16384),
    **dict.fromkeys(("num_features", "num_init_features", "stem_chs", "stem_size", "stem_width", "widths"), 16384),
    # Ratios and starting values.
    **dict.fromkeys(("attn_ratio", "expand_ratio", "mlp_ratio", "mlp_ratios"), 64),
    **dict.fromkeys(("head_init_scale", "init_values", "layer_scale_init_value", "ls_init_value", "norm_eps"), 1),
    # Shares.
    **dict.fromkeys(("attn_drop_rate", "drop_path_rate", "drop_rate", "patch_drop_rate", "pos_drop_rate"), 1),
    "proj_drop_rate": 1,
}


def check_network(name: str) -> None:
    """Check that ``name`` can be the plain name of a timm network: no path, no address.

    Raises:
        ConfigError: It holds more than letters, digits and ``_``.
    """
    if not _NETWORK.fullmatch(name):
        raise ConfigError(f"'{name:.80}' is not the name of a timm network: names hold letters, digits and _ alone")


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that the options of a backbone are ones that may be set, each to a value of its kind.

    Raises:
        ConfigError: An option is not known, or its value is of another kind or too large. The first one is named.
    """
    for key, value in options.items():
        if key in _SWITCHES:
            fits, wanted = isinstance(value, bool), "true or false"
        elif key in _WORDS:
            fits, wanted = isinstance(value, str) and bool(_WORD.fullmatch(value)), "a word"
        elif key in _LARGEST:
            fits, wanted = _is_within(value, _LARGEST[key]), f"from 0 to {_LARGEST[key]:g}"
        else:
            known = ", ".join(sorted(_SWITCHES | _WORDS | _LARGEST.keys()))
            raise ConfigError(f"'{name}': backbone_options.{key:.40} may not be set: choose from {known}")
        if not fits:
            raise ConfigError(f"'{name}': backbone_options.{key} is {value!r:.40}, which is not {wanted}")


def _is_within(value: Any, largest: float) -> bool:
    if isinstance(value, list | tuple):
        return 0 < len(value) <= _MAX_ENTRIES and all(_is_within(entry, largest) for entry in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= largest
