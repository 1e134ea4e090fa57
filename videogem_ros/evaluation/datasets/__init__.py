"""The paper's data sets: annotations as they were published, with videos or extracted frames.

What a folder must hold is in docs/datasets.md.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from videogem_ros.errors import check_choice

if TYPE_CHECKING:
    from videogem_ros.evaluation.datasets.annotated import AnnotatedDataset, Annotations

DATASETS = {
    "v-hico": "V-HICO: people and things, boxes around both.",
    "daly": "DALY: daily activities, boxes around the person.",
    "youcook-interactions": "YouCook-Interactions: cooking, free sentences.",
    "groundingyoutube": "GroundingYouTube: cooking, boxes in pixels of the frames (the paper's).",
    "groundingyoutube-640x480": "GroundingYouTube with frames of any size: boxes are scaled.",
}
"""Name to one-line help."""

_HOMES = {
    "v-hico": "vhico.VHico",
    "daly": "daly.Daly",
    "youcook-interactions": "youcook.YouCookInteractions",
    "groundingyoutube": "groundingyoutube.GroundingYouTube",
    "groundingyoutube-640x480": "groundingyoutube.ScaledGroundingYouTube",
}


def open_dataset(
    name: str, root: Path, *, annotations: Path | None = None, limit: int | None = None
) -> AnnotatedDataset:
    """Opens one of the data sets.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the videos or extracted frames, in any subfolders.
        annotations: The annotation file, or a folder that has all of them; ``root`` where None.
        limit: At most so many samples, the first ones.

    Returns:
        A :class:`~videogem_ros.evaluation.records.Dataset`.

    Raises:
        InvalidValueError: No such data set or folder, annotation files that are missing or cannot
            be used, or no frame of any annotated video.
    """
    check_choice("dataset", name, DATASETS)
    # PyAV and OpenCV are not needed to list the data sets.
    from videogem_ros.evaluation.datasets.annotated import AnnotatedDataset  # noqa: PLC0415
    from videogem_ros.evaluation.datasets.files import find, load  # noqa: PLC0415
    from videogem_ros.evaluation.datasets.frames import Footage, files_in  # noqa: PLC0415

    home, _, kind = _HOMES[name].partition(".")
    chosen: type[Annotations] = getattr(importlib.import_module(f"{__name__}.{home}"), kind)
    footage = Footage(Path(root), chosen.spacing)
    if annotations is None:
        paths = find(chosen.files, footage.files, footage.root)
    elif len(chosen.files) == 1 and Path(annotations).is_file():
        paths = [Path(annotations)]
    else:
        files = files_in(Path(annotations), "annotations")
        paths = find(chosen.files, files, Path(annotations))
    return AnnotatedDataset(chosen([load(path) for path in paths], footage), footage, limit)
