"""Attention of frames whose scores know how far a key lies from its query.

Dai et al. 2019 (Transformer-XL), section 3.3, as Gulati et al. 2020 (Conformer) use it: the score of query i and key j
is ((q_i + u) k_j + (q_i + v) W r_(i - j)) / sqrt(D), where r are sines and cosines of the distance, u and v learned.

Legend: B batch, T queries, which are the last of the S keys, P = S + T - 1 distances, H heads, D width of a head,
M width of the model.
"""

import math
from typing import final

import torch
from torch import Tensor, nn

from etude.model.layers.attention import attend
from etude.model.layers.dropout import Dropout
from etude.model.layers.growing import SINUSOIDS, GrowthParts, Part, gives, head, heads, of_linear, takes
from etude.model.layers.linear import Linear
from etude.model.layers.masks import HIDDEN, Mask
from etude.model.layers.positions import sinusoids
from etude.model.layers.spec import LayerSpec


def relations(queries: int, keys: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the distances keys - 1 down to 1 - queries, [P, M]."""
    distances_P = torch.arange(keys - 1, -queries, -1, device=like.device)
    return sinusoids(distances_P, width, math.sqrt(0.5), like)


def shifted(scores_BHTP: Tensor, keys: int) -> Tensor:
    """From scores of distances to scores of keys, [B, H, T, S]: row i begins at the entry T - 1 - i.

    Dai et al. 2019, appendix B: a column in front, and the rows cut anew.
    """
    queries, distances = scores_BHTP.shape[-2:]
    padded = nn.functional.pad(scores_BHTP, (1, 0)).flatten(2)
    return padded[:, :, queries:].reshape(*scores_BHTP.shape[:2], queries, distances)[..., :keys]


@final
class RelativeAttention(nn.Module):
    """Attention of a sequence to itself; query, key and value come from one product, in this order."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.projection = Linear(spec.width, 3 * spec.width, parts=3)
        self.relation = Linear(spec.width, spec.width, bias=False)
        self.output = Linear(spec.width, spec.width)
        self.content_bias = nn.Parameter(torch.zeros(spec.width))
        self.distance_bias = nn.Parameter(torch.zeros(spec.width))
        self.dropout = Dropout(spec.attention_dropout, "attention_dropout")

    def reset_parameters(self) -> None:
        """Let every query begin with no preference of its own."""
        nn.init.zeros_(self.content_bias)
        nn.init.zeros_(self.distance_bias)

    def growth_parts(self) -> GrowthParts:
        """Queries, keys and values by heads; sines and cosines of distances."""
        width = self.relation.in_features
        of_heads = heads(self.heads, head(width // self.heads))
        waves = Part(width // 2, "given", obstacle=SINUSOIDS)
        return {
            **of_linear("projection", self.projection, gives(of_heads, of_heads, of_heads), None),
            **of_linear("relation", self.relation, gives(of_heads), takes(waves, waves)),
            **of_linear("output", self.output, None, takes(of_heads)),
            "content_bias": (gives(of_heads),),
            "distance_bias": (gives(of_heads),),
        }

    def forward(self, hidden_BTM: Tensor, relations_PM: Tensor, unseen: Tensor) -> Tensor:
        """[B, T, M] to [B, T, M]; `unseen`, broadcast to [B, H, T, S], is true where a query may not look."""
        query, key, value = self._split(hidden_BTM)
        mask = Mask(self._of_distances(query, relations_PM, key.size(2)).masked_fill(unseen, HIDDEN))
        return self._mixed(query, key, value, mask)

    def advance(
        self, hidden_BTM: Tensor, past: tuple[Tensor, Tensor], relations_PM: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next frames, which see all of themselves and of the past's keys and values; and all keys and values."""
        query, key, value = self._split(hidden_BTM)
        key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        mask = Mask(self._of_distances(query, relations_PM, key.size(2)))
        return self._mixed(query, key, value, mask), (key, value)

    def _split(self, hidden_BTM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = self.projection(hidden_BTM).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _of_distances(self, query_BHTD: Tensor, relations_PM: Tensor, keys: int) -> Tensor:
        relation_HPD = self.relation(relations_PM).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        biased = (query_BHTD + self._bias(self.distance_bias, query_BHTD)) * (query_BHTD.size(-1) ** -0.5)
        return shifted(biased @ relation_HPD.transpose(1, 2), keys)

    def _mixed(self, query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Mask) -> Tensor:
        biased = query_BHTD + self._bias(self.content_bias, query_BHTD)
        mixed_BHTD = attend(biased, key_BHSD, value_BHSD, mask, self.dropout)
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _bias(self, bias_M: Tensor, like: Tensor) -> Tensor:
        return bias_M.to(like.dtype).view(self.heads, 1, -1)
