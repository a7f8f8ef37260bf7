"""Sprint archives: those that RASR wrote, ours, broken ones."""

from __future__ import annotations

import gzip
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.align.sprint_cache import FolderArchive, SpArchive, SpArchiveWriter, open_archive
from seqtrain.errors import DataError
from tests.fsa.strategies import quick

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr" / "align"
STORED = GOLDENS / "mono3.viterbi.cache"
COMPRESSED = GOLDENS / "mono3.viterbi_gz.cache"
SEGMENTS = tuple(f"toy/rec{r}/seg{s}" for r in (1, 2, 3) for s in (1, 2))
TABLE, GAPS = 0x5F9, 0x6C3
"""Where the table of `STORED` begins, and its list of gaps."""


def copied(source: Path, target: Path, *, compress: bool = False) -> bytes:
    """An archive written anew, entry by entry."""
    with SpArchive(source) as archive, SpArchiveWriter(target, compress=compress) as writer:
        for name in archive:
            writer.add(name, archive.read(name))
    return target.read_bytes()


def payloads(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        return {name: archive.read(name) for name in archive}


@pytest.mark.parametrize("name", ["viterbi", "viterbi_emission", "bw"])
def test_rewriting_gives_rasrs_bytes(tmp_path: Path, name: str) -> None:
    source = GOLDENS / f"mono3.{name}.cache"
    assert copied(source, tmp_path / "a.cache") == source.read_bytes()


def test_compressed_entries(tmp_path: Path) -> None:
    assert payloads(COMPRESSED) == payloads(STORED)
    content = copied(COMPRESSED, tmp_path / "a.cache", compress=True)
    assert payloads(tmp_path / "a.cache") == payloads(STORED)
    # The deflate streams depend on the zlib that made them; all before the first one doesn't, its length aside.
    stream = content.index(b"\x1f\x8b")
    original = COMPRESSED.read_bytes()
    compressed = slice(stream - 8, stream - 4)
    assert content[: compressed.start] == original[: compressed.start]
    assert content[compressed.stop : stream + 10] == original[compressed.stop : stream + 10]
    length = int.from_bytes(content[compressed], "little")
    assert gzip.decompress(content[stream : stream + length]) == payloads(STORED)[SEGMENTS[0]]


def test_what_is_there() -> None:
    with SpArchive(STORED) as archive:
        assert archive.entries == archive.segments == SEGMENTS == tuple(archive)
        assert len(archive) == 6
        assert SEGMENTS[3] in archive
        assert "rec1" not in archive
        assert archive.damage is None
        with pytest.raises(
            DataError, match=r"viterbi\.cache, entry 'rec1': there is no such entry among 6"
        ) as caught:
            archive.read("rec1")
        assert (caught.value.path, caught.value.utterance) == (str(STORED), "rec1")
    with pytest.raises(DataError, match="can't be read"):
        archive.read(SEGMENTS[0])


@given(
    entries=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda n: n.isprintable()), st.binary(max_size=80)
    ),
    compress=st.booleans(),
    recover=st.booleans(),
)
@quick
def test_round_trip(entries: dict[str, bytes], compress: bool, recover: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.cache"
        with SpArchiveWriter(path, compress=compress) as writer:
            for name, payload in entries.items():
                writer.add(name, payload)
        with SpArchive(path, recover=recover) as archive:
            assert {name: archive.read(name) for name in archive} == entries
            assert archive.entries == tuple(entries)
            assert archive.damage is None


def test_attributes(tmp_path: Path) -> None:
    with SpArchiveWriter(tmp_path / "a.cache") as writer:
        writer.add("a", b"1", attributes=b"<x/>")
        writer.add("b", b"2")
    with SpArchive(tmp_path / "a.cache") as archive:
        assert archive.entries == ("a", "a.attribs", "b")
        assert archive.segments == ("a", "b")
        assert archive.attributes("a") == b"<x/>"
        assert archive.attributes("b") is None
        assert [archive.has_segment(name) for name in ("a", "a.attribs", "none", 3)] == [
            True,
            False,
            False,
            False,
        ]


def test_other_encodings(tmp_path: Path) -> None:
    with SpArchiveWriter(tmp_path / "a.cache", encoding="latin-1") as writer:
        writer.add("Grüße", b"1")
    with pytest.raises(DataError, match=r"named b'Gr\\xfc\\xdfe', which isn't utf-8; pass its encoding"):
        SpArchive(tmp_path / "a.cache")
    with SpArchive(tmp_path / "a.cache", encoding="latin-1") as archive:
        assert archive.read("Grüße") == b"1"
    with (
        SpArchiveWriter(tmp_path / "b.cache", encoding="ascii") as writer,
        pytest.raises(DataError, match="as ascii"),
    ):
        writer.add("Grüße", b"1")


def test_a_writer_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    path.write_bytes(b"before")
    writer = SpArchiveWriter(path)

    def add_twice() -> None:
        with writer:
            writer.add("a", b"1")
            writer.add("a", b"2")

    with pytest.raises(DataError, match="entry 'a': has the entry already"):
        add_twice()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    writer.close()
    writer.close()
    assert payloads(path) == {"a": b"1"}
    with pytest.raises(DataError, match="has been written already"):
        writer.add("b", b"1")
    with pytest.raises(DataError, match="an entry needs a name"), SpArchiveWriter(path) as writer:
        writer.add("", b"1")


def test_gaps_in_the_table_are_passed_over(tmp_path: Path) -> None:
    content = bytearray(STORED.read_bytes())
    content[GAPS : GAPS + 4] = struct.pack("<IQI", 1, 30, 174)
    (tmp_path / "a.cache").write_bytes(content)
    assert payloads(tmp_path / "a.cache") == payloads(STORED)


# Without a table.


def test_a_file_without_table(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    content = bytearray(STORED.read_bytes()[:TABLE])
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"the table at its end is broken.*recover=True finds the entries without it"
    ):
        SpArchive(path)
    with SpArchive(path, recover=True) as archive:
        assert {name: archive.read(name) for name in archive} == payloads(STORED)
        assert archive.damage is None
    content[8] = 0  # has_table, as it is while RASR writes
    path.write_bytes(content)
    assert payloads(path) == payloads(STORED)
    # The table of an archive that was opened to be written to, and then wasn't.
    path.write_bytes(content + STORED.read_bytes()[TABLE:])
    assert payloads(path) == payloads(STORED)


@pytest.mark.parametrize("cut", [1, 4, 5, 20, 200])
def test_a_file_that_ends_within_an_entry(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.cache"
    content = bytearray(STORED.read_bytes()[: TABLE - cut])
    content[8] = 0
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"has no table, and the \d+ bytes from 1078 on are no whole entry; rec.* 5 ent"
    ):
        SpArchive(path)
    with SpArchive(path, recover=True) as archive:
        assert archive.segments == SEGMENTS[:-1]
        assert archive.damage == f"the {len(content) - 1078} bytes from 1078 on are no whole entry"


@pytest.mark.parametrize("whole", [True, False])
def test_deleted_entries_are_passed_over(tmp_path: Path, whole: bool) -> None:
    """Either with the sizes behind the empty name, or with the old name's bytes still there."""
    path = tmp_path / "a.cache"
    content = STORED.read_bytes()[:TABLE]
    second = content.index(b"\x55\xaa\x55\xaa", 20)
    head = content[second : second + 4] + bytes(4)
    name = b"" if whole else SEGMENTS[1].encode()
    rest = content[second + 8 + len(SEGMENTS[1]) :]
    path.write_bytes(b"SP_ARC1\0\0" + content[9:second] + head + name + rest)
    expected = {name: payload for name, payload in payloads(STORED).items() if name != SEGMENTS[1]}
    assert payloads(path) == expected
    # The last entry deleted: the end of the file follows its end tag.
    last = content.rindex(b"\x55\xaa\x55\xaa")
    name = b"" if whole else SEGMENTS[5].encode()
    path.write_bytes(b"SP_ARC1\0\0" + content[9:last] + head + name + content[last + 8 + len(SEGMENTS[5]) :])
    assert tuple(payloads(path)) == SEGMENTS[:-1]


def test_the_last_of_two_entries_of_a_name_counts_in_a_recovery(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    with SpArchiveWriter(path) as writer:
        writer.add("a", b"old")
        writer.add("b", b"new")
    path.write_bytes(path.read_bytes().replace(b"\1\0\0\0b", b"\1\0\0\0a"))
    with pytest.raises(DataError, match="entry 'a': stands twice"):
        SpArchive(path)
    with SpArchive(path, recover=True) as archive:
        assert archive.read("a") == b"new"


# What is wrong is named.


def u32(position: int, value: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        struct.pack_into("<I", content, position % len(content), value)

    return change


def cut(length: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        del content[length:]

    return change


def inserted(position: int, length: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[position:position] = bytes(length)

    return change


NUMBER_OF_FILES = TABLE
FIRST_NAME = TABLE + 4
FIRST_POSITION = TABLE + 8 + 13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (u32(0, 0), r"begins with b'\\x00\\x00\\x00\\x00RC1\\x00', not with b'SP_ARC1\\x00': it is no Sprint archive"),
        (cut(0), "begins with b''"),
        (cut(8), "is truncated"),
        (u32(8, 2), "has_table is 2, not 0 or 1"),
        (cut(20), "the table at its end is broken: the file is too short for one; recover=True"),
        (u32(-8, 1 << 30), r"broken: it should begin at byte 1073741824 of 1751"),
        (u32(-8, 4), "broken: it should begin at byte 4 of 1751"),
        (u32(-12, 1), r"its gaps begin at byte 1731, and it says 429\d+"),
        (u32(NUMBER_OF_FILES, 1 << 31), "it can't hold 2147483648 items in 202 bytes"),
        (u32(NUMBER_OF_FILES, 5), "it can't hold 13 items in 33 bytes"),
        (inserted(-16, 12), "it lists 0 gaps in 12 bytes"),
        (u32(NUMBER_OF_FILES, 7), r"\d+ bytes are wanted and \d+ are left"),
        (u32(FIRST_NAME, 1 << 31), "2147483648 bytes are wanted and 198 are left"),
        (u32(FIRST_NAME, 0), "entry 0 of the table has no name"),
        (u32(FIRST_POSITION, 1 << 30), "entry 'toy/rec1/seg1': the table puts it at bytes 1073741824 to"),
        (u32(FIRST_POSITION, 3), "'toy/rec1/seg1': the table puts it at bytes 3 to 193, but .* between 30 and 1529"),
        (u32(FIRST_POSITION + 8, 0xFFFFFFFF), "'toy/rec1/seg1': the table puts it at bytes 30 to 4294967341"),
        (u32(FIRST_POSITION + 12, 0xFFFFFFF0), "'toy/rec1/seg1': the table puts it at bytes 30 to"),
        (u32(GAPS, 1), "it can't hold 1 items in 0 bytes"),
    ],
)  # fmt: skip
def test_broken_archives(tmp_path: Path, change: Callable[[bytearray], None], message: str) -> None:
    content = bytearray(STORED.read_bytes())
    change(content)
    path = tmp_path / "a.cache"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        SpArchive(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        (STORED, u32(9, 7), "'toy/rec1/seg1': the entry's start tag and name don't stand at byte 9"),
        (STORED, u32(13, 7), "'toy/rec1/seg1': the entry's start tag and name don't stand at byte 9"),
        (STORED, u32(17, 7), "'toy/rec1/seg1': the entry's start tag and name don't stand at byte 9"),
        (STORED, u32(30, 7), r"the table says 174 bytes \(0 compressed\), the entry 7 \(0\)"),
        (STORED, u32(34, 7), r"the table says 174 bytes \(0 compressed\), the entry 174 \(7\)"),
        (STORED, u32(42 + 174, 7), "the entry's end tag doesn't stand at byte 216"),
        (COMPRESSED, u32(42, 7), "'toy/rec1/seg1': isn't a gzip stream: "),
        (COMPRESSED, u32(42 + 60, 7), "'toy/rec1/seg1': isn't a gzip stream: "),
        (COMPRESSED, u32(42 + 124 - 8, 7), "'toy/rec1/seg1': isn't a gzip stream: "),  # the check sum
    ],
)  # fmt: skip
def test_broken_entries(
    tmp_path: Path, source: Path, change: Callable[[bytearray], None], message: str
) -> None:
    content = bytearray(source.read_bytes())
    change(content)
    path = tmp_path / "a.cache"
    path.write_bytes(content)
    with SpArchive(path) as archive, pytest.raises(DataError, match=message) as caught:
        archive.read(SEGMENTS[0])
    assert (caught.value.path, caught.value.utterance) == (str(path), SEGMENTS[0])


def compressed_entry(path: Path, stream: bytes, size: int) -> None:
    """An archive without table and with one entry, "a"."""
    sizes = struct.pack("<III", size, len(stream), 0)
    path.write_bytes(
        b"SP_ARC1\0\0\x55\xaa\x55\xaa" + struct.pack("<I", 1) + b"a" + sizes + stream + b"\xaa\x55\xaa\x55"
    )


def test_gzip_streams_of_other_lengths(tmp_path: Path) -> None:
    path = tmp_path / "a.cache"
    stream = gzip.compress(bytes(1000))
    for content, size, message in (
        (stream, 999, "its gzip stream holds more than 999 bytes; the entry says 999"),
        (stream, 10, "its gzip stream holds more than 10 bytes, unfinished; the entry says 10"),
        (stream, 1001, "its gzip stream holds 1000 bytes; the entry says 1001"),
        (stream[:-9], 1000, "its gzip stream holds 1000 bytes, unfinished; the entry says 1000"),
        (
            stream + b"xyz",
            1000,
            "its gzip stream holds 1000 bytes, and 3 bytes follow it; the entry says 1000",
        ),
        (stream, 1 << 31, "has 2147483648 bytes, and at most 268435456 are read; pass max_entry_bytes if"),
    ):
        compressed_entry(path, content, size)
        with SpArchive(path) as archive, pytest.raises(DataError, match=message):
            archive.read("a")
    compressed_entry(path, stream, 1000)
    with (
        SpArchive(path, max_entry_bytes=999) as archive,
        pytest.raises(DataError, match="has 1000 bytes, and at"),
    ):
        archive.read("a")
    assert payloads(path) == {"a": bytes(1000)}


def test_files_that_are_missing_or_change(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can't be read: .*No such file"):
        SpArchive(tmp_path / "none.cache")
    path = tmp_path / "a.cache"
    path.write_bytes(STORED.read_bytes())
    with SpArchive(path) as archive:
        with path.open("r+b") as file:
            file.truncate(100)
        with pytest.raises(DataError, match="has become shorter since it was opened"):
            archive.read(SEGMENTS[0])


# Folders and bundles.


def test_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, payload in payloads(STORED).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(payload)
    (tmp_path / "outside").write_bytes(b"secret")
    assert payloads(root) == payloads(STORED)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root / "loop")
    with open_archive(root) as archive:
        assert isinstance(archive, FolderArchive)
        assert archive.segments == ("link", "loop", *SEGMENTS)
        for name, message in (
            ("link", "entry 'link': is a link that leads out of the folder"),
            ("loop", "entry 'loop': (is no file|can't be read)"),
            ("../outside", "entry '../outside': there is no such entry among 8"),
        ):
            with pytest.raises(DataError, match=message):
                archive.read(name)
    with (
        FolderArchive(root, max_entry_bytes=10) as archive,
        pytest.raises(DataError, match="has more than 10 bytes"),
    ):
        archive.read(SEGMENTS[0])
    with pytest.raises(DataError, match="can't be read"):
        FolderArchive(tmp_path / "none")
    (root / "odd\nname").write_bytes(b"")
    with pytest.raises(DataError, match=r"the file 'odd\\nname' has a name that no entry can have"):
        FolderArchive(root)


def test_bundles(tmp_path: Path) -> None:
    every = payloads(STORED)
    for number, part in enumerate((SEGMENTS[:2], SEGMENTS[2:])):
        with SpArchiveWriter(tmp_path / f"{number}.cache") as writer:
            for name in part:
                writer.add(name, every[name])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "more").write_bytes(b"1")
    bundle = tmp_path / "all.bundle"
    bundle.write_text(f"0.cache\n\n{tmp_path / '1.cache'}\r\nfolder\n")
    assert payloads(bundle) == {**every, "more": b"1"}
    with open_archive(bundle) as archive:
        assert archive.damage is None
        assert archive.origin(SEGMENTS[2]) == tmp_path / "1.cache"
        assert archive.origin("none") == bundle
        with pytest.raises(DataError, match="entry 'none': there is no such entry among 7 in 3 archives"):
            archive.read("none")
    (tmp_path / "1.cache").write_bytes((tmp_path / "1.cache").read_bytes()[:300])
    with open_archive(bundle, recover=True) as archive:
        assert archive.damage == f"{tmp_path / '1.cache'}: the 38 bytes from 262 on are no whole entry"
    for text, message in (
        ("", "lists no archive"),
        ("0.cache\n0.cache\n", "entry 'toy/rec1/seg1': stands in .*0.cache and in .*0.cache"),
        ("0.cache\n\nall.bundle\n", "line 3: lists another bundle, all.bundle"),
        ("a\0b", r"line 1: 'a\\x00b' is no path"),
        ("0.cache\nnone.cache", "none.cache: can't be read"),
    ):
        bundle.write_text(text)
        with pytest.raises(DataError, match=message):
            open_archive(bundle)
    bundle.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="can't be read"):
        open_archive(bundle)
    with pytest.raises(DataError, match="more than 1 bytes"):
        open_archive(bundle, max_entry_bytes=1)


def test_only_folders_that_are_allowed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.cache").write_bytes(STORED.read_bytes())
    (inside / "link.cache").symlink_to(outside / "a.cache")
    (inside / "good.bundle").write_text("a.cache\n")
    (inside / "bad.bundle").write_text("../outside/a.cache\n")
    (tmp_path / "link").symlink_to(inside)
    for path in (inside / "a.cache", inside / "good.bundle", tmp_path / "link" / "a.cache"):
        with open_archive(path, folders=[inside]) as archive:
            assert archive.segments == SEGMENTS
    message = "lies outside of the folders that archives may come from: .*inside"
    for path in (
        "inside/link.cache",
        "inside/bad.bundle",
        "outside/a.cache",
        "inside/../outside/a.cache",
        "outside",
    ):
        with pytest.raises(DataError, match=message):
            open_archive(tmp_path / path, folders=[inside])
    with pytest.raises(DataError, match="may come from: none"):
        open_archive(inside / "a.cache", folders=[])
