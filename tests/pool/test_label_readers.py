"""What stands in the label files of corpora, with the quirks that their releases have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpora import crema_d, iemocap

from seral.errors import ReaderError
from seral.pool.readers import READERS
from seral.pool.readers.crema_d import majority, read_votes
from seral.pool.readers.utterance import NO_AGREEMENT, Skipped, Utterance, Vote

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"


def touch(root: Path, files: tuple[str, ...]) -> None:
    """Readers never open audio: empty files do."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def read(name: str, root: Path, **given: Any) -> tuple[dict[str, Utterance], dict[str, Skipped]]:
    found = list(READERS[name](root, **given))
    utterances = {item.name: item for item in found if isinstance(item, Utterance)}
    return utterances, {item.source: item for item in found if isinstance(item, Skipped)}


@pytest.fixture
def iemocap_root(tmp_path: Path) -> Path:
    iemocap.write(tmp_path)
    touch(tmp_path, iemocap.AUDIO)
    return tmp_path


@pytest.fixture
def crema_root(tmp_path: Path) -> Path:
    crema_d.write(tmp_path)
    touch(tmp_path, crema_d.AUDIO)
    return tmp_path


def test_iemocap_speakers_are_who_speaks_and_not_who_wears_the_markers(iemocap_root: Path) -> None:
    utterances, _ = read("iemocap", iemocap_root)
    assert {u.name: (u.speaker, u.gender, u.session, u.style) for u in utterances.values()} == {
        "Ses01F_impro01_F000": ("Ses01F", "female", "Ses01", "elicited"),
        "Ses01F_impro01_M000": ("Ses01M", "male", "Ses01", "elicited"),
        "Ses05M_script03_2b_F041": ("Ses05F", "female", "Ses05", "acted"),
    }


def test_iemocap_votes_are_of_raters_and_never_of_the_actors(iemocap_root: Path) -> None:
    utterances, _ = read("iemocap", iemocap_root)
    first = utterances["Ses01F_impro01_F000"]
    assert (first.valence, first.arousal, first.dominance) == (2.5, 2.5, 2.5)
    assert first.votes == (
        Vote(rater="E2", emotion="neutral"),
        Vote(rater="E3", emotion="neutral", secondary=("sadness",), valence=3.0, arousal=2.0, dominance=2.0),
        Vote(rater="E4", valence=2.0, arousal=3.0),
    )


def test_iemocap_turns_without_a_majority_or_a_dominance_stay(iemocap_root: Path) -> None:
    utterances, _ = read("iemocap", iemocap_root)
    second = utterances["Ses01F_impro01_M000"]
    assert (second.emotion, second.valence, second.arousal, second.dominance) == (NO_AGREEMENT, 2.0, 3.5, None)
    assert second.text == "Yeah, it’s nothing."
    assert utterances["Ses05M_script03_2b_F041"].emotion == "excited"
    assert utterances["Ses05M_script03_2b_F041"].text is None


def test_iemocap_names_what_has_no_partner(iemocap_root: Path) -> None:
    _, skipped = read("iemocap", iemocap_root)
    assert {item.source.split("/")[-1]: item.reason for item in skipped.values()} == {
        "Ses01F_impro01_M009.wav": "no-label",
        "Ses05M_script03_2b_M042.wav": "no-audio",
        "take.wav": "unreadable-name",
    }
    assert skipped["Ses05M_script03_2b_M042.wav"].detail == "named in Ses05M_script03_2b.txt, line 7"


def test_a_turn_with_two_labels_is_a_conflict_that_names_both(iemocap_root: Path) -> None:
    table = iemocap_root / "Session1" / "dialog" / "EmoEvaluation" / "copy.txt"
    table.write_text("[6.2901 - 8.2357]\tSes01F_impro01_F000\tfru\t[2.5, 2.5, 2.5]\n")
    utterances, skipped = read("iemocap", iemocap_root)
    (conflict,) = (item for item in skipped.values() if item.reason == "conflict")
    assert "Ses01F_impro01_F000" not in utterances
    assert "Ses01F_impro01.txt, line 3: " in conflict.detail
    assert "emotion neutral" in conflict.detail
    assert "but copy.txt, line 1: " in conflict.detail
    assert "emotion frustration" in conflict.detail


