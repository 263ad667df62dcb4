"""FedASAM: adaptive sharpness-aware minimisation at the sites."""

from counterpoint.methods.method import Method

METHOD = Method(
    name="fedasam",
    paper="Caldarola, Caputo, Ciccone: Improving Generalization in Federated Learning by Seeking "
    "Flat Minima, ECCV 2022",
    summary="As FedSAM, with a perturbation that is measured relative to the size of each weight.",
    perturbation=0.5,
    adaptive=True,
)
