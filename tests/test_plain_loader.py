"""The loader against the plain one: the same clips, of pixels that differ by rounding alone."""

import pytest
import torch

from datasets.annotations import read_annotation
from datasets.loading import build_loader
from opts import normalization, parse_opts
from spatial_transforms import Normalize
from util_scripts.helpers.bench import make_data
from util_scripts.helpers.plain_loader import PlainClips, plain_collate

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def argv(tmp_path_factory):
    """Flags of frames as large as real ones."""
    folder = tmp_path_factory.mktemp('frames')
    return [*make_data(folder, n_videos=3, n_frames=20, batch_size=2), '--result_path', str(folder),
            '--dataset', 'ucf101', '--batch_size', '6', '--no_cuda', '--manual_seed', '3']


def _loader(argv, split, *flags):
    opts = parse_opts([*argv, *flags])
    return opts, build_loader(opts, split, read_annotation(opts.annotation_path))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_batches_are_those_of_the_plain_loader(argv, split):
    """Those of loader processes are the same, as test_loading.py has it."""
    opts, loader = _loader(argv, split, '--n_threads', '0')
    plain = PlainClips(loader.dataset, opts, split)
    mean, std = normalization(opts)
    for keys, batch in zip(loader.batch_sampler, loader):
        clips, labels = plain_collate([plain[key] for key in keys])
        assert torch.equal(batch.labels, labels)
        assert batch.clips.dtype == torch.uint8
        assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)
        ours = Normalize(mean, std)(batch.clips)
        assert ours.is_contiguous(memory_format=torch.channels_last_3d)
        difference = (ours - clips).abs() * torch.tensor(std).view(-1, 1, 1, 1) * 255
        assert difference.max() <= 2.01


@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_fast_decoding_is_near(argv, split):
    _, exact = _loader(argv, split, '--n_threads', '0')
    _, fast = _loader(argv, split, '--n_threads', '0', '--fast_decode')
    for batch, near in zip(exact, fast, strict=True):
        difference = (batch.clips.float() - near.clips.float()).abs()
        assert 0 < difference.mean() <= 3


def test_fast_decoding_never_enlarges(argv):
    """Frames of 240 pixels come at their size where 128 are wanted, and at half of it for 112."""
    for size, height in (('112', 120), ('128', 240)):
        _, loader = _loader(argv, 'val', '--fast_decode', '--sample_size', size,
                            '--n_threads', '0')
        dataset = loader.dataset
        assert dataset.reader.read(dataset.path(0), [1, 2]).shape[2] == height
