"""Files are written beside the work: a PNG of 1024 x 1024 takes 0.4 s, in which a GPU would stand still."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Writer(Generic[T]):
    """Does jobs in a thread of its own, one after the other, in the order in which they are put.

        with Writer(most=8) as writer:
            for picture in pictures:
                show(writer.put(partial(save, picture)))
            show(writer.rest())

    most: jobs that wait at a time, and so how much is held in memory; `put` waits where there are more.
    What a job raises comes back from the next `put`, or from `rest`; jobs that have not begun are dropped.
    At the end of the block all jobs are done, also where the block raises: what was made is kept.
    """

    def __init__(self, most: int = 8):
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: deque[Future[T]] = deque()

    def __enter__(self) -> "Writer[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.rest()
        finally:
            self._thread.shutdown()

    def put(self, job: Callable[[], T]) -> list[T]:
        """Have a job done; returns what the jobs returned that are done by now, each once, in order."""
        results = self._results(self._most - 1)
        self._waiting.append(self._thread.submit(job))
        return results

    def rest(self) -> list[T]:
        """Wait for all jobs; returns what they returned."""
        return self._results(0)

    def _results(self, left: int) -> list[T]:
        """Of the jobs that are done, and of so many more that no more than `left` wait."""
        results: list[T] = []
        while self._waiting and (len(self._waiting) > left or self._waiting[0].done()):
            try:
                results.append(self._waiting.popleft().result())
            except BaseException:
                for job in self._waiting:
                    job.cancel()
                self._waiting.clear()
                raise
        return results
