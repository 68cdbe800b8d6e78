"""Naming schemes: a pattern for paths whose folders and names say what is known of a clip.

A part of a path is a whole folder's name, or what stands between `_`, `-`, `.` and blanks in it or in the file's name.
Words tell it: those of emotions, splits, genders and languages, and numbered speakers and sessions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from seral.corpora.reading.fields import GENDERS, SHARES, SPLITS
from seral.corpora.reading.languages import BY_WORD

EMOTIONS = SHARES | {
    *("amused", "amusement", "anxiety", "anxious", "bored", "disappointed", "disappointment", "disgusted", "elation"),
    *("excitement", "fearful", "frustration", "neutrality", "pleased", "pride", "relief", "scared", "sleepy", "shame"),
    *("surprised", "worried", "unhappy", "ärger", "wut", "angst", "freude", "trauer", "ekel", "langeweile", "colère"),
    *("joie", "tristesse", "peur", "dégoût", "rabbia", "gioia", "tristezza", "paura", "enfado", "alegría", "miedo"),
}
CODES = {
    "ang": "anger", "dis": "disgust", "fea": "fear", "hap": "happiness", "neu": "neutral", "sad": "sadness",
    "sur": "surprise", "bor": "boredom", "cal": "calm", "exc": "excitement", "fru": "frustration", "con": "contempt",
}  # fmt: skip
"""Three letters that names of clips have for emotions."""
SPEAKER = re.compile(r"(speaker|spk|spkr|actor|subject|subj|sub|participant|person|talker|id|s|p|f|m)[_\- ]?\d+")
SESSION = re.compile(r"(session|sess?|dialog(ue)?|dia|recording|rec|call|day|tape)[_\- ]?\d+")
SEPARATORS = re.compile(r"[_\-. ]+")
COVERED = 0.9
"""Share of the files that a scheme has to hold for."""
PART, BETWEEN = r"[^_\-. /]+", r"[_\-. ]+"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A pattern of paths and the words for codes in it."""

    pattern: str
    maps: dict[str, dict[str, str]]
    fields: tuple[str, ...]
    """Our names for its groups."""
    by_folder: bool
    """The last folder alone tells the emotion, in words, and a folder the split: what `audiofolder` reads."""

    @property
    def choices(self) -> dict[str, Any]:
        """Options of a reader."""
        return {"pattern": self.pattern} | ({"maps": self.maps} if self.maps else {})


def find_scheme(sources: Sequence[str]) -> Scheme | None:
    """The scheme of paths below a corpus folder, with their suffixes; None where they tell nothing."""
    levels = [PurePosixPath(source).with_suffix("").parts for source in sources]
    depth, count = Counter(map(len, levels)).most_common(1)[0]
    if count < COVERED * len(levels):
        depth = min(map(len, levels))
    columns = [[level[at - depth] for level in levels] for at in range(depth)]
    parts, words_of = list[str](), dict[str, list[str]]()
    for at, values in enumerate(columns):
        parts.append(_level(values, words_of, is_name=at == depth - 1))
    while len(parts) > 1 and "(?P<" not in parts[0]:
        del parts[0]
    if not words_of:
        return None
    words = sorted(set(words_of.get("emotion", ())))
    codes = {word: CODES[word.lower()] for word in words if word.lower() in CODES}
    maps = {"emotion": codes} if {word.lower() for word in codes} - EMOTIONS else {}
    by_folder = depth > 1 and not maps and {*words_of} <= {"emotion", "split"} and parts[-2] == "(?P<emotion>[^/]+)"
    return Scheme(pattern="/".join(parts), maps=maps, fields=tuple(words_of), by_folder=by_folder)


def _level(values: Sequence[str], words_of: dict[str, list[str]], *, is_name: bool) -> str:
    """The expression of one folder's or the file's name; what it tells goes to `words_of`, our name -> words."""
    kind = None if is_name else _kind(values, words_of)
    if kind is not None:
        words_of[kind] = [*values]
        return f"(?P<{kind}>[^/]+)"
    split = [SEPARATORS.split(value) for value in values]
    size, count = Counter(map(len, split)).most_common(1)[0]
    regular = [tokens for tokens in split if len(tokens) == size]
    if size < 2 or count < COVERED * len(values):
        return "[^/]+"
    kinds: list[str | None] = []
    for at in range(size):
        words = [tokens[at] for tokens in regular]
        kinds.append(kind := _kind(words, words_of))
        if kind is not None:
            words_of[kind] = words
    if not any(kinds):
        return "[^/]+"
    last = max(at for at, kind in enumerate(kinds) if kind)
    tokens = [PART if kind is None else f"(?P<{kind}>{PART})" for kind in kinds[: last + 1]]
    return BETWEEN.join(tokens) + ("[^/]*" if last + 1 < size else "")


def _kind(values: Sequence[str], words_of: dict[str, list[str]]) -> str | None:
    """Our name for what a part tells, if it tells anything that no earlier part told."""
    words = {value.lower() for value in values}
    return next((kind for kind in _kinds(words, len(values)) if kind not in words_of), None)


def _kinds(words: set[str], count: int) -> Iterator[str]:
    emotions = words & (EMOTIONS | CODES.keys())
    if len(emotions) > 1 and 2 * len(emotions) >= len(words):
        yield "emotion"
    if words <= SPLITS.keys():
        yield "split"
    if words <= GENDERS.keys():
        yield "gender"
    if len(words) > 1 and words <= BY_WORD.keys():
        yield "language"
    if all(map(SESSION.fullmatch, words)):
        yield "session"
    # A speaker says more than one thing, and a number alone is one only where it is as long as a speaker's is.
    if 2 * len(words) <= count and all(SPEAKER.fullmatch(word) or re.fullmatch(r"\d{4}", word) for word in words):
        yield "speaker"
