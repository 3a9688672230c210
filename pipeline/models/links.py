"""Links: what turns the logits of a level into a distribution over its outputs."""

from collections.abc import Callable

from torch import Tensor

LINKS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": lambda logits: logits.softmax(dim=1)}
"""By the name in a recipe: float32 logits, (images, outputs), to probabilities of the same shape."""
