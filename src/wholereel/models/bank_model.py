"""A clip model that also reads a bank of features of the whole video, made beforehand by a frozen model.

Source: arXiv 1812.05038 (long-term feature banks) and facebookresearch/video-long-term-feature-banks. A classifier of
the clip's features S joined to what it makes of the bank, FBO(S, L), is the sum of one of each; so the clip model keeps
its own, and the bank's begins at zero (our choice): a trained clip model says at first what it said before.
Extra axes: M entries of a video's bank, K classes.
Not here: the operators (`layers/feature_bank.py`).
"""

from __future__ import annotations

from torch import Tensor, nn

from wholereel import config
from wholereel.batches import Bank
from wholereel.layers.feature_bank import FeatureBankOperator
from wholereel.memory.state import VideoState
from wholereel.models.clip_model import ClipModel
from wholereel.models.video_model import Summary, VideoModel

__all__ = ["NO_BANK", "BankModel"]

NO_BANK = "this model reads a bank of features of each video: give it one (data.bank, made by an Extract stage)"


class BankModel(VideoModel):
    """Clips are judged one by one, each with the bank of its video.

    Args:
        clip_model: with its classifier.
        bank: settings of the operator.
    Raises: ValueError: settings that cannot be.
    """

    def __init__(self, clip_model: ClipModel, bank: config.BankHead) -> None:
        super().__init__(clip_model)
        self.bank = bank
        self.operator = FeatureBankOperator(
            bank.kind,
            clip_model.num_features,
            clip_model.num_features if bank.features is None else bank.features,
            width=bank.width,
            layers=bank.layers,
            dropout=bank.dropout,
        )
        self.bank_fc = nn.Linear(self.operator.out_dim, clip_model.num_classes, bias=False)
        nn.init.zeros_(self.bank_fc.weight)

    def rebuilt(self, clip_model: ClipModel, memory: config.Memory | None) -> VideoModel:
        """The same head on another clip model.

        Raises: ValueError: a memory: the bank is one.
        """
        if memory is not None:
            raise ValueError("a model that reads a bank has no memory blocks")
        return BankModel(clip_model, self.bank)

    def forward(
        self,
        clips: Tensor,
        state: VideoState | None = None,
        valid_BN: Tensor | None = None,
        *,
        order_BN: Tensor | None = None,
        bank: Bank | None = None,
    ) -> tuple[Tensor, VideoState]:
        """Logits of clips, see `VideoModel.forward`.

        Args:
            bank: of the clips' videos.
        Raises: ValueError: no bank.
        """
        clips_BNCTHW = clips[:, None] if clips.ndim == 5 else clips
        x_BNCTHW, state = self._through_blocks(clips_BNCTHW, state, valid_BN, order_BN)
        logits_BNK = self._judged(x_BNCTHW, bank)
        return logits_BNK if clips.ndim == 6 else logits_BNK[:, 0], state

    def read_with_bank(self, summary: Summary, bank: Bank | None) -> Tensor:
        """Logits `(B, N, K)` from summaries of clips (`summarise`).

        Raises: ValueError: no bank.
        """
        weights = next(self.clip_model.parameters())
        return self._judged(summary.pooled_BD[..., None, None, None].to(weights.dtype), bank)

    def _judged(self, x_BNCTHW: Tensor, bank: Bank | None) -> Tensor:
        if bank is None:
            raise ValueError(NO_BANK)
        pooled_LD = self.clip_model.pool(x_BNCTHW.flatten(0, 1))
        pooled_BND = pooled_LD.unflatten(0, x_BNCTHW.shape[:2])
        found_BNQ = self.operator(pooled_BND, bank.entries_BME, bank.inside_BNM)
        own_BNK = self.clip_model.classify(pooled_BND)
        logits_BNK: Tensor = own_BNK + self.bank_fc(self.clip_model.dropout(found_BNQ))
        return logits_BNK
