"""What MkDocs calls while it builds: adds the pages that are made of the code, and lets nothing come from outside.

Generated: one page for each explainer and metric that the registry finds, the command line, the public names, and the
changelog. Nothing of it is written into the source tree.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import methods
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from seewhy import registry

__all__ = ["on_config", "on_files", "on_post_build", "outside"]

ROOT = Path(__file__).parent.parent.parent


def pages() -> dict[str, str]:
    """Path in the documentation -> Markdown, for every page that is made of the code."""
    found = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference/cli.md": reference.command_line(),
        "reference/api.md": reference.public_names(),
    }
    for kind in methods.KINDS:
        found[f"{kind}/index.md"] = methods.index(kind)
        found |= {f"{kind}/{name}.md": methods.page(kind, name) for name in registry.names(kind)}
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the generated pages where the navigation says "explainers/...", and what is left where it says "..."."""
    nav = [_filled(entry) for entry in config.nav or []]
    named = set(re.findall(r"[\w/-]+\.md", str(nav)))
    left = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named)
    config.nav = [_with_rest(entry, left) for entry in nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Fails when a built page would fetch anything from another host."""
    found = [f"{path}: {address}" for path, address in outside(Path(config.site_dir))]
    if found:
        raise PluginError("Pages fetch from other hosts:\n" + "\n".join(found))


def outside(site: Path) -> list[tuple[str, str]]:
    """(page, address) of every script, style, font and picture that is not the site's own. Links do not count."""
    fetched = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?\b(?:src|srcset|href|data)=[\"']?"
        r"((?:https?:)?//[^\"'\s>]+)",
        re.IGNORECASE,
    )
    styled = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)")
    found = []
    for path in sorted(Path(folder) / name for folder, _, names in os.walk(site) for name in names):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            addresses = [*(fetched.findall(text) if path.suffix == ".html" else []), *styled.findall(text)]
            found += [(str(path.relative_to(site)), address) for address in addresses]
    return found


def _with_rest(entry: Any, left: list[str]) -> Any:
    """A section that ends in "..." gets the pages that stand nowhere else."""
    if not isinstance(entry, dict):
        return entry
    ((title, pages),) = entry.items()
    return {title: [*pages[:-1], *left]} if isinstance(pages, list) and pages[-1:] == ["..."] else entry


def _filled(entry: Any) -> Any:
    """One entry of the navigation."""
    if not isinstance(entry, dict):
        return entry
    ((title, value),) = entry.items()
    if not isinstance(value, str) or not value.endswith("/..."):
        return {title: value}
    kind = value.removesuffix("/...")
    groups = [{name: [f"{kind}/{n}.md" for n in names]} for name, names in methods.families(kind).items() if names]
    return {title: [f"{kind}/index.md", *groups]}
