"""Data sets of clips: annotations, storages of frames, video decoding, samples and batches.

Importing this package imports nothing else, so that what only decodes videos starts fast.
"""
