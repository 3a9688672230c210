"""The decoders there are. Labelling, scoring and the classifier ask here, by the name that a recipe gives."""

from collections.abc import Callable
from functools import partial

from nstudent.labels.best_path import BestPath
from nstudent.labels.decoding import Decoder
from nstudent.labels.descent import Descent
from nstudent.labels.posterior_decoder import PosteriorDecoder
from nstudent.labels.worth import ConditionalRisk, ExpectedScore, MostProbable, MostProbableDepth
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs

DECODERS: dict[str, Callable[[Outputs], Decoder]] = {
    "best_path": BestPath,
    "expected_score": partial(PosteriorDecoder, worth=ExpectedScore(exact=1)),
    "level_accuracy": partial(PosteriorDecoder, worth=ExpectedScore(exact=0)),
    "most_probable": partial(PosteriorDecoder, worth=MostProbable()),
    "crm": lambda outputs: PosteriorDecoder(outputs, ConditionalRisk.of(outputs)),
    "argmax": Descent,
    "majority": partial(Descent, majority=True),
    "stop_depth": partial(PosteriorDecoder, worth=MostProbableDepth()),
}
"""What makes a decoder from the outputs of a model, by the name in the model's recipe."""


def build_decoder(name: str, outputs: Outputs) -> Decoder:
    """Make the decoder of this name for a model with these outputs.

    Raises:
        ConfigError: There is no such decoder; the message lists those that there are.
    """
    return chosen(DECODERS, name, "decoder")(outputs)
