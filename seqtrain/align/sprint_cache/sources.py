"""What can stand where an archive is asked for: a file, a folder of files, or a bundle, a text file that lists both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seqtrain.align.sprint_cache.archive import MAX_ENTRY_BYTES, Archive, SpArchive, archive_error
from seqtrain.errors import DataError

__all__ = ["BUNDLE", "Bundle", "FolderArchive", "open_archive"]

BUNDLE = ".bundle"

_BLOCK_BYTES = 1 << 20


class FolderArchive(Archive):
    """A folder as an archive: each file below it is an entry, named by its path from there on.

    Args:
        path: the folder.
        max_entry_bytes: the largest entry to read.

    Raises:
        DataError: the folder can't be read, or a file's name isn't printable text.
    """

    def __init__(self, path: str | Path, *, max_entry_bytes: int = MAX_ENTRY_BYTES) -> None:
        self.path = Path(path)
        self._max_entry_bytes = max_entry_bytes

        def refuse(error: OSError) -> None:
            raise archive_error(self.path, f"can't be read: {error}") from error

        found: dict[str, None] = {}
        for folder, folders, files in os.walk(self.path, onerror=refuse):
            folders.sort()
            for file in sorted(files):
                name = (Path(folder) / file).relative_to(self.path).as_posix()
                if not name.isprintable():  # undecodable bytes, above all
                    raise archive_error(self.path, f"the file {name!r} has a name that no entry can have")
                found[name] = None
        self._found = found

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def read(self, name: str) -> bytes:
        # Only names that were found: nothing outside the folder has one, links aside.
        if name not in self._found:
            raise archive_error(self.path, f"there is no such entry among {len(self._found)}", entry=name)
        file = _resolved(self.path / name, self.path, name)
        if not file.is_relative_to(self.path.resolve()):
            raise archive_error(self.path, "is a link that leads out of the folder", entry=name)
        if not file.is_file():
            raise archive_error(self.path, "is no file", entry=name)
        try:
            content = _read_at_most(file, self._max_entry_bytes + 1)
        except OSError as error:
            raise archive_error(self.path, f"can't be read: {error}", entry=name) from error
        if len(content) > self._max_entry_bytes:
            raise archive_error(
                self.path,
                f"has more than {self._max_entry_bytes} bytes, the most that are read; pass max_entry_bytes if it is "
                "meant to be as long",
                entry=name,
            )
        return content

    def close(self) -> None:
        """Nothing stays open."""


class Bundle(Archive):
    """Several archives as one.

    Args:
        path: what it is called in errors.
        members: the archives; closing the bundle closes them.

    Raises:
        DataError: two of them have an entry of the same name.
    """

    def __init__(self, path: str | Path, members: Sequence[Archive]) -> None:
        self.path = Path(path)
        self._members = tuple(members)
        self._found: dict[str, Archive] = {}
        for member in members:
            for name in member.entries:
                if name in self._found:
                    raise archive_error(
                        self.path, f"stands in {self._found[name].path} and in {member.path}", entry=name
                    )
                self._found[name] = member

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._found)

    @property
    def damage(self) -> str | None:
        damaged = [f"{member.path}: {member.damage}" for member in self._members if member.damage is not None]
        return "; ".join(damaged) or None

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def origin(self, name: str) -> Path:
        return self._found[name].origin(name) if name in self._found else self.path

    def read(self, name: str) -> bytes:
        if name not in self._found:
            raise archive_error(
                self.path,
                f"there is no such entry among {len(self._found)} in {len(self._members)} archives",
                entry=name,
            )
        return self._found[name].read(name)

    def close(self) -> None:
        for member in self._members:
            member.close()


def open_archive(
    path: str | Path,
    *,
    recover: bool = False,
    encoding: str = "utf-8",
    max_entry_bytes: int = MAX_ENTRY_BYTES,
    folders: Sequence[Path] | None = None,
) -> Archive:
    """Opens an archive file, a folder, or a bundle.

    A bundle is a text file whose name ends in `.bundle`: one path of a file or folder in each line, where relative
    from the bundle's own folder on; empty lines are skipped.

    Args:
        path: of any of them.
        recover, encoding, max_entry_bytes: see `SpArchive`.
        folders: where not None, nothing outside of these is opened, whatever links and bundles say.

    Raises:
        DataError: it can't be read, is broken, or lies outside of `folders`; a bundle lists nothing, another bundle,
            or archives that have entries of the same name.
    """
    path = Path(path)

    def single(member: Path) -> Archive:
        place = _allowed(member, folders)
        if place.is_dir():
            return FolderArchive(place, max_entry_bytes=max_entry_bytes)
        return SpArchive(place, recover=recover, encoding=encoding, max_entry_bytes=max_entry_bytes)

    if not path.name.endswith(BUNDLE) or path.is_dir():
        return single(path)
    opened: list[Archive] = []
    try:
        for member in _read_bundle(path, _allowed(path, folders), encoding, max_entry_bytes):
            opened.append(single(member))
        return Bundle(path, opened)
    except BaseException:
        for archive in opened:
            archive.close()
        raise


def _allowed(path: Path, folders: Sequence[Path] | None) -> Path:
    """The path to open: behind all links where it has to lie in `folders`, so that none can be changed in between."""
    if folders is None:
        return path
    place = _resolved(path, path)
    if not any(place.is_relative_to(folder.resolve()) for folder in folders):
        raise archive_error(
            path,
            "lies outside of the folders that archives may come from: "
            + (", ".join(map(str, folders)) or "none"),
        )
    return place


def _resolved(path: Path, archive: Path, entry: str | None = None) -> Path:
    """The path behind all links."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # the latter for a loop of links
        raise archive_error(archive, f"can't be read: {error}", entry=entry) from error


def _read_bundle(path: Path, place: Path, encoding: str, max_bytes: int) -> list[Path]:
    try:
        content = _read_at_most(place, max_bytes + 1)
        if len(content) > max_bytes:
            raise archive_error(path, f"has more than {max_bytes} bytes, the most that are read")
        lines = content.decode(encoding).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise archive_error(path, f"can't be read: {error}") from error
    members: list[Path] = []
    for number, line in enumerate(lines, start=1):
        member = line.strip()
        if not member:
            continue
        if "\0" in member:
            raise _line_error(path, number, f"{member!r} is no path")
        if member.endswith(BUNDLE):
            raise _line_error(path, number, f"lists another bundle, {member}")
        members.append(place.parent / member)
    if not members:
        raise archive_error(path, "lists no archive")
    return members


def _read_at_most(path: Path, most: int) -> bytes:
    """The first bytes of a file, block by block: a read takes the memory it is asked for, whatever there is to read."""
    content = bytearray()
    with path.open("rb") as file:
        while block := file.read(min(_BLOCK_BYTES, most - len(content))):
            content += block
    return bytes(content)


def _line_error(path: Path, number: int, problem: str) -> DataError:
    return archive_error(path, f"line {number}: {problem}")
