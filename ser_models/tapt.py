"""Task-adaptive pretraining: continue wav2vec 2.0's own objective on the unlabelled audio of the task.

Li et al. 2023, AFTER, arXiv 2310.00283 (section 3.1); the objective is Baevski et al. 2020, arXiv 2006.11477.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

from ser_models.encoders import SpeechEncoder
from ser_models.encoders.convolutions import standardise_clips
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, no_progress_bars, prefix_mask
from ser_models.spans import MASKS, sample_distractors, span_mask

# B clips · S samples · T frames · F real frames of the whole batch · M masked frames · K distractors
# D encoder width · E conv features · P projection · G codebook groups · V codewords per group

SUPPORTED = ("wav2vec2",)
HEAD_PREFIXES = ("quantizer.", "project_hid.", "project_q.")


@dataclass(frozen=True, kw_only=True)
class TaptOptions:
    """How task-adaptive pretraining runs. Defaults are AFTER's, except `steps`, for pools of an hour or so."""

    steps: int = 2000
    """Updates; AFTER used 20 000 on IEMOCAP."""
    seconds_per_batch: float = 250.0
    crop_s: float = 10.0
    """Longer clips are cropped at a random place."""
    mask: str = "after"
    """A name in MASKS."""
    learning_rate: float = 1e-4
    warmup_steps: int = 100
    flat_share: float = 0.05
    """Share of `steps` at the full rate after the warm-up, before the linear way down to 0."""
    distractors: int = 100
    logit_temperature: float = 0.1
    """κ of the contrastive loss."""
    diversity_weight: float = 0.1
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995
    """Factor on the Gumbel temperature per step."""
    freeze_front: bool = True
    """Keep the convolutional front as it is."""

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"unknown mask {self.mask!r}; known: {', '.join(sorted(MASKS))}")
        climb = self.warmup_steps + self.flat_share * self.steps
        if climb >= self.steps:
            raise ValueError(f"warm-up and flat part take {climb:.0f} steps of {self.steps}: lower warmup_steps")
        if self.crop_s > self.seconds_per_batch:
            raise ValueError(f"a clip of {self.crop_s} s does not fit a batch of {self.seconds_per_batch} s")
        if self.distractors < 1:
            raise ValueError(f"distractors must be at least 1, got {self.distractors}")


def learning_rate_at(step: int, options: TaptOptions) -> float:
    """Rate of update `step` (from 0): linear warm-up, flat part, linear to 0 at `options.steps`."""
    flat_end = options.warmup_steps + options.flat_share * options.steps
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    left = (options.steps - step) / (options.steps - flat_end)
    return options.learning_rate * min(1.0, max(0.0, left))


def gumbel_temperature_at(step: int, options: TaptOptions) -> float:
    """Temperature of the quantizer at update `step`: exponential decay from start to end."""
    return max(options.gumbel_start * options.gumbel_decay**step, options.gumbel_end)


