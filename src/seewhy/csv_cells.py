"""Cells of comma-separated values that no spreadsheet runs. One owner for every table that is written.

Class names and file names come from outside, and a spreadsheet runs a cell that begins with ``=`` as a formula. So a
text that begins with ``=``, ``+``, ``-``, ``@``, a tab, a line break (or a wide form of one of these signs), or with
``'`` itself, also after spaces, gets one ``'`` in front. Nothing else is changed: a reader that takes one leading ``'``
away has the text as it was. Numbers are not touched.
"""

from __future__ import annotations

from typing import Any

__all__ = ["guarded"]

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def guarded(cell: Any) -> Any:
    """Returns the cell as it is written."""
    if isinstance(cell, str) and (cell.startswith(_DANGEROUS) or cell.lstrip().startswith(_DANGEROUS)):
        return f"'{cell}"
    return cell
