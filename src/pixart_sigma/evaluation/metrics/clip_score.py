"""CLIP score: how well pictures fit their prompts, by the cosine of the two embeddings.

Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", with the factor 100 that most
tables of text-to-image models use instead of 2.5. Knows nothing of the model that embeds.
"""

from torch import Tensor
from torch.nn.functional import cosine_similarity


def clip_scores(images: Tensor, texts: Tensor) -> Tensor:
    """Embeddings of N pictures and of their N prompts, both (N, E) → 100 · max(cosine, 0) of each pair: (N) fp64.

    The CLIP score of a set is their mean.
    """
    return 100 * cosine_similarity(images.double().cpu(), texts.double().cpu()).clamp(min=0)
