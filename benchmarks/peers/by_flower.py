# ruff: noqa: E402
"""Flower's simulation, on Ray, a client a core."""

import os

for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
    os.environ[name] = "0"  # nothing is sent from here; read when imported
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from importlib.metadata import version

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from benchmarks.peers.work import CLASSES, Work, local_epoch, tensors, told


def simulate(work: Work) -> nn.Module:
    """FedAvg by the message interface."""
    client, server, last = ClientApp(), ServerApp(), work.network(CLASSES)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        torch.seed()  # Ray's workers all begin with the same one, and so with the same order
        network = work.network(CLASSES)
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        local_epoch(network, *tensors(work, int(context.node_config["partition-id"])))
        content = RecordDict(
            {
                "arrays": ArrayRecord(network.state_dict()),
                "metrics": MetricRecord({"num-examples": work.images}),
            }
        )
        return Message(content=content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        first = ArrayRecord(work.network(CLASSES).state_dict())
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=work.clients)
        result = strategy.start(grid, first, num_rounds=work.rounds)
        last.load_state_dict(result.arrays.to_torch_state_dict())

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=work.clients, backend_config=resources)
    return last


if __name__ == "__main__":
    told(simulate, f"flwr {version('flwr')}")
