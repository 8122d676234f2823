"""Batches from loader processes, in shared memory that is used again."""

import multiprocessing
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets.annotations import read_annotation
from datasets.loading import build_loader
from opts import parse_opts
from tests.processes import start_main

needs_proc = pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='reads /proc')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')


def _loader(data, split, n_threads, *flags, **options):
    opts = parse_opts(data.argv('unused', '--n_threads', n_threads, '--batch_size', 2, *flags))
    return build_loader(opts, split, read_annotation(opts.annotation_path), **options)


def _batches(loader, epochs):
    """All batches of some epochs, held together."""
    held = []
    for epoch in epochs:
        if hasattr(loader.batch_sampler, 'set_position'):
            loader.batch_sampler.set_position(epoch)
        held += list(loader)
    return held


def _same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], other[:4]))
        assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)


def _buffers(pid):
    """Files of shared memory that a process has mapped."""
    lines = Path(f'/proc/{pid}/maps').read_text().splitlines()
    return {line.split()[5] for line in lines if '/torch_' in line}


@pytest.mark.parametrize('n_threads', [1, 2])
@pytest.mark.parametrize('flags', [(), ('--multi_label',)])
def test_batches_that_are_held_stay_as_they_were(tiny_data, n_threads, flags):
    epochs = range(1, 5)
    own, other = (_loader(tiny_data, 'train', n, *flags) for n in (0, n_threads))
    _same(_batches(own, epochs), _batches(other, epochs))


def test_batches_grow_and_shrink(own_data):
    """Windows at the sizes of their videos, which differ from batch to batch."""
    for i, video_id in enumerate(['red_4', 'green_4', 'blue_5']):
        for path in own_data.frame(video_id).parent.iterdir():
            with Image.open(path) as picture:
                picture.resize((picture.width * (i + 2), picture.height)).save(path)
    own, other = (_loader(own_data, 'inference', n, '--inference_crop', 'nocrop')
                  for n in (0, 1))
    batches = _batches(own, [1])
    assert len({batch.clips.shape for batch in batches}) > 3
    _same(batches, _batches(other, [1]))


@needs_proc
def test_epochs_take_no_more_memory(tiny_data):
    """Also those that are broken off, with batches on their way."""
    others, inherited = multiprocessing.active_children(), _buffers('self')
    loader = _loader(tiny_data, 'train', 1)
    for n_batches in (100, 1, 2, 3, 100, 1, 1, 100):
        list(islice(loader, n_batches))
        process, = set(multiprocessing.active_children()) - set(others)
        assert 1 <= len(_buffers(process.pid) - inherited) <= loader.prefetch_factor + 1


def _shared_kb():
    """Memory of shared files that this process has mapped, in kB, by name."""
    lines = Path('/proc/self/smaps').read_text().splitlines()
    names = [i for i, line in enumerate(lines) if '/torch_' in line]
    return {lines[i].split()[5]: next(int(line.split()[1]) for line in lines[i:]
                                      if line.startswith('Rss:')) for i in names}


@needs_proc
def test_a_pass_leaves_no_shared_memory_behind(tiny_data):
    before = _shared_kb().keys()
    loader = _loader(tiny_data, 'val', 1)
    batches = iter(loader)
    next(batches)
    own = {name: kb for name, kb in _shared_kb().items() if name not in before}
    assert sum(own.values()) > 0
    list(batches)
    after = _shared_kb()
    assert sum(after.get(name, 0) for name in own) == 0
    _same(list(loader), list(_loader(tiny_data, 'val', 0)))


def test_too_little_shared_memory_is_an_error(tiny_data, tmp_path):
    """Files of shared memory are files, whose size a limit holds for."""
    argv = tiny_data.argv(tmp_path / 'results', '--n_threads', 1)
    process = start_main(argv, tmp_path / 'output', file_limit=2 ** 16)
    process.join(60)
    assert process.exitcode == 2
    line = (tmp_path / 'output').read_text().splitlines()[-1]
    assert line.startswith('error: /dev/shm: ') and '--batch_size' in line


@needs_gpu
@pytest.mark.parametrize('n_threads', [1, 2])
def test_pinned_batches_are_the_same(tiny_data, n_threads):
    own = _loader(tiny_data, 'train', 0)
    other = _loader(tiny_data, 'train', n_threads, pin_memory=True)
    batches = _batches(other, range(1, 5))
    assert all(column.is_pinned() for batch in batches for column in batch[:4])
    _same(_batches(own, range(1, 5)), batches)
