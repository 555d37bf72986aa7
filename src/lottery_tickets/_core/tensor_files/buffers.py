"""Memory that files are read into, which is used again: new memory costs more than the reading, page by page."""

import mmap
import threading
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_KEPT: Final = 8  # free buffers, each of some megabytes

_lock = threading.Lock()
_free: list[mmap.mmap] = []


def take_buffer(num_bytes: int) -> NDArray[np.uint8]:
    """Returns an array of so many bytes, of any content, that begins at a page; it is used again once nobody has it.

    Views of it and tensors made of it keep it, as they do any array.
    """
    memory = _take(num_bytes) if num_bytes else mmap.mmap(-1, mmap.PAGESIZE)
    array = np.frombuffer(memory, np.uint8, num_bytes)
    weakref.finalize(array, _give_back, memory).atexit = False
    return array


def _take(num_bytes: int) -> mmap.mmap:
    with _lock:
        fitting = [memory for memory in _free if num_bytes <= len(memory) <= 2 * num_bytes]
        if fitting:
            found = min(fitting, key=len)
            _free.remove(found)
            return found
    return mmap.mmap(-1, num_bytes)


def _give_back(memory: mmap.mmap) -> None:
    with _lock:
        _free.append(memory)
        del _free[:-MOST_KEPT]
