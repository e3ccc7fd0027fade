"""`python -m gateway` runs the command `gatepass`."""

from gateway.cli import main

if __name__ == "__main__":
    main(prog_name="gatepass")
