"""How audio becomes features, and what is changed of both in training: `[data.features]` and `[data.augment]`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.base.schedules import ScheduleSection, scheduled

if TYPE_CHECKING:
    Share: TypeAlias = float | ScheduleSection
    Stretch: TypeAlias = float | ScheduleSection
    Amount: TypeAlias = float | ScheduleSection
    Level: TypeAlias = float | ScheduleSection
else:
    Share = scheduled(ge=0.0, le=1.0)
    """A share in [0, 1]: a constant or a schedule."""
    Stretch = scheduled(ge=0.0, lt=1.0)
    """A strength s in [0, 1) for factors from 1 / (1 + s) to 1 + s: a constant or a schedule."""
    Amount = scheduled(ge=0.0)
    """A number that is 0 or more: a constant or a schedule."""
    Level = scheduled()
    """Decibels: a constant or a schedule."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Nonnegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Range: TypeAlias = tuple[Nonnegative, Nonnegative]
"""From the least to the most."""

SIXTEEN_BITS: Final = 32768.0


def _is_a_scale(scale: float) -> float:
    if scale not in {1.0, SIXTEEN_BITS}:
        raise ValueError(f"must be 1 or {SIXTEEN_BITS:g}")
    return scale


class FeaturesConfig(Section):
    """`[data.features]`: frames of audio as log-mel energies or cepstral coefficients, by the conventions of Kaldi.

    Only whole windows are framed (`snip_edges`), so n samples give 1 + (n - window) // shift frames.
    """

    type: Literal["logmel", "mfcc"] = "logmel"
    """Logarithms of mel energies, or their cosine transform (cepstral coefficients)."""
    mel_bins: int = Field(80, ge=3)
    """Triangular filters, evenly spaced on the mel scale; 40 is enough at 8 kHz, and 23 is usual for mfcc."""
    window: Positive = 25.0
    """Length of a frame in milliseconds."""
    shift: Positive = 10.0
    """From the start of one frame to that of the next, in milliseconds."""
    low_frequency: Nonnegative = 20.0
    """Where the lowest filter begins, in Hz."""
    high_frequency: Finite = 0.0
    """Where the highest filter ends, in Hz; 0 or less is relative to half of the rate."""
    window_type: Literal["povey", "hann", "hamming", "rectangular"] = "povey"
    """The shape of the window; povey is hann to the power of 0.85."""
    preemphasis: Nonnegative = Field(0.97, le=1)
    """How much of the sample before is taken off each sample; 0: nothing."""
    remove_dc: bool = True
    """Take the mean off each frame."""
    dither: Nonnegative = 0.0
    """Deviation of noise that is added to the samples once they are scaled; the same for every recording."""
    scale: Annotated[Positive, AfterValidator(_is_a_scale)] = SIXTEEN_BITS
    """Samples between -1 and 1 are multiplied by this first: 32768 is what Kaldi reads from files of 16 bits. It adds
    20.79 to every log-mel energy, which keeps quiet audio off the floor of 1.19e-7 under the energies."""
    coefficients: int = Field(13, ge=1)
    """mfcc: how many coefficients, at most `mel_bins`."""
    lifter: Nonnegative = 22.0
    """mfcc: coefficient n is multiplied by 1 + lifter / 2 * sin(pi * n / lifter); 0: by nothing."""
    energy: bool = True
    """mfcc: the first coefficient is the logarithm of the frame's energy before preemphasis and window."""
    normalise: Switch[Literal["global", "speaker", "utterance"]] = "utterance"
    """Take off the mean of each feature: over the training split, over the speaker's recordings, or over the recording
    itself. Frames of digital silence do not count."""
    deviation: Switch[Literal["bin", "all"]] = "all"
    """Divide by the deviation: one for each feature, or one for all of them."""
    deltas: Literal[0, 1, 2] = 0
    """Orders of regression deltas that are appended, over two frames to either side."""
    stack: int = Field(1, ge=1)
    """So many frames become one, end to end, without overlap; the last one of a recording is repeated to fill up."""

    @model_validator(mode="after")
    def _is_possible(self) -> "FeaturesConfig":
        if self.type == "mfcc" and self.coefficients > self.mel_bins:
            raise ValueError(f"coefficients must be at most mel_bins, {self.mel_bins}, but is {self.coefficients}")
        if 0 < self.high_frequency <= self.low_frequency:
            raise ValueError(
                f"high_frequency must be above low_frequency, {self.low_frequency:g}, but is {self.high_frequency:g}"
            )
        return self

    @property
    def width(self) -> int:
        """How many numbers there are for a frame, before deltas and stacking."""
        return self.coefficients if self.type == "mfcc" else self.mel_bins

    @property
    def output_width(self) -> int:
        """How many numbers there are for a frame in the end."""
        return self.width * (1 + self.deltas) * self.stack


