"""torch.compile: steps and scoring with and without it, and the seconds that it takes first.

What PyTorch has compiled on a machine it keeps, and takes from there the next time; here it starts
with nothing.
"""

import copy
import os
import tempfile
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measure import arguments, side_by_side, table, write
from counterpoint.compiled import compile_networks
from counterpoint.local.training import computing_in
from counterpoint.models.densenet121 import DenseNet121
from counterpoint.models.slim_vgg16 import SlimVGG16
from counterpoint.models.unet import UNet
from counterpoint.predictor import Predictor

WORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "slim VGG16 128x128, batch 16": (lambda: SlimVGG16(3), (16, 3, 128, 128), (16,)),
    "DenseNet121 96x96, batch 16": (lambda: DenseNet121(2), (16, 3, 96, 96), (16,)),
    "U-Net 128x128, batch 4": (lambda: UNet(3, 2), (4, 3, 128, 128), (4, 128, 128)),
}
"""Network, shape of a batch, shape of its target."""
CPU = torch.device("cpu")


def step_of(
    model: nn.Module, images: torch.Tensor, target: torch.Tensor, precision: torch.dtype
) -> Callable[[], object]:
    """A training step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        with computing_in(precision, images):
            outputs = model.train()(images)
        optimizer.zero_grad()
        nn.functional.cross_entropy(outputs.float(), target).backward()
        optimizer.step()

    return step


def score_of(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype
) -> Callable[[], object]:
    """A batch of scoring."""

    def score() -> None:
        with torch.inference_mode(), computing_in(precision, images):
            model.eval()(images)

    return score


def main() -> None:
    """Three networks in two precisions."""
    chosen = arguments(__doc__)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        rows = measured(2 if chosen.quick else 15)
    head = ["what", "ms", "ms compiled", "times as fast", "s to compile", "batches to earn it back"]
    write("compiled", "torch.compile (--set compile=true)", table(head, rows))


def measured(turns: int) -> list[list[object]]:
    """The lines of the table."""
    rows: list[list[object]] = []
    for name, (make, shape, labels) in WORKS.items():
        images = torch.rand(shape).to(memory_format=torch.channels_last)
        target = torch.randint(2, labels)
        for precision in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            eager = Predictor(nn.Identity(), make()).to(memory_format=torch.channels_last)
            compiled = copy.deepcopy(eager)
            seconds = compile_networks([compiled], shape[1:], len(images), precision, CPU)
            for what, sides in (
                (
                    "step",
                    {
                        side: step_of(model, images, target, precision)
                        for side, model in (("eager", eager), ("compiled", compiled))
                    },
                ),
                (
                    "scoring",
                    {
                        side: score_of(model, images, precision)
                        for side, model in (("eager", eager), ("compiled", compiled))
                    },
                ),
            ):
                times = side_by_side(sides, turns)
                gained = times["eager"].median - times["compiled"].median
                rows.append(
                    [
                        f"{name}, {str(precision).removeprefix('torch.')}, {what}",
                        times["eager"].median * 1e3,
                        times["compiled"].median * 1e3,
                        f"{times['eager'].ratio(times['compiled']):.2f}",
                        seconds,
                        f"{seconds / gained:.0f}" if gained > 0 else "never",
                    ]
                )
            print(rows[-2:], flush=True)
    return rows


if __name__ == "__main__":
    main()
