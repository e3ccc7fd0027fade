"""Write gateway/config/keys/common_passwords.bin: hashes by which keys that are common passwords are recognised.

Run it with the package zxcvbn (MIT licence) installed; its list of passwords is sorted by frequency. The file has the
first five bytes of the SHA-256 of each of the 5,000 most common passwords, as written and capitalised, with and without
a final newline (which `echo word | sha256sum` includes). The words themselves are not shipped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-not-found]  # installed for this script only

COUNT = 5_000
FILE = Path(__file__).parents[2] / "gateway" / "config" / "keys" / "common_passwords.bin"


def main() -> None:
    """Write the file."""
    words = FREQUENCY_LISTS["passwords"][:COUNT]
    forms = {form + end for word in words for form in (word, word.capitalize()) for end in ("", "\n")}
    FILE.write_bytes(b"".join(sorted({hashlib.sha256(form.encode()).digest()[:5] for form in forms})))


if __name__ == "__main__":
    main()
