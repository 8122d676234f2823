"""What training, validation and inference do to a video."""

import pytest
import torch

from datasets import presets
from opts import parse_opts
from tests.tiny_data import loader_of


def test_training_batches_are_uint8_clips(tiny_data):
    batch = next(iter(loader_of(tiny_data, 'train')))
    assert batch.clips.shape == (4, 3, 8, 32, 32) and batch.clips.dtype == torch.uint8
    assert batch.labels.shape == (4,) and batch.segments.shape == (4, 2)


def test_validation_has_even_clips_of_each_video(tiny_data):
    loader = loader_of(tiny_data, 'val', '--n_val_samples', 2, '--batch_size', 4)
    videos = torch.cat([batch.videos for batch in loader])
    assert videos.bincount().tolist() == [2] * 6


def test_inference_windows_cover_each_video_in_order(tiny_data):
    loader = loader_of(tiny_data, 'inference', '--inference_stride', 4)
    batches = list(loader)
    videos = torch.cat([batch.videos for batch in batches]).tolist()
    segments = torch.cat([batch.segments for batch in batches])
    assert videos == sorted(videos)
    for i in range(len(loader.dataset)):
        own = segments[torch.tensor(videos) == i]
        frames = loader.dataset.records.frames(i)
        assert own[:, 0].tolist() == list(frames)[::4][:len(own)]
        assert own[-1, 1] == frames.stop


@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_stride_holds_in_every_split(tiny_data, split):
    batch = next(iter(loader_of(tiny_data, split, '--sample_t_stride', 2)))
    spans = batch.segments[:, 1] - batch.segments[:, 0]
    assert spans.max() > 8


@pytest.mark.parametrize('flags', [('--train_crop', 'corner'), ('--train_crop', 'center'),
                                   ('--colorjitter', '--no_hflip'),
                                   ('--train_t_crop', 'center')])
def test_training_flags_change_what_is_read(tiny_data, flags):
    def clips(*flags):
        return next(iter(loader_of(tiny_data, 'train', *flags))).clips
    assert clips(*flags).shape == clips().shape
    assert not torch.equal(clips(*flags), clips())


@pytest.mark.parametrize('split, flags', [
    ('train', ()), ('val', ()), ('val', ('--n_val_samples', 1)), ('val', ('--n_val_samples', 9)),
    ('inference', ('--inference_stride', 3)), ('inference', ('--inference_views', '4x3')),
    ('inference', ('--inference_stride', 5, '--sample_t_stride', 2))])
def test_clips_are_counted_as_they_are_made(tiny_data, split, flags):
    """What is counted before anything is read is what is read."""
    loader = loader_of(tiny_data, split, *flags, '--batch_size', 8)
    n_crops = presets.n_crops(parse_opts(tiny_data.argv('unused', *flags)), split)
    videos = torch.cat([batch.videos for batch in loader])
    assert (loader.dataset.n_clips() * n_crops).tolist() == videos.bincount().tolist()


@pytest.mark.parametrize('flags, added', [
    ((), ['RandomHorizontalFlip']), (('--no_hflip',), []),
    (('--colorjitter', '--no_hflip'), ['ColorJitter']),
    (('--colorjitter',), ['RandomHorizontalFlip', 'ColorJitter'])])
def test_augmentations_come_after_the_crop(tiny_data, flags, added):
    transform = presets.spatial_transform(parse_opts(tiny_data.argv('unused', *flags)), 'train')
    names = [type(part).__name__ for part in transform.transforms]
    assert names == ['RandomResizedCrop', *added]
