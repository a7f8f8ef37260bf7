"""Debian packages as a source of data: fetched and unpacked without root, and without installing anything."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["PackageSource", "apt_available"]

_TOOLS = ("apt-get", "apt-cache", "dpkg")
_TIMEOUT_SECONDS = 300


def apt_available() -> bool:
    """Whether this machine has apt and dpkg."""
    return all(shutil.which(tool) is not None for tool in _TOOLS)


@dataclass(frozen=True)
class _Entry:
    """What the package index says about one package."""

    package: str
    version: str
    size: int
    sha256: str


class PackageSource:
    """Packages of the distribution that this machine runs, from the archives that its apt is set up for.

    Everything lies in `directory`: the packages, what was in them, and `packages.json`, which records version
    and SHA-256 of each. What is there already and has the recorded checksum isn't fetched again, so that a
    second run needs no network. Where the system's package lists are missing (as in container images) or
    don't have a package, lists are fetched into `directory` too.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._record = self.directory / "packages.json"

    def complete(self, packages: list[str]) -> bool:
        """Whether all of `packages` were fetched before, so that nothing is needed from outside."""
        recorded = self._recorded()
        return all(package in recorded and self._file(package).exists() for package in packages)

    def unpack(self, packages: list[str]) -> Path:
        """Fetches `packages` where needed and unpacks them; returns the folder that stands for the file
        system's root.

        Raises:
            DataError: apt is missing, a package is in no archive, the download fails, or a file's SHA-256
                isn't the one that the package index says.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        root = self.directory / "root"
        recorded = self._recorded()
        for package in packages:
            entry = recorded.get(package)
            file = self._file(package)
            if entry is None or not file.exists() or _sha256(file) != entry.sha256:
                entry = recorded[package] = self._fetch(package)
                self._write_record(recorded)
            unpacked = self.directory / f"{package}.unpacked"
            if not unpacked.exists() or unpacked.read_text() != entry.sha256:
                _run(["dpkg", "-x", str(file), str(root)], f"unpacking {file}")
                replace_file(unpacked, entry.sha256.encode())
        return root

    def _fetch(self, package: str) -> _Entry:
        if not apt_available():
            raise DataError(
                f"package {package} can't be fetched: this machine has no {', '.join(_TOOLS)}; "
                f"put {self._file(package)} and its entry in {self._record} there from another machine"
            )
        options: list[str] = []
        entry = self._lookup(package, options)
        if entry is None:
            options = self._private_lists()
            _run(["apt-get", *options, "update"], "fetching package lists")
            entry = self._lookup(package, options)
        if entry is None:
            raise DataError(
                f"package {package} is in none of the archives that this machine's apt is set up for; "
                "add an archive that has it (Debian main does)"
            )
        # apt names the file after package, version and architecture; it is fetched into a folder of its own.
        folder = self.directory / "download" / package
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run(
            ["apt-get", *options, *_UNSANDBOXED, "download", f"{package}={entry.version}"],
            f"fetching package {package}",
            folder=folder,
        )
        found = list(folder.glob("*.deb"))
        if len(found) != 1:
            raise DataError(
                f"apt-get download {package} left {len(found)} packages, not one", path=str(folder)
            )
        digest = _sha256(found[0])
        if digest != entry.sha256:
            raise DataError(
                f"package {package} {entry.version}: the file has SHA-256 {digest}, the package index says "
                f"{entry.sha256}; it was changed on its way, or the package lists are out of date",
                path=str(found[0]),
            )
        found[0].replace(self._file(package))
        folder.rmdir()
        return entry

    def _lookup(self, package: str, options: list[str]) -> _Entry | None:
        """The index's entry for the version that apt would install, None where there is none."""
        shown = subprocess.run(
            ["apt-cache", *options, "--no-all-versions", "show", package],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        if shown.returncode != 0:
            return None
        fields = dict(
            line.split(": ", maxsplit=1)
            for line in shown.stdout.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if not {"Version", "Size", "SHA256"} <= fields.keys():
            # The package is known from the system's list of installed packages alone, which has no checksums.
            return None
        return _Entry(package, fields["Version"], int(fields["Size"]), fields["SHA256"])

    def _private_lists(self) -> list[str]:
        """Options that let apt keep its lists below `directory`, where no root is needed."""
        lists, cache = self.directory / "apt" / "lists", self.directory / "apt" / "cache"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        return [
            *("-o", f"Dir::State::Lists={lists.resolve()}"),
            *("-o", f"Dir::Cache={cache.resolve()}"),
            *_UNSANDBOXED,
        ]

    def _file(self, package: str) -> Path:
        return self.directory / f"{package}.deb"

    def _recorded(self) -> dict[str, _Entry]:
        if not self._record.exists():
            return {}
        try:
            return {name: _Entry(**entry) for name, entry in json.loads(self._record.read_text()).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"record of packages {self._record} is broken ({error}); delete it to fetch them again",
                path=str(self._record),
            ) from error

    def _write_record(self, entries: dict[str, _Entry]) -> None:
        content = {name: entry.__dict__ for name, entry in sorted(entries.items())}
        replace_file(self._record, (json.dumps(content, indent=2) + "\n").encode())


# As root, apt would download as a user of its own, who may not be able to write into a private folder.
_UNSANDBOXED = ("-o", "APT::Sandbox::User=root")


def _run(command: list[str], purpose: str, *, folder: Path | None = None) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
    except FileNotFoundError as error:
        raise DataError(f"{purpose}: {command[0]} isn't there") from error
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{purpose}: no answer within {_TIMEOUT_SECONDS} s; is the network reachable?"
        ) from error
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())
        raise DataError(f"{purpose}: {command[0]} failed: {said}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
