"""The memory that the page's threads take of the system."""

import ctypes
import os
import platform

M_ARENA_MAX = -8  # a parameter of mallopt, from glibc's malloc.h
ARENAS = 2  # the photos that are decoded at a time


def share_arenas() -> bool:
    """Lets the threads to come allocate from two arenas in all; returns whether it did.

    The C library glibc gives each thread an arena of its own, up to eight for each core, and an arena keeps most of
    what was freed in it. Does nothing with another C library, or where MALLOC_ARENA_MAX in the environment sets a
    number.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
