"""What a Python worker's process is told: each in a process of its own, which it changes."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def run(script: str, *args: str) -> list[int]:
    """Run a script in a new process and return the numbers that it prints."""
    command = [sys.executable, "-c", textwrap.dedent(script), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


FAULTS = """
    import ctypes, resource, threading
    from spark_dl.worker_process import keep_freed_memory

    c = ctypes.CDLL(None)
    c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    c.free.argtypes = [ctypes.c_void_p]

    def faults(count, size):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            place = c.malloc(size)
            ctypes.memset(place, 1, size)
            c.free(place)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    faults(8, 16 << 20)
    assert keep_freed_memory()
    faults(1, 16 << 20)
    faults(8, 16 << 20)
    # those of TensorFlow's threads too, which have heaps of their own
    thread = threading.Thread(target=lambda: [faults(1, 16 << 20), faults(8, 16 << 20)])
    thread.start()
    thread.join()
    faults(4, 160 << 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_stays_with_the_process():
    before, _, after, _, of_thread, large = run(FAULTS)
    assert before > 8 * 1000  # pages of 4 KiB, or fewer larger ones
    assert after < before / 50
    assert of_thread < before / 50
    assert large > before  # what is as large as that goes back


def test_another_c_library_is_left_alone(monkeypatch):
    from spark_dl import worker_process

    monkeypatch.setattr(worker_process.platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(worker_process.ctypes, "CDLL", None)  # nobody may ask it for anything
    assert not worker_process.keep_freed_memory()


ARCHIVES = """
    import importlib, sys, zipfile, zipimport
    from spark_dl.worker_process import read_archives_once

    path, newer = sys.argv[1:]
    reads = []
    read = zipimport._read_directory
    zipimport._read_directory = lambda archive: (reads.append(archive), read(archive))[1]

    sys.path.insert(0, path)
    from whole.part import VALUE
    read_archives_once()
    read_archives_once()
    importlib.invalidate_caches()  # before it nobody knows whether the archive changed
    first = len(reads)
    for _ in range(5):
        importlib.invalidate_caches()
        from whole.part import VALUE as again
    print(VALUE, len(reads) - first)

    open(path, "wb").write(open(newer, "rb").read())
    importlib.invalidate_caches()
    import other
    importlib.reload(sys.modules["whole.part"])
    print(other.VALUE, sys.modules["whole.part"].VALUE)
"""


def archive(path: Path, modules: dict[str, int]) -> str:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("whole/__init__.py", "")
        for name, value in modules.items():
            file.writestr(f"{name}.py", f"VALUE = {value}\n")
    return str(path)


def test_an_archive_is_read_again_only_when_it_changed(tmp_path):
    path = archive(tmp_path / "modules.zip", {"whole/part": 1})
    newer = archive(tmp_path / "newer.zip", {"other": 2, "whole/part": 3})
    value, reads, other, part = run(ARCHIVES, path, newer)
    assert (value, other, part) == (1, 2, 3)
    # Python 3.12 reads when the next module is looked for, which is another matter
    assert reads == 0 or sys.version_info >= (3, 12)


def test_an_archive_that_is_gone_is_no_error(tmp_path):
    script = """
        import importlib, os, sys
        from spark_dl.worker_process import settle_process

        sys.path.insert(0, sys.argv[1])
        import whole
        settle_process()
        os.remove(sys.argv[1])
        importlib.invalidate_caches()
        import json.tool
        print(1)
    """
    assert run(script, archive(tmp_path / "modules.zip", {})) == [1]


def test_garbage_is_looked_for_among_later_objects_only():
    script = """
        import gc, weakref
        from spark_dl.worker_process import settle_process

        class Model: ...
        settle_process()
        print(int(len(gc.get_objects()) < gc.get_freeze_count()))
        model = Model()
        model.itself, gone = model, weakref.ref(model)
        settle_process()  # as a task on another GPU does
        del model
        gc.collect()
        print(int(gone() is None))
    """
    assert run(script) == [1, 1]
