"""Writes a small MSP-Podcast and BIIC-Podcast: two spellings, an older release below, free words, a hidden set."""

from __future__ import annotations

import json
from pathlib import Path

AUDIO = (
    "Audios/MSP-PODCAST_0001_0008.wav",
    "Audios/MSP-PODCAST_0001_0019.wav",
    "Audios/MSP-PODCAST_0002_0001.wav",
    "Audios/MSP-PODCAST_0003_0001.wav",
    "Audios/MSP-PODCAST_0004_0001.wav",  # of Test3, whose labels are hidden
    "Audios/notes.wav",
)
OLD_AUDIO = "Previous_releases_information/files_removed/v1.6/MSP-PODCAST_0001_0099.wav"
CONSENSUS = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,127,Female,Train
MSP-PODCAST_0001_0019.wav,X,5.0,3.0,4.5,127,Female,Development
MSP-PODCAST_0002_0001.wav,A,6.0,1.5,,Unknown,Male,Test1
MSP-PODCAST_0003_0001.wav,O,3.0,3.0,3.0,9,Unknown,Test2
MSP-PODCAST_0009_0001.wav,H,3.0,3.0,3.0,9,Unknown,Train
"""
RATERS = """WORKER00000001; Neutral; Neutral,Concerned; A:2; V:4; D:3;
WORKER00000002; Other-bored; half asleep; Depressed,Other-tired; A:2; V:4; D:2;
WORKER00000003; Happy; A:3; V:5; D:3;
"""
LAST = "WORKER00000004; Angry; Angry; A:6; V:2; D:6;"
LINES = (*RATERS.splitlines(), LAST)
TXT = f"""MSP-PODCAST_0001_0008.wav; N; A:2.200000; V:4.000000; D:2.600000;
{RATERS}
MSP-PODCAST_0001_0019.wav; X; A:5.0; V:3.0; D:4.5;
{LAST}
"""
BIIC_AUDIO = ("Audios/BIIC-PODCAST_1000_0321_0003.wav", "Audios/BIIC-PODCAST_1000_0321_0004.wav")
BIIC = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
BIIC-PODCAST_1000_0321_0003.wav,A,5.0,2.0,5.0,s1,Male,Train
BIIC-PODCAST_1000_0321_0004.wav,Surprise,5.0,2.0,5.0,s2,Female,Test
"""


def write(root: Path) -> None:
    """The present layout, with the votes in labels.txt and an older release further down."""
    labels = root / "Labels"
    labels.mkdir(parents=True)
    (labels / "labels_consensus.csv").write_text(CONSENSUS)
    (labels / "labels.txt").write_text(TXT)
    (root / "Partitions.txt").write_text("Test3; MSP-PODCAST_0004_0001.wav\n")
    (root / "Transcripts").mkdir()
    (root / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_text("So, um,\nyeah.\n")
    old = root / "Previous_releases_information" / "v1.6" / "Labels"
    old.mkdir(parents=True)
    (old / "labels_concensus.csv").write_text("FileName,EmoClass\nMSP-PODCAST_0001_0099.wav,A\n")


def write_old(root: Path) -> None:
    """The old spellings, with the split in a file of its own."""
    rows = [line.rsplit(",", 1)[0] for line in CONSENSUS.splitlines()]
    labels = root / "labels"
    labels.mkdir(parents=True)
    (labels / "labels_concensus.csv").write_text("\n".join(rows) + "\n")
    parts = ["Train; MSP-PODCAST_0001_0008.wav", "Validation; MSP-PODCAST_0001_0019.wav"]
    (root / "Partition.txt").write_text("\n".join(parts))


def write_json(root: Path) -> None:
    """Labels and votes as JSON."""
    head, *lines = CONSENSUS.splitlines()
    columns = head.split(",")[1:]
    labels = {line.split(",")[0]: dict(zip(columns, line.split(",")[1:], strict=True)) for line in lines}
    votes = {
        "MSP-PODCAST_0001_0008.wav": {
            "WORKER1": {
                "EmoClass_Major": "Other-bored",
                "EmoClass_Second": "Depressed",
                "EmoAct": "2.0",
                "EmoVal": "4.0",
                "EmoDom": "3.0",
            }
        }
    }
    (root / "Labels").mkdir(parents=True)
    (root / "Labels" / "labels_consensus.json").write_text(json.dumps(labels))
    (root / "Labels" / "labels_detailed.json").write_text(json.dumps(votes))


def write_biic(root: Path) -> None:
    (root / "labels_consensus.csv").parent.mkdir(parents=True, exist_ok=True)
    (root / "labels_consensus.csv").write_text(BIIC)
