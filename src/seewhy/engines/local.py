"""On this machine: in this process, or in several, one for each device."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any

from seewhy.checks import check_count
from seewhy.engines import Factory
from seewhy.engines._lanes import LaneLost, drive, plain_failure
from seewhy.errors import FAILURES, InvalidInput
from seewhy.memory import keep_memory

__all__ = ["Local"]


@dataclass(frozen=True, kw_only=True)
class Local:
    """Works in this process, or with several workers in processes of their own.

    Attributes:
        workers: how many; 1 works in this process.
        apart: works in another process also when there is one worker, so that it can be ended when it hangs.
    """

    workers: int = 1
    apart: bool = False

    def __post_init__(self) -> None:
        check_count("workers", self.workers)

    def map(self, factory: Factory, todo: Sequence[Any], stop: Callable[[], bool]) -> Iterator[Any]:
        """See `seewhy.engines.Engine`."""
        if self.workers > 1 or self.apart:
            yield from drive(lambda number: _Process(factory, number), self.workers, todo, stop)
            return
        worker = factory(0)
        try:
            items = iter(todo)  # take each item once: it may be made only then
            item = next(items, None)
            while item is not None and not stop():
                upcoming = next(items, None)
                yield from worker(item, upcoming)
                item = upcoming
            yield from worker.flush()
        finally:
            worker.close()


class _Process:
    """A lane in a process of its own."""

    def __init__(self, factory: Factory, number: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.here, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, factory, number), daemon=True)
        try:
            self.process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"With several workers everything is sent to other processes, and something cannot be: {error}. Define "
                "it at the top of a module, name it (package.module:factory), or use one worker."
            ) from error
        there.close()

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        Thread(target=self._ask, args=(future, method, arguments), daemon=True).start()
        return future

    def _ask(self, future: Future[Any], method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self.here.send((method, arguments))
            good, answer = self._answer()
        except (EOFError, OSError):
            self.process.join(5)
            future.set_exception(LaneLost(f"its process ended with exit code {self.process.exitcode}."))
            return
        if good:
            future.set_result(answer)
        else:
            future.set_exception(answer)

    def _answer(self) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = self.here.recv()
        except TypeError as error:  # what the pipe raises when another thread closes it meanwhile
            raise EOFError from error
        return answer

    def close(self) -> None:
        self.here.close()
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Any, factory: Factory, number: int) -> None:
    """Answers the calls to a worker in its process, until the connection ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who asks decides
    keep_memory()
    worker = None
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            break
        try:
            worker = worker or factory(number)
            answer = (True, getattr(worker, method)(*arguments))
        except FAILURES as error:  # belongs to who asked
            answer = (False, plain_failure(error))
        try:
            pipe.send(answer)
        except (pickle.PicklingError, AttributeError, TypeError):
            pipe.send((False, RuntimeError(repr(answer[1]))))
        except OSError:
            break
    if worker is not None:
        worker.close()
