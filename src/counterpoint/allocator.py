"""Memory that is freed stays with the process, as long as it trains.

Every step of a network takes and frees the same large blocks. glibc hands blocks of 32 MiB and
more, and those at the end of its heap, back to the kernel at once, which clears each of their pages
before it hands them out again. `benchmarks/README.md` tells what that costs.
"""

import ctypes
import os

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""PyTorch asks for huge pages if this variable is 1 before its first tensor is made. They pay
where freed memory is kept, and cost where it is not."""

# Numbers of the options in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8

_for_good = False


def keep_for_good() -> None:
    """Keep freed memory, in huge pages, for as long as the process lives."""
    global _for_good
    _for_good = True
    keep_freed_memory()
    if _glibc():
        _set({_ARENA_MAX: 1})  # a heap of a thread's own is always given back
        if os.path.exists("/sys/kernel/mm/transparent_hugepage"):
            os.environ.setdefault(HUGE_PAGES, "1")


def keep_freed_memory() -> None:
    """Keep freed memory from now on. It does nothing where the C library is not glibc."""
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})


def give_freed_memory_back() -> None:
    """Give freed memory back, now and from now on, as glibc does once it has seen large blocks.

    Nothing happens in a process that keeps it for good.
    """
    if _for_good:
        return
    _set({_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20})
    if library := _glibc():
        library.malloc_trim(0)


def _set(options: dict[int, int]) -> None:
    if library := _glibc():
        for option, value in options.items():
            library.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
