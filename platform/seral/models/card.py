"""The card of a final model: README.md by the standard of the Hugging Face Hub, and its figures as JSON.

Speakers are named in the figures, where an erasure takes them out, and never in the card, which is to be published.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ser_models.checksums import SUMS
from ser_models.encoders import EMBEDDED
from seral import storage
from seral.features.precomputed import is_precomputed, read_facts
from seral.loop.options import LoopOptions
from seral.models.decision import decide
from seral.models.fold_models import FoldModel
from seral.models.prediction import FIGURES
from seral.models.results import FEWEST, GROUPS, UNKNOWN, Judged
from seral.pool.ids import one_array, positions
from seral.versions import __version__

CARD = "README.md"
SCORES = {"uar": ("recall", "UAR", "unweighted average recall"), "ccc": ("ccc", "CCC", "mean concordance correlation")}
"""Score -> its name on the Hub, its name, and in words."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Facts of a final model, before they are put into the words of a card."""

    task: LoopOptions
    """The options of the run, with the settings that its folds chose."""
    models: Sequence[FoldModel]
    metadata: pa.Table
    """Metadata of the utterances that could take part."""
    labelled: pa.Table
    """The labels that were learnt, schema.label_schema."""
    judged: Judged
    strategies: Mapping[str, int]
    """Strategy -> picks; nothing where all labels were there."""
    protocol: str
    licence: str | None
    data_licences: Mapping[str, str]
    accuracy: float
    """Share of right answers that the threshold is chosen for."""


def write_card(folder: str, facts: CardFacts) -> dict[str, Any]:
    """Write README.md and card.json to the folder of a model; returns the figures."""
    figures = figures_of(facts)
    content = card_text(figures).encode()
    storage.write_json(storage.join(folder, FIGURES), figures)
    storage.write_bytes(storage.join(folder, CARD), content)
    line = f"{hashlib.sha256(content).hexdigest()}  {CARD}\n"
    storage.write_bytes(storage.join(folder, SUMS), line.encode())
    return figures


def figures_of(facts: CardFacts) -> dict[str, Any]:
    """Everything that a card says, as plain values; scores and recalls from 0 to 1, None = no interval."""
    task, judged = facts.task, facts.judged
    return {
        "seral": __version__,
        "encoder": {
            "name": _short(task.encoder),
            "licence": encoder_licence(task.encoder),
            "computed_elsewhere": is_precomputed(task.encoder),
        },
        "text_encoder": None if task.text_encoder is None else _short(task.text_encoder),
        "classes": list(task.classes),
        "dimensions": list(task.dimensions),
        "protocol": facts.protocol,
        "licence": facts.licence,
        "labels": _labels(facts),
        "settings": {
            "adapter": task.finetune.adapter,
            "normalise": task.finetune.head.normalise,
            "epochs": None if task.finetune.frozen or task.finetune.steps else task.finetune.epochs,
            "tapt": task.tapt is not None,
            "source_corpora": task.source_corpora or [],
        },
        "fold_models": {
            "count": len(facts.models),
            "folds": len({model.fold for model in facts.models}),
            "labels": float(np.mean([model.labels for model in facts.models])),
        },
        "expected": judged.expected(),
        "decision": decide(judged, facts.accuracy),
        "by_class": judged.by_class(),
        **{f"by_{group}": judged.by(group) for group in GROUPS},
        "fewest": FEWEST,
    }


def _labels(facts: CardFacts) -> dict[str, Any]:
    """Counts of the labels that were learnt: whose, of what, for how much speech."""
    rows = facts.metadata.take(
        positions(one_array(facts.labelled["utterance_id"]), one_array(facts.metadata["utterance_id"]))
    )
    corpora = Counter(rows["corpus"].to_pylist())
    return {
        "count": rows.num_rows,
        "of": facts.metadata.num_rows,
        "minutes": float(np.asarray(rows["duration_s"], np.float64).sum() / 60),
        "speakers": len(set(zip(rows["corpus"].to_pylist(), rows["speaker"].to_pylist(), strict=True))),
        "from": "people" if facts.task.people is not None else "gold",
        "strategies": dict(facts.strategies),
        "classes": _counts(facts.labelled["emotion"].to_pylist(), "shares alone") if facts.task.classes else {},
        "corpora": [
            {"corpus": name, "count": count, "licence": facts.data_licences.get(name)}
            for name, count in sorted(corpora.items())
        ],
        **{f"{name}s": _counts(rows[name].to_pylist(), UNKNOWN) for name in ("language", "gender", "style")},
    }


