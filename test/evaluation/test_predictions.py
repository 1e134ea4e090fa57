"""Other systems' points beside ours."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from videogem_ros.errors import VideoGemError
from videogem_ros.evaluation.metrics import judge, summarise
from videogem_ros.evaluation.predictions import add_predictions, check_samples, coverage
from videogem_ros.evaluation.records import CENTRE, Box, Record, Sample
from videogem_ros.language import parse_actions

HW = (30, 40)
STAMP_NS = 1_700_000_000_100_000_000


def record(
    video: str, time_ns: int, action: str = "lift it", boxes: tuple[Box, ...] = ((5, 5, 9, 9),)
) -> Record:
    outcomes = {CENTRE: judge((19.5, 14.5), None, boxes, HW)}
    key = f"{video}/{time_ns}/{action}"
    return Record(key, video, action, (), action, time_ns, boxes, HW, outcomes, {})


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other.csv"
    path.write_text(text)
    return path


def test_a_sample_gets_the_nearest_line_of_its_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = table(
        tmp_path,
        "video,time,x,y\na,1.04,5,5\na,0.98,9.5,9\nb,1,35,29\nb,1700000000.1,7,7\nc,1,7,7\n",
    )
    records = [
        record("a", 10**9),
        record("b", 10**9),
        record("b", STAMP_NS),
        record("a", 2 * 10**9),
    ]
    with caplog.at_level(logging.WARNING):
        found = add_predictions(records, "WWW-CLIP", path)
    outcomes = [item.outcomes.get("WWW-CLIP") for item in found]
    assert [outcome and (outcome.x, outcome.y, outcome.hit) for outcome in outcomes] == [
        (9.5, 9, False),
        (35, 29, False),
        (7, 7, True),
        None,
    ]
    # Half a pixel beside the box, and 26 and 20 pixels, over a diagonal of 50.
    assert outcomes[0] is not None and outcomes[0].distance == pytest.approx(0.01)
    assert outcomes[1] is not None
    assert outcomes[1].distance == pytest.approx((26**2 + 20**2) ** 0.5 / 50)
    assert coverage(found, "WWW-CLIP") == "WWW-CLIP: predictions for 3 of 4 samples"
    assert "2 of 5 lines belong to no sample" in caplog.text
    assert [item.outcomes[CENTRE] for item in found] == [item.outcomes[CENTRE] for item in records]
    assert summarise(found)["WWW-CLIP"].accuracy.value == pytest.approx(1 / 3)


def test_how_far_a_line_may_be_can_be_said(tmp_path: Path) -> None:
    path = table(tmp_path, "video,time,x,y\na,1.2,5,5\nb,3,5,5\n")
    records = [record("a", 10**9), record("b", 3 * 10**9)]
    for tolerance_s, count in ((0.05, 1), (0.2, 2)):
        found = add_predictions(records, "other", path, tolerance_s=tolerance_s)
        assert sum("other" in item.outcomes for item in found) == count


def test_a_line_for_an_action_goes_before_one_for_all(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "video,time,action,x,y,score\na,1,lift it,5,5,0.75\na,1,,7,7,\na,2,press it,6,6,0\n",
    )
    records = [
        record("a", 10**9, "lift it"),
        record("a", 10**9, "press it"),
        record("a", 2 * 10**9, "press it", ()),
        record("a", 2 * 10**9, "lift it"),
    ]
    found = add_predictions(records, "other", path)
    outcomes = [item.outcomes.get("other") for item in found]
    assert [outcome and (outcome.x, outcome.hit, outcome.score) for outcome in outcomes] == [
        (5, True, 0.75),
        (7, True, None),
        (6, None, 0),
        None,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,time,x\na,1,5\n", "other.csv, header: expected video, time, x, y"),
        ("video,time,x,y\n", "other.csv: expected lines below the header"),
        ("video,time,x,y\n,1,5,5\n", "other.csv line 2, video: expected text"),
        ("video,time,x,y\na,1,5,5\na,one,5,5\n", "line 3, time: expected a number, got one"),
        ("video,time,x,y\na,1,5,inf\n", "line 2, y: expected a number, got inf"),
        ("video,time,x,y\na,1,5,5\na,1.0,6,6\n", "line 3, time: expected each video, time and"),
        ("video,time,x,y,score\na,1,5,5,2\n", "line 2, score: expected a number from 0 to 1"),
        ("video,time,x,y\na,1,0.5,0.25\n", "x and y: expected pixels, got only numbers from"),
        (
            "video,time,x,y\na.mp4,1,5,5\n",
            "other.csv: expected video and time of samples, such as a at 1.0 s, got only others, "
            "such as a.mp4 at 1 s",
        ),
    ],
)
def test_bad_predictions_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VideoGemError) as caught:
        add_predictions([record("a", 10**9)], "other", table(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [CENTRE, " "])
def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    path = table(tmp_path, "video,time,x,y\na,1,5,5\n")
    with pytest.raises(VideoGemError, match="a name that no other method has"):
        add_predictions([record("a", 10**9)], name, path)


@pytest.mark.parametrize(
    ("line", "belongs"),
    [
        ("a,1.04,,5,5", True),
        ("a,1.06,,5,5", False),
        ("b,1,,5,5", False),
        ("a,1,lift it,5,5", True),
        ("a,1,press it,5,5", False),
    ],
)
def test_samples_tell_before_they_are_grounded_whether_a_line_is_theirs(
    tmp_path: Path, line: str, belongs: bool
) -> None:
    path = table(tmp_path, f"video,time,action,x,y\n{line}\n")
    sample = Sample("a/1/0", "a", "lift it", tuple(parse_actions("lift it")), 10**9, ())
    if belongs:
        check_samples([sample], path)
    else:
        with pytest.raises(VideoGemError, match="of samples, such as a at 1"):
            check_samples([sample], path)
