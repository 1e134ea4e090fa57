"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from videogem_ros.errors import InvalidValueError, RecordingError


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
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")  # others may write it, too
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def check_apart(option: str, outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    Args:
        option: That names the outputs, for the error.
        outputs: Files and folders that would be replaced.
        inputs: Files and folders that are read.

    Raises:
        InvalidValueError: One is both.
    """
    read = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in read:
            raise InvalidValueError(option, "a file other than the input", str(path))
