"""Recorded passes, constants, the copy back: their logic here, CUDA itself where there is one."""

from __future__ import annotations

import copy
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from cpu_recorder import CpuRecorder
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videogem_ros.core import Encoder, Grounder, GroundingConfig, load_backbone
from videogem_ros.core import acceleration as module
from videogem_ros.core.acceleration import Graphs, constant, pack, to_host, unpack
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.comparison import Found, packed
from videogem_ros.core.configuration import SCOPES, WEIGHTINGS
from videogem_ros.core.fusion import NAMES
from videogem_ros.datatypes import Action, Frame, Grounding, Window
from videogem_ros.errors import InvalidValueError

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
POUR = Action("pour the milk", "pour the milk", "pour", "pour", "milk", "milk")
CUT = Action("cut the tomato", "cut the tomato", "cut", "cut", "tomato", "tomato")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def window(count: int, seed: int = 0, hw: tuple[int, int] = (48, 80)) -> Window:
    """Frames of smooth noise."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 6, 10, 3), np.uint8)
    scale = (1, hw[0] // 6, hw[1] // 10, 1)
    return Window(
        tuple(
            Frame(image, i * 10**8)
            for i, image in enumerate(np.kron(images, np.ones(scale, np.uint8)))
        )
    )


class Scaling:
    """A pass of one weight, which counts its runs; (2,) weights."""

    def __init__(self) -> None:
        self.weights = (torch.tensor([2.0, 3.0]),)
        self.runs = 0

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        self.runs += 1
        (weight,) = self.weights
        return x * weight[0], x.sum(dim=0) + weight[1]


@pytest.fixture
def recorder() -> CpuRecorder:
    return CpuRecorder()


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=["image", "video"])
def tiny(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(f"tiny_{request.param}_backbone")


def equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)


# When there is a recording.


def test_the_second_pass_of_a_kind_is_recorded_and_every_later_one_replayed(
    recorder: CpuRecorder,
) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    for number in range(5):
        x = noise(4, 3, seed=number)
        before = x.clone()
        equal(graphs.run("scale", passed, x), Scaling()(x))
        assert torch.equal(x, before)
        assert graphs.recorded == (number >= 1)
        assert graphs.replayed == number
    assert (graphs.failed, graphs.problem) == (0, "")


def test_what_a_replay_gave_is_not_changed_by_the_next(recorder: CpuRecorder) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    inputs = [noise(2, 2, seed=seed) for seed in range(6)]
    found = [graphs.run(0, passed, x) for x in inputs]
    for one, x in zip(found, inputs):
        equal(one, Scaling()(x))


def test_every_key_shape_and_dtype_has_its_own_recording(recorder: CpuRecorder) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    kinds: list[tuple[Any, Tensor]] = [
        ((7,), noise(2, 3)),
        ((0, 7), noise(2, 3)),
        ((7,), noise(3, 3)),
        ((7,), noise(2, 3).double()),
    ]
    for _ in range(3):
        for key, x in kinds:
            factor = len(key)

            def several(x: Tensor, factor: int = factor) -> tuple[Tensor, ...]:
                return (factor * x,)

            (found,) = graphs.run(key, several, x)
            assert torch.equal(found, factor * x)
            assert found.dtype == x.dtype
    assert graphs.recorded == len(kinds)
    assert recorder.recorded == [(2, 3), (2, 3), (3, 3), (2, 3)]


def test_no_more_recordings_are_kept_than_there_is_room_for(
    recorder: CpuRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GRAPHS", 2)
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    for length in (1, 1, 2, 2, 1, 3, 3):  # of 1, used after 2, there still is one
        graphs.run(0, passed, noise(length, 2))
    assert len(graphs._graphs) == 2
    graphs.run(0, passed, noise(1, 2))
    assert graphs.recorded == 3
    for recorded in (3, 4):  # which was dropped, and has to come twice again
        equal(graphs.run(0, passed, noise(2, 2)), Scaling()(noise(2, 2)))
        assert graphs.recorded == recorded
    for length in range(4, 60):  # what comes once is not remembered for ever
        graphs.run(0, passed, noise(length, 2))
    assert len(graphs._seen) <= 2 * 2


def test_what_comes_again_only_after_many_others_is_not_recorded(recorder: CpuRecorder) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    for _ in range(3):
        for length in range(1, 2 * module.MAX_GRAPHS + 2):
            equal(graphs.run(0, passed, noise(length, 2)), Scaling()(noise(length, 2)))
    assert graphs.recorded == 0


def test_recordings_share_scratch_memory_with_those_beside_them(recorder: CpuRecorder) -> None:
    first = Graphs((), recorder=recorder)
    second = Graphs((), recorder=recorder, beside=first)
    for graphs, length in ((first, 1), (second, 2), (second, 3)):
        for _ in range(3):
            (found,) = graphs.run(0, lambda x: (2 * x,), noise(length))
            assert torch.equal(found, 2 * noise(length))
    of_first, *_ = (graph.recording for graph in first._graphs.values())
    of_second, *_ = (graph.recording for graph in second._graphs.values())
    assert recorder.besides == [None, of_first, of_second]
    assert first._lock is second._lock  # until the copy of what was found is started


def test_a_pass_is_replayed_only_if_it_need_not_run(recorder: CpuRecorder) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    assert graphs.replay(0, passed, noise(2, 2)) is None
    assert passed.runs == 0
    for number in (1, 2):
        found = graphs.replay(0, passed, noise(2, 2), wanted=1)
        assert found is not None
        equal(found, Scaling()(noise(2, 2))[:1])
        assert graphs.replayed == number
    assert Graphs(passed.weights, "never", recorder).replay(0, passed, noise(2, 2)) is None


@pytest.mark.parametrize("change", ["in place", "other memory"])
def test_changed_weights_make_recordings_anew(recorder: CpuRecorder, change: str) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    x = noise(3, 2)
    for _ in range(3):
        graphs.run(0, passed, x)
    (weight,) = passed.weights
    if change == "in place":
        weight.mul_(2)
    else:
        weight.data = torch.tensor([5.0, -1.0])
    for _ in range(3):
        equal(graphs.run(0, passed, x), passed(x))
    assert graphs.recorded == 2


def test_weights_are_found_wherever_they_stand_in_a_tower(tiny: Backbone) -> None:
    known = {tensor.data_ptr() for tensor in Graphs(tiny.tower)._weights}
    model: Any = tiny.model
    vision = model.visual if hasattr(model, "visual") else model.vision_encoder
    assert {parameter.data_ptr() for parameter in vision.parameters()} <= known


@pytest.mark.parametrize("reason", ["never", "device", "gradients"])
def test_without_need_or_leave_nothing_is_recorded(recorder: CpuRecorder, reason: str) -> None:
    passed = Scaling()
    mode = "never" if reason == "never" else "auto"
    graphs = Graphs(passed.weights, mode, None if reason == "device" else recorder)
    assert graphs.used_on(torch.device("cpu")) == (reason == "gradients")
    with torch.set_grad_enabled(reason == "gradients"):
        for _ in range(4):
            equal(graphs.run(0, passed, noise(2, 2)), Scaling()(noise(2, 2)))
    assert passed.runs == 4
    assert graphs.recorded == graphs.replayed == 0


@pytest.mark.parametrize("mode", ["on", "", "AUTO"])
def test_another_mode_is_refused(mode: str, tiny_image_backbone: Backbone) -> None:
    message = f"cuda_graphs: expected one of auto, never, got {mode}"
    with pytest.raises(InvalidValueError, match=message):
        Grounder(tiny_image_backbone, cuda_graphs=mode)


def test_a_pass_that_cannot_be_recorded_runs_as_it_is(
    recorder: CpuRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    recorder.error = torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    with caplog.at_level(logging.WARNING):
        for length in (2, 2, 2, 3, 3, 3):
            x = noise(length, 2)
            equal(graphs.run(0, passed, x), Scaling()(x))
    assert (graphs.failed, graphs.recorded, graphs.replayed) == (2, 0, 0)
    assert graphs.problem == "CUDA out of memory. Tried to allocate 2 GiB"
    (line,) = caplog.messages
    assert "no CUDA graph" in line
    assert graphs.problem in line
    recorder.error = None  # what failed is not tried again, other kinds are
    for length in (2, 2, 4, 4, 4):
        x = noise(length, 2)
        equal(graphs.run(0, passed, x), Scaling()(x))
    assert recorder.recorded == [(4, 2)]


def test_a_mistake_in_a_pass_is_not_taken_for_a_missing_graph(recorder: CpuRecorder) -> None:
    graphs = Graphs((), recorder=recorder)
    recorder.error = TypeError("a mistake")
    graphs.run(0, lambda x: (x,), noise(2))
    with pytest.raises(TypeError, match="a mistake"):
        graphs.run(0, lambda x: (x,), noise(2))


def test_threads_do_not_get_each_others_results(recorder: CpuRecorder) -> None:
    passed = Scaling()
    graphs = Graphs(passed.weights, recorder=recorder)
    wrong: list[int] = []

    def work(thread: int) -> None:
        with torch.no_grad():
            for step in range(100):
                x = torch.full((4, 2), float(1000 * thread + step))
                found, _ = graphs.run(0, passed, x)
                if not torch.equal(found, 2 * x):
                    wrong.append(thread)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert graphs.replayed == 399


# A grounder with recordings.


def same(found: list[Grounding], expected: list[Grounding]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.points == other.points
        assert one.score == other.score
        for name in NAMES:
            np.testing.assert_array_equal(one.heatmaps[name].values, other.heatmaps[name].values)


@pytest.fixture
def recording(recorder: CpuRecorder, monkeypatch: pytest.MonkeyPatch) -> CpuRecorder:
    """Grounders that are made record on the CPU."""
    monkeypatch.setattr(module, "CudaRecorder", lambda: recorder)
    return recorder


def test_groundings_are_the_same_to_the_bit(tiny: Backbone, recording: CpuRecorder) -> None:
    plain, grounder = Grounder(tiny, cuda_graphs="never"), Grounder(tiny)
    for seed in range(4):
        for frames in ((7,), (1, 6), "all"):
            asked = window(8, seed)
            same(
                grounder.ground(asked, [POUR, CUT], frames),
                plain.ground(asked, [POUR, CUT], frames),
            )
    assert (grounder.graphs.recorded, grounder.graphs.replayed) == (3, 9)
    assert plain.graphs.recorded == plain.comparisons.recorded == 0


def test_others_are_found_in_what_was_kept(tiny: Backbone, recording: CpuRecorder) -> None:
    plain, grounder = Grounder(tiny, cuda_graphs="never"), Grounder(tiny)
    for seed in range(4):
        asked = window(8, seed)
        found, features = grounder.ground_and_keep(asked, [POUR], (1, 6))
        same(found, plain.ground(asked, [POUR], (1, 6)))
        same(grounder.locate(features, asked, [CUT]), plain.ground(asked, [CUT], (1, 6)))
        assert features.frames == (1, 6)
    assert (grounder.graphs.replayed, grounder.comparisons.replayed) == (3, 4)


def test_windows_together_are_the_same_to_the_bit(tiny: Backbone, recording: CpuRecorder) -> None:
    plain, grounder = Grounder(tiny, cuda_graphs="never"), Grounder(tiny)
    for seed in range(3):
        windows = [window(8, 10 * seed + camera) for camera in range(3)]
        actions = [[POUR], [POUR, CUT], [CUT]]
        found = grounder.ground_each(windows, actions)
        for one, other in zip(found, plain.ground_each(windows, actions)):
            same(one, other)
    assert grounder.graphs.replayed == 2


def test_after_the_warm_up_the_first_window_replays(
    tiny: Backbone, recording: CpuRecorder
) -> None:
    grounder = Grounder(tiny)
    grounder.warm_up(window(8, hw=(6, 10)), [POUR])
    assert (grounder.graphs.recorded, grounder.graphs.replayed) == (2, 2)
    grounder.ground(window(8), [CUT])  # the pass and what follows it
    grounder.ground(window(8), [CUT, POUR])  # the pass, with what follows another number of texts
    assert (grounder.graphs.recorded, grounder.graphs.replayed) == (2, 4)


def test_a_warm_up_without_recordings_is_one_pass(tiny: Backbone) -> None:
    passes: list[tuple[int, ...]] = []

    class Counting(Encoder):
        def terms(self, pixels: Tensor, chosen: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            passes.append(tuple(pixels.shape))
            return super().terms(pixels, chosen)

    grounder = Grounder(tiny)
    grounder.encoder = Counting(tiny.tower)
    grounder.warm_up(window(8), [POUR])
    assert passes == [(1, 8 if tiny.window_frames > 1 else 1, 3, 64, 64)]


def test_another_configuration_replays_what_was_recorded(
    tiny: Backbone, recording: CpuRecorder
) -> None:
    grounder = Grounder(tiny)
    grounder.warm_up(window(8), [POUR])
    for weighting in WEIGHTINGS:
        config = GroundingConfig(weighting)
        found = grounder.with_config(config).ground(window(8), [POUR])
        same(found, Grounder(tiny, config, cuda_graphs="never").ground(window(8), [POUR]))
    assert grounder.graphs.recorded == 2


def test_recordings_go_with_their_grounder(tiny: Backbone, recording: CpuRecorder) -> None:
    grounder = Grounder(tiny)
    grounder.warm_up(window(8), [POUR])
    grounder.ground_each([window(8)] * 2, [[POUR]] * 2)
    grounder.ground_each([window(8)] * 2, [[POUR]] * 2)
    assert grounder.graphs.recorded == 3
    gone = weakref.ref(grounder)
    gc.disable()
    try:
        del grounder
        assert gone() is None  # at once: a GPU's memory does not wait for the garbage collector
    finally:
        gc.enable()


def test_new_weights_are_used_at_once(tiny: Backbone, recording: CpuRecorder) -> None:
    backbone = copy.deepcopy(tiny)
    config = GroundingConfig(image_hw=(96, 64))  # resampled positions depend on the weights too
    grounder = Grounder(backbone, config)
    for _ in range(3):
        (before,) = grounder.ground(window(8), [POUR])
    model: Any = backbone.model
    vision = model.visual if hasattr(model, "visual") else model.vision_encoder
    with torch.no_grad():
        vision.positional_embedding.mul_(3)
    (found,) = grounder.ground(window(8), [POUR])
    fresh = Grounder(backbone, config, cuda_graphs="never").ground(window(8), [POUR])
    same([found], fresh)
    assert np.abs(found.heatmap.values - before.heatmap.values).max() > 1e-3


# Nothing asks the device, nothing is sent to it.


class Watch(TorchDispatchMode):
    """Notes operations with a tensor of the host's, single numbers aside, and what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.from_host: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.device.type == "cpu" and tensor.ndim for tensor in tensors):
            self.from_host.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(tiny: Backbone) -> Grounder:
    """A grounder on the meta device, which can neither be read nor waited for."""
    backbone = copy.copy(tiny)
    model = copy.deepcopy(tiny.model).to("meta")
    vision: Any = model.visual if hasattr(model, "visual") else model.vision_encoder
    if hasattr(vision, "tower"):
        backbone.tower = vision.tower()
    else:
        from videogem_ros.core.backbones.openclip import tower_of

        backbone.tower = tower_of(vision)
    return Grounder(backbone)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("frames", [(7,), (1, 6), tuple(range(8)), tuple(reversed(range(8)))])
