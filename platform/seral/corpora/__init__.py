"""Readers: one corpus a file. `READERS` is the whole list; `seral pool import --help` shows it.

A reader turns a corpus folder into `Utterance` records without decoding any audio: `(root) -> Iterator[Utterance]`.
It takes nested and flat trees, wav and flac, and reads labels from the names or label files of the original corpus.
Readers of containers leave the audio where it lies inside a tar or a Parquet file (`Utterance.inside`).
A file with the right suffix whose name says nothing is yielded as `Skipped`, so that no file is lost in silence.
"""

from __future__ import annotations

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
from seral.corpora.formats.hf_parquet import read_hf_parquet
from seral.corpora.formats.manifest import read_manifest
from seral.corpora.formats.webdataset import read_webdataset
from seral.corpora.iemocap import read_iemocap
from seral.corpora.jl import read_jl
from seral.corpora.meld import read_meld
from seral.corpora.msp_improv import read_msp_improv
from seral.corpora.msp_podcast import read_msp_podcast
from seral.corpora.nemo import read_nemo
from seral.corpora.ravdess import read_ravdess
from seral.corpora.reading.utterance import Reader
from seral.corpora.savee import read_savee
from seral.corpora.shemo import read_shemo
from seral.corpora.subesco import read_subesco
from seral.corpora.tess import read_tess
from seral.corpora.urdu import read_urdu

READERS: dict[str, Reader] = {
    "ravdess": read_ravdess,
    "emodb": read_emodb,
    "nemo": read_nemo,
    "urdu": read_urdu,
    "savee": read_savee,
    "tess": read_tess,
    "esd": read_esd,
    "shemo": read_shemo,
    "emov-db": read_emov_db,
    "emovo": read_emovo,
    "subesco": read_subesco,
    "aesdd": read_aesdd,
    "jl": read_jl,
    "cafe": read_cafe,
    "iemocap": read_iemocap,
    "crema-d": read_crema_d,
    "msp-podcast": read_msp_podcast,
    "biic-podcast": read_biic_podcast,
    "msp-improv": read_msp_improv,
    "meld": read_meld,
    "manifest": read_manifest,
    "audformat": read_audformat,
    "audiofolder": read_audiofolder,
    "hf-parquet": read_hf_parquet,
    "webdataset": read_webdataset,
    "folder": read_folder,
}
