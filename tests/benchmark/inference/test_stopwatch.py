import time

import pytest
import torch

from pixart_sigma.benchmark.inference.stopwatch import Stopwatch


def test_stages_are_the_calls_and_what_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 3.0, 4.0, 14.0, 19.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    text, decode = watch.watched("text", str.lower), watch.watched("decode", len)
    assert text("A") == "a"
    text("B")
    assert decode("abc") == 3
    # From 0 to 21: 1 before, 3 of text, 10, 5 of decoding, 2 after.
    assert watch.stages(21.0) == {"text": 3.0, "decode": 5.0, "denoise": 10.0, "rest": 3.0}
    watch.clear()
    assert watch.stages(1.0) == {}