@torch.inference_mode()
def test_an_encoder_pass_waits_for_nothing_and_sends_nothing(
    elsewhere: Grounder, frames: tuple[int, ...], scope: str
) -> None:
    encoder = Encoder(elsewhere.backbone.tower, scope=scope)
    pixels = torch.empty(2, 8, 3, 64, 96, device="meta")  # positions are resampled, too
    with Watch() as watch:
        encoder.terms(pixels, frames)
    assert watch.from_host == []
    assert not {name for name in watch.names if "convolution" in name}  # TF32's only way in


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("fusion", ["points", "heatmaps"])
@torch.inference_mode()
def test_locating_waits_for_nothing_and_sends_nothing(
    elsewhere: Grounder, weighting: str, fusion: str
) -> None:
    grounder = elsewhere.with_config(GroundingConfig(weighting, fusion=fusion))
    actions = [POUR, CUT]
    for text in grounder_texts(grounder, actions):
        grounder._embeddings[text] = torch.empty(32, device="meta")
    features = grounder.encoder(torch.empty(8, 3, 64, 64, device="meta"), (7,))
    grounder._compare(features, (48, 80), actions)  # constants are made
    with Watch() as watch:
        grounder._compare(features, (48, 80), actions)
    assert watch.from_host == []


def grounder_texts(grounder: Grounder, actions: list[Action]) -> list[str]:
    from videogem_ros.core.prompts import prompts_for

    prompts = [prompts_for(action, grounder.config.prompts) for action in actions]
    return [
        *(text for prompt in prompts for text in prompt.texts),
        *grounder.config.presence.neutral,
    ]


