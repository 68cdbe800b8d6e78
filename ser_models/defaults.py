"""Defaults of models that options of a training repeat: apart from torch, so that listing options does not load it."""

from __future__ import annotations

MEAN_STD = "mean_std"
"""The pooling of cached features, and of models that choose no other."""
STD_GAIN = 0.4
"""Factor on the standardised pooled standard deviations next to the pooled means, by default. Below 1 it shrinks that
half harder under the same weight penalty; 0.4 did best on EmoDB and RAVDESS."""
DROPOUT = 0.2
"""Dropout probability before each linear layer of a head in training, by default."""
TEXT_GAIN = 0.3
"""Factor on the standardised vector of a transcript, by default. Below 1 it shrinks harder than the audio under the
same weight penalty: it has as many features and says less. 0.3 did best on generated speech, at 1 the words cost more
than they brought."""
CORAL_WEIGHT = 10.0
"""Weight of CORAL beside the cross-entropy."""
CORAL_PROJECTION = 64
"""Directions whose covariances are brought together."""
GROUP_SIZE = 4
"""Layers in a `group` or `top_k`; ours, since the paper gives no size."""
L2 = 0.03
"""Ridge penalty on the weights of a head of dimensions, by default."""
