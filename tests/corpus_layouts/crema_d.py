"""Writes the tables of a small CREMA-D: a tie, a clip without audio, a rater who met a clip twice."""

from __future__ import annotations

from pathlib import Path

AUDIO = (
    "AudioWAV/1001_IEO_ANG_HI.wav",
    "AudioWAV/1040_ITH_SAD_X.wav",  # named _XX everywhere else
    "AudioWAV/1091_DFA_NEU_XX.wav",
    "AudioWAV/notes.wav",
)
TABULATED = """"","A","D","F","H","N","S","fileName","numResponses"
"100001",6,0,0,0,3,0,"1001_IEO_ANG_HI",9
"100002",0,0,0,0,4,4,"1040_ITH_SAD_XX",8
"100003",0,0,0,0,9,0,"1002_IEO_HAP_LO",9
"200001",9,0,0,0,0,0,"1001_IEO_ANG_HI",9
"300001",0,8,0,0,0,1,"1001_IEO_ANG_HI",9
"""
RESPONSES = """"","localid","pos","ans","ttr","queryType","clipName","respEmo","respLevel"
"1","r1",1,"A_80",9,1,"1001_IEO_ANG_HI","A",80
"2","r2",2,"N_50",9,1,"1001_IEO_ANG_HI","N",50
"3","r2",3,"A_50",9,1,"1001_IEO_ANG_HI","A",50
"4","r3",4,"A_50",9,1,"1001_IEO_ANG_HI","A",50
"5","r1",5,"D_50",9,3,"1001_IEO_ANG_HI","D",50
"""


def write(root: Path) -> None:
    (root / "processedResults").mkdir(parents=True)
    (root / "processedResults" / "tabulatedVotes.csv").write_text(TABULATED)
    actors = "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1091,21,Female,Asian,Not Hispanic\n"
    (root / "VideoDemographics.csv").write_text(actors)


def write_responses(root: Path) -> None:
    (root / "finishedResponses.csv").write_text(RESPONSES)