# Constants, and the way back.


def test_a_constant_is_made_once_and_serves_training_too() -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        made = constant((0.25, 0.5, 0.125), device)
    assert constant((0.25, 0.5, 0.125), device) is made
    assert made.dtype == torch.float32
    assert made.tolist() == [0.25, 0.5, 0.125]
    with torch.enable_grad():
        x = torch.ones(3, requires_grad=True)
        (x * made).sum().backward()
    assert torch.equal(x.grad, made)


DTYPES = [torch.float32, torch.int64, torch.uint8, torch.float16, torch.float64, torch.bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)), min_size=1
    )
)
def test_what_is_packed_comes_out_as_it_was(kinds: list[tuple[torch.dtype, list[int]]]) -> None:
    generator = torch.Generator().manual_seed(len(kinds))
    tensors = [
        torch.randint(0, 2, shape, generator=generator).to(dtype).transpose(0, -1)
        if shape
        else torch.ones((), dtype=dtype)
        for dtype, shape in kinds
    ]
    packed = pack(tensors)
    assert packed.dtype == torch.uint8
    assert packed.numel() == sum(tensor.nbytes for tensor in tensors)
    like = [(tuple(tensor.shape), tensor.numpy().dtype) for tensor in tensors]
    for found, expected in zip(unpack(packed.numpy(), like), tensors):
        np.testing.assert_array_equal(found, expected.numpy(), strict=True)
        assert not found.size or np.shares_memory(found, packed.numpy())


