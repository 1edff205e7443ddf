"""Apply a function to many items with all cores. Imports nothing heavy, so that worker processes start at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

BLOCK_SIZE = 4096  # items that are submitted together
CHUNK_SIZE = 16  # items that a process gets at a time
MIN_PARALLEL = 32  # for fewer items it does not pay to start processes

Item = TypeVar("Item")
Output = TypeVar("Output")


def parallel_map(function: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[Output]:
    """Return ``function(item)`` for each item, in order, computed by as many processes as there are cores.

    The processes start at once, before the first result is requested. They are at most `BLOCK_SIZE` items ahead, so
    memory does not grow with the number of items.
    """
    # Not joblib.Parallel: its generator reads ahead without a limit if the results are consumed slowly.
    items = iter(items)
    first_block = list(islice(items, BLOCK_SIZE))
    if len(first_block) < MIN_PARALLEL:
        return map(function, first_block)
    pool = ProcessPoolExecutor(os.cpu_count(), initializer=_prepare_worker)
    first_outputs = pool.map(function, first_block, chunksize=CHUNK_SIZE)
    return _iterate_outputs(pool, function, first_outputs, items)


def _iterate_outputs(
    pool: ProcessPoolExecutor,
    function: Callable[[Item], Output],
    first_outputs: Iterator[Output],
    remaining_items: Iterator[Item],
) -> Iterator[Output]:
    with pool:
        yield from first_outputs
        while block := list(islice(remaining_items, BLOCK_SIZE)):
            yield from pool.map(function, block, chunksize=CHUNK_SIZE)


def _prepare_worker() -> None:
    """Leave the signals of a terminal to the parent, which stops its workers, and end with it also if it is killed."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # inherited from the parent, whose run it ends
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a closed terminal reach all processes
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended, whatever its other thread does or waits for."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
