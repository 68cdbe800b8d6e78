"""Readers: one corpus a file. `READERS` is the whole list; `seral pool import --help` shows it.

A reader turns a corpus folder into `Utterance` records without decoding any audio: `(root) -> Iterator[Utterance]`.
It takes nested and flat trees, wav and flac, and reads labels from the names or label files of the original corpus.
"""
