"""The configuration: from YAML files to `gateway.model.Config`.

The stages: `read/` makes one tree of the files, with profiles and `${…}` applied; `keys/` defines what may be written;
`load` runs the stages, `validate` checks one section, `checks` compares sections, `compile` makes the model.
Other packages use only the names below.
"""

from gateway.config.load import load, merged
from gateway.config.outline import Outline, outline
from gateway.config.read.command import Commands
from gateway.config.reference import json_schema
from gateway.config.starter import profiles, starter

__all__ = ["Commands", "Outline", "json_schema", "load", "merged", "outline", "profiles", "starter"]
