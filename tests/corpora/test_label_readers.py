"""Label files of corpora, with the quirks that their releases have."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts import crema_d, iemocap, meld, msp_improv, podcast

from seral.corpora import READERS
from seral.corpora.crema_d import majority, read_votes
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance, Vote
from seral.errors import ReaderError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"


def touch(root: Path, files: tuple[str, ...]) -> None:
    """Readers never open audio: empty files do."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def read(name: str, root: Path, **arguments: Any) -> tuple[dict[str, Utterance], dict[str, Skipped]]:
    items = list(READERS[name](root, **arguments))
    utterances = {item.name: item for item in items if isinstance(item, Utterance)}
    return utterances, {item.source: item for item in items if isinstance(item, Skipped)}


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
    majority_of = {clip: majority(clip_votes) for clip, clip_votes in votes.items()}
    counts = Counter(majority_of.values())
    assert (counts["neutral"], counts[NO_AGREEMENT]) == (3897, 644)
    acted = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    right = sum(majority_of[clip] == acted[clip.split("_")[2]] for clip in votes)
    assert round(100 * right / len(votes), 1) == 41.6
    assert all(vote.count > 0 for clip_votes in votes.values() for vote in clip_votes)


@pytest.mark.corpora
def test_real_crema_d_votes_become_utterances(tmp_path: Path) -> None:
    (tmp_path / "processedResults").symlink_to(SHARED / "crema_d_votes")
    touch(tmp_path, crema_d.AUDIO[:2])
    utterances, skipped = read("crema-d", tmp_path, labels="voice")
    assert set(utterances) == {"1001_IEO_ANG_HI", "1040_ITH_SAD_XX"}
    assert Counter(item.reason for item in skipped.values()) == {"no-audio": 7440}


@pytest.fixture
def podcast_root(tmp_path: Path) -> Path:
    root = tmp_path / "release"
    podcast.write(root)
    touch(root, (*podcast.AUDIO, podcast.OLD_AUDIO))
    return root


def test_msp_podcast_consensus(podcast_root: Path) -> None:
    utterances, skipped = read("msp-podcast", podcast_root)
    assert {u.name: (u.emotion, u.split, u.speaker, u.gender) for u in utterances.values()} == {
        "MSP-PODCAST_0001_0008": ("neutral", "train", "127", "female"),
        "MSP-PODCAST_0001_0019": (NO_AGREEMENT, "dev", "127", "female"),
        "MSP-PODCAST_0002_0001": ("angry", "test", None, "male"),
        "MSP-PODCAST_0003_0001": ("other", None, "9", None),
    }
    angry = utterances["MSP-PODCAST_0002_0001"]
    assert (angry.arousal, angry.valence, angry.dominance) == (6.0, 1.5, None)
    assert skipped["Audios/MSP-PODCAST_0004_0001.wav"].reason == "no-label"
    assert not any("Previous" in source for source in skipped), "older releases are left alone"


@pytest.mark.parametrize(("test", "test_clips"), [("test1", {"0002"}), ("test2", {"0003"}), ("all", {"0002", "0003"})])
def test_msp_podcast_has_one_official_test_set_at_a_time(podcast_root: Path, test: str, test_clips: set[str]) -> None:
    utterances, _ = read("msp-podcast", podcast_root, test=test)
    assert {u.session for u in utterances.values() if u.split == "test"} == test_clips


def test_msp_podcast_votes_of_the_text_file(podcast_root: Path) -> None:
    utterances, _ = read("msp-podcast", podcast_root)
    assert utterances["MSP-PODCAST_0001_0008"].votes == (
        Vote(
            rater="WORKER00000001",
            emotion="neutral",
            secondary=("neutral", "concerned"),
            arousal=2.0,
            valence=4.0,
            dominance=3.0,
        ),
        Vote(
            rater="WORKER00000002",
            emotion="other",
            secondary=("bored; half asleep", "depressed", "other-tired"),
            arousal=2.0,
            valence=4.0,
            dominance=2.0,
        ),
        Vote(rater="WORKER00000003", emotion="happy", arousal=3.0, valence=5.0, dominance=3.0),
    )
    assert utterances["MSP-PODCAST_0003_0001"].votes == ()