def _counts(values: Sequence[str | None], without: str) -> dict[str, int]:
    """Value -> how often it is there, by name; `without` where there is none."""
    return dict(sorted(Counter(without if value is None else value for value in values).items()))


def card_text(figures: Mapping[str, Any]) -> str:
    """README.md by figures: YAML for the Hub, then text for people."""
    templates = Environment(
        loader=PackageLoader("seral.models", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown
    )
    templates.filters |= {"score": _score, "interval": _interval}
    by_speaker = sorted(figures["by_speaker"], key=lambda row: (row["value"], row["clips"]))
    speakers = [row["value"] for row in by_speaker]
    _, short, words = SCORES[figures["expected"]["metric"]]
    text = templates.get_template("card.md.j2").render(
        **figures,
        short=short,
        words=words,
        speaker_range=[speakers[0], float(np.median(speakers)), speakers[-1]],
        ranked_speakers=by_speaker,
        groups=[group for group in GROUPS if group != "speaker"],
        rows_by={group: figures[f"by_{group}"] for group in GROUPS},
    )
    return str(ModelCard(f"---\n{_front_matter(figures).to_yaml()}\n---\n\n{text}"))


def _front_matter(figures: Mapping[str, Any]) -> ModelCardData:
    """The part of a card that the Hub reads."""
    metric, short, words = SCORES[figures["expected"]["metric"]]
    corpora = ", ".join(row["corpus"] for row in figures["labels"]["corpora"])
    result = EvalResult(
        task_type="audio-classification",
        task_name="Speech emotion recognition",
        dataset_type="+".join(row["corpus"] for row in figures["labels"]["corpora"]),
        dataset_name=f"{corpora}: speakers that were not heard ({figures['protocol']})",
        metric_type=metric,
        metric_name=f"{short} ({words})",
        metric_value=round(figures["expected"]["value"], 4),
    )
    encoder = figures["encoder"]["name"]
    return ModelCardData(
        model_name=f"Speech emotion recognition, {corpora}",
        language=sorted(set(figures["labels"]["languages"]) - {UNKNOWN}) or None,
        license=figures["licence"],
        library_name="seral",
        pipeline_tag="audio-classification",
        tags=["speech", "speech-emotion-recognition", "active-learning", "seral"],
        base_model=encoder if "/" in encoder else None,
        metrics=[metric],
        eval_results=[result],
    )


def encoder_licence(encoder: str) -> str | None:
    """The licence that the card of an encoder names, of a folder or one that comes with seral; None where none does."""
    if encoder in EMBEDDED:
        with as_file(files("ser_models.encoders") / "seral-tiny" / CARD) as card:
            return _licence_in(card)
    return _licence_in(Path(encoder) / CARD)


def _licence_in(card: Path) -> str | None:
    return ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None


def _short(encoder: str) -> str:
    """The name of an encoder, or of what computed its features; of a folder its last part: where it lies is nobody's
    business."""
    if is_precomputed(encoder):
        return str(read_facts(encoder)["made_by"])
    return Path(encoder).name if Path(encoder).is_dir() else encoder


def _score(value: float, metric: str = "uar") -> str:
    return f"{100 * value:.1f} %" if metric == "uar" else f"{value:.3f}"


def _interval(row: Mapping[str, Any], metric: str = "uar") -> str:
    """The interval of a row in words, a dash where it has none."""
    return "–" if row["low"] is None else f"{_score(row['low'], metric)} to {_score(row['high'], metric)}"
