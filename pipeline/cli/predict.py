"""``nstudent predict``: labels for images, by the classifier that a run has made."""

import json
from typing import Annotated

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.cli.interruption import USER_ERROR
from nstudent.cli.streams import lost_output
from nstudent.errors import ArtifactError
from nstudent.machine import out_of_working_folder


def predict_command(
    run_dir: RunDirArgument,
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.", metavar="IMAGE...")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Label images with the final classifier: one JSON line an image, absent levels left out.

    An image that cannot be read has an "error" in its line, and the exit code is 2.
    """
    with out_of_working_folder():
        from nstudent.classifier import Classifier

    predictions = Classifier.load(run_dir, device).predict(images)
    for prediction in predictions:
        labels = {
            level: {"class": found.name, "probability": round(found.probability, 4)}
            for level, found in prediction.labels.items()
        }
        line = {"image": prediction.image} | ({"error": prediction.error} if prediction.error else {"labels": labels})
        typer.echo(json.dumps(line))
    if why := lost_output():
        raise ArtifactError(f"the predictions could not be written: {why}")
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(USER_ERROR)
