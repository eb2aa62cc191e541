"""Whether the layers of one model can become those of another. Pure Python."""

from __future__ import annotations

from megagrow.config.schema import WidthConfig
from megagrow.errors import ConfigError
from megagrow.growth.between import deepened_shape, narrowed_shape
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.width.checks import check_width
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape


def check_layers(
    growth: GrowthPlan, width: WidthConfig | None, before: ModelShape, shape: ModelShape
) -> None:
    """Refuses layers that no operator makes of those that they come from.

    Args:
        growth: the change of depth, which mixes no layers.
        width: the change of width; None: layers stay as they are.
        before: the old model.
        shape: the new one.

    Raises:
        ConfigError: with the layer, or the nearest size that can be made.
    """
    deeper = deepened_shape(growth, before, shape)
    if growth.predicted and not before.is_isotropic:
        raise ConfigError(
            "lesa predicts a matrix from those of the neighbours, which must be of one shape, and "
            "with layer_scaling they are not; choose another operator"
        )
    if width is None:
        for layer, (old, new) in enumerate(zip(deeper.layers, shape.layers, strict=True)):
            if old != new:
                raise ConfigError(_other_shape(layer, growth.layer_map[layer], old, new))
        return
    if width.mask_tokens is not None and not (before.is_isotropic and shape.is_isotropic):
        raise ConfigError(
            "width.mask_tokens is one mask for all layers, and with layer_scaling each has other "
            "new channels; remove it"
        )
    if deeper == shape:
        raise ConfigError(
            f"width.operator {width.operator} has nothing to do: every layer keeps its heads and "
            "channels. Give the stage's model other sizes, or remove width"
        )
    narrow = deeper if width.shrink is None else narrowed_shape(deeper, shape)
    try:
        check_width(width.operator, narrow, shape)
    except ConfigError as error:
        if width.shrink is None and _fits_narrowed(width.operator, deeper, shape):
            raise ConfigError(
                f"{error}. Layer-wise scaling makes some layers narrower; set width.shrink "
                "(--shrink) to first to keep the first heads and channels of these"
            ) from None
        raise


def _fits_narrowed(operator: str, deeper: ModelShape, shape: ModelShape) -> bool:
    """Whether it is only what shrinks that an operator cannot do."""
    try:
        check_width(operator, narrowed_shape(deeper, shape), shape)
    except ConfigError:
        return False
    return True


def _other_shape(layer: int, source: int | None, old: LayerShape, new: LayerShape) -> str:
    def sizes(shape: LayerShape) -> str:
        return (
            f"{shape.num_attention_heads} heads in {shape.num_query_groups} groups, FFN "
            f"{shape.ffn_hidden_size}"
        )

    origin = "it is drawn as the old model's layers are, with"
    if source is not None:
        origin = f"layer {source}, which it comes from, has"
    return (
        f"layer {layer} is to have {sizes(new)}, and {origin} {sizes(old)}. To reshape layers, set "
        "an operator in width (width.operator or --width, such as split), and width.shrink "
        "(--shrink) where layers get narrower; or give both models layers that fit, with a table"
    )
