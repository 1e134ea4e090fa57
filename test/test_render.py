"""Pictures of groundings."""

from __future__ import annotations

import numpy as np
import pytest
from example_groundings import frame_of, grounding_of

from videogem_ros.datatypes import Grounding
from videogem_ros.errors import InvalidValueError
from videogem_ros.render import (
    PALETTE,
    blend_heatmap,
    draw_contact_sheet,
    draw_overlay,
    sheet_cell,
)

GREEN = (40, 120, 60)


def changed_middle(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean (x, y) of the pixels that are not of this colour."""
    rows, columns = np.nonzero((picture != np.array(colour)).any(axis=2))
    return np.array((columns.mean(), rows.mean()))


def saturation(picture: np.ndarray) -> float:
    return float(np.ptp(picture.astype(int), axis=2).mean())


def test_only_marks_change_where_the_heatmap_is_zero() -> None:
    frame = frame_of((240, 320))
    picture = draw_overlay(frame.image, [grounding_of(frame, xy=(200, 150))], caption=False)
    assert picture.shape == frame.image.shape
    assert picture.dtype == np.uint8
    untouched = np.ones(frame.hw, bool)
    untouched[120:180, 170:230] = False
    assert (picture[untouched] == frame.image[untouched]).all()
    assert (picture[~untouched] != frame.image[~untouched]).any()


def test_the_frame_itself_is_left_alone() -> None:
    frame = frame_of((48, 64))
    before = frame.image.copy()
    draw_overlay(frame.image, [grounding_of(frame)])
    assert (frame.image == before).all()


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("hw", [(480, 640), (240, 320), (240, 640)])
def test_the_marks_stand_at_the_point_in_every_size(hw: tuple[int, int], present: bool) -> None:
    frame = frame_of((480, 640), colour=(90, 90, 90))  # grey fades to one colour as well
    found = grounding_of(frame, xy=(401.0, 275.0), present=present)
    picture = draw_overlay(frame.image, [found], hw=hw, caption=False)
    assert picture.shape == (*hw, 3)
    background = tuple(int(value) for value in picture[0, 0])
    expected = ((401.0 + 0.5) * hw[1] / 640 - 0.5, (275.0 + 0.5) * hw[0] / 480 - 0.5)
    assert changed_middle(picture, background) == pytest.approx(expected, abs=0.5)


def test_the_ring_of_what_is_there_has_ticks_to_all_four_sides() -> None:
    frame = frame_of((480, 640), colour=(90, 90, 90))
    reach = np.array([(21, 0), (-21, 0), (0, 21), (0, -21), (15, 15), (-15, 15)])

    def marked(*, present: bool) -> list[bool]:
        found = grounding_of(frame, xy=(400, 275), present=present)
        picture = draw_overlay(frame.image, [found], caption=False)
        columns, rows = (np.array((400, 275)) + reach).T
        return (picture[rows, columns] != picture[0, 0]).any(axis=1).tolist()

    assert marked(present=True) == [True] * 4 + [False] * 2  # none between the sides
    assert not any(marked(present=False))


def test_a_prompts_point_is_marked_as_well() -> None:
    frame = frame_of((480, 640), colour=GREEN)
    found = grounding_of(frame, xy=(400, 300), points={"verb": (100, 200)})
    left = draw_overlay(frame.image, [found], caption=False)[:, :200]
    assert changed_middle(left, GREEN) == pytest.approx((100, 200), abs=0.5)


def test_opacity_follows_the_heatmap() -> None:
    frame = frame_of((64, 512), colour=GREEN)
    ramp = np.linspace(0, 1, 512, dtype=np.float32)[None].repeat(64, axis=0)
    found = grounding_of(frame, xy=(-100, -100), values=ramp)
    picture = draw_overlay(frame.image, [found], caption=False)
    distance = np.abs(picture.astype(int) - np.array(GREEN)).sum(axis=2)[32]
    assert distance[0] == 0
    assert (np.diff(distance[::64]) > 0).all()


def test_hot_places_are_yellow_and_warm_ones_let_the_picture_through() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    red, green, blue = blend_heatmap(black, np.ones((4, 4), np.float32), 1.0)[2, 2].tolist()
    assert min(red, green) > 240  # inferno ends in a light yellow
    assert blue < 200
    warm = np.full((4, 4), 0.5, np.float32)
    red, green, blue = blend_heatmap(black, warm, 1.0)[2, 2].tolist()
    assert red > blue > green  # and is purple in the middle
    white = blend_heatmap(np.full((4, 4, 3), 255, np.uint8), warm, 1.0)[2, 2]
    assert white - np.array((red, green, blue)) == pytest.approx(0.75 * 255, abs=1)


def test_an_action_that_is_not_there_takes_the_colour_out() -> None:
    frame = frame_of((240, 320), colour=GREEN)
    there = draw_overlay(frame.image, [grounding_of(frame)], caption=False)
    absent = draw_overlay(frame.image, [grounding_of(frame, present=False)], caption=False)
    assert saturation(absent) < 0.5 * saturation(there)
    assert 0.7 < absent[0, 0].mean() / np.mean(GREEN) < 0.9  # little darker
    assert absent[0, 0].argmax() == np.argmax(GREEN)


def test_one_action_that_is_there_keeps_the_colour_beside_one_that_is_not() -> None:
    frame = frame_of((240, 320), colour=GREEN)
    both = [grounding_of(frame), grounding_of(frame, "open the drawer", present=False)]
    picture = draw_overlay(frame.image, both, caption=False)
    assert (picture[0, 0] == GREEN).all()


def test_several_actions_have_colours_of_their_own() -> None:
    frame = frame_of((240, 320), colour=(0, 0, 0))
    left, right = (np.zeros((4, 4), np.float32) for _ in range(2))
    left[:, 0] = right[:, 3] = 1
    actions = [
        grounding_of(frame, "open the drawer", values=left),
        grounding_of(frame, "wash the pan", values=right),
    ]
    picture = draw_overlay(frame.image, actions, caption=False).astype(int)
    assert np.abs(picture[10, 10] - picture[10, 310]).max() > 100


def test_colours_start_over_where_there_are_more_actions() -> None:
    frame = frame_of((240, 320), colour=GREEN)
    cold = [grounding_of(frame, f"open drawer {number}") for number in range(len(PALETTE))]
    last = grounding_of(frame, "wash the pan", values=np.ones((4, 4), np.float32))
    picture = draw_overlay(frame.image, [*cold, last], caption=False, opacity=1.0)
    assert picture[5, 5].tolist() == list(PALETTE[0])


def test_actions_in_one_place_mix_their_colours() -> None:
    frame = frame_of((240, 320), colour=(0, 0, 0))
    warm = np.ones((4, 4), np.float32)
    found = grounding_of(frame, xy=(160, 160), values=warm)
    elsewhere = grounding_of(frame, xy=(160, 160))

    def colour(*groundings: Grounding) -> np.ndarray:
        return draw_overlay(frame.image, groundings, caption=False)[5, 5].astype(int)

    mean = (colour(found, elsewhere) + colour(elsewhere, found)) / 2
    assert colour(found, found) == pytest.approx(mean, abs=1)


def test_the_caption_is_a_bar_that_grows_with_the_actions() -> None:
    frame = frame_of((480, 640), colour=GREEN)
    found = grounding_of(frame, xy=(320, 400))

    def rows_of_bar(count: int) -> int:
        picture = draw_overlay(frame.image, [found] * count)
        return int((picture[:300] != np.array(GREEN)).any(axis=(1, 2)).sum())

    assert 20 < rows_of_bar(1) < 48
    assert rows_of_bar(3) == pytest.approx(3 * rows_of_bar(1), abs=8)
    without = draw_overlay(frame.image, [found], caption=False)
    assert (without[:300] == np.array(GREEN)).all()


def test_the_caption_hides_no_point() -> None:
    frame = frame_of((480, 640), colour=GREEN)
    found = grounding_of(frame, xy=(320, 12))
    below, alone = (draw_overlay(frame.image, [found], caption=shown) for shown in (True, False))
    mark = (alone == PALETTE[0]).all(axis=2)
    assert mark.sum() > 50
    assert (below[mark] == PALETTE[0]).all()


def test_without_groundings_the_picture_is_the_frame() -> None:
    frame = frame_of((48, 64))
    assert (draw_overlay(frame.image, []) == frame.image).all()


@pytest.mark.parametrize(
    "text",
    [
        "pick up the \u201cred\u201d mug \u2013 now\u2026",
        "ramasse la tasse posée près de l\u2019évier",
        "поднять красную кружку",
        "赤いマグカップを取る",
        "grab it \N{SMILING FACE WITH OPEN MOUTH}\N{ZERO WIDTH JOINER}",
        "two\nlines\tand\x00controls",
        "a very long command " * 40,
        "longest " * 2048,  # takes minutes to shorten letter by letter
    ],
)
@pytest.mark.parametrize("hw", [(480, 640), (30, 40), (2, 3)])
def test_any_text_fits_any_picture(text: str, hw: tuple[int, int]) -> None:
    frame = frame_of(hw)
    picture = draw_overlay(frame.image, [grounding_of(frame, text)])
    assert picture.shape == frame.image.shape


def test_a_grounding_of_another_frame_is_refused() -> None:
    found = grounding_of(frame_of((48, 64)))
    with pytest.raises(InvalidValueError, match=r"grounding\.image_hw.*\(24, 32\).*\(48, 64\)"):
        draw_overlay(frame_of((24, 32)).image, [found])


@pytest.mark.parametrize(
    ("count", "hw", "columns"),
    [(1, (480, 640), 1), (3, (480, 640), 3), (12, (480, 640), 4), (12, (480, 270), 6)],
)
def test_the_contact_sheet_is_a_full_grid(count: int, hw: tuple[int, int], columns: int) -> None:
    frame = frame_of(hw, colour=GREEN)
    cell = sheet_cell(frame.image, [grounding_of(frame)], 1.25)
    sheet = draw_contact_sheet("recording", [cell] * count)
    height, width = cell.picture.shape[:2]
    # Pictures are pasted as they are; the columns of the sheet that are never white hold them.
    rows = [y for y in range(sheet.shape[0] - height) if (sheet[y] == GREEN).all(axis=1).any()]
    first = sheet[rows[0]]
    starts = np.nonzero(np.diff((first == GREEN).all(axis=1).astype(int)) == 1)[0] + 1
    assert len(starts) == columns
    body = sheet[rows[0] : rows[0] + height - 40, starts[0] : starts[0] + width]
    assert (body == cell.picture[: height - 40]).all()
    assert count % columns == 0


def test_a_cell_says_where_and_how_sure_or_that_it_is_not_there() -> None:
    frame = frame_of((480, 640), colour=GREEN)
    found = grounding_of(frame, "open it", xy=(401.0, 275.0), score=0.8)
    absent = grounding_of(frame, "wash it", xy=(3.0, 4.0), score=0.1, present=False)
    assert sheet_cell(frame.image, [found, absent], 1.0).lines == (
        ("open it", "(401, 275) px", "score 0.80"),
        ("wash it", "(3, 4) px", "not here"),
    )


@pytest.mark.parametrize("unit", [1, 2])
def test_the_gauge_is_as_long_as_the_score(unit: int) -> None:
    frame = frame_of((480 * unit, 640 * unit), colour=GREEN)

    def coloured(score: float) -> float:
        picture = draw_overlay(frame.image, [grounding_of(frame, score=score)])
        gauge = picture[16 * unit, 480 * unit : 570 * unit]
        return float((gauge == PALETTE[0]).all(axis=1).sum() / unit)

    assert coloured(1.0) == pytest.approx(60, abs=2)
    assert coloured(0.5) == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("hw", "cell_hw"),
    [
        ((480, 640), (360, 480)),
        ((1920, 1080), (853, 480)),
        ((5000, 1), (1280, 1)),
        ((1, 5000), (1, 480)),
    ],
)
def test_a_cell_keeps_the_image_s_shape_whatever_it_is(
    hw: tuple[int, int], cell_hw: tuple[int, int]
) -> None:
    frame = frame_of(hw, colour=GREEN)
    cell = sheet_cell(frame.image, [grounding_of(frame, xy=(0, 0))], 0.0)
    assert cell.picture.shape[:2] == cell_hw
    assert draw_contact_sheet("recording", [cell]).shape[0] < 1600


def test_a_sheet_of_twelve_frames_suits_a_slide() -> None:
    frame = frame_of((360, 640), colour=GREEN)
    cells = [sheet_cell(frame.image, [grounding_of(frame)], 0.1 * n) for n in range(12)]
    height, width = draw_contact_sheet("recording", cells).shape[:2]
    assert 1.4 < width / height < 2.1


def test_a_sheet_has_room_for_the_lines_of_every_cell() -> None:
    frame = frame_of((360, 640), colour=GREEN)
    few, many = (
        sheet_cell(frame.image, [grounding_of(frame, text) for text in texts], 0.0)
        for texts in (("open it",), ("open it", "wash it"))
    )
    mixed = draw_contact_sheet("recording", [few, many])
    assert mixed.shape == draw_contact_sheet("recording", [many, many]).shape
    assert mixed.shape[0] > draw_contact_sheet("recording", [few, few]).shape[0]


def test_the_lines_of_a_cell_stand_below_its_picture_one_below_the_other() -> None:
    frame = frame_of((360, 640), colour=GREEN)
    found = [grounding_of(frame, f"open drawer {number}") for number in range(3)]
    cell = sheet_cell(frame.image, found, 0.0)
    sheet = draw_contact_sheet("recording", [cell])
    bottom = np.nonzero((sheet == GREEN).all(axis=2).any(axis=1))[0].max() + 1
    inked = (sheet[bottom:] != 255).any(axis=(1, 2))
    begins = np.nonzero(np.diff(inked.astype(int), prepend=0) == 1)[0]
    assert len(begins) == 3
    assert 0 < begins[0] < 30
    np.testing.assert_allclose(np.diff(begins), 28, atol=1)


def test_a_sheet_needs_a_cell() -> None:
    with pytest.raises(InvalidValueError, match="at least one cell"):
        draw_contact_sheet("recording", [])


def test_a_sheet_may_have_a_title_of_its_own() -> None:
    frame = frame_of((48, 64), colour=GREEN)
    found = grounding_of(frame)
    cells = [sheet_cell(frame.image, [found], 0.0)]
    usual, same, other = (
        draw_contact_sheet("recording", cells, title)
        for title in (None, found.action.phrase, "Best")
    )
    np.testing.assert_array_equal(usual, same)
    rows = np.nonzero((usual != other).any(axis=(1, 2)))[0]
    assert 0 < rows.min() < rows.max() < 90  # above the subtitle