@pytest.mark.parametrize(
    "line",
    ["[1.0 - 2.0]\tSes01F_impro01_F000\tsoso\t[1, 2, 3]", "[1.0 - 2.0] Ses09F_x ang [1, 2, 3]", "[1.0 Ses01F"],
)
def test_a_line_that_is_no_turn_is_named(iemocap_root: Path, line: str) -> None:
    table = iemocap_root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    table.write_text(f"\n{line}\n")
    with pytest.raises(ReaderError, match=r"Ses01F_impro01\.txt, line 2: expected .* one of ang, hap"):
        read("iemocap", iemocap_root)


def test_iemocap_without_label_files_says_where_they_belong(tmp_path: Path) -> None:
    touch(tmp_path, iemocap.AUDIO)
    with pytest.raises(ReaderError, match="has no label file: expected SessionN/dialog/EmoEvaluation"):
        read("iemocap", tmp_path)


def test_crema_d_labels_are_what_was_acted_or_what_was_heard(crema_root: Path) -> None:
    name, tied = "1001_IEO_ANG_HI", "1040_ITH_SAD_XX"
    acted, _ = read("crema-d", crema_root)
    assert (acted[name].emotion, acted[tied].emotion, acted["1091_DFA_NEU_XX"].emotion) == ("anger", "sad", "neutral")
    assert acted["1091_DFA_NEU_XX"].votes == ()
    voice, skipped = read("crema-d", crema_root, labels="voice")
    assert (voice[name].emotion, voice[tied].emotion) == ("anger", NO_AGREEMENT)
    assert voice[tied].votes == (Vote(emotion="neutral", count=4), Vote(emotion="sad", count=4))
    assert skipped["AudioWAV/1091_DFA_NEU_XX.wav"].reason == "no-label"
    both, _ = read("crema-d", crema_root, labels="multimodal")
    assert {n: u.emotion for n, u in both.items()} == {name: "disgust"}
    assert both[name].votes == (Vote(emotion="disgust", count=8), Vote(emotion="sad", count=1))


def test_crema_d_votes_of_single_raters_come_first(crema_root: Path) -> None:
    crema_d.write_responses(crema_root)
    utterances, _ = read("crema-d", crema_root, labels="voice")
    votes = utterances["1001_IEO_ANG_HI"].votes
    assert [(vote.rater, vote.emotion, vote.count) for vote in votes] == [
        ("r1", "anger", 1),
        ("r2", "neutral", 1),
        ("r3", "anger", 1),
    ]


def test_crema_d_without_votes_has_no_heard_labels(tmp_path: Path) -> None:
    touch(tmp_path, crema_d.AUDIO)
    assert len(read("crema-d", tmp_path)[0]) == 3
    with pytest.raises(ReaderError, match=r"no votes for labels=voice: expected finishedResponses\.csv or tabulated"):
        read("crema-d", tmp_path, labels="voice")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        ("a,b\n1,2\n", "has no column localid, queryType, clipName, respEmo; it has: a, b"),
        ("localid,queryType,clipName,respEmo\nr1,1,1001_IEO_ANG_HI,Q\n", "line 2: expected one of A, D, F, H, N, S"),
        ("localid,queryType,clipName,respEmo\nr1,1,1001_IEO,A\n", "the votes name a clip '1001_IEO': expected ACTOR"),
    ],
)
def test_damaged_vote_tables_are_named(crema_root: Path, content: str, message: str) -> None:
    (crema_root / "finishedResponses.csv").write_text(content)
    with pytest.raises(ReaderError, match=message):
        read("crema-d", crema_root)


@pytest.mark.corpora
def test_real_crema_d_votes() -> None:
    votes = read_votes(SHARED / "crema_d_votes", "1")
    assert len(votes) == 7442
    heard = {clip: majority(said) for clip, said in votes.items()}
    counts = Counter(heard.values())
    assert (counts["neutral"], counts[NO_AGREEMENT]) == (3897, 644)
    acted = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    right = sum(heard[clip] == acted[clip.split("_")[2]] for clip in votes)
    assert round(100 * right / len(votes), 1) == 41.6
    assert all(vote.count > 0 for said in votes.values() for vote in said)


@pytest.mark.corpora
def test_real_crema_d_votes_become_utterances(tmp_path: Path) -> None:
    (tmp_path / "processedResults").symlink_to(SHARED / "crema_d_votes")
    touch(tmp_path, crema_d.AUDIO[:2])
    utterances, skipped = read("crema-d", tmp_path, labels="voice")
    assert set(utterances) == {"1001_IEO_ANG_HI", "1040_ITH_SAD_XX"}
    assert Counter(item.reason for item in skipped.values()) == {"no-audio": 7440}
