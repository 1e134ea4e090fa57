"""VideoGEM in float64, formula by formula: an independent reference for the core's tests.

Nothing is fused, batched or left out, and the package is not used: the input is a state dict and
a few sizes, the output every term of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """Properties of a tower that its state dict does not contain."""

    heads: int
    grid_hw: tuple[int, int]
    quick_gelu: bool


@dataclass(frozen=True)
class Terms:
    """s_l of the patch tokens (T, L, N, D) and c_l of the class token (T, L, D)."""

    patch: Tensor
    token: Tensor


class Transcription:
    """A vision tower, from weights named as in a checkpoint without its prefix."""

    def __init__(self, state: Mapping[str, Tensor], sizes: Sizes) -> None:
        self.state = {name: value.detach().double() for name, value in state.items()}
        self.sizes = sizes

    def terms(self, pixels: Tensor, depth: int, scope: str = "window") -> Terms:
        """All terms for (T, 3, H, W) frames: T samples for a CLIP, one sample for a ViCLIP.

        With the scope "frame", the self-self path processes a ViCLIP's frames one at a time, each
        with the class token.
        """
        pixels = pixels.double()
        patch_hw = self.state["conv1.weight"].shape[-2:]
        rows, columns = (side // patch for side, patch in zip(pixels.shape[-2:], patch_hw))
        is_video = "temporal_positional_embedding" in self.state
        positions = resampled(
            self.state["positional_embedding"], self.sizes.grid_hw, rows, columns
        )
        tokens = torch.stack(  # (T, N, D)
            [self._patches(frame, rows, columns) + positions[1:] for frame in pixels]
        )
        if is_video:
            tokens = tokens + self.state["temporal_positional_embedding"][0][:, None]
            apart = len(pixels) if scope == "frame" else 1
            tokens = tokens.transpose(0, 1).flatten(0, 1)
            samples = [self._walk(tokens, positions[0], depth, apart)]
        else:
            samples = [self._walk(frame, positions[0], depth) for frame in tokens]
        patch = torch.stack([sample.patch for sample in samples])
        token = torch.stack([sample.token for sample in samples])
        if is_video:
            frames = len(pixels)
            patch = patch.view(depth + 1, rows * columns, frames, -1).permute(2, 0, 1, 3)
            token = token.expand(frames, -1, -1)
        return Terms(patch, token)

    def embed(self, x: Tensor) -> Tensor:
        return unit(self._norm("ln_post", x) @ self.state["proj"])

    def layer_weights(
        self, token: Tensor, text: Tensor, base: list[float], dynamic_depth: int, scale: float
    ) -> Tensor:
        """w (L,) for one sample's c (L, D) and one text; ``dynamic_depth`` 0 gives the base."""
        weights = torch.tensor(base, dtype=torch.float64)
        if dynamic_depth:
            chosen = range(len(base) - dynamic_depth, len(base))
            sims = [float(self.embed(token.sum(0) - token[term]) @ text) for term in chosen]
            powers = np.exp(-scale * (np.array(sims) - min(sims)))
            for term, power in zip(chosen, powers):
                weights[term] += power / powers.sum() - 1 / dynamic_depth
        return weights

    def similarity(self, patch: Tensor, weights: Tensor, text: Tensor) -> Tensor:
        """(N,) cosines for one sample's s (L, N, D)."""
        mixed = sum(weight * term for weight, term in zip(weights, patch))
        return self.embed(mixed) @ text

    def _walk(self, tokens: Tensor, class_position: Tensor, depth: int, apart: int = 1) -> Terms:
        x = torch.cat([(self.state["class_embedding"] + class_position)[None], tokens])
        if "ln_pre.weight" in self.state:
            x = self._norm("ln_pre", x)
        layers = 1 + max(int(n.split(".")[2]) for n in self.state if n.startswith("transformer"))
        patch, token = [], []
        for layer in range(layers):
            block = f"transformer.resblocks.{layer}"
            if layer == layers - depth:
                patch.append(x[1:])
                token.append(x[0])
            y = self._norm(f"{block}.ln_1", x)
            q, k, v = self._linear(f"{block}.attn.in_proj", y, "_").chunk(3, dim=-1)
            if layer >= layers - depth:
                t = float(y.norm(dim=-1).mean()) / (y.shape[-1] // self.sizes.heads) ** 0.5
                found = torch.empty_like(y)
                for frame in range(apart):
                    met = [0, *range(1 + frame, len(y), apart)]
                    found[met] = self._self_self(block, t, q[met], k[met], v[met])
                patch.append(found[1:])
            before = x
            x = x + self._attend(block, q, k, v)
            x = x + self._mlp(block, x)
            if layer >= layers - depth:
                token.append((x - before)[0])
        return Terms(torch.stack(patch), torch.stack(token))

    def _patches(self, frame: Tensor, rows: int, columns: int) -> Tensor:
        weight = self.state["conv1.weight"]
        height, width = weight.shape[-2:]
        kernel = weight.reshape(len(weight), -1)
        return torch.stack(
            [
                kernel
                @ frame[
                    :, row * height : (row + 1) * height, column * width : (column + 1) * width
                ].flatten()
                for row in range(rows)
                for column in range(columns)
            ]
        )

    def _heads(self, x: Tensor) -> list[Tensor]:
        return list(x.chunk(self.sizes.heads, dim=-1))

    def _attend(self, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [
            torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v
            for q, k, v in zip(self._heads(q), self._heads(k), self._heads(v))
        ]
        return self._project(block, torch.cat(heads, dim=-1))

    def _self_self(self, block: str, t: float, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outputs = []
        for p in (q, k, v):
            heads = []
            for p_head, v_head in zip(self._heads(p), self._heads(v)):
                p0 = unit(p_head)
                p1 = unit(torch.softmax(t * p0 @ p0.T, dim=-1) @ p0)
                heads.append(torch.softmax(t * p1 @ p1.T, dim=-1) @ v_head)
            outputs.append(torch.cat(heads, dim=-1))
        return self._project(block, sum(outputs) / 3)

    def _project(self, block: str, attended: Tensor) -> Tensor:
        out = self._linear(f"{block}.attn.out_proj", attended)
        return out * self.state.get(f"{block}.ls_1.gamma", 1.0)

    def _mlp(self, block: str, x: Tensor) -> Tensor:
        hidden = self._linear(f"{block}.mlp.c_fc", self._norm(f"{block}.ln_2", x))
        if self.sizes.quick_gelu:
            hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        else:
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        out = self._linear(f"{block}.mlp.c_proj", hidden)
        return out * self.state.get(f"{block}.ls_2.gamma", 1.0)

    def _linear(self, name: str, x: Tensor, joint: str = ".") -> Tensor:
        return x @ self.state[f"{name}{joint}weight"].T + self.state[f"{name}{joint}bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = (centred**2).mean(dim=-1, keepdim=True)
        scaled = centred / torch.sqrt(variance + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).sum(dim=-1, keepdim=True))


def resampled(positions: Tensor, trained_hw: tuple[int, int], rows: int, columns: int) -> Tensor:
    """Position embeddings by Pillow's bicubic filter, which is antialiased."""
    if (rows, columns) == trained_hw:
        return positions
    grids = positions[1:].T.reshape(-1, *trained_hw).float().numpy()
    resized = [
        np.asarray(Image.fromarray(grid).resize((columns, rows), Image.Resampling.BICUBIC))
        for grid in grids
    ]
    patches = torch.from_numpy(np.stack(resized)).double().flatten(1).T
    return torch.cat([positions[:1], patches])


def upsampled(similarity: Tensor, grid_hw: tuple[int, int], input_hw: tuple[int, int]) -> Tensor:
    """(N,) to (H, W): bilinear between the patches' centres, constant outside them."""

    def matrix(patches: int, pixels: int) -> Tensor:
        centres = (np.arange(pixels) + 0.5) * patches / pixels - 0.5
        rows = [np.interp(centres, np.arange(patches), row) for row in np.eye(patches)]
        return torch.from_numpy(np.stack(rows, axis=1))

    grid = similarity.reshape(grid_hw)
    return matrix(grid_hw[0], input_hw[0]) @ grid @ matrix(grid_hw[1], input_hw[1]).T


def min_max(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())
