"""Compile what a start imports: the gateway's packages, and of the standard library only what they use.

For the image's build, run by the image's own Python with PYTHONPYCACHEPREFIX set. Official images bring the standard
library without bytecode, and the file system is read-only at run time: without this, every start would compile it.
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

import gateway

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
LATE = ("encodings.idna", "concurrent.futures.thread", "asyncio.unix_events", "resource", "uvloop", "getpass")
"""Imported only while serving, by name."""


def main() -> None:
    """Import everything, for which the image has every extra; then compile its standard library and the packages."""
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    library = Path(sysconfig.get_path("stdlib"))
    for loaded in tuple(sys.modules.values()):
        path = Path(getattr(loaded, "__file__", None) or "/")
        if path.suffix == ".py" and path.is_relative_to(library):
            py_compile.compile(str(path), doraise=True, invalidation_mode=UNCHECKED)
    compile_folder(sysconfig.get_path("purelib"))


def compile_folder(folder: str) -> None:
    """Compile every module below a folder, those too that have bytecode: what an import has written is checked again.

    Such bytecode is for a source of a certain age, and a layer of an image may give its files another one.
    """
    if not compileall.compile_dir(folder, quiet=1, force=True, invalidation_mode=UNCHECKED):
        sys.exit(f"{folder} cannot be compiled")


if __name__ == "__main__":
    main()
