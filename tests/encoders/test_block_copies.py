"""Without a GPU: streams and events are stand-ins that write down what is asked of them; copies are made at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pixart_sigma.encoders import block_copies
from pixart_sigma.encoders.block_copies import BlockCopies
from pixart_sigma.encoders.streamed_text import StreamedT5
from tiny_t5 import t5_config, t5_weights, write_t5

Log = list[tuple[str, str, int]]


class Device:
    """Streams, events and pinned memory that are none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: Log = []
        self.events: list[Any] = []
        device = self

        class Stream:
            def __init__(self, _: object, name: str = "copies") -> None:
                self.name = name

            def wait_event(self, event: Any) -> None:
                device.log.append((self.name, "waits for", event.number))

            def synchronize(self) -> None:
                device.log.append(("host", "waits for", -1))

        class Event:
            def __init__(self) -> None:
                self.number = len(device.events)
                device.events.append(self)

            def record(self, stream: Stream) -> None:
                device.log.append((stream.name, "records", self.number))

            def synchronize(self) -> None:
                device.log.append(("host", "waits for", self.number))

        @contextmanager
        def stream(_: Stream) -> Iterator[None]:
            yield

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(device, "compute"))
        monkeypatch.setattr(block_copies, "_pinned_like", lambda meta: torch.empty_like(meta, device="cpu"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


# Events in the order of their making.
FILLED, LEFT = (0, 2), (1, 3)


def test_no_place_is_filled_before_it_was_left_nor_used_before_it_was_filled(device: Device) -> None:
    copies = BlockCopies({"weight": torch.empty(3, device="meta")}, torch.device("cpu"))
    assert device.log == [("compute", "records", LEFT[0]), ("compute", "records", LEFT[1])]
    device.log.clear()
    first = copies.send({"weight": torch.zeros(3)})
    second = copies.send({"weight": torch.ones(3)})
    weights = copies.take(first)
    copies.leave(first)
    assert device.log == [
        ("host", "waits for", FILLED[1]),
        ("copies", "waits for", LEFT[0]),
        ("copies", "records", FILLED[0]),
        ("host", "waits for", FILLED[0]),  # the pinned memory is free again
        ("copies", "waits for", LEFT[1]),
        ("copies", "records", FILLED[1]),
        ("compute", "waits for", FILLED[0]),
        ("compute", "records", LEFT[0]),
    ]
    assert weights["weight"].tolist() == [0] * 3
    assert copies.take(second)["weight"].tolist() == [1] * 3
    assert copies.send({"weight": torch.full((3,), 2, dtype=torch.float64)}) == first
    assert weights["weight"].tolist() == [2] * 3
    assert weights["weight"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_copied_blocks_are_the_blocks(dtype: torch.dtype, device: Device, tmp_path: Path) -> None:
    config = t5_config(num_layers=5)
    folder = write_t5(tmp_path / "t5", config, t5_weights(config, torch.float32))
    streamed = StreamedT5.open(folder, dtype)
    num = 0
    for ours, wanted in zip(streamed._copied_blocks(), list(streamed._blocks()), strict=True):
        assert ours.keys() == wanted.keys()
        for name, weight in wanted.items():
            assert ours[name].dtype == weight.dtype
            assert torch.equal(ours[name], weight)
        num += 1
    assert num == 5
    left = [number for _, what, number in device.log if what == "records" and number in LEFT]
    assert left == [1, 3, 1, 3, 1, 3, 1]
    assert device.log[-1] == ("host", "waits for", -1)


def test_an_interrupted_pass_waits_for_its_copies(device: Device, tmp_path: Path) -> None:
    config = t5_config(num_layers=5)
    streamed = StreamedT5.open(write_t5(tmp_path / "t5", config, t5_weights(config, torch.float32)))
    blocks = streamed._copied_blocks()
    next(blocks)
    blocks.close()
    # The second block was on its way.
    assert [what for _, what, number in device.log if number in FILLED].count("records") == 2
    assert device.log[-1] == ("host", "waits for", -1)
