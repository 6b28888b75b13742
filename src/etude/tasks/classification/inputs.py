"""What a kind of input is to the task: what a run keeps of it, from which its model and its reader are made."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from etude.data.store.targets import Targets
from etude.tasks.classification.task import Reader
from etude.tasks.task_type import Processor


class SampleProcessor(Processor, Protocol):
    """What a run over samples keeps: how inputs are read, and what is predicted."""

    targets: Targets
    """What samples are labelled with."""

    def reader(self) -> Reader:
        """What makes a model's inputs of what predictions are asked for."""

    def offered(self) -> Mapping[str, object]:
        """What models and tasks of the user's own may ask for, by the names of their arguments."""

    def model(self, config: Any, outputs: int) -> nn.Module:
        """The network that the config names, not yet initialised."""

    def sizes(self, config: Any) -> str:
        """What of the config makes the network large, for messages."""
