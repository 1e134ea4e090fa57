from __future__ import annotations

import math

import numpy as np
import pytest

from videogem_ros.live.middleware import rigid_matrix

HALF = math.sqrt(0.5)


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_a_quaternion_of_any_length_and_a_translation_become_a_matrix(length: float) -> None:
    quarter_turn = np.array([0.0, 0.0, HALF, HALF])  # about z: x becomes y
    moved = rigid_matrix((1.0, 2.0, 3.0), length * quarter_turn) @ [1.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(moved, [1.0, 3.0, 3.0, 1.0], atol=1e-12)
