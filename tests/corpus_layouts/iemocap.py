"""Writes the label files of a small IEMOCAP: tabs, two words of one rater, self-reports, a missing dominance."""

from __future__ import annotations

from pathlib import Path

AUDIO = (
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M009.wav",  # no label
    "Session1/dialog/wav/Ses01F_impro01.wav",  # the whole dialogue
    "Session5/sentences/wav/Ses05M_script03_2b/Ses05M_script03_2b_F041.wav",
    "Session5/sentences/wav/Ses05M_script03_2b/._Ses05M_script03_2b_F041.wav",
    "Session5/sentences/wav/Ses05M_script03_2b/take.wav",
)
IMPRO = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral; Sadness;\t()
C-F1:\tAnger;\t()
A-E3:\tval 3; act 2; dom  2;\t()
A-E4:\tval 2; act 3; dom  ;\t(tense, "clipped")
A-F1:\tval 1; act 5; dom  5;\t()

[9.0000 - 11.5000]\tSes01F_impro01_M000\txxx\t[2.0000, 3.5000]
C-E2:\tOther;\t(pride)
C-E4:\tFrustration;\t()
C-M1:\tNeutral;\t()

"""
SCRIPT = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[1.0 - 2.0]\tSes05M_script03_2b_F041\texc\t[4.3333, 4.0000, 3.0000]
C-E1:\tExcited;\t()
C-E1:\tExcited;\t()

[3.0 - 4.0]\tSes05M_script03_2b_M042\tfru\t[2.0, 3.0, 3.0]
C-E1:\tFrustration;\t()

"""
TEXT = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_MXX0 [008.3000-008.9000]: [BREATHING]
M: aside
Ses01F_impro01_M000 [009.0000-011.5000]: Yeah, it\u2019s nothing.
"""


def write(root: Path) -> None:
    dialog = {"Ses01F_impro01": (1, IMPRO), "Ses05M_script03_2b": (5, SCRIPT)}
    for name, (session, text) in dialog.items():
        folder = root / f"Session{session}" / "dialog" / "EmoEvaluation"
        (folder / "Categorical").mkdir(parents=True)
        (folder / f"{name}.txt").write_text(text)
        (folder / f"._{name}.txt").write_bytes(b"\x00\x05\x16\x07")
        (folder / "Categorical" / f"{name}_e1_cat.txt").write_text("Ses01F_impro01_F000 :Neutral state; ()\n")
    words = root / "Session1" / "dialog" / "transcriptions"
    words.mkdir()
    (words / "Ses01F_impro01.txt").write_bytes(TEXT.encode("cp1252"))
