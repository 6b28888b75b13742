"""What the joint network of a transducer takes, which is most of a step's memory: said before the first step."""

import numpy as np

from etude.base.config.components import Imported
from etude.base.says import Say
from etude.data.feeds.recorded import RecordedSamples
from etude.model.frames.encoders import frames_after
from etude.model.losses.transducer import joint_bytes
from etude.tasks.batches import training_size
from etude.tasks.speech_recognition.config import SpeechRun, SumConfig, TransducerLossConfig

MIB = 1 << 20


def say_joint(config: SpeechRun, samples: RecordedSamples, classes: int, say: Say) -> None:
    """Say what logits of the joint network and their gradient take in a batch of the longest recordings."""
    match config.loss:
        case TransducerLossConfig(joint_megabytes=most):
            pass
        case SumConfig(joint_megabytes=most, heads=heads) if "transducer" in heads:
            pass
        case _:
            return
    if isinstance(config.model, Imported):
        return  # its frames are not known
    frames, labels = samples.lengths(np.arange(len(samples)))
    longest, size = int(frames.max()), training_size(config.train)
    sequences = size["batch_size"] or max(1, (size["batch_tokens"] or 0) // longest)
    needed = 2 * joint_bytes(sequences, int(frames_after(config.model, longest)), int(labels.max()), classes) // MIB + 1
    held = f"; of more than loss.joint_megabytes = {most:,} they are made in pieces" if needed > most else ""
    say(f"The joint network's logits and their gradient take up to {needed:,} MiB a batch{held}.")
