import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pipeline.data.memory import available_memory
from pipeline.data.parallel import count_processes, parallel_map

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("size", [0, 5, 100, 10_000])
def test_results_keep_the_order_of_items(size: int) -> None:
    items = (-index for index in range(size))
    assert list(parallel_map(abs, items)) == list(range(size))


def test_endless_items_are_not_all_requested() -> None:
    requested = 0

    def items() -> Iterator[int]:
        nonlocal requested
        for item in count():
            requested += 1
            yield item

    results = parallel_map(abs, items())
    assert [next(results) for _ in range(10)] == list(range(10))
    assert requested < 10_000


def test_few_items_need_no_process() -> None:
    assert set(parallel_map(process_id, range(10))) == {os.getpid()}


def test_many_items_are_computed_by_workers() -> None:
    assert os.getpid() not in set(parallel_map(process_id, range(100)))


def process_id(_: int) -> int:
    return os.getpid()


def test_error_of_an_item_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="item 50"):
        list(parallel_map(refuse_item_50, range(100)))


def refuse_item_50(item: int) -> int:
    if item == 50:
        raise ValueError("item 50")
    return item


def test_preparing_pictures_needs_no_pytorch() -> None:
    code = "import sys, pipeline.data.parallel, pipeline.data.preparation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_items_that_need_all_memory_get_no_process() -> None:
    assert set(parallel_map(process_id, range(100), memory=available_memory() * 2)) == {os.getpid()}


def test_processes_share_the_free_memory() -> None:
    assert count_processes(available_memory() * 2 // 3) == 1
    assert count_processes(0) == os.cpu_count()


def test_large_items_are_computed_in_order() -> None:
    assert list(parallel_map(abs, range(-100, 0), item_size=2**25)) == list(range(100, 0, -1))
