"""The bytes of a Sprint archive, SP_ARC1; all numbers are little-endian.

    file      magic, u8 has_table, entry …, table
    entry     u32 START_TAG, u32 length, name, u32 size, u32 compressed, u32 checksum, payload, u32 END_TAG
    table     u32 count, (u32 length, name, u64 position, u32 size, u32 compressed) …,
              u32 count of gaps, (u64 position, u32 size) …, u64 position of the gaps, u64 position of the table

`size` counts the bytes that an entry stands for, `compressed` those of the gzip stream that stands in the file; 0 says
that it is stored as it is. The checksum is always 0. A position in the table is that of the entry's `size`. An entry
whose name has length 0 has been deleted. Without `has_table`, which is so while a file is being written, the entries
are found by walking from tag to tag.
"""

from __future__ import annotations

import struct

__all__ = ["END_TAG", "HEADER", "MAGIC", "SIZES", "SLOT", "START_TAG", "TABLE_SIZES", "U32", "U64"]

MAGIC = b"SP_ARC1\0"
START_TAG = b"\x55\xaa\x55\xaa"
END_TAG = b"\xaa\x55\xaa\x55"

HEADER = len(MAGIC) + 1
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
SIZES = struct.Struct("<III")
"""Of an entry: size, compressed, checksum."""
TABLE_SIZES = struct.Struct("<QII")
"""In the table: position, size, compressed."""
SLOT = struct.Struct("<QI")
"""A gap: position, size."""
