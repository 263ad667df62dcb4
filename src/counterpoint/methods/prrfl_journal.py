"""PRR-FL as in its journal version: averaged phase and a prototype-aligned loss.

For segmentation, as there, the teacher is learnt from by squared differences of weight 10; its
network was a DeepLab with ResNet-18, ours is the U-Net.
"""

from counterpoint.aggregation import ProgressiveFourier
from counterpoint.local import PrototypeDeputy
from counterpoint.methods.method import Method, Schedule

METHOD = Method(
    name="prrfl-journal",
    paper="Chen, Yang, Zhu, Peng, Yuan: Personalized Retrogress-Resilient Federated Learning "
    "Toward Imbalanced Medical Data, IEEE Transactions on Medical Imaging 41(12), 2022",
    summary="PRR-FL with the phase averaged too and a loss that minds rare classes and the "
    "distance of a site's class prototypes from the federation's.",
    local=PrototypeDeputy(beta=0.8, tau=3.0, warm_up=15),
    aggregation=ProgressiveFourier(phase="mean", start=0.7, end=0.95),
    statistics="local",
    schedule=Schedule(select_last=0.2),
    segmentation_local=PrototypeDeputy(
        beta=0.8, tau=1.0, warm_up=1, distillation="mse", weight=10.0
    ),
    segmentation=Schedule(
        rounds=20,
        local_epochs=5,
        batch_size=8,
        image_size=256,
        model="unet",
        augmentation="none",
        lr=1e-3,
        select_last=0.05,
    ),
)
