"""Samples: the clips of one video, and how samples become a batch."""

from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from datasets.frames import video_path
from datasets.sampling import sample_draw
from errors import InputError


class Sample(NamedTuple):
    """K clips of one video: uint8 (K, T, C, h, w); its class number; its number in the records;
    first frame and last frame + 1 of each clip, (K, 2)."""

    clips: torch.Tensor
    label: int
    video: int
    segments: torch.Tensor


class Batch(NamedTuple):
    """N clips: uint8 (N, C, T, h, w); labels (N,); number of each clip's video in the records (N,);
    first frame and last frame + 1 of each clip (N, 2)."""

    clips: torch.Tensor
    labels: torch.Tensor
    videos: torch.Tensor
    segments: torch.Tensor


class VideoDataset(Dataset):
    """Records + reader + transforms -> samples, by `sampling.Key`.

    root:               folder that the records' paths are relative to
    temporal_transform: frame numbers -> a clip of frame numbers, or a list of clips
    spatial_transform:  uint8 (T, C, H, W) -> uint8 (T, C, h, w)
    seed:               of the draws; a sample's draw depends on seed, epoch and index alone

    A frame that several clips share is read once.
    """

    def __init__(self, records, root, reader, temporal_transform, spatial_transform, seed=0):
        self.records, self.root, self.reader = records, str(root), reader
        self.temporal_transform = temporal_transform
        self.spatial_transform = spatial_transform
        self.seed = seed

    def __len__(self):
        return len(self.records)

    def path(self, index):
        """Folder or file of a sample's frames."""
        return video_path(self.root, self.records.paths[index], self.reader.suffix)

    def __getitem__(self, key):
        """Sample of a Key. Raises FrameError where a frame is missing or broken."""
        with sample_draw(self.seed, key.epoch, key.index):
            clips = self.temporal_transform(self.records.frames(key.index))
            clips = clips if isinstance(clips[0], list) else [clips]
            clips = clips[key.begin_clip:key.end_clip]
            frames = sorted(set().union(*clips))
            pixels = self.spatial_transform(self.reader.read(self.path(key.index), frames))
        row = {frame: i for i, frame in enumerate(frames)}
        rows = torch.tensor([[row[frame] for frame in clip] for clip in clips])
        segments = torch.tensor([[min(clip), max(clip) + 1] for clip in clips])
        return Sample(pixels[rows], int(self.records.labels[key.index]), key.index, segments)

    def __getitems__(self, keys):
        """Samples of a list of keys, or the InputError that one of them met.

        An exception that crosses from a loader process arrives with a traceback in its message;
        one that is handed over as a value keeps its sentence.
        """
        try:
            return [self[key] for key in keys]
        except InputError as error:
            return error


def collate(samples):
    """Batch of all clips of some samples; an InputError is passed on."""
    if isinstance(samples, InputError):
        return samples
    n_clips = torch.tensor([len(sample.clips) for sample in samples])
    return Batch(clips=torch.cat([sample.clips for sample in samples]).transpose(1, 2),
                 labels=torch.tensor([s.label for s in samples]).repeat_interleave(n_clips),
                 videos=torch.tensor([s.video for s in samples]).repeat_interleave(n_clips),
                 segments=torch.cat([sample.segments for sample in samples]))
