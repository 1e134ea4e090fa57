"""Backbones by name and weights: files, tags, the hub and its cache, and what is refused."""

from __future__ import annotations

import copy
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file
from tiny import TINY_CLIP, TINY_VICLIP
from torch import Tensor, nn

from videogem_ros.core import Encoder, load_backbone
from videogem_ros.core.backbones import Backbone, openclip, viclip
from videogem_ros.core.backbones.checkpoint import hub_file
from videogem_ros.errors import InvalidValueError, VideoGemError, WeightsError

TAG = {"hf_hub": "someone/tiny/", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model among those of each family, with two published tags."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", copy.deepcopy(TINY_CLIP))
    tags = {"openai": TAG | {"quick_gelu": True}, "laion": TAG}
    monkeypatch.setitem(_PRETRAINED, "ViT-tiny", tags)
    monkeypatch.setitem(viclip.MODELS, "tiny", TINY_VICLIP)
    monkeypatch.setitem(viclip.PUBLISHED, "tiny", "tiny.pth")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no way out."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def model(name: str) -> nn.Module:
    """A tiny model with every weight drawn."""
    with openclip.seeded(11):
        if name.startswith("viclip"):
            built: nn.Module = viclip.ViClip(TINY_VICLIP)
        else:
            built = openclip.build(TINY_CLIP)
        with torch.no_grad():
            for value in built.parameters():
                value.add_(0.01 * torch.randn(value.shape))
    return built


def holds(backbone: Backbone, state: dict[str, Tensor]) -> bool:
    found = backbone.model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


NAMES = ["openclip:ViT-tiny", "viclip:tiny"]


# Files.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("x.safetensors", None),
        ("x.pt", lambda state: state),
        ("x.pth", lambda state: {"state_dict": state}),
        ("x.bin", lambda state: {"model": state}),
        ("x.pt", lambda state: {"state_dict": {f"module.{n}": v for n, v in state.items()}}),
    ],
    ids=["safetensors", "bare", "state_dict", "model", "module."],
)
def test_weights_come_back_from_a_file(
    tmp_path: Path, name: str, file: str, wrap: Callable[[dict], dict] | None
) -> None:
    state, path = model(name).state_dict(), tmp_path / file
    if wrap is None:
        save_file(state, path)
    else:
        torch.save(wrap(state), path)
    backbone = load_backbone(name, str(path))
    assert holds(backbone, state)
    assert not backbone.untrained
    assert not backbone.model.training
    assert not any(value.requires_grad for value in backbone.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_weights(name: str) -> None:
    one, same, other = (load_backbone(name, f"random:{seed}") for seed in (3, 3, 4))
    assert holds(one, same.model.state_dict())
    assert not holds(one, other.model.state_dict())
    assert one.untrained


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_size_are_refused(tmp_path: Path, name: str) -> None:
    other = NAMES[1 - NAMES.index(name)]
    path = tmp_path / "other.pt"
    torch.save(model(other).state_dict(), path)
    with pytest.raises(WeightsError, match=r"of another architecture: .* \(\d+ shapes differ"):
        load_backbone(name, str(path))


@pytest.mark.parametrize("name", NAMES)
def test_weights_may_bring_a_fit_of_the_presence_score(tmp_path: Path, name: str) -> None:
    state = {key: value.contiguous() for key, value in model(name).state_dict().items()}
    path = tmp_path / "fitted.safetensors"
    save_file(state, path, {"presence_fit": "0.75 1.25"})
    assert load_backbone(name, str(path)).presence_fit == (0.75, 1.25)
    save_file(state, path)
    assert load_backbone(name, str(path)).presence_fit == (1, 0)


@pytest.mark.parametrize("said", ["", "1", "0 1", "-1 0", "inf 0", "1 nan", "a b", "1 2 3"])
def test_a_fit_that_is_none_is_refused(tmp_path: Path, said: str) -> None:
    path = tmp_path / "damaged.safetensors"
    save_file(dict(model(NAMES[0]).state_dict()), path, {"presence_fit": said})
    with pytest.raises(WeightsError, match=r"presence_fit is .*not a slope above zero"):
        load_backbone(NAMES[0], str(path))


def test_a_model_file_brings_its_own_tokens(tmp_path: Path) -> None:
    """A configuration of one's own may have another context than CLIP's 77."""
    config = copy.deepcopy(TINY_CLIP)
    config["text_cfg"]["context_length"] = 16
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"model_cfg": config}))
    backbone = load_backbone(f"openclip:{path}", "random:0")
    assert backbone.name == f"openclip:{path}"
    assert backbone.encode_text(["a word", "word " * 100]).shape == (2, 32)


