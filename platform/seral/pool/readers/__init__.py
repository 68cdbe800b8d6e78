"""Readers: one corpus a file. `READERS` is the whole list; `seral pool import --help` shows it.

A reader turns a corpus folder into `Utterance` records without decoding any audio: `(root) -> Iterator[Utterance]`.
It takes nested and flat trees, wav and flac, and reads labels from the names or label files of the original corpus.
Readers of containers leave the audio where it lies inside a tar or a Parquet file (`Utterance.inside`).
A file with the right suffix whose name says nothing is yielded as `Skipped`, so that no file is lost in silence.
"""

from __future__ import annotations

from seral.pool.readers.aesdd import read_aesdd
from seral.pool.readers.audformat import read_audformat
from seral.pool.readers.audiofolder import read_audiofolder
from seral.pool.readers.biic_podcast import read_biic_podcast
from seral.pool.readers.cafe import read_cafe
from seral.pool.readers.crema_d import read_crema_d
from seral.pool.readers.emodb import read_emodb
from seral.pool.readers.emov_db import read_emov_db
from seral.pool.readers.emovo import read_emovo
from seral.pool.readers.esd import read_esd
from seral.pool.readers.folder import read_folder
from seral.pool.readers.hf_parquet import read_hf_parquet
from seral.pool.readers.iemocap import read_iemocap
from seral.pool.readers.jl import read_jl
from seral.pool.readers.manifest import read_manifest
from seral.pool.readers.meld import read_meld
from seral.pool.readers.msp_improv import read_msp_improv
from seral.pool.readers.msp_podcast import read_msp_podcast
from seral.pool.readers.nemo import read_nemo
from seral.pool.readers.ravdess import read_ravdess
from seral.pool.readers.savee import read_savee
from seral.pool.readers.shemo import read_shemo
from seral.pool.readers.subesco import read_subesco
from seral.pool.readers.tess import read_tess
from seral.pool.readers.urdu import read_urdu
from seral.pool.readers.utterance import Reader
from seral.pool.readers.webdataset import read_webdataset

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
