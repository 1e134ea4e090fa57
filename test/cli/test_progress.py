"""The progress bar."""

from __future__ import annotations

import pytest

from videogem_ros.cli.progress import progress_bar


@pytest.mark.parametrize(("total", "end"), [(4, "left"), (None, "/s")])
def test_the_time_left_is_told_where_the_end_is_known(
    capsys: pytest.CaptureFixture[str], total: int | None, end: str
) -> None:
    with progress_bar("grounding", "frames") as report:
        report(0, total)
        report(2, total)
    line = capsys.readouterr().err.strip()
    assert " frames, " in line
    assert line.endswith(end)
