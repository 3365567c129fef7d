import pytest

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.evaluation.features import extractor


@pytest.mark.parametrize(
    "choice", ["", "inception", "inception:", "clip", "clip:", "pocket:x", "resnet:weights"]
)
def test_an_unknown_choice_is_refused(choice: str) -> None:
    with pytest.raises(InvalidInput, match=r"choose pocket, inception:PATH .* or clip:PATH_OR_ID"):
        extractor(choice)


def test_what_comes_after_the_first_colon_is_the_path() -> None:
    with pytest.raises(WeightsError, match=r"weights C:\\weights.pth are missing"):
        extractor(r"inception:C:\weights.pth")