@pytest.mark.parametrize("actions", [[POUR], [POUR, CUT]])
@torch.inference_mode()
def test_what_was_compared_comes_out_of_two_pieces_of_memory(
    tiny: Backbone, actions: list[Action]
) -> None:
    grounder = Grounder(tiny)
    features = grounder.encode(window(8), (1, 6, 7))
    tensors, sizes = grounder._compare(features, (48, 80), actions)
    expected = Found.of(tensors)
    found = Found.unpacked(*(piece.numpy() for piece in packed(tensors)), sizes)
    for field in fields(Found):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(one, other, strict=True)


def test_results_stay_page_locked_up_to_a_limit() -> None:
    """Until nothing refers to them any more, however little of them is kept."""
    kept = module.PageLocked(100)
    first, second = torch.zeros(60, dtype=torch.uint8), torch.zeros(40, dtype=torch.uint8)
    part = kept.keep(first)[10:20]
    others = [kept.keep(second), kept.keep(torch.ones(1, dtype=torch.uint8))]
    assert np.shares_memory(part, first.numpy())
    assert np.shares_memory(others[0], second.numpy())
    copied = torch.ones(1, dtype=torch.uint8)
    assert not np.shares_memory(kept.keep(copied), copied.numpy())
    assert others[1].tolist() == [1]
    del part
    assert np.shares_memory(kept.keep(copied), copied.numpy())


