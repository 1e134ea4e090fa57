"""The page is read back by an HTML parser and compared with the run."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import cv2
import html5lib
import numpy as np
import pytest
from example_run import SYSTEM, empty_run, example_frame, example_run

from videogem_ros.errors import RecordingError
from videogem_ros.evaluation.metrics import summarise
from videogem_ros.evaluation.records import Record, Run
from videogem_ros.evaluation.report import choose_cases, write_report
from videogem_ros.evaluation.report.figures import NOTHING
from videogem_ros.evaluation.report.page import _clock
from videogem_ros.evaluation.report.pictures import Gallery

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"


def page_of(run: Run, folder: Path, gallery: Gallery | None = None) -> Element:
    """The parsed page; the parser is strict, so any error in the HTML fails the test."""
    path = write_report(run, folder, gallery)
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(path.read_text(encoding="utf-8"))


def text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def section(page: Element, name: str) -> Element | None:
    return page.find(f".//section[@aria-labelledby='{name}']")


def table_rows(element: Element) -> dict[str, list[str]]:
    """Texts of the cells by the row's heading."""
    return {
        text(row.find("th")): [text(cell) for cell in row.iterfind("td")]
        for row in element.iterfind(".//tr")
        if row.find("td") is not None
    }


@pytest.fixture(scope="module")
def run() -> Run:
    return example_run(60)


@pytest.fixture(scope="module")
def small() -> Run:
    """Without the ablation, for what does not depend on it."""
    return example_run(24, ablate=False)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Element:
    return page_of(run, tmp_path_factory.mktemp("report"), example_frame)


def test_the_result_table_holds_the_runs_figures(run: Run, page: Element):
    rows = table_rows(section(page, "results").find(".//table"))
    summaries = summarise(run.records)
    main, other = summaries[run.main], summaries[SYSTEM]
    cells = rows["VideoGEM static+dynamic weights, fused point"]
    accuracy, class_mean = main.accuracy, main.class_mean
    assert cells[1].startswith(f"{100 * accuracy.value:.0f}")
    assert cells[1].endswith(f"{100 * accuracy.low:.0f} to {100 * accuracy.high:.0f}")
    assert float(cells[2].split()[0]) == pytest.approx(100 * class_mean.value, abs=0.5)
    boxed = sum(bool(record.boxes) for record in run.records)
    assert accuracy.count == boxed < 60
    assert cells[-1] == f"{boxed} of 60"
    others = f"{other.accuracy.count} of {other.samples}"
    assert rows[SYSTEM][4:] == [NOTHING, NOTHING, others]
    assert rows["Image centre needs no model"]


def test_published_figures_stand_beside_them(page: Element):
    rows = table_rows(section(page, "results").find(".//table"))
    assert rows["WWW-CLIP (trained)"][1] == "56.98"
    assert rows["VideoGEM, ViCLIP"][1] == "57.21"


def test_a_data_set_without_published_figures_has_none(small: Run, tmp_path: Path):
    page = page_of(replace(small, dataset="my kitchen"), tmp_path)
    assert "Published" not in text(section(page, "results"))
    assert text(page.find(".//h1")) == "my kitchen"


def test_groups_and_classes_have_their_rows(run: Run, page: Element):
    results = section(page, "results")
    assert set(table_rows(results.findall(".//table")[1])) == {"motion", "still"}
    classes = summarise(run.records)[run.main].per_class
    rows = table_rows(section(page, "classes"))
    assert rows.keys() == classes.keys()
    for label, cells in rows.items():
        assert float(cells[1]) == pytest.approx(100 * classes[label].value, abs=0.5)
        assert cells[3] == str(classes[label].count)


def test_the_ablation_has_a_row_for_each_weighting_of_each_prompt(page: Element):
    bodies = section(page, "ablation").findall(".//tbody")
    headings = [text(body.find("tr/th")) for body in bodies]
    assert headings == [
        "Fused point",
        "Fused heatmaps",
        "Action prompt",
        "Object prompt",
        "Verb prompt",
    ]
    for body in bodies:
        assert list(table_rows(body)) == ["uniform", "static", "dynamic", "static+dynamic"]
    assert text(bodies[0].find(".//tr[@class='main']/th")) == "static+dynamic"


def test_without_more_than_the_baselines_there_is_no_ablation(run: Run, tmp_path: Path):
    kept = ("static+dynamic/fused", "static+dynamic/action", "uniform/action", "centre")
    records = tuple(
        replace(record, outcomes={name: record.outcomes[name] for name in kept})
        for record in run.records
    )
    page = page_of(replace(run, records=records), tmp_path)
    assert section(page, "ablation") is None
    methods = section(page, "results").find(".//table/tbody")
    assert len(table_rows(methods)) == len(kept)


