"""Gatepass: a reverse proxy that puts a fresh vendor token on every request.

`docs/architecture.md` shows the house: which package lives on which floor, and what each may know.
"""

__version__ = "0.1.0"
