"""HarmoFL: images of one common amplitude, weights drawn to flat optima, one global model.

As the paper has it; ``harmofl-released`` is what the released code computes.
"""

from counterpoint.harmonise import AmplitudeNormalisation
from counterpoint.methods.method import Method, Schedule

METHOD = Method(
    name="harmofl",
    paper="Jiang, Wang, Dou: HarmoFL: Harmonizing Local and Global Drifts in Federated Learning "
    "on Heterogeneous Medical Images, AAAI 2022",
    summary="Amplitude normalisation of the images and weight perturbation in every step; all "
    "weights are averaged, and no running statistics exist.",
    harmonise=AmplitudeNormalisation(band="full", momentum=0.1),
    perturbation=0.05,
    statistics="batch",
    schedule=Schedule(
        rounds=100,
        local_epochs=1,
        batch_size=128,
        image_size=96,
        model="densenet121",
        augmentation="flips",
        lr=1e-3,
        momentum=0.9,
        weight_decay=1e-4,
        lr_decay=1.0,
        keep_optimizer=True,
    ),
)
