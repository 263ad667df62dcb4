"""HarmoFL as its released code computes it.

Only the zero frequency of the images is replaced, by that of the first batch, and batch norm has
neither scale and shift nor running statistics. The released script also cuts all training sets to
the smallest (``--train-limit smallest``) and reports the Dice of background and foreground together
(``dice_with_background``).
"""

from dataclasses import replace

from counterpoint.harmonise import AmplitudeNormalisation
from counterpoint.methods import harmofl

METHOD = replace(
    harmofl.METHOD,
    name="harmofl-released",
    paper="Jiang, Wang, Dou: HarmoFL, AAAI 2022; github.com/med-air/HarmoFL",
    summary="HarmoFL with the two differences that its code has: the amplitude of the zero "
    "frequency only, taken from the first batch; batch norm without scale and shift.",
    harmonise=AmplitudeNormalisation(band="dc", momentum=0.0),
    schedule=replace(harmofl.METHOD.schedule, model_options={"affine": False}),
    segmentation=replace(harmofl.METHOD.segmentation, model_options={"affine": False}),
)
