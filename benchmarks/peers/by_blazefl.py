"""BlazeFL, in a pool of processes, a client a core, with tensors in shared memory."""

import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from blazefl.contrib import (
    FedAvgBaseServerHandler,
    FedAvgPartitionType,
    FedAvgProcessPoolClientTrainer,
)
from blazefl.core import IPCMode, ModelSelector, PartitionedDataset
from torch import Generator, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.peers.work import BATCH, CLASSES, LR, Work, tensors, told


class Networks(ModelSelector):
    """Makes the network of a work."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def select_model(self, model_name: str) -> nn.Module:
        """Return a new network."""
        return self.work.network(CLASSES)


class Clients(PartitionedDataset[FedAvgPartitionType]):
    """The clients' tensors."""

    def __init__(self, work: Work) -> None:
        self.sets = [TensorDataset(*tensors(work, client)) for client in range(work.clients)]

    def get_dataset(self, type_: FedAvgPartitionType, cid: int | None) -> Dataset:
        """Return a client's images and labels."""
        return self.sets[cid or 0]

    def set_dataset(self, type_: FedAvgPartitionType, cid: int | None, dataset: Dataset) -> None:
        """Keep them as they are."""

    def get_dataloader(
        self,
        type_: FedAvgPartitionType,
        cid: int | None,
        batch_size: int | None,
        generator: Generator | None,
    ) -> DataLoader:
        """Return shuffled batches of a client."""
        return DataLoader(
            self.get_dataset(type_, cid), batch_size, shuffle=True, generator=generator
        )


def simulate(work: Work) -> nn.Module:
    """FedAvg without evaluation."""
    networks, clients = Networks(work), Clients(work)
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "model_selector": networks,
            "model_name": "",
            "dataset": clients,
            "num_clients": work.clients,
            "device": "cpu",
            "batch_size": BATCH,
            "seed": 1,
        }
        server = FedAvgBaseServerHandler(global_round=work.rounds, sample_ratio=1.0, **shared)
        trainer = FedAvgProcessPoolClientTrainer(
            share_dir=Path(folder, "share"),
            state_dir=Path(folder, "state"),
            epochs=1,
            lr=LR,
            num_parallels=2,
            ipc_mode=IPCMode.SHARED_MEMORY,
            **shared,
        )
        while not server.if_stop():
            trainer.local_process(server.downlink_package(), server.sample_clients())
            for package in trainer.uplink_package():
                server.load(package)
    return server.model


if __name__ == "__main__":
    torch.set_num_threads(1)
    told(simulate, f"blazefl {version('blazefl')}")
