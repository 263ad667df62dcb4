"""fluke, in one process, one client after another."""

from importlib.metadata import version

import torch
from torch import nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # PyPI's, beside a torch without CUDA: its operators are named, not used
    boxes = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        boxes.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.data import DataSplitter, DummyDataContainer, FastDataLoader

from benchmarks.peers.work import BATCH, CLASSES, LR, Work, tensors, told


def simulate(work: Work) -> nn.Module:
    """FedAvg without evaluation."""
    FlukeENV().set_device("cpu")
    FlukeENV().set_eval_cfg(locals=False, server=False, pre_fit=False, post_fit=False)
    loaders = [
        FastDataLoader(*tensors(work, client), num_labels=CLASSES, batch_size=BATCH, shuffle=True)
        for client in range(work.clients)
    ]
    data = DummyDataContainer(loaders, [None] * work.clients, None, CLASSES)
    options = DDict(
        model=work.network(CLASSES),
        client=DDict(
            batch_size=BATCH,
            local_epochs=1,
            loss=torch.nn.CrossEntropyLoss,
            optimizer=DDict(name=torch.optim.SGD, lr=LR),
            scheduler=DDict(gamma=1.0, step_size=1),
        ),
        server=DDict(weighted=True),
    )
    splitter = DataSplitter(dataset=data, distribution="iid")
    federation = FedAVG(work.clients, splitter, options)
    federation.run(n_rounds=work.rounds, eligible_perc=1.0, finalize=False)
    return federation.server.model


if __name__ == "__main__":
    torch.set_num_threads(2)
    told(simulate, f"fluke {version('fluke-fl')}")