def test_layer_weights_are_drawn_for_each_prompt(page: Element):
    layers = section(page, "layers")
    captions = [text(caption) for caption in layers.iter("figcaption")]
    assert captions == ["Verb prompt", "Object prompt", "Action prompt"]
    assert "the static weights" in text(layers)


@pytest.mark.parametrize(
    "rows", [(), ((), (), ()), ((1.0, 2.0),), ((1.0,), (1.0, 2.0), (1.0,))], ids=str
)
def test_layer_weights_of_another_form_are_not_drawn(rows: tuple, small: Run, tmp_path: Path):
    records = tuple(
        replace(record, layer_weights={"recorded": rows} if rows else {})
        for record in small.records
    )
    assert section(page_of(replace(small, records=records), tmp_path), "layers") is None


def test_timing_notes_and_what_was_left_out_are_shown(run: Run, page: Element):
    assert table_rows(section(page, "timing"))["age, ms"] == ["96.1", "181", ""]
    assert any(run.notes[0] in text(note) for note in page.iterfind(".//p[@class='note']"))
    left_out = text(section(page, "left-out"))
    assert "Missing: 15 kitchen_0031.mp4 12 kitchen_0047.mp4 3" in left_out
    assert "Skipped: 3 box outside the frame 2 caption without words 1" in left_out


def test_the_gallery_shows_the_chosen_cases_in_order(run: Run, page: Element):
    gallery = section(page, "gallery")
    assert [text(title) for title in gallery.iter("h3")] == ["Best", "Median", "Worst"]
    chosen = list(itertools.chain(*choose_cases(run.records, run.main)))
    captions = [text(caption) for caption in gallery.iter("figcaption")]
    assert len(captions) == len(chosen)
    for caption, record in zip(captions, chosen):
        outcome = record.outcomes[run.main]
        assert caption.startswith(record.action)
        assert record.video in caption
        assert ("✓ in the box" in caption) == outcome.hit
        if not outcome.hit:
            assert f"{100 * outcome.distance:.1f} % of the diagonal off" in caption


def test_gallery_images_are_jpegs_with_an_alternative_text(run: Run, page: Element):
    images = list(section(page, "gallery").iter("img"))
    chosen = list(itertools.chain(*choose_cases(run.records, run.main)))
    assert len(images) == len(chosen)
    for image, record in zip(images, chosen):
        assert image.get("alt").startswith(record.action)
        data = base64.b64decode(image.get("src").removeprefix("data:image/jpeg;base64,"))
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[:2] == record.image_hw


def test_boxes_and_point_are_drawn_in_pixels_of_the_source_image(run: Run, page: Element):
    svg = "{http://www.w3.org/2000/svg}"
    record = choose_cases(run.records, run.main).worst[0]
    frame = section(page, "gallery").findall(".//div[@class='frame']")[-4]
    drawing = frame.find(f"{svg}svg")
    assert drawing.get("viewBox") == "-0.5 -0.5 320 240"
    box = drawing.find(f"{svg}rect[@class='box']")
    x, y, width, height = (float(box.get(name)) for name in ("x", "y", "width", "height"))
    assert (x, y, x + width, y + height) == pytest.approx(record.boxes[0])
    outcome = record.outcomes[run.main]
    dot = drawing.find(f"{svg}path[@class='dot']")
    assert dot.get("d") == f"M{outcome.x} {outcome.y}h0"
    assert drawing.find(f"{svg}path[@class='error']") is not None


def test_a_picture_that_cannot_be_had_says_why(small: Run, tmp_path: Path):
    def gallery(record: Record):
        raise RecordingError(f"{record.video}: the file ends early")

    page = page_of(small, tmp_path, gallery)
    shown = section(page, "gallery")
    assert not list(shown.iter("img"))
    assert "the file ends early" in text(shown)


def test_a_gallery_without_heatmaps_shows_the_frames(small: Run, tmp_path: Path):
    page = page_of(small, tmp_path, lambda record: (example_frame(record)[0], None))
    assert list(section(page, "gallery").iter("img"))


def test_large_frames_are_shown_smaller(small: Run, tmp_path: Path):
    def gallery(record: Record):
        return np.zeros((1080, 1920, 3), np.uint8), np.zeros((28, 28), np.float32)

    (image, *_) = section(page_of(small, tmp_path, gallery), "gallery").iter("img")
    data = base64.b64decode(image.get("src").partition(",")[2])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (315, 560, 3)