def test_msp_podcast_vote_tables_agree_with_the_text_file(podcast_root: Path) -> None:
    by_text, _ = read("msp-podcast", podcast_root)
    names = {name: f"{name}.wav" for name in by_text}
    raters = [(names[name], vote) for name, utterance in by_text.items() for vote in utterance.votes]
    table = podcast_root / "Labels" / "labels_detailed.csv"
    lines = [f'"{clip}","{line}"' for clip, line in zip([clip for clip, _ in raters], podcast.LINES, strict=True)]
    table.write_text("\n".join(["FileName,EmoDetail", *lines]))
    assert read("msp-podcast", podcast_root)[0] == by_text
    columns = "FileName,Workers,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom"
    rows = [
        f'{clip},{vote.rater},{vote.emotion},"{",".join(vote.secondary)}",{vote.arousal},{vote.valence},{vote.dominance}'
        for clip, vote in raters
    ]
    table.write_text("\n".join([columns, *rows]))
    assert read("msp-podcast", podcast_root)[0] == by_text
    table.write_text("FileName,EmoDetail\nMSP-PODCAST_0001_0008.wav,nothing of use\n")
    with pytest.raises(ReaderError, match=r"labels_detailed\.csv, line 2: expected WORKER; word"):
        read("msp-podcast", podcast_root)


def test_msp_podcast_in_its_old_spelling(tmp_path: Path) -> None:
    podcast.write_old(tmp_path)
    touch(tmp_path, tuple(file.replace("Audios", "Audio") for file in podcast.AUDIO))
    utterances, _ = read("msp-podcast", tmp_path)
    assert {u.name: u.split for u in utterances.values()} == {
        "MSP-PODCAST_0001_0008": "train",
        "MSP-PODCAST_0001_0019": "dev",
        "MSP-PODCAST_0002_0001": None,
        "MSP-PODCAST_0003_0001": None,
    }


def test_msp_podcast_as_json(podcast_root: Path) -> None:
    root = podcast_root.parent / "json"
    podcast.write_json(root)
    touch(root, podcast.AUDIO)
    as_json, _ = read("msp-podcast", root)
    as_csv, _ = read("msp-podcast", podcast_root)
    assert as_json["MSP-PODCAST_0001_0008"].votes == (
        Vote(
            rater="WORKER1",
            emotion="other",
            secondary=("bored", "depressed"),
            arousal=2.0,
            valence=4.0,
            dominance=3.0,
        ),
    )
    for name, utterance in as_json.items():
        facts = {"audio": Path(), "votes": (), "text": None}
        assert replace(utterance, **facts) == replace(as_csv[name], **facts)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",N,2.2", ",Q,2.2", r"labels_consensus\.csv, line 2: unknown EmoClass 'Q'; known: A, S, H"),
        (",N,2.2", ",N,soon", r"line 2: expected a number, got 'soon'"),
        (",Train\nMSP-PODCAST_0001_0019", ",Holdout\nMSP-PODCAST_0001_0019", r"line 2: expected Train, Development"),
        ("MSP-PODCAST_0001_0008.wav", "0008.wav", r"line 2: expected MSP-PODCAST_PODCAST_SEGMENT"),
        ("EmoClass,", "Class,", r"labels_consensus\.csv has no column EmoClass; it has: FileName, Class"),
    ],
)
def test_damaged_consensus_tables_are_named(podcast_root: Path, old: str, new: str, message: str) -> None:
    table = podcast_root / "Labels" / "labels_consensus.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(ReaderError, match=message):
        read("msp-podcast", podcast_root)


def test_two_tables_of_labels_are_not_chosen_from(podcast_root: Path) -> None:
    labels = podcast_root / "Labels"
    (labels / "labels_concensus.csv").write_text((labels / "labels_consensus.csv").read_text())
    with pytest.raises(ReaderError, match="several label files"):
        read("msp-podcast", podcast_root)


def test_biic_podcast_takes_letters_words_and_numbers_that_are_explained(tmp_path: Path) -> None:
    podcast.write_biic(tmp_path)
    touch(tmp_path, podcast.BIIC_AUDIO)
    utterances, _ = read("biic-podcast", tmp_path)
    assert [(u.emotion, u.split) for u in utterances.values()] == [("angry", "train"), ("surprise", "test")]
    table = tmp_path / "labels_consensus.csv"
    table.write_text(table.read_text().replace(",A,", ",0,"))
    with pytest.raises(ReaderError, match=r"unknown EmoClass '0'; .*reader_options\.classes"):
        read("biic-podcast", tmp_path)
    utterances, _ = read("biic-podcast", tmp_path, classes={0: "enraged"})
    assert [u.emotion for u in utterances.values()] == ["enraged", "surprise"]


