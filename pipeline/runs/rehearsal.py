"""Before a run trains anything, every network that it will train is built and tried once (``training.trial``)."""

from __future__ import annotations

from collections.abc import Sequence

from nstudent.config.data import USUAL_LEVELS
from nstudent.config.schema import Config
from nstudent.machine import out_of_working_folder
from nstudent.progress import Progress
from nstudent.runs.preflight import check_networks, weights_to_download
from nstudent.runs.stage import Step


def rehearse(config: Config, steps: Sequence[Step], progress: Progress, processes: int = 1) -> None:
    """Try the networks of these steps; nothing is read but weights that the configuration names.

    Weights that timm is to download are downloaded first.

    Args:
        config: Configuration of the run.
        steps: Steps of its plan; those that train nothing are passed over.
        progress: Is told how far it is.
        processes: Number of processes that divide each batch.

    Raises:
        ConfigError: A network cannot be trained as the configuration says; one line with the key and the remedy.
    """
    stages = {step.stage.name: step.stage for step in steps if step.stage.trains}
    for step in steps:
        if step.stage.trains:
            check_networks(step.settings(config))
    wanted = {name: key for step in steps for name, key in weights_to_download(step.settings(config)).items()}
    if wanted:
        with out_of_working_folder():
            from nstudent.models.downloads import download
        download(wanted, progress)
    if not stages:
        return
    # It imports torch, which a run that is up to date does without.
    with out_of_working_folder():
        from nstudent.models.device import device_or_cpu
        from nstudent.training.trial import Conditions, any_outputs, try_out

    planned = [each for stage in stages.values() for each in stage.load_planned()(config)]
    outputs = any_outputs(config.data.known_levels or USUAL_LEVELS[-1], config.absent)
    conditions = Conditions(config.data.image_size, outputs, processes, device_or_cpu(config))
    try_out(planned, conditions, progress)
