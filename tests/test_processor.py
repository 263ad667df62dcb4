"""How a process that trains uses the processor."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from counterpoint.allocator import _glibc
from counterpoint.processor import settled

PAGES_CLEARED = """
import resource, torch
from pathlib import Path
from counterpoint.processor import settled

torch.set_num_threads(1)
first, second = (torch.nn.Conv2d(n, 64, 3, padding=1) for n in (3, 64))
images = torch.rand(16, 3, 96, 96)  # what comes out of a layer has 36 MiB

def cleared(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        second(first(images).relu()).relu().mean().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

def resident():  # MiB
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

cleared(1)
at_first, before = resident(), cleared(3)
with settled(1):
    cleared(10)  # until the heap has grown
    print(before, cleared(3), resident() - at_first)
print(resident() - at_first)
torch.zeros(2**27).add_(1)  # 512 MiB come and go
print(resident() - at_first)
"""


@pytest.mark.skipif(_glibc() is None, reason="the allocator is not glibc's")
def test_freed_memory_is_kept_while_training_and_given_back_after():
    done = subprocess.run(
        [sys.executable, "-c", PAGES_CLEARED],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    before, within, kept, after, later = map(float, done.stdout.split())
    assert within < before / 3
    assert kept > 100
    assert after < kept / 2
    assert later < kept / 2


HEAP = """
from pathlib import Path
from counterpoint.allocator import ADVISED, keep_for_good

def kilobytes(name):  # of the heap
    lines = Path("/proc/self/smaps").read_text().splitlines()
    heap = [number for number, line in enumerate(lines) if line.endswith("[heap]")]
    rows = [line for start in heap for line in lines[start:start + 24] if line.startswith(name)]
    return sum(int(line.split()[1]) for line in rows)

resident = kilobytes("Rss:")
keep_for_good()
assert kilobytes("Size:") > ADVISED // 1024
print(kilobytes("Rss:") - resident)
touched = bytearray(256 * 2**20)
print(kilobytes("AnonHugePages:"))
"""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(_glibc() is None, reason="the allocator is not glibc's")
@pytest.mark.skipif(
    not THP.exists() or "[never]" in THP.read_text(), reason="the kernel has no huge pages"
)
def test_the_heap_comes_in_huge_pages_and_takes_no_memory_before_it_is_used():
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    grown, huge = map(int, done.stdout.split())
    assert grown < 4096
    assert huge > 128 * 1024


def test_the_threads_are_those_of_before():
    before = torch.get_num_threads()
    with settled(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
