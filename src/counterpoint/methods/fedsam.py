"""FedSAM: sharpness-aware minimisation at the sites."""

from counterpoint.methods.method import Method

METHOD = Method(
    name="fedsam",
    paper="Caldarola, Caputo, Ciccone: Improving Generalization in Federated Learning by Seeking "
    "Flat Minima, ECCV 2022; Qu, Li, Duan, Liu, Tang, Lu: Generalized Federated Learning via "
    "Sharpness Aware Minimization, ICML 2022",
    summary="All weights are averaged; every step takes its gradient at perturbed weights.",
    perturbation=0.05,
)
