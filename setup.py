"""Plain pip packaging; a ROS workspace builds the same package with CMakeLists.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

version: dict[str, str] = {}
exec((ROOT / "videogem_ros" / "__init__.py").read_text(), version)

DEVELOPMENT = [
    "click>=8.2",  # its test runner keeps the error stream apart
    "html5lib",
    "hypothesis",
    "mypy",
    "playwright",  # drives a Chromium that is there; installs none
    "pre-commit",
    "pytest",
    "pytest-xdist",
    'ray>=2.60,<3; python_version < "3.14"',
    "ruff",
]

SHARED = [
    (
        f"share/videogem_ros/{folder}",
        [
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / folder).iterdir())
            if path.is_file()
        ],
    )
    for folder in ("msg", "srv", "config", "launch")
]

setup(
    name="videogem_ros",
    version=version["__version__"],
    description="Training-free spatial action grounding (VideoGEM) for ROS 2 and plain Python",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["videogem_ros", "videogem_ros.*"]),
    package_data={
        "videogem_ros": ["py.typed"],
        "videogem_ros.core.backbones": ["shipped/*"],
        "videogem_ros.evaluation.report": ["templates/*"],
    },
    data_files=SHARED,
    python_requires=">=3.10",
    install_requires=[
        "av>=16",
        'backports.zstd; python_version < "3.14"',
        "click>=8.1",
        "huggingface_hub>=0.25",
        "jinja2>=3.1",
        "numpy>=1.24",
        "open_clip_torch>=2.32",
        "opencv-python>=4.8,<5",
        "pillow>=10.3",
        "pyyaml>=6",
        "rich>=13",
        "rosbags>=0.11.7,<0.12",
        "safetensors>=0.4",
        "spacy>=3.7,<4",
        "spacy-lookups-data>=1.0.5",
        "torch>=2.6",
        "torchvision",
    ],
    extras_require={
        "dds": ["cyclonedds>=11,<12"],
        "ray": ["ray>=2.60,<3"],
        "dev": DEVELOPMENT,
    },
    entry_points={"console_scripts": ["videogem-ros = videogem_ros.cli:main"]},
)
