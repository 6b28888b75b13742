"""Cross entropy on an alignment: of an encoder alone, and of a transducer along its aligned path.

Legend: B sequences, T frames, U labels and one, V classes, E width, N nodes of all paths.
"""

from typing import final

import torch
from torch import Tensor

from etude.model.alignment.result import NOWHERE
from etude.model.loss import Loss
from etude.model.losses.cross_entropy import CrossEntropy
from etude.model.losses.transducer import Joint


def labels_before(classes_BT: Tensor, *, blank: int) -> Tensor:
    """How many labels a transducer's path has said before each frame [B, T]; beyond its end, all of them.

    >>> labels_before(torch.tensor([[0, 5, 0, 5, 7, -1]]), blank=0).tolist()
    [[0, 0, 1, 1, 2, 3]]
    """
    said_BT = (classes_BT != blank) & (classes_BT != NOWHERE)
    return said_BT.cumsum(1) - said_BT.long()


@final
class Framewise:
    """Cross entropy in nats of each frame's aligned class, summed over the frames that have one.

    Frames beyond a sequence's end, and all of one without a path, are NOWHERE in an `Alignment` and do not count.
    `label_smoothing` follows torch, as that of `CrossEntropy` does, and may be set between steps.

    >>> loss = Framewise()(torch.zeros(1, 3, 4), torch.tensor([[2, 0, NOWHERE]]))
    >>> round(float(loss.value), 4), int(loss.count)
    (1.3863, 2)
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def plain(self) -> "Framewise":
        """What evaluation reports: the same without smoothing."""
        return Framewise()

    def __call__(self, logits_BTV: Tensor, classes_BT: Tensor) -> Loss:
        """Logits of any scale, a class for each of their frames. Raises ValueError where the frames are not as many.

        An alignment is of the frames that the model gives after all subsampling.
        """
        if logits_BTV.shape[:2] != classes_BT.shape:
            raise ValueError(
                f"An alignment of {tuple(classes_BT.shape)} sequences and frames cannot be that of logits of "
                f"{tuple(logits_BTV.shape[:2])}: it must be made after the same subsampling, and padded as they are."
            )
        return CrossEntropy(self.label_smoothing, NOWHERE)(logits_BTV, classes_BT)

    def along(self, joint: Joint, encoded_BTE: Tensor, said_BUE: Tensor, classes_BT: Tensor, *, blank: int = 0) -> Loss:
        """That of a transducer along a path with a blank or one label in each frame, as `to_transducer` makes it.

        `joint` is the one of the transducer's loss; it is asked for the T nodes of each path alone, not for all T x U
        (Zeyer et al. 2020, "A New Training Pipeline for an Improved Neural Transducer"). `said_BUE` are the prediction
        network's outputs after no label, the first, and so on.
        """
        before_BT1 = labels_before(classes_BT, blank=blank)[..., None]
        said_BTE = said_BUE.gather(1, before_BT1.expand(-1, -1, said_BUE.size(2)))
        logits_N11V = joint(_nodes(encoded_BTE), _nodes(said_BTE))
        return self(logits_N11V.view(*encoded_BTE.shape[:2], logits_N11V.size(-1)), classes_BT)


def _nodes(values_BTE: Tensor) -> Tensor:
    """Each frame as a sequence of its own [N, 1, E]."""
    return torch.flatten(values_BTE, 0, 1)[:, None]
