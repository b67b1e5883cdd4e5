"""What is asked of MindSpore itself: running a cell, watching operations, differentiating, reading weights.

Cells are run operation by operation (PyNative mode), whatever mode the process is in, because only then can their
layers be seen and changed.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seewhy.errors import CheckpointError, InvalidInput, one_line

__all__ = ["Handler", "dispatched", "eager", "hooked", "pull_back", "read_weights", "tensors"]

Handler = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]
"""(operation, what runs it, its arguments) -> its result."""

_lock = threading.RLock()  # the mode, and the stack of those who watch, belong to the process


@contextmanager
def eager(cell: Any) -> Iterator[None]:
    """Evaluation mode, operation by operation; afterwards modes and random state are as before.

    Raises:
        InvalidInput: images of a batch see each other.
    """
    import mindspore

    with _lock:
        mode, state = mindspore.get_context("mode"), mindspore.get_rng_state()
        cells = [one for _, one in cell.cells_and_names()]
        _check_norms(cell)
        modes = [one.training for one in cells]
        if any(modes):
            cell.set_train(False)
        if mode != mindspore.PYNATIVE_MODE:
            mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        try:
            yield
        finally:
            if mode != mindspore.PYNATIVE_MODE:
                mindspore.set_context(mode=mode)
            if any(modes):
                for one, training in zip(cells, modes, strict=True):  # parents first: each sets its children, too
                    one.set_train(training)
            mindspore.set_rng_state(state)


def _check_norms(cell: Any) -> None:
    for name, one in cell.cells_and_names():
        if getattr(one, "use_batch_statistics", None) is True:
            raise InvalidInput(
                f"BatchNorm {name!r} uses the statistics of the batch: what the network says about a picture depends "
                "on the others. Use use_batch_statistics=None, which is the default."
            )


@contextmanager
def dispatched(handler: Handler) -> Iterator[None]:
    """Every operation in this block, those of a backward pass included, is run by ``handler``; its own are not."""
    from mindspore import MsDispatchMode

    class Mode(MsDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inside = False

        def __ms_dispatch__(self, func: Any, args: Any, kwargs: Any = None) -> Any:
            def run(*given: Any) -> Any:
                return func(*given, **(kwargs or {}))

            if self.inside:
                return run(*args)
            self.inside = True
            try:
                return handler(func.name, run, args)
            finally:
                self.inside = False

    with Mode():
        yield


@contextmanager
def hooked(cell: Any, hook: Callable[[Any], Any]) -> Iterator[None]:
    """``hook`` is given what the cell returns, and may return something else in its place."""
    handle = cell.register_forward_hook(lambda _cell, _inputs, output: hook(output))
    try:
        yield
    finally:
        handle.remove()


def pull_back(function: Callable[[Any], tuple[Any, ...]], given: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """What a function gives, and what turns the gradient of that (one tensor each) into the gradient of ``given``.

    Each but the first use of the latter runs the function again.
    """
    import mindspore

    found, back = mindspore.vjp(function, given)

    def pulled(*gradients: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "vjp_fn has been called multiple times", RuntimeWarning)
            result = back(gradients if len(gradients) > 1 else gradients[0])
        return result[0] if isinstance(result, tuple) else result

    return (found if isinstance(found, tuple) else (found,)), pulled


def tensors(value: Any) -> list[Any]:
    """Returns the tensors of MindSpore in what an operation or a cell takes or gives, in order."""
    from mindspore import Tensor

    if isinstance(value, Tensor):
        return [value]
    members: Sequence[Any] = (
        list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    )
    return [one for member in members for one in tensors(member)]


def read_weights(cell: Any, path: Path) -> None:
    """Puts the weights of a checkpoint (.ckpt, .safetensors) into the cell; it must have all of them, and no others.

    Raises:
        CheckpointError: see the message.
    """
    import mindspore

    kind = "safetensors" if path.suffix == ".safetensors" else "ckpt"
    try:
        found = mindspore.load_checkpoint(str(path), format=kind)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"MindSpore cannot read {path.name}: {one_line(error).rstrip('.')}.") from error
    own = {name: tuple(value.shape) for name, value in cell.parameters_dict().items()}
    given = {name: tuple(value.shape) for name, value in found.items()}
    missing = [name for name in own if name not in given]
    wrong = [name for name in own if name in given and own[name] != given[name]]
    if missing:
        raise CheckpointError(
            f"{path.name} has no weights for {len(missing)} of the {len(own)} parameters of {type(cell).__name__}, "
            f"{missing[0]!r} for example; it has {', '.join(map(repr, list(given)[:3]))}."
        )
    if wrong:
        name = wrong[0]
        raise CheckpointError(f"{path.name} has {name!r} of shape {given[name]}, and the network's is {own[name]}.")
    mindspore.load_param_into_net(cell, {name: found[name] for name in own}, strict_load=True)