def test_a_model_file_brings_its_own_tokenizer(tmp_path: Path) -> None:
    def tokens(**options: Any) -> list[int]:
        path = tmp_path / "mine.json"
        text = TINY_CLIP["text_cfg"] | options
        path.write_text(json.dumps({"model_cfg": TINY_CLIP | {"text_cfg": text}}))
        backbone = load_backbone(f"openclip:{path}", "random:0")
        return backbone._tokenizer(["pick_up the cup!"])[0].tolist()

    canonical = {"tokenizer_kwargs": {"clean": "canonicalize"}}  # no case, no punctuation
    assert tokens(**canonical) == open_clip.tokenize(["pick up the cup"], 77)[0].tolist()
    assert tokens() == open_clip.tokenize(["pick_up the cup!"], 77)[0].tolist()
    with pytest.raises(InvalidValueError, match="backbone: expected a model whose tokenizer can"):
        tokens(hf_tokenizer_name=str(tmp_path / "absent"))


def test_a_model_file_brings_its_own_normalisation(tmp_path: Path) -> None:
    """As the ``open_clip_config.json`` of a hub repository does, not always with OpenAI's."""
    said = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.75], "interpolation": "bicubic"}
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": said}))
    found = load_backbone(f"openclip:{path}", "random:0").preprocessing
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.75))
    path.write_text(json.dumps({"model_cfg": TINY_CLIP}))
    found = load_backbone(f"openclip:{path}", "random:0").preprocessing
    assert found == openclip.OPENAI_PREPROCESSING


# What backbones say of themselves.


