"""Answers of the store that come in pages."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from mlflow.store.entities import PagedList

T = TypeVar("T")


def iterate_pages(request: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """Yield what all pages have; ``request`` returns the page of a token, and the first one for None."""
    token: str | None = None
    while True:
        page = request(token)
        yield from page
        token = page.token
        if not token:
            return
