"""The program `gatepass`, also run by `python -m gateway`.

The environment may hold secrets, whatever the command. So this module protects the process before it imports anything
else: until then, other processes of the same user can read `/proc/PID/environ`.
"""

import sys

from gateway.early import catch_signals, open_standard_streams
from gateway.protection import protect_memory


def main() -> None:
    """Protect the process, then run the command line."""
    protect_memory()
    open_standard_streams()
    if sys.argv[1:2] == ["serve"]:
        catch_signals()
    from gateway.cli import main as command  # noqa: PLC0415 - importing it takes a tenth of a second

    command(prog_name="gatepass")


if __name__ == "__main__":
    main()
