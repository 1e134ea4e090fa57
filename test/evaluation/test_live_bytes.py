from __future__ import annotations

import torch

from videogem_ros.evaluation.live_bytes import LiveBytes

MIB = 2**20


def test_what_is_held_at_once_is_counted_and_what_was_given_is_not() -> None:
    given = torch.zeros(4 * MIB, dtype=torch.uint8)
    with LiveBytes() as live:
        first = given[: 2 * MIB]  # a view
        second = first + 1
        third = second.add_(1)[: MIB // 2]  # the same memory
        del second, third  # 2 MiB go
        fourth = torch.zeros(MIB, dtype=torch.uint8)
        _, fifth = fourth + 1, torch.zeros(MIB // 2, dtype=torch.uint8)
    assert fifth.numel() == MIB // 2
    assert live.peak == 5 * MIB // 2  # the last three: 1 and 1 and a half
