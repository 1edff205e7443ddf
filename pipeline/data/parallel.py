"""Apply a function to many items with all cores. Imports nothing heavy, so that worker processes start at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from pipeline.data.memory import available_memory

BLOCK_SIZE = 4096  # items that are submitted together
CHUNK_SIZE = 16  # items that a process gets at a time
CHUNK_BYTES = 2**24  # fewer if they are large
MIN_PARALLEL = 32  # for fewer items it does not pay to start processes

Item = TypeVar("Item")
Output = TypeVar("Output")


def parallel_map(
    function: Callable[[Item], Output], items: Iterable[Item], *, memory: int = 0, item_size: int = 0
) -> Iterator[Output]:
    """Return ``function(item)`` for each item, in order, computed by as many processes as cores and memory allow.

    The processes start at once, before the first result is requested. They are at most `BLOCK_SIZE` items ahead, so
    memory does not grow with the number of items.

    A process needs at most ``memory`` bytes for an item; an item that is sent to it has at most ``item_size`` bytes.
    """
    # Not joblib.Parallel: its generator reads ahead without a limit if the results are consumed slowly.
    items = iter(items)
    first_block = list(islice(items, BLOCK_SIZE))
    chunk_size = min(CHUNK_SIZE, CHUNK_BYTES // max(1, item_size)) or 1
    processes = count_processes(memory + 3 * chunk_size * item_size)  # sent, waiting to be sent, and received
    if len(first_block) < MIN_PARALLEL or processes == 0:
        return map(function, chain(first_block, items))
    pool = ProcessPoolExecutor(processes, initializer=_prepare_worker)
    run = partial(pool.map, function, chunksize=chunk_size)
    return _iterate_outputs(pool, run, run(first_block), items)


def call_in_process(function: Callable[[Item], Output], item: Item) -> Output:
    """Return ``function(item)``, computed by a process of its own: if a library crashes, only that process ends.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        It crashed.
    Exception
        What the function raises.
    """
    with ProcessPoolExecutor(1, initializer=_prepare_worker) as pool:
        return pool.submit(function, item).result()


def count_processes(memory: int) -> int:
    """Return how many processes there may be: one for each core that has ``memory`` bytes free; 0 if none has."""
    return min(os.cpu_count() or 1, available_memory() // max(1, memory))


def _iterate_outputs(
    pool: ProcessPoolExecutor,
    run: Callable[[list[Item]], Iterator[Output]],
    first_outputs: Iterator[Output],
    remaining_items: Iterator[Item],
) -> Iterator[Output]:
    with pool:
        yield from first_outputs
        while block := list(islice(remaining_items, BLOCK_SIZE)):
            yield from run(block)


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
