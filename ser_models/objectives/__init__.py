"""Task-adaptive pretraining: continue self-supervised learning on the unlabelled audio of the task.

Li et al. 2023, AFTER, arXiv 2310.00283 (section 3.1). One objective a family of encoders, all behind `Objective`.
Differs from the paper: it covers wav2vec 2.0; what the other families do is of our choosing.
"""

from __future__ import annotations

from ser_models.objectives.batches import batches_by_seconds, random_crop
from ser_models.objectives.contrastive import Wav2Vec2Objective, pretraining_heads
from ser_models.objectives.masked_clusters import ClusterObjective, ClusterTargets, assign_clusters
from ser_models.objectives.objective import Objective, check_adapter, perplexity
from ser_models.objectives.options import TaptOptions, gumbel_temperature_at, learning_rate_at
from ser_models.objectives.store import load_objective, save_objective
from ser_models.objectives.surprisal import surprisal
from ser_models.objectives.training import average_gradients, held_out_scores, tapt_optimizer, tapt_step

__all__ = [
    "OBJECTIVES",
    "ClusterObjective",
    "ClusterTargets",
    "Objective",
    "TaptOptions",
    "Wav2Vec2Objective",
    "assign_clusters",
    "average_gradients",
    "batches_by_seconds",
    "check_adapter",
    "gumbel_temperature_at",
    "held_out_scores",
    "learning_rate_at",
    "load_objective",
    "perplexity",
    "pretraining_heads",
    "random_crop",
    "save_objective",
    "surprisal",
    "tapt_optimizer",
    "tapt_step",
]

OBJECTIVES: dict[str, type[Wav2Vec2Objective] | type[ClusterObjective]] = {
    "wav2vec2": Wav2Vec2Objective,
    "hubert": ClusterObjective,
    "wavlm": ClusterObjective,
    "data2vec-audio": ClusterObjective,
    "whisper": ClusterObjective,
    "moonshine": ClusterObjective,
}
"""Family of encoders -> the objective its pretraining is continued with: `(encoder, options, generator)`."""
