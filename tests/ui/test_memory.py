"""The page's threads share the arenas of glibc, and nothing happens with another C library."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from antbee.ui.memory import ARENAS, share_arenas

THREADS = 4 * ARENAS
# Prints the number of arenas once so many threads have allocated, all of them alive.
PROGRAM = f"""
import ctypes, sys, threading
from antbee.ui.memory import share_arenas
shared = sys.argv[1] == "shared" and share_arenas()
allocated, counted = threading.Barrier({THREADS} + 1), threading.Barrier({THREADS} + 1)
def allocate():
    block = bytes(10_000)
    allocated.wait(), counted.wait()
threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
for thread in threads:
    thread.start()
allocated.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file), libc.fclose(file)
counted.wait()
print(shared, open(sys.argv[2]).read().count("<heap nr="))
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")


def arenas(*words, **environment):
    """What the program prints: whether the arenas are shared, and their number."""
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", PROGRAM, *words]
    printed = subprocess.check_output(command, env=inherited | environment, text=True, timeout=60)
    shared, count = printed.split()
    return shared == "True", int(count)


@needs_glibc
def test_threads_allocate_from_few_arenas_once_these_are_shared_and_else_from_more(tmp_path):
    assert arenas("shared", tmp_path / "info") == (True, ARENAS)
    assert arenas("alone", tmp_path / "info")[1] > ARENAS


@needs_glibc
def test_a_number_of_arenas_in_the_environment_counts_more(tmp_path):
    assert arenas("shared", tmp_path / "info", MALLOC_ARENA_MAX="3") == (False, 3)


@pytest.mark.parametrize("library", [("", ""), ("musl", "1.2")])
def test_another_c_library_is_not_asked_for_anything(monkeypatch, library):
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("was opened"))
    assert share_arenas() is False
