"""Data sets of clips; importing this package imports nothing else, so that decoding starts fast.

    annotations   annotation JSON -> records, columns with one entry per sample
    frames        readers of frames, one class per storage, and their table
    video         decoding of video files
    presets       what training, validation and inference do to a video
    videodataset  samples, and how they become a batch
    sampling      batch samplers, and the random draw of each sample
    loading       loaders: all of the above, from options
"""
