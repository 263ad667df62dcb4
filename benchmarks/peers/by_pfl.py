"""pfl-research, in one process, one client after another."""

from importlib.metadata import version

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks.peers.work import BATCH, CLASSES, LR, Work, tensors, told


class WithLoss(nn.Module):
    """A network with the two functions that pfl asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.network(images)

    def loss(self, images: Tensor, labels: Tensor, **_: object) -> Tensor:
        """Cross-entropy."""
        self.train()
        return nn.functional.cross_entropy(self(images), labels)

    def metrics(self, images: Tensor, labels: Tensor, **_: object) -> dict[str, object]:
        """Nothing is evaluated."""
        return {}


def simulate(work: Work) -> nn.Module:
    """FedAvg by the simulated backend."""
    data = {client: tensors(work, client) for client in range(work.clients)}
    federated = FederatedDataset(
        lambda client: PyTorchTensorDataset(data[client]),
        get_user_sampler("minimize_reuse", list(data)),
    )
    network = WithLoss(work.network(CLASSES))
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=work.clients,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=federated, val_data=federated),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LR, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=BATCH),
    )
    return network


if __name__ == "__main__":
    torch.set_num_threads(2)
    told(simulate, f"pfl {version('pfl')}")
