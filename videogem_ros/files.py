"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from videogem_ros.errors import RecordingError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside a file to write to, which becomes the file when all went well.

    Args:
        path: The file; replaced where it is there.

    Yields:
        Where to write; nothing stays there when writing fails or is interrupted.

    Raises:
        RecordingError: The file cannot be written.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
