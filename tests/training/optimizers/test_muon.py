import torch
from torch import nn

from pixart_sigma.training.optimizers.build import build_optimizers
from pixart_sigma.training.optimizers.muon import Muon
from pixart_sigma.training.recipe.process import OptimizerRecipe


def test_filters_are_updated_as_the_matrices_that_they_are() -> None:
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(6, 4, 3, 3))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    ours = Muon([{"params": [filters]}], 0.01, 0.1)
    theirs = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        filters.grad = torch.randn(6, 4, 3, 3)
        matrix.grad = filters.grad.flatten(1).clone()
        gradient = filters.grad
        ours.step()
        theirs.step()
        assert filters.grad is gradient
        assert filters.shape == (6, 4, 3, 3)
    torch.testing.assert_close(filters.flatten(1), matrix, atol=0, rtol=0)


def test_a_weight_without_a_gradient_stays() -> None:
    filters = nn.Parameter(torch.ones(2, 2, 3, 3))
    Muon([{"params": [filters]}], 0.01, 0.0).step()
    assert torch.equal(filters, torch.ones(2, 2, 3, 3))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 8, 3)
        self.middle = nn.Conv2d(8, 8, 3)
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 2, groups=8)
        self.conv_out = nn.Conv2d(8, 3, 3)


def test_the_hidden_convolutions_of_a_model_are_muons() -> None:
    model = Convolutions()
    muon, _ = build_optimizers(model, OptimizerRecipe(kind="muon"))
    assert [weight is model.middle.weight for group in muon.param_groups for weight in group["params"]] == [
        True
    ]
