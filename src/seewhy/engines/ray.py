"""On a Ray cluster: one that is running, or a private one on this machine for the time of the work (extra ``ray``)."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from seewhy.checks import check_count
from seewhy.engines import Factory
from seewhy.engines._lanes import LaneLost, drive, plain_failure
from seewhy.errors import MissingDependency, one_line
from seewhy.memory import keep_memory

__all__ = ["Ray"]


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Works on a Ray cluster, with one actor a worker; an actor that is lost is replaced.

    Attributes:
        workers: how many actors.
        address: of a running cluster ("auto", "host:6379", "ray://..."); None starts a private one on this machine,
            with token authentication, without dashboard and usage statistics.
        cpus: of each actor.
        gpus: of each actor.
    """

    workers: int = 2
    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        check_count("workers", self.workers)

    def map(self, factory: Factory, todo: Sequence[Any], stop: Callable[[], bool]) -> Iterator[Any]:
        """See `seewhy.engines.Engine`."""
        with self._cluster() as ray:
            shared = ray.put(factory)
            yield from drive(lambda number: _Actor(ray, self, shared, number), self.workers, todo, stop)

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connects to Ray for a block; then ends what was started here and puts the environment back."""
        before = dict(os.environ)
        if self.address is None:
            os.environ.update(_private())
        try:
            import ray
        except ImportError as error:
            raise MissingDependency("The engine 'ray' needs Ray. Install it: pip install 'seewhy[ray]'.") from error
        ours = not ray.is_initialized()
        try:
            if ours:
                ray.init(
                    address=self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                    **self._size(),
                )  # fmt: skip
            yield ray
        finally:
            if ours:
                ray.shutdown()
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)

    def _size(self) -> dict[str, Any]:
        """Returns the size of a private cluster, which has room for all workers, also where they share a core."""
        if self.address is not None:
            return {}
        return {
            "num_cpus": max(1, round(self.workers * self.cpus)),
            "num_gpus": round(self.workers * self.gpus) or None,
        }


@cache
def _private() -> dict[str, str]:
    """Returns the environment of a private cluster; it stays the same in this process, as Ray reads it only once.

    Where Ray was imported before, it has read the user's own and keeps to that.
    """
    found = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "ray" in sys.modules:
        return found
    found["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE", "token")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        found["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return found


class _Server:
    """The actor: builds its worker with the first call."""

    def __init__(self, factory: Factory, number: int) -> None:
        keep_memory()
        self.factory, self.number = factory, number
        self.worker: Any = None

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            self.worker = self.worker or self.factory(self.number)
            return getattr(self.worker, method)(*arguments)
        except SystemExit as error:
            raise plain_failure(error) from error


class _Actor:
    """A lane in an actor."""

    def __init__(self, ray: Any, engine: Ray, factory: Any, number: int) -> None:
        self.ray = ray
        remote = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_restarts=0)(_Server)
        self.actor = remote.remote(factory, number)

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        def arrived(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                answer.set_result(future.result())
            elif isinstance(error, self.ray.exceptions.RayActorError):
                answer.set_exception(LaneLost(one_line(error)))
            else:
                answer.set_exception(getattr(error, "cause", None) or error)

        self.actor.call.remote(method, arguments).future().add_done_callback(arrived)
        return answer

    def close(self) -> None:
        self.ray.kill(self.actor)
