"""The best path of CTC: labels among blanks.

Legend: B sequences, T frames, L labels, V classes.
"""

from torch import Tensor

from etude.model.alignment.result import Alignment
from etude.model.alignment.viterbi import Places, best_path


def ctc_alignment(
    logs_BTV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor, *, blank: int = 0
) -> Alignment:
    """The most probable path of CTC that becomes the labels (Viterbi; Graves et al. 2006), of a whole batch at once.

    `logs_BTV` are log-probabilities; the path is found on their device, in float32 (float64 stays), in T steps over
    all places of all sequences. Of paths that are equal it takes, from the last frame back, the later place. A
    sequence whose labels do not fit has no path. CTC's labels are spikes: where a sound ends they do not tell.
    """
    places = Places.of(targets_BL, target_lengths_B, blank).without_repeats()
    return best_path(logs_BTV, lengths_B, places, target_lengths_B)
