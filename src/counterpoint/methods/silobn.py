"""SiloBN: only the running statistics stay at the site."""

from counterpoint.methods.method import Method

METHOD = Method(
    name="silobn",
    paper="Andreux et al., Siloed Federated Learning for Multi-Centric Histopathology Datasets, "
    "DCL at MICCAI 2020",
    summary="FedAvg of all weights; running statistics stay local, one model a site.",
    statistics="local",
)
