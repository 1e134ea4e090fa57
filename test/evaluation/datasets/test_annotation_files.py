from __future__ import annotations

import io
import json
import pickle
import pickletools
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets.fields import corners, number, within, words
from videogem_ros.evaluation.datasets.files import find, load


def nested():
    return {"annos": {"b": [{"box": [1, 2.5, True, None], "text": "ö", "raw": b"\x80"}]}}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        nested(),
        {("v", 1, 2), ("w", 3, 4)},
        frozenset({1}),
        OrderedDict(a=1, b=OrderedDict(c=2)),
        defaultdict(list, {"a": [1]}),
        defaultdict(int),
        {"array": np.arange(8, dtype=np.float32).reshape(2, 4)},
        {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
        {"number": np.float64(1.5), "count": np.int32(3)},
        {"single": np.array(3), "none": np.zeros((0, 7)), "turned": np.arange(6.0)[::-1]},
        {"big endian": np.array([1, 2], ">i2"), "flags": np.array([True, False])},
        {"names": np.array(["a", "b"]), "things": np.array([[1, 2], None], dtype=object)},
    ],
)
def test_plain_pickles_of_any_protocol_are_read(tmp_path, value, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load(path) == plain(value)


def plain(value):
    """Arrays as lists, everything else as it is."""
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, np.ndarray):
        return np.atleast_1d(value).tolist()
    return value


def python2(value):
    """As Python 2 with numpy 1 names things: old modules, protocol 2."""
    text = pickle.dumps(value, protocol=2)
    return text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_numpy_arrays_of_python_2_are_read(tmp_path):
    value = {"box": np.array([[0.25, 0.5, 1, 1]], dtype=np.float32), "time": np.float64(2.5)}
    path = tmp_path / "a.pkl"
    path.write_bytes(python2(value))
    assert load(path) == plain(value)
    assert "__builtin__ set" in _globals(b"c__builtin__\nset\n((lp0\nS'a'\natR.")
    path.write_bytes(b"c__builtin__\nset\n((lp0\nS'\\xe9'\natR.")
    assert load(path) == {"é"}


def _globals(text):
    return [arg for opcode, arg, _ in pickletools.genops(text) if opcode.name == "GLOBAL"]


def test_json_is_told_by_what_it_holds_not_by_its_name(tmp_path):
    for name, text in [("a.pkl", b'  {"a": [1]}'), ("b.json", b'\xef\xbb\xbf{"a": [1]}')]:
        (tmp_path / name).write_bytes(text)
    (tmp_path / "c.json").write_bytes(pickle.dumps({"a": [1]}))
    assert [load(tmp_path / name) for name in ("a.pkl", "b.json", "c.json")] == [{"a": [1]}] * 3


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


class Ordinary:
    pass


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(Harmful()), "it asks for builtins.exec"),
        (pickle.dumps({"a": [Ordinary()]}), "it asks for test_annotation_files.Ordinary"),
        (pickle.dumps(io.BytesIO), "it asks for _io.BytesIO"),
        (b"cos\nsystem\n(S'true'\ntR.", "it asks for os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "it asks for __builtin__.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "it asks for numpy.load"),
        (pickle.dumps(np.zeros(1, [("a", "i4")])), "it holds an array of 'V4'"),
        (pickle.dumps(np.zeros(1, "M8[s]")), "it holds an array of 'M8'"),
        (pickle.dumps([1, 2, 3])[:-4], "a.pkl"),
        (b"", "a.pkl"),
        (b"\x80\x04.", "a.pkl"),
        (b"garbage", "a.pkl"),
        (b"\x80\xff", "a.pkl"),
        (b'{"a": ', "a.pkl"),
        (b"{\xff}", "a.pkl"),
        (b"[" * 100_000, "a.pkl"),
    ],
)
def test_what_is_not_plain_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match="annotations: expected JSON, or a pickle") as told:
        load(path)
    assert reason in str(told.value)


def test_every_cut_and_many_damages_of_a_pickle_are_one_kind_of_error(tmp_path):
    path = tmp_path / "a.pkl"
    whole = pickle.dumps({"box": np.ones((1, 4)), **nested()}, protocol=2)
    generator = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(300):
        content = bytearray(whole)
        content[generator.integers(len(content))] = generator.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        try:
            load(path)
        except InvalidValueError as error:
            assert error.field == "annotations"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"annotations: expected one \*box_anno\.json in .*, got none"),
        (["box_anno.json", "a/box_anno.json"], r"got .*box_anno\.json, .*box_anno\.json"),
    ],
)
def test_one_file_of_a_name_is_needed(tmp_path, names, message):
    with pytest.raises(InvalidValueError, match=message):
        find(("*box_anno.json",), [tmp_path / name for name in names], tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, float("nan")],
        [1, 2, float("inf"), 4],
        [1, 2, 3, 10**400],
        [1, 2, 3, "x"],
        [1, 2, 3, None],
        "1234",
        None,
        {"x1": 1},
        [[1, 2, 3, 4]],
        [5, 0, 4, 9],
        [0, 9, 9, 8],
    ],
)
def test_a_box_is_four_finite_numbers_in_order(value):
    with pytest.raises(InvalidValueError, match=r"^box: expected"):
        corners(value, "box")


def test_boxes_of_any_numbers_are_floats():
    assert corners([1, 2, 3, 4.5], "box") == (1.0, 2.0, 3.0, 4.5)
    assert corners((0, 0.5, 0, 0.5), "box") == (0, 0.5, 0, 0.5)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (number, -1),
        (number, float("nan")),
        (number, 10**400),
        (number, 1e300),
        (number, True),
        (number, "3"),
        (words, "12 !"),
        (words, ""),
        (words, None),
    ],
)
def test_numbers_and_texts_are_checked(check, value):
    with pytest.raises(InvalidValueError, match=r"^field: expected"):
        check(value, "field")


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((0, 0, 60, 40), True),
        ((-9, -9, 0, 0), True),
        ((59, 39, 99, 99), True),
        ((50, 0, 55, 9), True),  # right of what is as wide as the image is high
        ((60, 0, 70, 9), False),
        ((0, 40, 9, 50), False),
        ((-9, 0, -1, 9), False),
        ((0, -9, 9, -1), False),
    ],
)
def test_some_of_a_box_is_within_the_image(box, inside):
    if inside:
        assert within(box, (40, 60), "box") == box
    else:
        with pytest.raises(InvalidValueError, match="box: expected a box that overlaps the frame"):
            within(box, (40, 60), "box")


def test_texts_have_single_spaces():
    assert words("  pour\tegg \n whites ", "field") == "pour egg whites"


def test_json_of_other_shapes_than_objects_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([1, {"a": None}]))
    assert load(path) == [1, {"a": None}]
