"""Networks compiled by torch.compile: faster steps, for some minutes' wait at the start."""

import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch._inductor import config as inductor

from counterpoint.data.batches import layout
from counterpoint.errors import SettingsError, first_line
from counterpoint.local.training import computing_in
from counterpoint.predictor import Predictor


def compile_networks(
    models: Iterable[Predictor],
    shape: tuple[int, ...],
    batch_size: int,
    precision: torch.dtype,
    device: torch.device,
) -> float:
    """Compile the models' networks in place, for training and evaluation; return the seconds.

    What stands before a network (Fourier transforms) is left as it is. The models' running
    statistics move: load their state afterwards.

    Raises:
        SettingsError: if PyTorch can't compile here.
    """
    start = time.perf_counter()
    inductor.fallback_random = True  # dropout draws what it draws without compilation
    images = torch.rand(batch_size, *shape).contiguous(memory_format=layout(len(shape) + 1))
    images = images.to(device)
    for model in models:
        model.network.compile()
        try:
            model.train()
            with computing_in(precision, images):
                outputs = model.network(of_any_number(model.prepare(images)))
            outputs.float().mean().backward()
            model.zero_grad()
            model.eval()
            with torch.inference_mode(), computing_in(precision, images):
                model.network(of_any_number(model.prepare(images)))
        except Exception as error:  # compilers fail in many ways, none of which is the user's
            reason = first_line(error)
            raise SettingsError(
                f"torch.compile fails here ({type(error).__name__}: {reason}); "
                "leave out --set compile=true"
            ) from error
    return time.perf_counter() - start


def of_any_number(images: Tensor) -> Tensor:
    """Images, of whose number a network is compiled for any from the start.

    Else it would be when a second number comes, and what a process computes would depend, by
    rounding, on what it has computed before.
    """
    torch._dynamo.maybe_mark_dynamic(images, 0)
    return images
