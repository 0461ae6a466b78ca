from __future__ import annotations

from collections.abc import Iterator

import pytest

from spiral_core import kernels


@pytest.fixture
def threads() -> Iterator[None]:
    """Let a test change the number of compute threads."""
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)
