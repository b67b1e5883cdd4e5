"""How long a step for one picture may take, and what becomes of one that takes longer.

What can interrupt Python is not what can interrupt a library:

- Python code, a sleep, a wait for a lock, a socket or another process: interrupted by a signal, in the main thread of a
  process on Linux or macOS. Elsewhere (another thread, Windows) an exception is put into the thread, which sees it as
  soon as it runs Python code again: a loop is interrupted, a long sleep is not.
- One call into a library that never comes back cannot be interrupted inside its process by anybody. A worker in a
  process of its own ends that process then (a watchdog in C, which needs no Python); its chunk is tried again and then
  given up. In the caller's own process nothing of the kind is done: ask for workers, or `Local(apart=True)`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from seewhy.errors import TimedOut

__all__ = ["Limit", "Readers", "Reading"]

_GRACE = 20.0  # seconds after the limit in which Python code may see the interrupt, before a process is ended
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Limit:
    """Interrupts what takes too long.

    Args:
        seconds: that one picture may take; None for as long as it takes.
        module: a network that is put back into the state that it had, when something was interrupted.
        alone: the process has nothing else to do, and is ended when nothing else helps.
    """

    def __init__(self, seconds: float | None, module: Any = None, *, alone: bool = False) -> None:
        self.seconds, self.alone = seconds, alone
        self.module = module if isinstance(module, nn.Module) else None

    @contextmanager
    def __call__(self, pictures: int = 1) -> Iterator[None]:
        """Limits the time of a block.

        Raises:
            TimedOut: it took longer than so many pictures may take.
        """
        if self.seconds is None:
            yield
            return
        seconds = self.seconds * pictures
        with ExitStack() as stack:
            if self.module is not None:
                stack.enter_context(_put_back(self.module))
            if self.alone:
                stack.enter_context(_deadly(seconds + _GRACE))
            main = threading.current_thread() is threading.main_thread()
            stack.enter_context((_signalled if main and hasattr(signal, "setitimer") else _thrown)(seconds))
            yield


def _late(seconds: float) -> TimedOut:
    return TimedOut(f"It took longer than {seconds:g} s and was given up.")


@contextmanager
def _signalled(seconds: float) -> Iterator[None]:
    armed = True

    def rang(_number: int, _frame: Any) -> None:
        if armed:
            raise _late(seconds)

    before, left = signal.signal(signal.SIGALRM, rang), signal.getitimer(signal.ITIMER_REAL)
    began = time.monotonic()
    try:
        # Again and again: code that catches whatever is raised would else hang in its next try.
        signal.setitimer(signal.ITIMER_REAL, seconds, max(seconds, 5.0))
        yield
        armed = False
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left[0]:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left[0] - (time.monotonic() - began)), left[1])


@contextmanager
def _thrown(seconds: float) -> Iterator[None]:
    thread = threading.get_ident()
    timer = threading.Timer(seconds, _throw, (thread,))
    timer.daemon = True
    timer.start()
    try:
        yield
    except TimedOut as error:
        raise (error if error.args else _late(seconds)) from None
    finally:
        timer.cancel()
        timer.join()
        _throw(thread, None)


def _throw(thread: int, what: type[BaseException] | None = TimedOut) -> None:
    """Puts an exception into a thread; None takes back an exception that the thread has not seen yet."""
    raised = ctypes.py_object(what) if what is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


@contextmanager
def _deadly(seconds: float) -> Iterator[None]:
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def _put_back(network: nn.Module) -> Iterator[None]:
    """Puts a network back as it was: what is interrupted at any place may leave a hook or a flag behind."""
    hooks = [
        (own, dict(own)) for m in network.modules() for name in _HOOKS if (own := getattr(m, name, None)) is not None
    ]
    modes = [(m, m.training) for m in network.modules()]
    needs = [(p, p.requires_grad) for p in network.parameters()]
    try:
        yield
    except TimedOut:
        for own, before in hooks:
            if own != before:
                own.clear()
                own.update(before)
        for module, training in modes:
            module.training = training
        for parameter, needed in needs:
            parameter.requires_grad = needed
        raise


class Reading:
    """The result of one reading in a thread, once it is there."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], limit: float | None) -> None:
        self.function, self.arguments, self.limit = function, arguments, limit
        self.future: Future[Any] = Future()
        self.began: float | None = None
        self.thread = 0
        self.late: Callable[[Reading], None] | None = None

    def result(self) -> Any:
        """Returns what was read.

        Raises:
            TimedOut: the reading takes longer than it may; another thread goes on with the rest.
        """
        while self.limit is not None and not wait([self.future], min(self.limit, 0.1)).done:
            if self.began is not None and time.monotonic() - self.began > self.limit:
                assert self.late is not None
                self.late(self)
                raise _late(self.limit)
        return self.future.result()

    def read(self) -> None:
        """Reads one image in the thread."""
        self.thread, self.began = threading.get_ident(), time.monotonic()
        try:
            found = self.function(*self.arguments)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(found)


class Readers:
    """Threads that read ahead; one that hangs is left alone, and another one takes its place.

    Args:
        count: how many.
        limit: seconds that one reading may take, or None.
    """

    def __init__(self, count: int, limit: float | None) -> None:
        self.limit = limit
        self._todo: queue.SimpleQueue[Reading | None] = queue.SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}
        self._lost: set[int] = set()
        for _ in range(count):
            self._start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Reading:
        """Starts a reading in one of the threads."""
        reading = Reading(function, arguments, self.limit)
        reading.late = self._replace
        self._todo.put(reading)
        return reading

    def close(self) -> None:
        """Drops the readings that have not begun, and waits for the others unless they hang."""
        while not self._todo.empty():
            self._todo.get()
        for _ in self._threads:
            self._todo.put(None)
        for number, thread in list(self._threads.items()):
            if number not in self._lost:
                thread.join(self.limit)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="seewhy-read", daemon=True)
        thread.start()
        assert thread.ident is not None
        self._threads[thread.ident] = thread

    def _replace(self, reading: Reading) -> None:
        self._lost.add(reading.thread)
        self._threads.pop(reading.thread, None)
        _throw(reading.thread)
        self._start()

    def _work(self) -> None:
        while (reading := self._todo.get()) is not None:
            reading.read()
            if threading.get_ident() in self._lost:
                return
