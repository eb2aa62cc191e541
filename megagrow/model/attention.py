"""Core attention on ``scaled_dot_product_attention``, for where Transformer Engine is absent.

And self-attention with the rotary frequencies of Llama 3.1, for everywhere.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megagrow.errors import LayoutError

ROTARY_LENGTH = 8192
"""Tokens that a model was trained on before its rotary frequencies were scaled."""

ROTARY_SLOW, ROTARY_FAST = 1.0, 4.0
"""Turns within `ROTARY_LENGTH` below which a frequency is scaled whole, above which not at all."""


class ScaledRotarySelfAttention(SelfAttention):
    """Self-attention whose rotary frequencies are scaled as in Llama 3.1.

    The angles that megatron-core hands to every layer are multiplied; see
    :func:`scaled_frequencies`. It takes a config with ``rotary_base`` and ``rotary_scaling``, and
    otherwise what ``SelfAttention`` takes.
    """

    def __init__(self, config: TransformerConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        exponent = torch.arange(0, config.kv_channels, 2, dtype=torch.float32) / config.kv_channels
        frequencies = 1.0 / config.rotary_base**exponent
        ratio = scaled_frequencies(frequencies, config.rotary_scaling) / frequencies
        # No buffer: that would be rounded to bf16 with the model.
        self.rotary_ratio = torch.cat((ratio, ratio))

    def forward(
        self, *arguments: Any, rotary_pos_emb: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """As ``SelfAttention``, with the angles ``[s, 1, 1, head dimension]`` scaled."""
        if rotary_pos_emb is not None:
            self.rotary_ratio = self.rotary_ratio.to(rotary_pos_emb.device)
            rotary_pos_emb = rotary_pos_emb * self.rotary_ratio
        found: tuple[Tensor, Tensor] = super().forward(
            *arguments, rotary_pos_emb=rotary_pos_emb, **options
        )
        return found


def scaled_frequencies(frequencies: Tensor, factor: float) -> Tensor:
    """Rotary frequencies (radians per token) as Llama 3.1 scales them (arXiv 2407.21783).

    Those with at most `ROTARY_SLOW` turns in `ROTARY_LENGTH` tokens are divided by ``factor``,
    those with `ROTARY_FAST` and more stay, and between them the share that stays grows linearly.
    """
    turns = ROTARY_LENGTH * frequencies / (2 * math.pi)
    stays = ((turns - ROTARY_SLOW) / (ROTARY_FAST - ROTARY_SLOW)).clamp(0, 1)
    return frequencies * (stays + (1 - stays) / factor)


class ScaledDotProductAttention(MegatronModule):
    """Causal attention of each query head over its key/value group, without a score matrix.

    Takes the place of megatron-core's ``DotProductAttention``: the same constructor and call.
    It owns no parameters. PyTorch's fused kernels (flash on CPU and GPU) take the heads as
    strided views, so queries, keys and values are never copied into another layout.

    Args:
        config: Sizes, dropout and whether the sequence is split.
        layer_number: Number of the layer, from 1 (unused).
        attn_mask_type: ``causal``, or ``no_mask``.
        attention_type: ``self`` (unused).
        attention_dropout: Probability that an attention weight is dropped; None: the config's.
        softmax_scale: Factor on the scores; None: ``1 / sqrt(head dimension)``.
        cp_comm_type: Unused: there is no context parallelism here.
        pg_collection: Process groups (unused: attention is local to the heads of a rank).

    Raises:
        LayoutError: the config asks for something that only Transformer Engine has.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        if config.context_parallel_size != 1:
            raise LayoutError(
                f"context_parallel_size={config.context_parallel_size}: attention over a split "
                "sequence needs Transformer Engine; install it or leave context parallelism out."
            )
        self.attn_mask_type = attn_mask_type
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> Tensor:
        """Attend.

        Args:
            query: ``[sq, b, np, hn]``: positions, sequences, this rank's heads, head dimension.
            key: ``[sk, b, ng, hn]``; ``np`` is a multiple of ``ng``, and head ``i`` uses group
                ``i // (np / ng)``. With ``sk > sq`` the queries are the last positions.
            value: ``[sk, b, ng, hn]``.
            attention_mask: Ignored: the mask type says it all.
            attn_mask_type: Overrides the constructor's.
            attention_bias: Must be None.
            packed_seq_params: Must be None.

        Returns:
            ``[sq, b, np * hn]``.

        Raises:
            NotImplementedError: another mask type, an attention bias, or packed sequences.
        """
        mask_type = attn_mask_type or self.attn_mask_type
        if mask_type not in (AttnMaskType.causal, AttnMaskType.no_mask):
            raise NotImplementedError(f"attention mask {mask_type} needs Transformer Engine.")
        if attention_bias is not None or packed_seq_params is not None:
            raise NotImplementedError("attention bias and packing need Transformer Engine.")
        length, batch = query.shape[:2]
        context = self._attend(
            query.permute(1, 2, 0, 3),
            key.permute(1, 2, 0, 3),
            value.permute(1, 2, 0, 3),
            causal=mask_type == AttnMaskType.causal,
        )
        # [b, np, sq, hn] -> [sq, b, np * hn]
        return context.permute(2, 0, 1, 3).reshape(length, batch, -1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
        queries, keys = query.size(2), key.size(2)
        dropout = self.dropout if self.training else 0.0
        repeats = query.size(1) // key.size(1)
        if repeats > 1 and query.is_cuda and query.dtype == torch.float32:
            # CUDA's only fused fp32 kernel cannot share groups; without this, scores are stored.
            key, value = (groups.repeat_interleave(repeats, 1) for groups in (key, value))
            repeats = 1
        mask = None
        if causal and queries != keys:
            # Generation with a cache: SDPA's own causal mask would align the first positions.
            causal = False
            if queries > 1:
                mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
                mask = mask.tril(keys - queries)
        with self._random_state(dropout):
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal,
                scale=self.softmax_scale,
                enable_gqa=repeats > 1,
            )

    def _random_state(self, dropout: float) -> AbstractContextManager[None]:
        # Ranks that hold different heads must drop out different weights. With a split sequence
        # megatron-core has already entered the tracker for the whole layer.
        if dropout == 0.0 or self.config.sequence_parallel:
            return nullcontext()
        context: AbstractContextManager[None] = tensor_parallel.get_cuda_rng_tracker().fork()
        return context
