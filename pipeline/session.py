"""What a caller brings to a run, other than its configuration: none of it changes what is made."""

from dataclasses import dataclass, field

from nstudent.distributed.world import Alone, World
from nstudent.listener import Listener, NoListener
from nstudent.progress import Progress, Silence, Watched
from nstudent.signals import StopRequest


@dataclass(frozen=True, kw_only=True)
class Session:
    """Who is told of a run, who may stop it, and which processes share its work."""

    progress: Progress = field(default_factory=Silence)
    """Is told of the work in lines and bars, for a person. Default: silence."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Is asked between pieces of work whether to go on. Default: nobody stops the run."""
    world: World = field(default_factory=Alone)
    """The processes that share the work; each of them makes the same call. Default: this process alone."""
    listener: Listener = field(default_factory=NoListener)
    """Is told of events, for a program. Default: nobody listens."""

    def watched(self) -> Progress:
        """The progress, which also asks ``stop`` whether to go on wherever it is told of work that was done."""
        return Watched(self.progress, self.stop.check)
