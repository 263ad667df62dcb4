"""PRR-FL: a personal model a site, taught by a deputy that shares low frequencies only."""

from dataclasses import replace

from counterpoint.aggregation import ProgressiveFourier
from counterpoint.local import DeputyTransfer
from counterpoint.methods.method import SEGMENTATION, Method, Schedule

METHOD = Method(
    name="prrfl",
    paper="Chen, Zhu, Yang, Yuan: Personalized Retrogress-Resilient Framework for Real-World "
    "Medical Federated Learning, MICCAI 2021",
    summary="Progressive Fourier Aggregation (the low-frequency amplitude of the weights is "
    "averaged) with Deputy-Enhanced Transfer (a deputy talks to the server and teaches the "
    "personal model).",
    local=DeputyTransfer(exchange=0.7, sublimate=0.9),
    aggregation=ProgressiveFourier(phase="local", start=0.7, end=0.95),
    statistics="local",
    schedule=Schedule(select_last=0.2),
    segmentation=replace(SEGMENTATION, select_last=0.2),
)
