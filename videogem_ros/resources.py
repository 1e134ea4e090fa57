"""Files that come with the package beside its modules: interfaces, configuration, launch files."""

from __future__ import annotations

import sys
from pathlib import Path

from videogem_ros.errors import VideoGemError

SHARE = Path("share") / "videogem_ros"


def find(name: str) -> Path:
    """Path of a file, wherever the package runs from.

    Looked for in a source checkout, in the share folder of a colcon install, then in that of a
    pip install.

    Args:
        name: Relative path such as ``msg/ActionGrounding.msg`` or ``config/ground.yaml``.

    Raises:
        VideoGemError: The file is nowhere; the package is not installed whole.
    """
    package = Path(__file__).resolve().parent
    roots = [package.parent]
    roots += [parent / SHARE for parent in package.parents]
    roots += [Path(sys.prefix) / SHARE]
    for root in roots:
        if (root / name).is_file():
            return root / name
    searched = ", ".join(dict.fromkeys(map(str, roots)))
    raise VideoGemError(f"{name} of videogem_ros is missing; looked in {searched}")
