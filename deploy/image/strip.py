"""Take out of shared libraries what no loader reads: debug information and symbol tables behind the last segment.

For the image's build: `python strip.py FOLDER` rewrites every ELF shared library below FOLDER. Wheels bring 20 MB of
debug information, and slim images have no `strip`. The loader goes by the program headers (System V ABI, "Program
Header"); sections are for linkers and debuggers, so the table that lists them goes too.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
"""ELF, 64 bit, little-endian: x86-64 and AArch64. Anything else is left alone."""


def stripped(data: bytes) -> bytes:
    """Return the library without what lies behind its segments; unchanged if it is not one that we know."""
    if not data.startswith(_MAGIC):
        return data
    program_headers, _ = struct.unpack_from("<QQ", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    end = program_headers + entry_size * count
    for index in range(count):
        offset, _, _, size = struct.unpack_from("<QQQQ", data, program_headers + index * entry_size + 8)
        end = max(end, offset + size)
    head = bytearray(data[:end])
    struct.pack_into("<Q", head, 40, 0)  # e_shoff
    struct.pack_into("<HHH", head, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(head)


def main(folder: Path) -> None:
    """Rewrite every shared library below `folder` and say how much that saved."""
    before = after = 0
    for path in folder.rglob("*.so*"):
        data = path.read_bytes()
        small = stripped(data)
        before, after = before + len(data), after + len(small)
        path.write_bytes(small)
    sys.stdout.write(f"{before / 2**20:.1f} MiB of libraries became {after / 2**20:.1f} MiB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
