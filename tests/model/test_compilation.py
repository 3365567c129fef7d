"""What torch's compiler must not meet in a block."""

from typing import Any

import pytest
import torch

from pixart_sigma.model import attention
from pixart_sigma.model.compilation import compile_blocks, is_compiled


def test_attention_is_one_graph_however_many_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_SCORES", 100)
    queries, keys, values = (torch.randn(1, 2, 24, 8) for _ in range(3))
    compiled: Any = torch.compile(attention.attend, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(queries, keys, values)
        torch.testing.assert_close(found, attention.attend(queries, keys, values))


def test_compiled_blocks_are_known() -> None:
    blocks = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    assert not is_compiled(blocks)
    compile_blocks(blocks, backend="eager")
    assert is_compiled(blocks)
