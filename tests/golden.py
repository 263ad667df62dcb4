"""Reads the numbers that the papers' released code computed; see golden/README.md."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """One file of arrays by name, as float32 tensors."""

    def __init__(self, name: str) -> None:
        self._arrays = np.load(FOLDER / f"{name}.npz")
        self.names = list(self._arrays.files)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[name])

    def below(self, prefix: str) -> dict[str, Tensor]:
        """All arrays below a prefix, by the rest of their names."""
        return {n.removeprefix(prefix): self[n] for n in self.names if n.startswith(prefix)}


def assert_state(module: nn.Module, expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Check a module's parameters and buffers against arrays by name."""
    state = module.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(
            tensor.double(), expected[name].double(), atol=tolerance, rtol=0, msg=name
        )