def test_nothing_comes_from_nothing() -> None:
    assert to_host([]) == []


# With a GPU.


@pytest.fixture
def on_gpu(tmp_path: Any, tiny: Backbone, tiny_clip_config: Any) -> Backbone:
    backbone = copy.deepcopy(tiny)
    backbone.model.to("cuda")
    model: Any = backbone.model
    if hasattr(model, "vision_encoder"):
        backbone.tower = model.vision_encoder.tower()
        return backbone
    return load_backbone(f"openclip:{tiny_clip_config}", "random:0", "cuda")


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("frames", [(7,), (1, 6), "all"], ids=str)
def test_cuda_graphs_give_the_same_to_the_bit(on_gpu: Backbone, frames: Any) -> None:
    plain, grounder = Grounder(on_gpu, cuda_graphs="never"), Grounder(on_gpu)
    for seed in range(5):
        asked = window(8, seed)
        same(grounder.ground(asked, [POUR, CUT], frames), plain.ground(asked, [POUR, CUT], frames))
    assert (grounder.graphs.recorded, grounder.graphs.replayed) == (1, 4), grounder.graphs.problem


@pytest.mark.gpu
@cuda
def test_cuda_graphs_of_windows_together_equal_each_alone(on_gpu: Backbone) -> None:
    plain, grounder = Grounder(on_gpu, cuda_graphs="never"), Grounder(on_gpu)
    for seed in range(3):
        windows = [window(8, 10 * seed + camera) for camera in range(3)]
        for found, asked in zip(grounder.ground_each(windows, [[POUR]] * 3), windows):
            (expected,) = plain.ground(asked, [POUR])
            for name in NAMES:
                one, other = found[0].heatmaps[name].values, expected.heatmaps[name].values
                np.testing.assert_allclose(one, other, atol=2e-5)
    assert grounder.graphs.replayed == 2, grounder.graphs.problem


