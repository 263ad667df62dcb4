"""What encryption costs: PRR-FL's amplitude band against all weights of the same network.

Four sites send networks that begin from different seeds, all with the weight 1. Seconds are of the
processor: what is timed runs on one core, and other processes are left out. Plain aggregation is
timed beside it. The error is that of encryption alone, before the mean is rounded to float32.
"""

import statistics
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measure import arguments, side_by_side, table, write
from counterpoint.aggregation import AllWeights, Exchange, ProgressiveFourier
from counterpoint.encryption import EncryptedSum, Lock, make_key
from counterpoint.layers import running_statistics
from counterpoint.models.slim_vgg16 import SlimVGG16
from counterpoint.payload import Payload, from_bytes, to_bytes
from counterpoint.server import WeightedMean

SITES = 4
ROUNDS = 100
HEAD = [
    "what leaves",
    "arrays",
    "numbers",
    "plain MB",
    "encrypted MB",
    "times as many",
    "encrypt s",
    f"add {SITES} s",
    "decrypt s",
    f"plain mean of {SITES} s",
    "largest number",
    "largest error",
    "error to number",
]

Share = Callable[[nn.Module], Payload]


def band(round: int) -> Share:
    """PRR-FL's payload in a round of 100."""
    pfa, exchange = ProgressiveFourier(), Exchange((round - 1) / ROUNDS)
    return lambda network: pfa.share(network, exchange)


def everything(network: nn.Module) -> Payload:
    """FedAvg's payload: all weights and the averaged statistics of batch norm."""
    statistics = {f"statistics.{n}": t.float() for n, t in running_statistics(network).items()}
    return AllWeights().share(network, Exchange()) | statistics


def payloads(share: Share) -> list[Payload]:
    """What the sites send of slim VGG16."""
    sent = []
    for seed in range(SITES):
        torch.manual_seed(seed)
        sent.append(share(SlimVGG16(3)))
    return sent


def mean_of(sent: list[Payload]) -> Payload:
    """The mean as it is without encryption."""
    mean = WeightedMean()
    for number, payload in enumerate(sent):
        mean.add(f"site {number}", payload)
    return mean.result()


def sum_of(sealed: list[Payload]) -> Payload:
    """The sum as the server takes it."""
    total = EncryptedSum()
    for number, payload in enumerate(sealed):
        total.add(f"site {number}", payload)
    return total.result()


def error_and_size(lock: Lock, sent: list[Payload]) -> tuple[float, float]:
    """Largest error of the decrypted mean and its largest number, without rounding to float32."""
    exact = [{name: tensor.double() for name, tensor in payload.items()} for payload in sent]
    found = lock.unseal(sum_of([lock.seal(payload, 1.0) for payload in exact]))
    plain = mean_of(exact)
    error = max((found[name] - tensor).abs().max().item() for name, tensor in plain.items())
    return error, max(tensor.abs().max().item() for tensor in plain.values())


def row(what: str, sent: list[Payload], turns: int) -> list[object]:
    """Bytes, seconds and errors of one kind of payload."""
    lock = Lock(make_key(), SITES)
    sealed = [from_bytes(to_bytes(lock.seal(payload, 1.0))) for payload in sent]
    total = sum_of(sealed)
    error, size = error_and_size(lock, sent)
    times = side_by_side(
        {
            "encrypt": lambda: lock.seal(sent[0], 1.0),
            "add": lambda: sum_of(sealed),
            "decrypt": lambda: lock.unseal(total),
            "plain": lambda: mean_of(sent),
        },
        turns,
    )
    bytes_plain = sum(tensor.numel() * tensor.element_size() for tensor in sent[0].values())
    bytes_sealed = sum(tensor.numel() for tensor in sealed[0].values())
    return [
        what,
        len(sent[0]),
        sum(tensor.numel() for tensor in sent[0].values()),
        f"{bytes_plain / 1e6:.2f}",
        f"{bytes_sealed / 1e6:.2f}",
        f"{bytes_sealed / bytes_plain:.2f}",
        *(statistics.median(times[side].processor) for side in ("encrypt", "add", "decrypt")),
        statistics.median(times["plain"].processor),
        f"{size:.3g}",
        f"{error:.1e}",
        f"{error / size:.1e}",
    ]


def main() -> None:
    """Measure all of it."""
    chosen = arguments(__doc__)
    turns = 2 if chosen.quick else 7
    rows = []
    for round in (1, ROUNDS // 4, ROUNDS // 2, ROUNDS):
        radius = ProgressiveFourier().radius((round - 1) / ROUNDS)
        what = f"PRR-FL's band, round {round} of {ROUNDS} (r = {radius:.3f})"
        rows.append(row(what, payloads(band(round)), turns))
    rows.append(row("FedAvg, all weights", payloads(everything), turns))
    write(
        "encryption", "What encryption costs, slim VGG16 (2.37 million weights)", table(HEAD, rows)
    )


if __name__ == "__main__":
    main()
