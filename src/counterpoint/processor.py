"""How a process that trains uses the processor: torch's threads, and memory that it keeps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from counterpoint.allocator import give_freed_memory_back, keep_for_good, keep_freed_memory


def settle(threads: int) -> None:
    """Use so many torch threads and keep freed memory, for as long as the process lives."""
    torch.set_num_threads(threads)
    keep_for_good()


@contextmanager
def settled(threads: int) -> Iterator[None]:
    """Settle for a while; then the threads are as before, and freed memory is given back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        give_freed_memory_back()
