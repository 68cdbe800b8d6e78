"""How many utterances complete copies of the corpora have, by release: what an audit compares with what it finds."""

from __future__ import annotations

TOTALS: dict[str, dict[str, int]] = {
    "ravdess": {"speech": 1440},
    "emodb": {"2005": 535},
    "nemo": {"2024": 4481},
    "urdu": {"2018": 400},
    "savee": {"2014": 480},
    "tess": {"2010": 2800},
    "esd": {"2021": 35_000},
    "shemo": {"2018": 3000},
    "emovo": {"2014": 588},
    "subesco": {"2021": 7000},
    "emov-db": {"2018": 7000},
    "jl": {"2018": 2400},
    "aesdd": {"extended": 605},
    "cafe": {"2018": 936},
    "iemocap": {"2008": 10_039},
    "crema-d": {"2014": 7442},
    "msp-podcast": {"1.12": 207_136},
    "msp-improv": {"2017": 8438},
    "meld": {"2018": 13_708},
}
"""As the publishers count them: all audio that belongs to the release, labelled or not. Readers without a line here are
for corpora whose size is not known, or for any corpus."""
