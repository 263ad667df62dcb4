"""IDA: sites that end far from where they began weigh less."""

from dataclasses import replace

from counterpoint.methods.method import SEGMENTATION, Method, Schedule

METHOD = Method(
    name="ida",
    paper="Yeganeh, Farshad, Navab, Albarqouni: Inverse Distance Aggregation for Federated "
    "Learning with Non-IID Data, MICCAI Workshop on Distributed and Collaborative Learning 2020",
    summary="All weights are averaged, each site's weighted by one over their distance from the "
    "mean that it began the round with.",
    schedule=Schedule(weighting="closeness"),
    segmentation=replace(SEGMENTATION, weighting="closeness"),
)
