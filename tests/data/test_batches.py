from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixart_sigma.data.batches import BatchOrder
from pixart_sigma.errors import InvalidInput

SQUARE, WIDE = (256, 256), (192, 336)


def drawn(order: BatchOrder, epochs: int) -> list[list[int]]:
    return [order.batch(step).records.tolist() for step in range(epochs * order.batches_per_epoch)]


@given(
    shapes=st.lists(st.sampled_from([SQUARE, WIDE, (336, 192)]), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    data=st.data(),
)
def test_an_epoch_holds_every_record_as_often_as_it_repeats(
    shapes: list[tuple[int, int]], batch_size: int, data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(shapes), max_size=len(shapes)))
    order = BatchOrder(shapes, repeats, batch_size, "wrap", 0)
    found: Counter[int] = Counter()
    for step in range(order.batches_per_epoch):
        batch = order.batch(step)
        assert len(batch.records) == batch_size
        assert {shapes[record] for record in batch.records} == {batch.shape}
        found.update(batch.records.tolist())
    assert all(found[record] >= repeats[record] for record in range(len(shapes)))
    excess = sum(found.values()) - sum(repeats)
    assert excess < batch_size * len(set(shapes))


def test_partial_batches_are_dropped_or_filled_up_and_counted() -> None:
    shapes = [SQUARE] * 10 + [WIDE] * 3
    dropping = BatchOrder(shapes, [1] * 13, 4, "drop", 0)
    assert dropping.batches_per_epoch == 2
    assert "2 partial ones with 5 records are dropped" in dropping.summary()
    batches = drawn(dropping, 1)
    assert len({record for batch in batches for record in batch}) == 8
    wrapping = BatchOrder(shapes, [1] * 13, 4, "wrap", 0)
    assert wrapping.batches_per_epoch == 4
    assert "filled up from their bucket's start" in wrapping.summary()
    assert {record for batch in drawn(wrapping, 1) for record in batch} == set(range(13))


def test_epochs_differ_and_a_step_is_the_same_whenever_it_is_asked() -> None:
    shapes = [SQUARE] * 32 + [WIDE] * 32
    order = BatchOrder(shapes, [1] * 64, 8, "drop", 5)
    first, second = drawn(order, 2)[:8], drawn(order, 2)[8:]
    assert first != second
    assert order.batch(9).epoch == 1
    again = BatchOrder(shapes, [1] * 64, 8, "drop", 5)
    assert again.batch(9).records.tolist() == second[1]
    assert again.batch(2).records.tolist() == first[2]
    assert BatchOrder(shapes, [1] * 64, 8, "drop", 6).batch(2).records.tolist() != first[2]


def test_batches_of_all_buckets_are_mixed() -> None:
    order = BatchOrder([SQUARE] * 64 + [WIDE] * 64, [1] * 128, 4, "drop", 0)
    shapes = [order.batch(step).shape for step in range(32)]
    assert sum(before != after for before, after in pairwise(shapes)) > 6


def test_a_set_without_a_whole_batch_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"2 records in 2 buckets make no whole batch of 2.*wrap"):
        BatchOrder([SQUARE, WIDE], [1, 1], 2, "drop", 0)
