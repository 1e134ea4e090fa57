from __future__ import annotations

import subprocess
import sys

import pytest

from videogem_ros.errors import (
    EncodingError,
    InvalidValueError,
    RecordingError,
    VideoGemError,
    WeightsError,
    reason,
    said,
)


@pytest.mark.parametrize(
    ("got", "shown"),
    [(3, "3"), ((1, 2), "(1, 2)"), (None, "None"), ("three frames", "three frames")],
)
def test_invalid_value_names_field_expected_and_got(got: object, shown: str) -> None:
    error = InvalidValueError("window.frames", "eight frames", got)
    assert str(error) == f"window.frames: expected eight frames, got {shown}"
    assert (error.field, error.expected, error.got) == ("window.frames", "eight frames", got)


def test_invalid_value_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="frames"):
        raise InvalidValueError("frames", "one", 0)


def test_weights_error_says_what_to_do() -> None:
    error = WeightsError("openai", "no network", "give a local file")
    assert str(error) == "weights 'openai': no network; give a local file"
    assert error.source == "openai"


@pytest.mark.parametrize(
    ("error", "line", "without_file"),
    [
        (ValueError("two\n  lines"), "two lines", "two lines"),
        (ValueError(), "ValueError", "ValueError"),
        (FileNotFoundError(2, "not there", "a.csv"), "[Errno 2] not there: 'a.csv'", "not there"),
        (OSError("cut off"), "cut off", "cut off"),
    ],
)
def test_what_an_error_says_is_one_line(error: Exception, line: str, without_file: str) -> None:
    assert said(error) == line
    assert reason(error) == without_file


@pytest.mark.parametrize("kind", [InvalidValueError, WeightsError, RecordingError, EncodingError])
def test_every_error_can_be_caught_as_the_packages_own(kind: type[Exception]) -> None:
    assert issubclass(kind, VideoGemError)


def test_datatypes_and_errors_need_no_torch_no_ros_and_no_opencv() -> None:
    heavy = ["torch", "cv2", "rclpy", "rosbags", "spacy"]
    program = (
        "import sys; import videogem_ros.datatypes, videogem_ros.errors, videogem_ros.window; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
