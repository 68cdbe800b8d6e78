"""Writes the label file of a small MSP-IMPROV: videos' names, a dominance that is no number, words of raters."""

from __future__ import annotations

from pathlib import Path

AUDIO = (
    "Audio/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav",
    "Audio/session1/S01A/R/MSP-IMPROV-S01A-M01-R-MM01.wav",
    "Audio/session6/S20N/T/MSP-IMPROV-S20N-M06-T-MF12.wav",  # no label
    "Audio/session6/S20N/S/MSP-IMPROV-S20N-F06-S-FM03.wav",
    "Audio/session6/S20N/S/take.wav",
)
LABELS = """UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.600000 ; V:3.400000 ; D:2.800000 ; N:4.200000;
20131017-p01; Neutral; Neutral,Concerned; A:3.000000; V:3.000000; D:3.000000; N:4.000000;
20131017-p02; Other-Flat; Sad; A:2.000000; V:3.000000; D:NaN; N:4.000000;

UTD-IMPROV-S01A-M01-R-MM01.avi; A; A:4.0 ; V:1.5 ; D:NaN ; N:3.0;
20131017-p01; Angry; Angry,Frustrated; A:4.0; V:1.0; D:4.0; N:3.0;

UTD-IMPROV-S20N-F06-S-FM03.avi; X; A:3.0 ; V:3.0 ; D:3.0 ; N:3.0;

UTD-IMPROV-S20N-F06-S-FM04.avi; H; A:3.0 ; V:4.0 ; D:3.0 ; N:3.0;
"""


def write(root: Path) -> None:
    words = root / "Transcripts" / "MSP-IMPROV-S01A-F01-P-FM01.txt"
    words.parent.mkdir(parents=True)
    words.write_text("How are you?\n")
    (root / "Evalution.txt").write_text(LABELS)
