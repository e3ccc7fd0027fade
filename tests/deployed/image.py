"""The image, built twice from nothing with `make image`: how long that takes, and whether both have the same files."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.deployed.container import IMAGE
from tests.deployed.outcome import Outcome, Unable, docker, needs_engine, run
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def trial(folder: Path) -> Outcome:  # noqa: ARG001 - it leaves its result with the engine
    """Build; where the base is missing and cannot be pulled, say so."""
    needs_engine()
    outcome = Outcome()
    layers = []
    name, _, _ = IMAGE.rpartition(":")
    for turn in ("first", "second"):
        began = time.monotonic()
        try:
            run("make", "image", f"IMAGE={name}", "BUILD=--no-cache", cwd=ROOT)
        except AssertionError as error:
            if any(words in str(error) for words in ("failed to resolve source metadata", "pull access denied")):
                raise Unable("the base image is neither here nor reachable; PYTHON_IMAGE names another one") from error
            raise
        image = json.loads(docker("image", "inspect", IMAGE))[0]
        layers.append(image["RootFS"]["Layers"])
        outcome.add(f"{turn} build", f"{time.monotonic() - began:.0f} s, {image['Size'] / 2**20:.0f} MiB")
    same = layers[0] == layers[1]
    outcome.add("files of two builds", "equal, bit for bit" if same else "differ", good=same)
    return outcome
