"""Local fine-tuning of what FedAvg ends with."""

from dataclasses import replace

from counterpoint.methods.method import SEGMENTATION, Method, Schedule

METHOD = Method(
    name="finetune",
    paper="baseline",
    summary="FedAvg; after the last merge every site trains the common model on its own images.",
    schedule=Schedule(finetune_epochs=5),
    segmentation=replace(SEGMENTATION, finetune_epochs=5),
)
