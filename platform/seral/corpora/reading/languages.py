"""Languages under their ISO 639-1 code, for corpora that write ISO 639-3 or the English name."""

from __future__ import annotations

CODES: dict[str, tuple[str, ...]] = {
    "am": ("amh", "amharic"), "ar": ("ara", "arabic"), "bn": ("ben", "bangla", "bengali"), "ca": ("cat", "catalan"),
    "cs": ("ces", "cze", "czech"), "da": ("dan", "danish"), "de": ("deu", "ger", "german"),
    "el": ("ell", "gre", "greek"), "en": ("eng", "english"), "es": ("spa", "spanish"), "et": ("est", "estonian"),
    "eu": ("eus", "baq", "basque"), "fa": ("fas", "per", "pes", "persian", "farsi"), "fi": ("fin", "finnish"),
    "fr": ("fra", "fre", "french"), "he": ("heb", "hebrew"), "hi": ("hin", "hindi"), "hu": ("hun", "hungarian"),
    "id": ("ind", "indonesian"), "it": ("ita", "italian"), "ja": ("jpn", "japanese"), "ko": ("kor", "korean"),
    "nl": ("nld", "dut", "dutch"), "no": ("nor", "norwegian"), "pl": ("pol", "polish"), "pt": ("por", "portuguese"),
    "ro": ("ron", "rum", "romanian"), "ru": ("rus", "russian"), "sk": ("slk", "slo", "slovak"),
    "sr": ("srp", "serbian"), "sv": ("swe", "swedish"), "th": ("tha", "thai"), "tr": ("tur", "turkish"),
    "uk": ("ukr", "ukrainian"), "ur": ("urd", "urdu"), "vi": ("vie", "vietnamese"),
    "zh": ("zho", "chi", "cmn", "chinese", "mandarin"),
}  # fmt: skip
BY_WORD = {word: code for code, words in CODES.items() for word in (code, *words)}


def language_code(word: str) -> str:
    """The ISO 639-1 code of a language; a word that is not in the table stays as it is."""
    return BY_WORD.get(word.lower(), word)
