"""A recogniser as ONNX: its encoder, with the layer of CTC where it has one.

Legend: B sequences, T frames, F features, M width of the encoder, V classes.
"""

from pathlib import Path
from typing import final

from torch import Tensor, nn

from etude.tasks.onnx_form import BATCH, LENGTH, Drawing, Given, refuse_own, write_onnx
from etude.tasks.speech_recognition.heads import CtcHead
from etude.tasks.speech_recognition.model import SpeechModel
from etude.tasks.speech_recognition.task import SpeechTask
from etude.tasks.task_type import Kept
from etude.train.task import Task

LENGTHS = "how many of the frames are a recording's own"


@final
class Logs(nn.Module):
    """Features to log-probabilities of classes."""

    def __init__(self, model: SpeechModel, head: CtcHead) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T', V] and lengths [B]."""
        encoded_BTM, lengths_B = self.model(features_BTF, lengths_B)
        return self.head.logs(encoded_BTM), lengths_B


def write_recogniser(task: Task, kept: Kept, folder: Path) -> str:
    """Write it, and say what it is. Raises ConfigError."""
    match task:
        case SpeechTask():
            return write_onnx(drawing_of(task), kept, folder)
    raise refuse_own(kept)


def drawing_of(task: SpeechTask) -> Drawing:
    """Features and lengths in; log-probabilities or, without CTC, encoded frames and lengths out."""
    front_end, tokenizer = task.front_end, task.tokenizer
    inputs = (
        Given("features", "numbers", (BATCH, LENGTH, front_end.width), about=str(front_end)),
        Given("lengths", "lengths", (BATCH,), about=LENGTHS),
    )
    facts = {
        "rate": front_end.rate,
        "features": front_end.config.model_dump(mode="json"),
        "seconds_a_frame": task.seconds_a_frame,
        "tokens": tokenizer.spell(range(tokenizer.size)),
    }
    heads = [head for head in task.heads.values() if isinstance(head, CtcHead)]
    if not heads:
        outputs = {"frames": "what the encoder gives, [batch, frames, width]", "frame_lengths": LENGTHS}
        return Drawing(task.model, inputs, outputs, facts)
    outputs = {"log_probabilities": "of each token, [batch, frames, tokens]", "frame_lengths": LENGTHS}
    return Drawing(Logs(task.model, heads[0]), inputs, outputs, {**facts, "blank": heads[0].blank})
