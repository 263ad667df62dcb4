"""HarmoFL as its released code computes it.

Only the zero frequency of the images is replaced, by that of the first batch, and batch norm has
neither scale and shift nor running statistics. The released script also cuts all training sets to
the smallest (``--train-limit smallest``) and reports the Dice of background and foreground together
(``dice_with_background``).
"""

from dataclasses import replace

from counterpoint.harmonise import AmplitudeNormalisation
from counterpoint.methods.method import SEGMENTATION, Method, Schedule

METHOD = Method(
    name="harmofl-released",
    paper="Jiang, Wang, Dou: HarmoFL, AAAI 2022; github.com/med-air/HarmoFL",
    summary="HarmoFL with the two differences that its code has: the amplitude of the zero "
    "frequency only, taken from the first batch; batch norm without scale and shift.",
    harmonise=AmplitudeNormalisation(band="dc", momentum=0.0),
    perturbation=0.05,
    statistics="batch",
    schedule=Schedule(
        rounds=100,
        local_epochs=1,
        batch_size=128,
        image_size=96,
        model="densenet121",
        model_options={"affine": False},
        augmentation="flips",
        lr=1e-3,
        momentum=0.9,
        weight_decay=1e-4,
        lr_decay=1.0,
        keep_optimizer=True,
    ),
    segmentation=replace(SEGMENTATION, model_options={"affine": False}),
)
