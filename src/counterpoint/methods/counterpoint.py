"""Ours: what proved worth its cost of both papers' questions, and nothing else."""

from dataclasses import replace

from counterpoint.local import Adapted
from counterpoint.methods.method import SEGMENTATION, Method, Schedule

METHOD = Method(
    name="counterpoint",
    paper="ours: docs/counterpoint.md",
    summary="All weights are averaged; after each merge batch norm is calibrated on the site's own "
    "images. Every site predicts with a model half-way between the merged one and what it has made "
    "of it, which no merge touches; rare classes count more (for classification).",
    local=Adapted(blend=0.5),
    statistics="recalibrated",
    schedule=Schedule(momentum=0.9, loss="balanced", balance=0.5),
    segmentation=replace(SEGMENTATION, lr=1e-3),
)