@pytest.mark.gpu
@cuda
def test_weights_changed_on_the_gpu_are_used_at_once(on_gpu: Backbone) -> None:
    grounder = Grounder(on_gpu)
    for _ in range(3):
        grounder.ground(window(8), [POUR])
    on_gpu.tower.position_embedding.mul_(3)
    same(
        grounder.ground(window(8), [POUR]),
        Grounder(on_gpu, cuda_graphs="never").ground(window(8), [POUR]),
    )


@pytest.mark.gpu
@cuda
def test_a_pass_that_waits_cannot_be_recorded_and_does_no_harm() -> None:
    graphs = Graphs(())
    x = torch.ones(3, device="cuda")
    before = torch.cuda.current_stream()

    def waits(x: Tensor) -> tuple[Tensor, ...]:
        return (x * float(x.sum()),)

    for _ in range(4):
        (found,) = graphs.run(0, waits, x)
        assert found.tolist() == [3, 3, 3]
    assert (graphs.failed, graphs.recorded) == (1, 0)
    assert graphs.problem
    assert torch.cuda.current_stream() == before
    for _ in range(3):
        (found,) = graphs.run(1, lambda x: (2 * x,), x)
        assert found.tolist() == [2, 2, 2]
    assert graphs.recorded == 1


@pytest.mark.gpu
@cuda
def test_a_grounding_waits_for_the_gpu_once(on_gpu: Backbone) -> None:
    grounder = Grounder(on_gpu)
    for _ in range(3):  # texts, constants, recording
        grounder.ground(window(8), [POUR])
    torch.cuda.set_sync_debug_mode("error")
    try:
        grounder._encode_and_compare(window(8, 1), [POUR], (7,))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@cuda
def test_bytes_come_back_from_the_gpu_as_they_were() -> None:
    buffers = [torch.arange(length, dtype=torch.uint8) for length in (100, 0, 1, 64, 7)]
    for found, expected in zip(to_host([each.cuda() for each in buffers]), buffers):
        np.testing.assert_array_equal(found, expected.numpy(), strict=True)
        assert found.ctypes.data % 64 == 0 or not found.size
