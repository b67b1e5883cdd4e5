"""What was found about a whole run, kept beside it so that pages only read it: insights/NAME.json."""

from __future__ import annotations

import json
from typing import Any

from seewhy.runs.folder.settings import parsed
from seewhy.runs.folder.store import Store

__all__ = ["insight", "keep_insight"]


def keep_insight(store: Store, name: str, found: Any) -> None:
    """Writes what was found, in place of what was found before.

    Raises:
        StorageError: it cannot be written.
    """
    store.check_there()
    store.files.put(_file(name), [json.dumps(found, indent=1, ensure_ascii=False).encode()])


def insight(store: Store, name: str) -> Any:
    """Returns what was found; None where nothing was kept.

    Raises:
        InvalidInput: it is no JSON, too large, or nested too deep.
    """
    try:
        data = store.files.get(_file(name))
    except FileNotFoundError:
        return None
    return parsed(data, f"{_file(name)} in {store.address!r}")


def _file(name: str) -> str:
    return f"insights/{name}.json"
