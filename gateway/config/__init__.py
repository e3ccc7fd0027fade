"""The configuration: YAML, profiles and `${…}` on one side, `gateway.model` on the other.

Everything else sees only what is named here. Imports nothing above `model` and `errors`.
"""

from gateway.config.load import load, merged
from gateway.config.read.command import Commands
from gateway.config.reference import json_schema
from gateway.config.starter import profiles, starter

__all__ = ["Commands", "json_schema", "load", "merged", "profiles", "starter"]
