"""Writes a small MELD: names that come back in every part, curly quotes, cp1252 read as Latin-1, videos, a bad clip."""

from __future__ import annotations

from pathlib import Path

AUDIO = (
    "train/train_splits/dia0_utt0.wav",
    "train/train_splits/dia125_utt3.wav",  # broken in the release
    "dev/dev_splits_complete/dia0_utt0.wav",
    "test/output_repeated_splits_test/._dia0_utt0.wav",
    "test/output_repeated_splits_test/final_videos_testdia0_utt5.wav",
    "test/output_repeated_splits_test/dia9_utt9.wav",  # no label
    "test/output_repeated_splits_test/intro.wav",
)
VIDEOS = ("test/output_repeated_splits_test/dia0_utt1.mp4", "train/train_splits/dia0_utt0.mp4")
HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
TABLES = {
    "train": '1,"Oh, he\u2019s  lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"\n'
    '2,Hm.,Ross,neutral,neutral,125,3,4,7,"00:20:57,256","00:21:00,049"\n',
    "dev": '1,Now you\x92ll see\x85,Joey and Ross,joy,positive,0,0,10,24,"0:1:0,0","0:1:2,5"\n'
    '2,Gone.,All,joy,positive,0,7,10,24,"0:1:0,0","0:1:2,5"\n',
    "test": '1,Hey!,Mark,surprise,positive,0,1,3,19,"0:1:0,0","0:1:2,5"\n',
}


def write(root: Path) -> None:
    for part, rows in TABLES.items():
        table = root / f"{part}_sent_emo.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(HEAD + rows, encoding="utf-8")
    for video in VIDEOS:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).write_bytes(b"\0\0\0\x18ftypmp42")