def random_crop(wave_S: NDArray[np.float32], crop_s: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """At most `crop_s` seconds of a 16 kHz waveform, from a random place."""
    size = round(crop_s * SAMPLE_RATE_HZ)
    if len(wave_S) <= size:
        return wave_S
    start = int(rng.integers(len(wave_S) - size + 1))
    return wave_S[start : start + size]


def batches_by_seconds(
    duration_N: Sequence[float], options: TaptOptions, rng: np.random.Generator
) -> Iterator[list[int]]:
    """One epoch of row numbers in random order, in batches of at most `seconds_per_batch` of audio after cropping."""
    if len(duration_N) == 0:
        raise ValueError("pretraining needs at least one clip, got none")
    batch: list[int] = []
    seconds = 0.0
    for row in rng.permutation(len(duration_N)).tolist():
        length_s = min(duration_N[row], options.crop_s)
        if batch and seconds + length_s > options.seconds_per_batch:
            yield batch
            batch, seconds = [], 0.0
        batch.append(row)
        seconds += length_s
    yield batch


class Wav2Vec2Objective(nn.Module):
    """wav2vec 2.0's contrastive and diversity losses around an encoder, which is trained in place.

    Quantizer and projections carry the names of transformers' `Wav2Vec2ForPreTraining`; `heads` takes its weights
    (see `pretraining_heads`), without them they start from `generator`. Layer drop is switched off: it leaves
    parameters without a gradient.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        options: TaptOptions,
        generator: torch.Generator,
        heads: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        config: Any = encoder.model.config
        quantizer: Any = Wav2Vec2GumbelVectorQuantizer  # Any: transformers leaves its constructor unannotated
        if config.model_type not in SUPPORTED:
            raise ValueError(
                f"no pretraining objective for {config.model_type!r} yet; supported: {', '.join(SUPPORTED)}"
            )
        config.layerdrop = 0.0
        self.encoder = encoder
        self.options = options
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; replaced below
            self.quantizer: Any = quantizer(config)
            self.project_hid = nn.Linear(config.hidden_size, config.proj_codevector_dim)
            self.project_q = nn.Linear(config.codevector_dim, config.proj_codevector_dim)
        self._draw_heads(generator)
        if heads is not None:
            self._load_heads(heads)
        existing = getattr(encoder.model, "masked_spec_embed", None)
        drawn = torch.rand(config.hidden_size, generator=generator)
        self.mask_embedding = nn.Parameter(drawn) if existing is None else existing
        encoder.model.feature_extractor.requires_grad_(not options.freeze_front)

    def forward(
        self, wave_BS: Tensor, length_B: Tensor, rng: np.random.Generator, *, temperature: float
    ) -> dict[str, Tensor]:
        """Scalars {loss, contrastive, diversity, perplexity, accuracy}, each a mean over the masked frames.

        `L_m = -log exp(cos(c_t, q_t)/κ) / Σ_{q̃} exp(cos(c_t, q̃)/κ)`, `L_d = (GV - perplexity) / GV`,
        loss = L_m + 0.1 · L_d. Masks, distractors, Gumbel noise and dropout all come from `rng`.
        """
        frames_B = self.encoder.frames(length_B)
        frames = frames_B.tolist()
        hidden_np = span_mask(frames, MASKS[self.options.mask], rng)
        if not hidden_np.any():
            raise ValueError(
                f"no clip is long enough for a mask span: the longest of {len(frames)} has {max(frames)} frames"
            )
        distractors = [
            sample_distractors(np.flatnonzero(row), count, self.options.distractors, rng) if row.any() else None
            for row, count in zip(hidden_np, frames, strict=True)
        ]
        noise = torch.Generator(wave_BS.device).manual_seed(int(rng.integers(2**62)))
        hidden_BT = torch.from_numpy(hidden_np).to(wave_BS.device)
        real_BT = prefix_mask(frames_B, hidden_BT.shape[1])
        with _dropout_from(int(rng.integers(2**62)), wave_BS.device):
            context_BTP, features_BTE = self._run(wave_BS, length_B, hidden_BT, real_BT)
        code_FG, quantized_FP, soft_FGV = self._quantize(features_BTE[real_BT], temperature, noise)
        logits_MK = _logits(context_BTP, hidden_BT, quantized_FP, code_FG, frames, distractors)
        logits_MK = logits_MK / self.options.logit_temperature
        contrastive = functional.cross_entropy(logits_MK, logits_MK.new_zeros(len(logits_MK), dtype=torch.long))
        perplexity = _perplexity(soft_FGV[hidden_BT[real_BT]])
        codewords = soft_FGV[0].numel()
        diversity = (codewords - perplexity) / codewords
        return {
            "loss": contrastive + self.options.diversity_weight * diversity,
            "contrastive": contrastive.detach(),
            "diversity": diversity.detach(),
            "perplexity": perplexity.detach(),
            "accuracy": (logits_MK.argmax(1) == 0).float().mean(),
        }

    def heads(self) -> dict[str, Tensor]:
        """Weights of quantizer and projections, to continue from later."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(HEAD_PREFIXES)}

    def _run(self, wave_BS: Tensor, length_B: Tensor, hidden_BT: Tensor, real_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts of the masked clips (B, T, P) and the normalised conv features of the whole ones (B, T, E)."""
        model = self.encoder.model
        if getattr(self.encoder, "normalise", False):
            wave_BS = standardise_clips(wave_BS, length_B)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options.freeze_front):
            conv_BTE = self._front(wave_BS, length_B, hidden_BT.shape[1])
        projected_BTD, features_BTE = model.feature_projection(conv_BTE)
        masked_BTD = torch.where(hidden_BT[..., None], self.mask_embedding.to(projected_BTD.dtype), projected_BTD)
        context_BTD = model.encoder(masked_BTD, attention_mask=real_BT).last_hidden_state
        return self.project_hid(context_BTD), features_BTE

    def _front(self, wave_BS: Tensor, length_B: Tensor, frames: int) -> Tensor:
        """Convolutional features (B, T, E). A front with a norm over time sees clips one by one, without padding."""
        front = self.encoder.model.feature_extractor
        lengths = length_B.tolist()
        if not self.encoder.equal_lengths_only or len(set(lengths)) == 1:
            features: Tensor = front(wave_BS[:, : max(lengths)]).transpose(1, 2)
            return features
        alone = [front(wave_S[None, :length])[0].T for wave_S, length in zip(wave_BS, lengths, strict=True)]
        return torch.stack([functional.pad(one, (0, 0, 0, frames - len(one))) for one in alone])

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
    pretraining: Any = Wav2Vec2ForPreTraining  # Any: its annotation ignores output_loading_info
    with no_progress_bars():
        model, report = pretraining.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    if any(name.startswith(HEAD_PREFIXES) for name in report["missing_keys"]):
        return None
    return {name: value for name, value in model.state_dict().items() if name.startswith(HEAD_PREFIXES)}


def tapt_step(
    objective: Wav2Vec2Objective,
    optimizer: torch.optim.Optimizer,
    wave_BS: Tensor,
    length_B: Tensor,
    *,
    step: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One update at the rate and temperature of `step`; returns the objective's scalars and the rate."""
    rate = learning_rate_at(step, objective.options)
    for group in optimizer.param_groups:
        group["lr"] = rate
    scalars = objective(wave_BS, length_B, rng, temperature=gumbel_temperature_at(step, objective.options))
    loss = scalars["loss"]
    if not bool(torch.isfinite(loss)):
        raise ValueError(
            f"pretraining loss is {float(loss)} at step {step}; lower the learning rate or look for bad audio"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {name: float(value.detach()) for name, value in scalars.items()} | {"learning_rate": rate}


def tapt_optimizer(objective: Wav2Vec2Objective) -> torch.optim.Adam:
    """Adam over everything that is not frozen."""
    return torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=objective.options.learning_rate)


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


def _perplexity(soft_MGV: Tensor) -> Tensor:
    """exp of the entropy of the mean codeword distribution, summed over groups: 2..GV for G = 2."""
    mean_GV = soft_MGV.mean(0)
    return torch.exp(-torch.xlogy(mean_GV, mean_GV).sum(-1)).sum()


@contextmanager
def _dropout_from(seed: int, device: torch.device) -> Iterator[None]:
    """Let the encoder's dropout draw from a seed of ours and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
