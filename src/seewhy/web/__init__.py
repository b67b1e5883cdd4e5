"""Pages over run folders, for the browser: they read and render, they never compute.

``serve("runs")`` does what ``seewhy view runs`` does.
"""

from __future__ import annotations

from seewhy.web.serving import serve

__all__ = ["serve"]
