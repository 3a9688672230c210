"""The decoders there are. Labelling, scoring and the classifier ask here, by the name that a recipe gives."""

from collections.abc import Callable

from nstudent.labels.best_path import BestPath
from nstudent.labels.decoding import Decoder
from nstudent.labels.expected_score import ExpectedScore
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs

DECODERS: dict[str, Callable[[Outputs], Decoder]] = {
    "best_path": BestPath,
    "expected_score": ExpectedScore,
}
"""What makes a decoder from the outputs of a model, by the name in the model's recipe."""


def build_decoder(name: str, outputs: Outputs) -> Decoder:
    """Make the decoder of this name for a model with these outputs.

    Raises:
        ConfigError: There is no such decoder; the message lists those that there are.
    """
    return chosen(DECODERS, name, "decoder")(outputs)
