"""Readers: one corpus a file. `READERS` is the whole list; `seral pool import --help` shows it.

A reader turns a corpus folder into `Utterance` records without decoding any audio: `(root) -> Iterator[Utterance]`;
its record in the table also has the size of the corpus, where it is known.
It takes nested and flat trees, wav and flac, and reads labels from the names or label files of the original corpus.
Readers of containers leave the audio where it lies inside a tar or a Parquet file (`Utterance.inside`).
A file with the right suffix whose name says nothing is yielded as `Skipped`, so that no file is lost in silence.
"""

from __future__ import annotations

from ser_models.registry import Registry
from seral.corpora.aesdd import read_aesdd
from seral.corpora.biic_podcast import read_biic_podcast
from seral.corpora.cafe import read_cafe
from seral.corpora.crema_d import read_crema_d
from seral.corpora.emodb import read_emodb
from seral.corpora.emov_db import read_emov_db
from seral.corpora.emovo import read_emovo
from seral.corpora.esd import read_esd
from seral.corpora.formats.audformat import read_audformat
from seral.corpora.formats.audiofolder import read_audiofolder
from seral.corpora.formats.folder import read_folder
from seral.corpora.formats.hf_arrow import read_hf_arrow
from seral.corpora.formats.hf_parquet import read_hf_parquet
from seral.corpora.formats.kaldi import read_kaldi
from seral.corpora.formats.label_studio import read_label_studio
from seral.corpora.formats.lhotse import read_lhotse
from seral.corpora.formats.manifest import read_manifest
from seral.corpora.formats.webdataset import read_webdataset
from seral.corpora.iemocap import read_iemocap
from seral.corpora.jl import read_jl
from seral.corpora.meld import read_meld
from seral.corpora.msp_improv import read_msp_improv
from seral.corpora.msp_podcast import read_msp_podcast
from seral.corpora.nemo import read_nemo
from seral.corpora.ravdess import read_ravdess
from seral.corpora.reading.reader import Reader, as_reader
from seral.corpora.savee import read_savee
from seral.corpora.shemo import read_shemo
from seral.corpora.subesco import read_subesco
from seral.corpora.tess import read_tess
from seral.corpora.urdu import read_urdu

OWN: dict[str, Reader] = {
    "ravdess": Reader(read_ravdess, totals={"speech": 1440}),
    "emodb": Reader(read_emodb, totals={"2005": 535}),
    "nemo": Reader(read_nemo, totals={"2024": 4481}),
    "urdu": Reader(read_urdu, totals={"2018": 400}),
    "savee": Reader(read_savee, totals={"2014": 480}),
    "tess": Reader(read_tess, totals={"2010": 2800}),
    "esd": Reader(read_esd, totals={"2021": 35_000}),
    "shemo": Reader(read_shemo, totals={"2018": 3000}),
    "emov-db": Reader(read_emov_db, totals={"2018": 7000}),
    "emovo": Reader(read_emovo, totals={"2014": 588}),
    "subesco": Reader(read_subesco, totals={"2021": 7000}),
    "aesdd": Reader(read_aesdd, totals={"extended": 605}),
    "jl": Reader(read_jl, totals={"2018": 2400}),
    "cafe": Reader(read_cafe, totals={"2018": 936}),
    "iemocap": Reader(read_iemocap, totals={"2008": 10_039}),
    "crema-d": Reader(read_crema_d, totals={"2014": 7442}),
    "msp-podcast": Reader(read_msp_podcast, totals={"1.12": 207_136}),
    "biic-podcast": Reader(read_biic_podcast),
    "msp-improv": Reader(read_msp_improv, totals={"2017": 8438}),
    "meld": Reader(read_meld, totals={"2018": 13_708}),
    "manifest": Reader(read_manifest),
    "audformat": Reader(read_audformat),
    "audiofolder": Reader(read_audiofolder),
    "hf-parquet": Reader(read_hf_parquet),
    "hf-arrow": Reader(read_hf_arrow),
    "webdataset": Reader(read_webdataset),
    "kaldi": Reader(read_kaldi),
    "lhotse": Reader(read_lhotse),
    "label-studio": Reader(read_label_studio),
    "folder": Reader(read_folder),
}
READERS = Registry(OWN, "seral.readers", as_reader)