def test_a_run_without_records_says_so(tmp_path: Path):
    page = page_of(empty_run(), tmp_path)
    assert "No sample with a box was grounded." in text(section(page, "results"))
    for name in ("gallery", "ablation", "layers", "classes", "timing"):
        assert section(page, name) is None
    assert "Missing: 15" in text(page)


def test_a_run_of_absent_actions_only_gives_a_page(small: Run, tmp_path: Path):
    absent = tuple(record for record in small.records if not record.boxes)
    page = page_of(replace(small, records=absent), tmp_path)
    assert "No sample with a box was grounded." in text(section(page, "results"))


def test_long_lists_are_cut_and_counted(small: Run, tmp_path: Path):
    records = tuple(
        replace(record, label=f"class {place:02}")
        for place, record in enumerate(example_run(60, ablate=False).records)
    )
    missing = Counter({f"video_{place:03}": 1 + place % 3 for place in range(100)})
    page = page_of(replace(small, records=records, missing=missing), tmp_path)
    assert len(table_rows(section(page, "classes"))) == 40
    assert "The 40 classes with most samples of" in text(section(page, "classes"))
    assert "Missing: 199" in text(page)
    assert "And 40 more, all of them in results.json." in text(page)


def test_hostile_texts_stay_text(small: Run, tmp_path: Path):
    records = tuple(
        replace(
            record,
            action=HOSTILE,
            label=f"{HOSTILE} {record.label}",
            video=HOSTILE,
            groups=(HOSTILE,),
            outcomes={**record.outcomes, HOSTILE: record.outcomes[small.main]},
        )
        for record in small.records
    )
    hostile = replace(
        small,
        dataset=HOSTILE,
        backbone=HOSTILE,
        records=records,
        missing=Counter({HOSTILE: 1}),
        skipped=Counter({HOSTILE: 2}),
        settings={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
        timing={f"{HOSTILE}_ms_{HOSTILE}": 1.0},
    )

    def gallery(record: Record):
        if record.key < records[12].key:
            raise RecordingError(HOSTILE)
        return example_frame(record)

    page = page_of(hostile, tmp_path, gallery)
    assert not list(page.iter("script"))
    assert len(list(page.iter("style"))) == 1
    assert all(image.get("src").startswith("data:image/jpeg") for image in page.iter("img"))
    assert not [name for element in page.iter() for name in element.attrib if name[:2] == "on"]
    assert text(page.find(".//h1")) == HOSTILE
    assert text(section(page, "gallery").find(".//figcaption/strong")) == HOSTILE
    assert HOSTILE in table_rows(section(page, "results").find(".//table"))


def test_nothing_is_fetched_and_nothing_runs(page: Element):
    addresses = [
        (element.tag, value)
        for element in page.iter()
        for name, value in element.attrib.items()
        if name in ("src", "href", "srcset", "data", "action")
    ]
    assert addresses
    allowed = ("data:", "results.json")
    assert not [one for one in addresses if not one[1].startswith(allowed)]
    policy = page.find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
    assert policy.startswith("default-src 'none'")
    assert "url(" not in text(page.find(".//style"))


def with_hits(run: Run, hits: Callable[[int, str], bool]) -> Run:
    """The run, with other hits by a record's number and a method's name."""
    return replace(
        run,
        records=tuple(
            replace(
                record,
                outcomes={
                    name: replace(
                        outcome, hit=outcome.hit if outcome.hit is None else hits(n, name)
                    )
                    for name, outcome in record.outcomes.items()
                },
            )
            for n, record in enumerate(run.records)
        ),
    )


@pytest.mark.parametrize("hit", [True, False])
def test_where_all_do_alike_the_ablation_has_the_whole_axis(run: Run, tmp_path: Path, hit: bool):
    ablation = section(page_of(with_hits(run, lambda *_: hit), tmp_path), "ablation")
    assert "does not start at zero" not in text(ablation)
    assert "0255075100" in text(ablation.find(".//thead"))


def test_the_ablation_says_that_its_axis_is_a_part(run: Run, tmp_path: Path):
    nearly_all = with_hits(run, lambda n, name: n > 4 or "uniform" not in name)
    ablation = section(page_of(nearly_all, tmp_path), "ablation")
    assert "The axis does not start at zero." in text(ablation)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00.00"), (62.5, "1:02.50"), (59.996, "1:00.00"), (119.994, "1:59.99")],
)
def test_times_in_a_video_are_minutes_and_seconds(seconds: float, shown: str):
    assert _clock(round(seconds * 1e9)) == shown
