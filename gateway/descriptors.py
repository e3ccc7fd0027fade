"""Whether this process can open another file or socket, and what to say if it cannot."""

from __future__ import annotations

import errno
import os

NO_DESCRIPTOR = "no file descriptor is left, raise the limit of open files"


def lacks_descriptor(error: BaseException) -> bool:
    """Whether this process, or the machine, could not open another file or socket."""
    return getattr(error, "errno", None) in {errno.EMFILE, errno.ENFILE}


def open_one() -> None:
    """Open a file and close it. Raises OSError if none can be opened.

    For libraries that call a lack of descriptors something else.
    """
    os.close(os.open(os.devnull, os.O_RDONLY))
