"""How a process that trains uses the processor."""

import subprocess
import sys

import pytest
import torch

from counterpoint.allocator import _glibc
from counterpoint.processor import settled

PAGES_CLEARED = """
import resource, torch
from counterpoint.processor import settled

torch.set_num_threads(1)
first, second = (torch.nn.Conv2d(n, 64, 3, padding=1) for n in (3, 64))
images = torch.rand(16, 3, 96, 96)  # what comes out of a layer has 36 MiB, 9216 pages of 4 KiB

def cleared(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        second(first(images).relu()).relu().mean().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

cleared(1)
with settled(1):
    cleared(10)  # until the heap has grown
    within = cleared(3)
print(within, cleared(3))
"""


@pytest.mark.skipif(_glibc() is None, reason="the allocator is not glibc's")
def test_freed_memory_is_kept_while_training_and_given_back_after():
    done = subprocess.run(
        [sys.executable, "-c", PAGES_CLEARED],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "THP_MEM_ALLOC_ENABLE": "0"},
    )
    within, after = map(float, done.stdout.split())
    assert after > 2 * 9216
    assert within < after / 3


def test_the_threads_are_those_of_before():
    before = torch.get_num_threads()
    with settled(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
