from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.features import ImageTextExtractor, extractor
from pixart_sigma.evaluation.features.inception import Inception, load_inception

FILE = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def model() -> Inception:
    torch.manual_seed(0)
    return Inception().eval()


def file_of(model: Inception) -> dict[str, Tensor]:
    """What the published file holds beside the features' parameters: the classifier, and no counters."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    return weights | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def test_it_has_the_parameters_of_the_published_file(model: Inception) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    # Inception v3 without its auxiliary classifier has 23,834,568 parameters, 1000 * 2049 of them in the classifier.
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_834_568 - 1000 * 2049
    assert len([name for name in shapes if name.endswith(".conv.weight")]) == 94
    expected = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_2a_3x3.bn.weight": (32,),
        "Conv2d_2b_3x3.conv.weight": (64, 32, 3, 3),
        "Conv2d_3b_1x1.conv.weight": (80, 64, 1, 1),
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5c.branch_pool.conv.weight": (64, 256, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7_3.conv.weight": (192, 160, 7, 1),
        "Mixed_6d.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7b.branch3x3dbl_2.conv.weight": (384, 448, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.bias": (192,),
        "Mixed_7c.branch1x1.conv.weight": (320, 2048, 1, 1),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not [name for name in shapes if name.endswith("conv.bias")]


def test_maps_have_the_sizes_of_the_paper(model: Inception) -> None:
    sizes: dict[str, tuple[int, ...]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: sizes.__setitem__(name, tuple(out.shape[1:]))
        )
        for name, module in model.named_children()
    ]
    with torch.inference_mode():
        features = model(torch.zeros(1, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert features.shape == (1, 2048)
    assert sizes["Conv2d_2b_3x3"] == (64, 147, 147)
    assert sizes["Mixed_5b"] == (256, 35, 35)
    assert sizes["Mixed_6a"] == sizes["Mixed_6e"] == (768, 17, 17)
    assert sizes["Mixed_7a"] == (1280, 8, 8)
    assert sizes["Mixed_7c"] == (2048, 8, 8)


def layer(weights: dict[str, Tensor], name: str, inputs: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    values = F.conv2d(inputs, weights[f"{name}.conv.weight"], padding=padding)
    moments = (weights[f"{name}.bn.running_mean"], weights[f"{name}.bn.running_var"])
    return F.relu(
        F.batch_norm(values, *moments, weights[f"{name}.bn.weight"], weights[f"{name}.bn.bias"], eps=0.001)
    )


@pytest.mark.parametrize(("name", "pools_by_maximum"), [("Mixed_7b", False), ("Mixed_7c", True)])
def test_the_last_blocks_are_those_of_the_first_fid(
    model: Inception, name: str, pools_by_maximum: bool
) -> None:
    block = model.get_submodule(name)
    weights = {
        key: torch.rand_like(value) if "bn" in key else value
        for key, value in block.state_dict().items()
        if "num_batches" not in key
    }
    block.load_state_dict(weights, strict=False)
    inputs = torch.randn(2, weights["branch1x1.conv.weight"].shape[1], 5, 5)
    if pools_by_maximum:
        pooled = F.max_pool2d(inputs, 3, 1, 1)
    else:  # the mean over the neighbours that there are
        sums = F.avg_pool2d(inputs, 3, 1, 1, divisor_override=1)
        pooled = sums / F.avg_pool2d(torch.ones_like(inputs), 3, 1, 1, divisor_override=1)
    wide = layer(weights, "branch3x3_1", inputs)
    double = layer(weights, "branch3x3dbl_2", layer(weights, "branch3x3dbl_1", inputs), (1, 1))
    expected = torch.cat(
        [
            layer(weights, "branch1x1", inputs),
            layer(weights, "branch3x3_2a", wide, (0, 1)),
            layer(weights, "branch3x3_2b", wide, (1, 0)),
            layer(weights, "branch3x3dbl_3a", double, (0, 1)),
            layer(weights, "branch3x3dbl_3b", double, (1, 0)),
            layer(weights, "branch_pool", pooled),
        ],
        dim=1,
    )
    with torch.inference_mode():
        assert torch.allclose(block(inputs), expected, rtol=1e-4, atol=1e-5)


def test_average_pooling_leaves_the_border_out(model: Inception) -> None:
    ones = torch.ones(1, 1, 4, 4)
    for name in ("Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7b"):
        assert torch.equal(model.get_submodule(name)._pool(ones), ones)


def test_features_are_those_of_the_file_on_resized_pictures(model: Inception, tmp_path: Path) -> None:
    torch.save(file_of(model), tmp_path / FILE)
    loaded = extractor(f"inception:{tmp_path / FILE}")
    assert loaded.name.startswith("inception-")
    assert not isinstance(loaded, ImageTextExtractor)
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    features = loaded.features(images)
    assert (features.shape, features.dtype) == ((2, 2048), torch.float32)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    resized = F.interpolate(pixels, (299, 299), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        assert torch.allclose(features, model(2 * resized - 1), rtol=1e-3, atol=1e-5)


def test_a_file_that_does_not_fit_is_refused(model: Inception, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"are missing; fetch {FILE}"):
        load_inception(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"no pickle")
    with pytest.raises(WeightsError, match="are corrupt"):
        load_inception(tmp_path / FILE)
    weights = file_of(model)
    weights["Mixed_7c.branch_pool.conv.weight"] = torch.zeros(192, 2048, 3, 3)
    del weights["Conv2d_1a_3x3.bn.bias"]
    torch.save(weights, tmp_path / FILE)
    with pytest.raises(
        WeightsError, match=r"not fit: Conv2d_1a_3x3.bn.bias, Mixed_7c.branch_pool.conv.weight; give"
    ):
        load_inception(tmp_path / FILE)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": Malicious()}, tmp_path / FILE)
    with pytest.raises(WeightsError, match="are corrupt"):
        load_inception(tmp_path / FILE)
