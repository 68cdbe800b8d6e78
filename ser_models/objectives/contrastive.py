"""wav2vec 2.0's own objective: tell the quantised frame behind a mask from other frames of the clip.

Baevski et al. 2020, arXiv 2006.11477, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ser_models.encoders import SpeechEncoder
from ser_models.encoders.encoder import prefix_mask, quiet_transformers
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder
from ser_models.objectives.masks import sample_distractors
from ser_models.objectives.objective import Objective, dropout_from, perplexity
from ser_models.objectives.options import MaskedPredictionOptions, gumbel_temperature_at

# B clips · S samples · T frames · F real frames of the whole batch · M masked frames · K distractors
# D encoder width · E conv features · P projection · G codebook groups · V codewords per group

HEAD_PREFIXES = ("quantizer.", "project_hid.", "project_q.")


class ContrastiveObjective(Objective):
    """wav2vec 2.0's contrastive and diversity losses.

    Quantizer and projections carry the names of transformers' `Wav2Vec2ForPreTraining`; `heads` takes its weights
    (see `pretraining_heads`), without them they start from `generator`.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        options: MaskedPredictionOptions,
        generator: torch.Generator,
        heads: Mapping[str, Tensor] | None = None,
    ) -> None:
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

        if not isinstance(encoder, Wav2Vec2Encoder) or encoder.family != "wav2vec2":
            raise ValueError(f"the contrastive objective expects a wav2vec2 encoder, got {encoder.family}")
        super().__init__(encoder, options, generator)
        config: Any = encoder.model.config
        quantizer: Any = Wav2Vec2GumbelVectorQuantizer  # Any: transformers leaves its constructor unannotated
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; replaced below
            self.quantizer: Any = quantizer(config)
            self.project_hid = nn.Linear(config.hidden_size, config.proj_codevector_dim)
            self.project_q = nn.Linear(config.codevector_dim, config.proj_codevector_dim)
        self._draw_heads(generator)
        if heads is not None:
            self._load_heads(heads)

    def _loss(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator, step: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Contrastive and diversity losses, each a mean over the masked frames.

        `L_m = -log exp(cos(c_t, q_t)/κ) / Σ_{q̃} exp(cos(c_t, q̃)/κ)`, `L_d = (GV - perplexity) / GV`,
        loss = L_m + 0.1 · L_d.
        """
        logits_MK, _, soft_MGV = self._contrast(wave_BS, length_B, hidden_BT, rng, step)
        contrastive = functional.cross_entropy(logits_MK, logits_MK.new_zeros(len(logits_MK), dtype=torch.long))
        share_GV = soft_MGV.mean(0)
        diversity = (share_GV.numel() - perplexity(share_GV)) / share_GV.numel()
        mean = {
            "loss": contrastive + self.options.diversity_weight * diversity,
            "contrastive": contrastive.detach(),
            "diversity": diversity.detach(),
            "accuracy": (logits_MK.argmax(1) == 0).float().mean(),
        }
        return mean, {"perplexity": share_GV.detach()}

    @property
    def units(self) -> int:
        """Codewords of all groups."""
        return int(self.quantizer.num_groups * self.quantizer.num_vars)

    def frame_losses(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Contrastive loss of every hidden frame (M,) and its codewords (M, G), numbered over all groups."""
        logits_MK, code_MG, _ = self._contrast(wave_BS, length_B, hidden_BT, rng, self.options.steps)
        loss_M = logits_MK.logsumexp(1) - logits_MK[:, 0]
        return loss_M, code_MG + self.quantizer.num_vars * torch.arange(code_MG.shape[1], device=code_MG.device)

    def _contrast(
        self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, rng: np.random.Generator, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of every hidden frame: similarities (M, 1 + K) over κ, codewords (M, G), their probabilities (M, G, V)."""
        frames_B = self.encoder.frames(length_B)
        frames = frames_B.tolist()
        distractors = [
            sample_distractors(np.flatnonzero(row), count, self.options.distractors, rng) if row.any() else None
            for row, count in zip(hidden_BT.cpu().numpy(), frames, strict=True)
        ]
        noise = torch.Generator(wave_BS.device).manual_seed(int(rng.integers(2**62)))
        real_BT = prefix_mask(frames_B, hidden_BT.shape[1])
        with dropout_from(int(rng.integers(2**62)), wave_BS.device):
            context_BTP, features_BTE = self._run(wave_BS, length_B, hidden_BT)
        temperature = gumbel_temperature_at(step, self.options)
        code_FG, quantized_FP, soft_FGV = self._quantize(features_BTE[real_BT], temperature, noise)
        logits_MK = _logits(context_BTP, hidden_BT, quantized_FP, code_FG, frames, distractors)
        hidden_F = hidden_BT[real_BT]
        return logits_MK / self.options.logit_temperature, code_FG[hidden_F], soft_FGV[hidden_F]

    def _run(self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts of the masked clips (B, T, P) and the normalised conv features of the whole ones (B, T, E)."""
        encoder: Any = self.encoder  # a Wav2Vec2Encoder: checked when this was made
        frame_BTD, features_BTE = encoder.model.feature_projection(encoder.convolve(wave_BS, length_B))
        return self.project_hid(self._contextualise(frame_BTD, length_B, hidden_BT)), features_BTE

    def _quantize(
        self, features_FE: Tensor, temperature: float, noise: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Chosen codewords (F, G), projected codevectors (F, P) and noise-free probabilities (F, G, V).

        Straight-through Gumbel softmax in training, the most likely codeword in evaluation.
        """
        groups, size = self.quantizer.num_groups, self.quantizer.num_vars
        logits_FGV = self.quantizer.weight_proj(features_FE).float().view(-1, groups, size)
        scores = logits_FGV
        if self.training:
            exponential = torch.empty_like(logits_FGV).exponential_(generator=noise)
            scores = (logits_FGV - exponential.clamp_min(1e-20).log()) / temperature
        code_FG = scores.argmax(-1)
        soft = torch.softmax(scores, -1)
        hard = functional.one_hot(code_FG, size).to(soft)
        choice = hard + soft - soft.detach() if self.training else hard
        codebook_GVQ = self.quantizer.codevectors.view(groups, size, -1)
        codevector = torch.einsum("fgv,gvq->fgq", choice, codebook_GVQ.float()).flatten(1)
        return code_FG, self.project_q(codevector), torch.softmax(logits_FGV, -1)

    def heads(self) -> dict[str, Tensor]:
        """Quantizer and projections, by the names of `Wav2Vec2ForPreTraining`."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(HEAD_PREFIXES)}

    @torch.no_grad()
    def _draw_heads(self, generator: torch.Generator) -> None:
        self.quantizer.weight_proj.weight.normal_(generator=generator)
        self.quantizer.weight_proj.bias.zero_()
        self.quantizer.codevectors.uniform_(generator=generator)
        for projection in (self.project_hid, self.project_q):
            limit = projection.in_features**-0.5
            projection.weight.uniform_(-limit, limit, generator=generator)
            projection.bias.uniform_(-limit, limit, generator=generator)

    def _load_heads(self, heads: Mapping[str, Tensor]) -> None:
        expected = set(self.heads())
        if set(heads) != expected:
            raise ValueError(f"pretraining heads must be {sorted(expected)}, got {sorted(heads)}")
        self.load_state_dict(dict(heads), strict=False)


def pretraining_heads(source: str) -> dict[str, Tensor] | None:
    """Quantizer and projections of a wav2vec 2.0 folder or hub id; None where the checkpoint came without them."""
    from transformers import Wav2Vec2ForPreTraining

    pretraining: Any = Wav2Vec2ForPreTraining  # Any: its annotation ignores output_loading_info
    with quiet_transformers():
        model, report = pretraining.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    if any(name.startswith(HEAD_PREFIXES) for name in report["missing_keys"]):
        return None
    return {name: value for name, value in model.state_dict().items() if name.startswith(HEAD_PREFIXES)}


def _logits(
    context_BTP: Tensor,
    hidden_BT: Tensor,
    quantized_FP: Tensor,
    code_FG: Tensor,
    frames: Sequence[int],
    distractors: Sequence[NDArray[np.int64] | None],
) -> Tensor:
    """Cosines of every masked frame's context with its own codevector (column 0) and its distractors', (M, 1 + K).

    One product per clip and a look-up, instead of gathering K vectors for every masked frame. A distractor that is the
    same codeword as the target is no distractor: -inf.
    """
    rows = []
    context_BTP = functional.normalize(context_BTP.float(), dim=-1)
    unit_FP = functional.normalize(quantized_FP.float(), dim=-1)
    unit = torch.split(unit_FP, list(frames))
    code = torch.split(code_FG, list(frames))
    for context_TP, hidden_T, unit_TP, code_TG, other in zip(
        context_BTP, hidden_BT, unit, code, distractors, strict=True
    ):
        if other is None:
            continue
        own_M = torch.nonzero(hidden_T).flatten()
        other_MK = torch.from_numpy(other).to(own_M.device)
        cosine_MT = context_TP[own_M] @ unit_TP.T
        same_MK = (code_TG[other_MK] == code_TG[own_M][:, None]).all(-1)
        negative_MK = cosine_MT.gather(1, other_MK).masked_fill(same_MK, -torch.inf)
        rows.append(torch.cat([cosine_MT.gather(1, own_M[:, None]), negative_MK], 1))
    return torch.cat(rows)
