"""The process of a command: how it is stopped, and what it must not leave behind.

Only the standard library is imported, so that signals have an answer before anything that takes long is loaded.
"""