@pytest.fixture
def improv_root(tmp_path: Path) -> Path:
    msp_improv.write(tmp_path)
    touch(tmp_path, msp_improv.AUDIO)
    return tmp_path


def test_msp_improv_labels_meet_audio_although_they_name_videos(improv_root: Path) -> None:
    utterances, skipped = read("msp-improv", improv_root)
    assert {u.name[11:]: (u.speaker, u.session, u.style, u.emotion) for u in utterances.values()} == {
        "S01A-F01-P-FM01": ("F01", "01", "natural", "neutral"),
        "S01A-M01-R-MM01": ("M01", "01", "acted", "angry"),
        "S20N-F06-S-FM03": ("F06", "06", "elicited", NO_AGREEMENT),
    }
    first, read_aloud = (utterances[f"MSP-IMPROV-{name}"] for name in ("S01A-F01-P-FM01", "S01A-M01-R-MM01"))
    assert (first.arousal, first.valence, first.dominance) == (2.6, 3.4, 2.8)
    assert (read_aloud.valence, read_aloud.dominance) == (1.5, None)
    assert [(vote.rater, vote.emotion, vote.secondary, vote.dominance) for vote in first.votes] == [
        ("20131017-p01", "neutral", ("neutral", "concerned"), 3.0),
        ("20131017-p02", "other", ("flat", "sad"), None),
    ]
    assert {item.source.split("/")[-1]: item.reason for item in skipped.values()} == {
        "MSP-IMPROV-S20N-M06-T-MF12.wav": "no-label",
        "MSP-IMPROV-S20N-F06-S-FM04.wav": "no-audio",
        "take.wav": "unreadable-name",
    }


def test_msp_improv_in_either_spelling(improv_root: Path) -> None:
    as_released, _ = read("msp-improv", improv_root)
    (improv_root / "Evalution.txt").rename(improv_root / "Evaluation.txt")
    assert read("msp-improv", improv_root)[0] == as_released
    (improv_root / "Evaluation.txt").write_text("UTD-IMPROV-S01A-F01-P-FM01.avi; Z; A:1; V:1; D:1;\n")
    with pytest.raises(ReaderError, match=r"line 1: expected a video such as .* got 'UTD-IMPROV-.*' and 'Z'"):
        read("msp-improv", improv_root)


@pytest.fixture
def meld_root(tmp_path: Path) -> Path:
    meld.write(tmp_path)
    touch(tmp_path, meld.AUDIO)
    return tmp_path


def test_meld_parts_reuse_names(meld_root: Path) -> None:
    utterances, skipped = read("meld", meld_root)
    assert {u.name: (u.source, u.split, u.speaker, u.emotion) for u in utterances.values()} == {
        "train_dia0_utt0": ("train/train_splits/dia0_utt0.wav", "train", "Phoebe", "sadness"),
        "dev_dia0_utt0": ("dev/dev_splits_complete/dia0_utt0.wav", "dev", None, "joy"),
        "test_dia0_utt1": ("test/output_repeated_splits_test/dia0_utt1.mp4", "test", "Mark", "surprise"),
    }
    assert {item.source.split("/")[-1]: item.reason for item in skipped.values()} == {
        "dia125_utt3.wav": "known-bad",
        "dev_dia0_utt7.mp4": "no-audio",
        "dia9_utt9.wav": "no-label",
        "intro.wav": "unreadable-name",
    }


def test_meld_text_is_what_was_written(meld_root: Path) -> None:
    utterances, _ = read("meld", meld_root)
    assert utterances["train_dia0_utt0"].text == "Oh, he’s lost it."
    assert utterances["dev_dia0_utt0"].text == "Now you’ll see…"
    table = meld_root / "dev_sent_emo.csv"
    table.write_bytes(meld.HEAD.encode() + meld.TABLES["dev"].encode("latin-1"))
    assert read("meld", meld_root)[0]["dev_dia0_utt0"].text == "Now you’ll see…"


def test_a_meld_clip_that_is_gone_and_known_to_be_bad_is_reported_as_such(meld_root: Path) -> None:
    table = meld_root / "dev_sent_emo.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",0,7,10,", ",110,7,10,"), encoding="utf-8")
    assert read("meld", meld_root)[1]["dev_dia110_utt7.mp4"].reason == "known-bad"
