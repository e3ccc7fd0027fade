"""The program `gatepass`, also run by `python -m gateway`.

The environment may hold secrets, whatever the command. So this module protects the process before it imports anything
else: until then, other processes of the same user can read `/proc/PID/environ`.
"""

from gateway.protection import protect_memory


def main() -> None:
    """Protect the process, then run the command line."""
    protect_memory()
    from gateway.cli import main as command  # noqa: PLC0415 - importing it takes a tenth of a second

    command(prog_name="gatepass")


if __name__ == "__main__":
    main()
