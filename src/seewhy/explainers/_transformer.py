"""What the methods for vision transformers have in common."""

from __future__ import annotations

from torch import Tensor

from seewhy.errors import MissingCapability, NoSpatialOutput
from seewhy.models import GradientModel, Model, TokenModel, Transformer, TransformerModel
from seewhy.types import Note

__all__ = ["bypassed", "for_tokens", "inside"]


def inside(model: Model, inputs: Tensor, method: str) -> Transformer:
    """Returns the transformer in the model, for inputs (N, C, H, W).

    Raises:
        MissingCapability: the backend cannot look inside.
        NoSpatialOutput: there is none, or its tokens do not lie in the image row by row.
    """
    if not isinstance(model, TransformerModel):
        raise MissingCapability(
            f"{method} looks at a transformer's blocks, which {model.name!r} does not show. Load the network as a "
            "torch module, or use RISE or Occlusion."
        )
    return model.transformer(inputs)


def for_tokens(model: Model, inputs: Tensor) -> str:
    """Returns the method for tokens that the model can be asked for."""
    try:
        if isinstance(model, TokenModel):
            model.blocks(inputs)
            return "ViTReciproCAM"
        if isinstance(model, TransformerModel) and model.transformer(inputs).last:
            return "ViTReciproCAM"
    except NoSpatialOutput:
        pass
    return "GradCAM, RISE or Occlusion" if isinstance(model, GradientModel) else "RISE or Occlusion"


def bypassed(body: Transformer) -> tuple[Note, ...]:
    """Says where the head reads the image's tokens themselves, so that attention is not all that counts."""
    if not bool(body.reads[body.prefix :].any()):
        return ()
    text = (
        "The head reads the picture's own tokens: what they tell it without attention is not in this map. "
        "ViTReciproCAM and GradCAM see it."
    )
    return (Note(text=text, kind="head that reads tokens"),)
