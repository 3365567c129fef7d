import torch

from pixart_sigma.evaluation.features.digest import weights_digest


def test_any_change_of_the_weights_is_seen_and_their_order_is_not() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    digest = weights_digest(weights)
    assert len(digest) == 12
    assert weights_digest(dict(reversed(weights.items()))) == digest
    others = [
        weights | {"a": weights["a"] + torch.eye(2, 3) * 1e-6},
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"a": weights["a"].half()},
        {"a": weights["a"], "c": weights["b"]},
    ]
    assert len({digest, *map(weights_digest, others)}) == 5


def test_a_view_is_read_as_what_it_shows() -> None:
    weights = torch.arange(6.0).reshape(2, 3)
    assert weights_digest({"a": weights.T}) == weights_digest({"a": weights.T.contiguous()})