def test_an_image_backbone_describes_itself() -> None:
    backbone = load_backbone("openclip:ViT-tiny", "random:0", dtype="bfloat16")
    assert (backbone.name, backbone.window_frames) == ("openclip:ViT-tiny", 1)
    assert backbone.input_hw == (64, 64)  # its own: it is too small to be a published one
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert backbone.tower.dtype == torch.bfloat16
    assert backbone.encode_text(["a word"]).dtype == torch.float32
    assert (backbone.preprocessing.interpolation, backbone.preprocessing.antialias) == (
        "bicubic",
        True,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_half_precision_is_that_of_the_blocks_products_alone(name: str, dtype: str) -> None:
    exact, half = load_backbone(name, "random:3"), load_backbone(name, "random:3", dtype=dtype)
    for (part, of_exact), of_half in zip(
        exact.model.named_parameters(), half.model.parameters(), strict=True
    ):
        of_images = part.startswith(("visual.", "vision_encoder."))
        is_narrow = of_images and "resblocks" in part and ".ln_" not in part
        expected = of_exact.to(getattr(torch, dtype)) if is_narrow else of_exact
        assert (of_half.dtype, part) == (expected.dtype, part)
        assert torch.equal(of_half, expected)
    pixels = torch.randn(exact.window_frames, 3, 64, 64)
    assert torch.equal(Encoder(half.tower).tokens(pixels), Encoder(exact.tower).tokens(pixels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_model_in_half_precision_is_usable_under_autocast(name: str, dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    exact, half = load_backbone(name, "random:3"), load_backbone(name, "random:3", dtype=kind)
    pixels = torch.randn(exact.window_frames, 3, 64, 64)

    def embedding(model: Any) -> Tensor:
        if "openclip" in name:
            found: Tensor = model.encode_image(pixels)
        else:
            found = model.vision_encoder(pixels[None])
        return nn.functional.normalize(found.float(), dim=-1)

    with torch.autocast("cpu", dtype):
        found = embedding(half.model)
    assert (found - embedding(exact.model)).norm(dim=-1).max() < 0.05


def test_a_published_size_is_grounded_at_448(monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy.deepcopy(TINY_CLIP)
    config["vision_cfg"] |= {"image_size": 224, "patch_size": 32}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", config)
    backbone = load_backbone("openclip:ViT-tiny", "random:0")
    assert backbone.tower.input_hw == (224, 224)
    assert backbone.input_hw == (448, 448)


def test_a_video_backbone_describes_itself() -> None:
    backbone = load_backbone("viclip:tiny", "random:0", dtype="float16")
    assert (backbone.name, backbone.window_frames) == ("viclip:tiny", 8)
    assert backbone.input_hw == (64, 64)
    assert backbone.logit_scale == pytest.approx(100)
    assert backbone.tower.dtype == torch.float16
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert backbone.preprocessing.std == (0.229, 0.224, 0.225)
    assert (backbone.preprocessing.interpolation, backbone.preprocessing.antialias) == (
        "bilinear",
        False,
    )


def test_viclip_has_the_published_sizes() -> None:
    base, large = viclip.MODELS["B-16"], viclip.MODELS["L-14"]
    assert (base.width, base.layers, base.heads, base.embed_dim) == (768, 12, 12, 512)
    assert (large.width, large.layers, large.heads, large.embed_dim) == (1024, 24, 16, 768)
    assert (base.patch_size, large.patch_size) == (16, 14)
    for config in (base, large):
        assert (config.num_frames, config.image_size, config.context_length) == (8, 224, 32)
        assert config.quick_gelu
        with torch.device("meta"):
            built = viclip.ViClip(config)
        names = built.state_dict().keys()
        assert {name.split(".")[0] for name in names} == {"vision_encoder", "text_encoder", "temp"}
        assert built.vision_encoder.conv1.weight.shape[2] == 1


# ViCLIP's published checkpoint and its text.


def test_a_published_viclip_checkpoint_loads(tmp_path: Path) -> None:
    state = model("viclip:tiny").state_dict()
    state["temp"] = torch.tensor(0.02)
    torch.save({"model": state}, tmp_path / "ViClip.pth")
    backbone = load_backbone("viclip:tiny", str(tmp_path / "ViClip.pth"))
    assert holds(backbone, state)
    assert backbone.logit_scale == pytest.approx(50)


@pytest.mark.parametrize(("words", "context"), [(200, 77), (200, 32)])
def test_a_long_text_is_cut_and_ends_in_the_end_token(words: int, context: int) -> None:
    name = "openclip:ViT-tiny" if context == 77 else "viclip:tiny"
    backbone = load_backbone(name, "random:0")
    end = 49407
    tokens = backbone._tokenizer(["pour " * words, "pour"])
    assert tokens.shape == (2, context)
    assert tokens[0, 0] == end - 1
    assert tokens[0, -1] == end
    assert tokens[1].tolist()[2:4] == [end, 0]
    # What was cut off takes no part.
    cut = "pour " * (context - 2)
    long, short = backbone.encode_text([cut + "the milk"]), backbone.encode_text([cut])
    assert torch.equal(long, short)


@pytest.mark.parametrize("name", NAMES)
def test_texts_become_unit_vectors_whatever_their_company(name: str) -> None:
    backbone = load_backbone(name, "random:5")
    texts = ["pour the milk", "A photo of a person.", "", "Öl in die Pfanne gießen", "x" * 500]
    together = backbone.encode_text(texts)
    assert together.shape == (5, 32)
    assert together.dtype == torch.float32
    assert torch.allclose(together.norm(dim=-1), torch.ones(5), atol=1e-6)
    for text, embedding in zip(texts, together):
        assert torch.equal(backbone.encode_text([text])[0], embedding)
    assert (together @ together.T - torch.eye(5)).abs().max() < 1 - 1e-4  # none alike


def test_image_text_is_open_clips_own() -> None:
    backbone = load_backbone("openclip:ViT-tiny", "random:5")
    tokens = open_clip.tokenize(["pour the milk"])
    expected = backbone.model.encode_text(tokens, normalize=True)
    found = backbone.encode_text(["pour the milk"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_video_text_reads_the_features_at_the_end_token() -> None:
    """The text tower, token by token: causal attention, LN, projection at the end token."""
    backbone = load_backbone("viclip:tiny", "random:5")
    encoder = backbone.model.text_encoder
    ids = [49406, *open_clip.SimpleTokenizer().encode("pour the milk"), 49407]
    x = encoder.token_embedding.weight[ids] + encoder.positional_embedding[: len(ids)]
    mask = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    (block,) = encoder.transformer.resblocks
    y = block.ln_1(x)
    q, k, v = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1)
    heads = [
        torch.softmax(q @ k.T / 16**0.5 + mask, dim=-1) @ v
        for q, k, v in zip(q.split(16, -1), k.split(16, -1), v.split(16, -1))
    ]
    x = x + block.attn.out_proj(torch.cat(heads, dim=-1))
    hidden = block.mlp.c_fc(block.ln_2(x))
    x = x + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    expected = encoder.ln_final(x[-1]) @ encoder.text_projection
    found = backbone.encode_text(["pour the milk"])[0]
    torch.testing.assert_close(found, expected / expected.norm(), atol=1e-6, rtol=0)


# The hub.


def ask(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Put another address in the place of the hub's, as HF_ENDPOINT does at start."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def cached(cache: Path, repository: str, file: str, write: Callable[[Path], Any]) -> None:
    """A file where the hub's client keeps its downloads."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    write(snapshot / file)


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize(("tag", "quick_gelu"), [("openai", True), ("laion", False)])
def test_a_tag_in_the_cache_needs_no_network(
    no_network: Path, file: str, tag: str, quick_gelu: bool
) -> None:
    state = model("openclip").state_dict()
    write = save_file if file.endswith("safetensors") else torch.save
    cached(no_network, "someone/tiny", file, lambda path: write(state, path))
    backbone = load_backbone("openclip:ViT-tiny", tag)
    assert holds(backbone, state)
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    assert backbone.preprocessing.std == (0.25, 0.25, 0.25)
    activation = backbone.tower.blocks[0].activation
    x = torch.linspace(-3, 3, 7)
    expected = x * torch.sigmoid(1.702 * x) if quick_gelu else nn.functional.gelu(x)
    torch.testing.assert_close(activation(x), expected)


def test_viclip_in_the_cache_needs_no_network(no_network: Path) -> None:
    state = model("viclip").state_dict()
    cached(
        no_network, "OpenGVLab/ViCLIP", "tiny.pth", lambda path: torch.save({"model": state}, path)
    )
    assert holds(load_backbone("viclip:tiny"), state)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("openclip:ViT-tiny", None),
        ("openclip:ViT-B-16", "openai"),
        ("openclip:ViT-B-32", "laion2b_s34b_b79k"),
        ("viclip:tiny", None),
        ("viclip:B-16", None),
    ],
)
@pytest.mark.parametrize("way_out", ["offline", "refused"])
def test_without_network_and_cache_a_tag_is_one_clear_error_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, weights: str | None, way_out: str
) -> None:
    if way_out == "refused":
        ask(monkeypatch, "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load_backbone(name, weights)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "not in the hub's cache, and it cannot be downloaded" in message
    assert "connect once, point HF_HOME at a filled cache, or name a local" in message
    assert "\n" not in message


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine: put files by path, and they can be downloaded."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("X-Repo-Commit", "a" * 40)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", '"' + "b" * 40 + '"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data is not None:
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    ask(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
    yield files
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("there", ["first", "second", "both"])
def test_the_preferred_file_of_a_repository_is_downloaded_once(
    hub: dict[str, bytes], there: str
) -> None:
    path = "/someone/tiny/resolve/main/"
    if there != "second":
        hub[path + "first"] = b"one"
    if there != "first":
        hub[path + "second"] = b"two"
    expected = b"two" if there == "second" else b"one"
    found = hub_file("someone/tiny", ("first", "second"), "tag")
    assert Path(found).read_bytes() == expected
    hub.clear()
    assert hub_file("someone/tiny", ("first", "second"), "tag") == found


def test_a_repository_without_the_file_is_one_clear_error(hub: dict[str, bytes]) -> None:
    with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
        hub_file("someone/tiny", ("first", "second"), "tag")
    assert "\n" not in str(caught.value)


# What is refused.


@pytest.mark.parametrize(
    ("name", "weights", "options", "field", "words"),
    [
        ("clip:ViT-B-16", None, {}, "backbone", ["openclip:MODEL, viclip:MODEL", "clip:ViT-B-16"]),
        ("openclip", None, {}, "backbone", ["openclip:MODEL"]),
        ("openclip:", None, {}, "backbone", ["openclip:MODEL"]),
        ("", None, {}, "backbone", ["openclip:MODEL"]),
        ("openclip:ViT-Q", "random:0", {}, "backbone", ["an open_clip model name", "ViT-Q"]),
        ("openclip:hf-hub:a/b", "random:0", {}, "backbone", ["an open_clip model name"]),
        ("openclip:local-dir:/a", "random:0", {}, "backbone", ["an open_clip model name"]),
        ("openclip:nowhere.json", "random:0", {}, "backbone", ["nowhere.json"]),
        ("openclip:RN50", "random:0", {}, "backbone", ["VisionTransformer", "RN50 with a ResNet"]),
        ("openclip:ViT-B-16-SigLIP", None, {}, "backbone", ["vit_base_patch16_siglip_224"]),
        ("openclip:convnext_base", None, {}, "backbone", ["VisionTransformer", "convnext_base"]),
        ("openclip:coca_ViT-B-32", None, {}, "backbone", ["CoCa with attentional pooling"]),
        ("openclip:ViT-L-14-CLIPA", None, {}, "backbone", ["does not pool by its class token"]),
        ("viclip:H-14", "random:0", {}, "backbone", ["viclip:B-16, viclip:L-14", "viclip:H-14"]),
        (
            "openclip:ViT-tiny",
            "random:0",
            {"dtype": "int8"},
            "dtype",
            ["float32, bfloat16, float16"],
        ),
        ("openclip:ViT-tiny", "random:0", {"device": "gpu"}, "device", ["available", "gpu"]),
        ("openclip:ViT-tiny", "random:0", {"device": "cuda:99"}, "device", ["cuda:99"]),
        ("openclip:ViT-tiny", "random:0", {"device": "meta"}, "device", ["meta"]),
        ("viclip:tiny", "random:0", {"device": ""}, "device", ["available torch device"]),
        ("openclip:ViT-tiny", "random:x", {}, "weights", ["random:SEED", "random:x"]),
        ("viclip:tiny", "random:x", {}, "weights", ["random:SEED", "random:x"]),
    ],
)
def test_what_cannot_be_built_is_named(
    name: str, weights: str | None, options: dict[str, str], field: str, words: list[str]
) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidValueError) as caught:
        load_backbone(name, weights, **options)
    assert time.perf_counter() - start < 5  # nothing of the model's size is drawn before
    assert caught.value.field == field
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("openclip:ViT-B-16", "laion9b", ["tag of ViT-B-16", "openai", "laion2b_s34b_b88k"]),
        ("openclip:ViT-tiny", "nope", ["neither a file nor a tag", "use openai, laion"]),
        ("openclip:ViT-S-16", "openai", ["neither a file nor a tag of ViT-S-16", ".safetensors"]),
        (
            "viclip:B-16",
            "openai",
            ["neither a file nor a tag of viclip:B-16", "internvid-10m-flt"],
        ),
        ("openclip:ViT-tiny", "gone.safetensors", ["no such file"]),
        ("viclip:tiny", "gone.pth", ["no such file", "published tag"]),
    ],
)
def test_unknown_weights_are_told_what_there_is(name: str, weights: str, words: list[str]) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone(name, weights)
    assert f"weights {weights!r}" in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "[1, 2]",
        "{}",
        '{"embed_dim": 8}',
        json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {"std": [0, 0, 0]}}),
        json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {"mean": [0.5, 0.5]}}),
        json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {"mean": 0.5}}),
        json.dumps(TINY_CLIP | {"vision_cfg": 3}),
        json.dumps(TINY_CLIP | {"text_cfg": None}),
        json.dumps(TINY_CLIP | {"vision_cfg": {"colour": 1}}),
        json.dumps(TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"patch_size": 0}}),
        json.dumps(TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"width": 65}}),
        json.dumps(TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"pool_type": "avg"}}),
        json.dumps(TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"qk_norm": True}}),
        json.dumps(
            TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"attentional_pool": True}}
        ),
    ],
)
def test_a_model_file_that_describes_no_supported_model_is_refused(
    tmp_path: Path, config: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(config)
    with pytest.raises(VideoGemError) as caught:
        load_backbone(f"openclip:{path}", "random:0")
    assert "backbone: expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tag_of_a_model_file_does_not_exist(tiny_clip_config: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"nor a tag of this configuration; name a .safetensors"
    ):
        load_backbone(f"openclip:{tiny_clip_config}", "openai")
