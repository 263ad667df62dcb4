"""MOON: model-contrastive federated learning."""

from counterpoint.local import Contrastive
from counterpoint.methods.method import Method

METHOD = Method(
    name="moon",
    paper="Li, He, Song: Model-Contrastive Federated Learning, CVPR 2021",
    summary="All weights are averaged; a contrast draws features to the global model's and away "
    "from those of the site's last model.",
    local=Contrastive(mu=1.0, temperature=0.5),
)
