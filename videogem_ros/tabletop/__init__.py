"""A camera above a table on which hands act: labelled scenes, drawn by the package itself."""

from videogem_ros.tabletop.captions import Caption, Claim, Thing
from videogem_ros.tabletop.clip import (
    BENCHMARK_CLIPS,
    BENCHMARK_SEED,
    Clip,
    Performed,
    benchmark_clip,
    benchmark_numbers,
    check_hw,
    make_clip,
)
from videogem_ros.tabletop.scene import Scene, SceneConfig, View, draw_scene

__all__ = [
    "BENCHMARK_CLIPS",
    "BENCHMARK_SEED",
    "Caption",
    "Claim",
    "Clip",
    "Performed",
    "Scene",
    "SceneConfig",
    "Thing",
    "View",
    "benchmark_clip",
    "benchmark_numbers",
    "check_hw",
    "draw_scene",
    "make_clip",
]