class AugmentConfig(Section):
    """`[data.augment]`: what is changed of recordings in training, anew in every epoch; nothing unless asked for.

    A recording is changed in this order: mix, speed, tempo, shift, reverberation, gain, noise; the warp bends the mel
    filters; masks come after normalisation. All is a function of (seed, epoch, sample).
    """

    speed: Stretch = 0.0
    """s: play by a factor from 1 / (1 + s) to 1 + s, so that length and pitch change; 0.2 is from 0.83 to 1.2."""
    tempo: Stretch = 0.0
    """s: the same for length alone: the pitch is kept (a phase vocoder)."""
    warp: Stretch = 0.0
    """s: move formants by a factor from 1 / (1 + s) to 1 + s, as vocal tracts of other lengths do."""
    shift: Amount = 0.0
    """At most so many seconds earlier or later; what leaves at one end is lost, and zeros enter at the other."""
    reverberation: Share = 0.0
    """The share of recordings that sound in a room: a generated response, white noise that decays exponentially."""
    rt60: Range = (0.1, 0.5)
    """Seconds in which the room's sound falls by 60 dB, from the least to the most."""
    gain: Amount = 0.0
    """Decibels: every recording is made louder or quieter by up to this."""
    noise: Share = 0.0
    """The share of recordings that get noise."""
    snr_low: Level = 5.0
    """The loudest noise: so many decibels below the recording's own RMS, which is taken over the whole recording."""
    snr_high: Level = 45.0
    """The quietest noise, likewise."""
    noise_colour: Range = (0.0, 1.0)
    """The noise's power falls as frequency to the power of minus this, from the least to the most: 0 white, 1 pink."""
    mix: Share = 0.0
    """For classification: the share of recordings that another of the split is mixed into, brought to the recording's
    own RMS, before all else; the loss is then the mean of that of both, by their shares (Zhang et al. 2018)."""
    mix_alpha: Positive = 1.0
    """The shares of both are drawn from a beta distribution with twice this; the recording's own is the larger one."""
    masks: Switch[Literal["fixed", "adaptive"]] = None
    """SpecAugment (Park et al. 2019). fixed: so many masks as are said below. adaptive: the number of masks is drawn,
    and that of time masks grows with the recording (RETURNN's specaugment)."""
    time_masks: Amount = 2.0
    """fixed: masks over time. adaptive: from half of this to this times 2 or, if more, times hundreds of frames."""
    time_share: Share = 0.1
    """A mask over time covers at most this share of the recording."""
    time_frames: int = Field(20, ge=1)
    """adaptive: and at most so many frames."""
    frequency_masks: Amount = 2.0
    """fixed: masks over features. adaptive: from half of this to one more than this."""
    frequency_bins: Amount = 8.0
    """A mask over features covers at most so many."""

    @model_validator(mode="after")
    def _is_ordered(self) -> "AugmentConfig":
        for name, (low, high) in (("rt60", self.rt60), ("noise_colour", self.noise_colour)):
            if low > high:
                raise ValueError(f"{name} must go from the least to the most, but is [{low:g}, {high:g}]")
        if isinstance(self.snr_low, float) and isinstance(self.snr_high, float) and self.snr_low > self.snr_high:
            raise ValueError(f"snr_low must be at most snr_high, {self.snr_high:g}, but is {self.snr_low:g}")
        return self

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all, at any time."""
        return self.masks is not None or self.changes_sound is not None

    @property
    def changes_sound(self) -> str | None:
        """The first that changes what features are computed of, or how; None where only masks are laid over them."""
        return next((name for name in SOUNDING if getattr(self, name) != 0), None)

    def strengths(self) -> Iterator[tuple[str, float | ScheduleSection]]:
        """Give the names and values of what may follow a schedule."""
        for name in STRENGTHS:
            yield name, getattr(self, name)


SOUNDING = ("speed", "tempo", "warp", "shift", "reverberation", "gain", "noise", "mix")
"""What of `[data.augment]` changes features before they are normalised."""
STRENGTHS = (
    "speed",
    "tempo",
    "warp",
    "shift",
    "reverberation",
    "gain",
    "noise",
    "mix",
    "snr_low",
    "snr_high",
    "time_masks",
    "time_share",
    "frequency_masks",
    "frequency_bins",
)
"""What of `[data.augment]` may follow a schedule."""
