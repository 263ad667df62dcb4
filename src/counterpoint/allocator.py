"""Memory that is freed stays with the process, as long as it trains.

Every step of a network takes and frees the same large blocks. glibc hands blocks of 32 MiB and
more, and those at the end of its heap, back to the kernel at once, which clears each of their pages
before it hands them out again.
"""

import ctypes
import mmap
import os

ADVISED = 4 * 2**30
"""Bytes of the heap that are asked for in huge pages."""

# Numbers of the options in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8

_for_good = False


def keep_for_good() -> None:
    """Keep freed memory for as long as the process lives."""
    global _for_good
    _for_good = True
    keep_freed_memory()
    _set({_ARENA_MAX: 1})  # a heap of a thread's own is always given back


def keep_freed_memory() -> None:
    """Keep freed memory from now on. It does nothing where the C library is not glibc."""
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
    _ask_for_huge_pages()


def give_freed_memory_back() -> None:
    """Give freed memory back, now and from now on, as glibc does once it has seen large blocks.

    Nothing happens in a process that keeps it for good.
    """
    if _for_good:
        return
    _set({_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20})
    if library := _glibc():
        library.malloc_trim(0)


def _ask_for_huge_pages() -> None:
    """Have the heap in huge pages, where the kernel has them for those that ask.

    A block is taken and given back untouched, which costs no memory. PyTorch can ask by itself
    (THP_MEM_ALLOC_ENABLE), but then lays every block out by pages, which leaves holes in the heap.
    """
    library, advice = _glibc(), getattr(mmap, "MADV_HUGEPAGE", None)
    if library is None or advice is None:
        return
    library.malloc.restype = ctypes.c_void_p
    if block := library.malloc(ctypes.c_size_t(ADVISED)):
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (block + ADVISED - start) // mmap.PAGESIZE * mmap.PAGESIZE
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)
        library.free(ctypes.c_void_p(block))


def _set(options: dict[int, int]) -> None:
    if library := _glibc():
        for option, value in options.items():
            library.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
