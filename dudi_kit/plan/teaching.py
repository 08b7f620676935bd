"""The teacher of a stage as far as it is known before its weights are."""

from typing import NamedTuple

from transformers import PreTrainedConfig

from dudi_kit.data.encode import Encoder
from dudi_kit.plan.models import context_of
from dudi_kit.plan.schema import ModelSource
from dudi_kit.verbalizer.vocabulary.mapping import JointVocabulary, Wish


class Teaching(NamedTuple):
    """The teacher as far as it is known before its weights are."""

    source: ModelSource
    encoder: Encoder
    vocabulary: JointVocabulary
    wish: Wish
    """With the mapping that was picked."""

    config: PreTrainedConfig

    @property
    def context(self) -> int | None:
        """Longest input in tokens, where it is known."""
        return context_of(self.config)
