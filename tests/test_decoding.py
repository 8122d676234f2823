"""Frames decoded outside of loader processes, on a device: the batches are those of the loader that
decodes them there. The device is the CPU, and a GPU where there is one."""

import json

import h5py
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

import main
from datasets.annotations import read_annotation
from datasets.frames import FrameError
from datasets.loading import build_loader
from opts import parse_opts
from tests.tiny_data import run_main
from util_scripts import benchmark

CPU = torch.device('cpu')
START_OF_SCAN = b'\xff\xda'


def _loaders(argv, split, n_threads=0):
    """The loader that decodes in its processes, and the one that decodes on the CPU as a device."""
    plain = parse_opts(list(map(str, argv)))
    opts = parse_opts([*map(str, argv), '--n_threads', str(n_threads)])
    annotation = read_annotation(opts.annotation_path)
    return (build_loader(plain, split, annotation),
            build_loader(opts, split, annotation, decode_device=CPU))


def _assert_same(batches, others):
    """Pixels may be rounded otherwise; all else is the same."""
    n_batches = 0
    for batch, other in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[1:4], other[1:4]))
        assert [bad.video for bad in batch.bad] == [bad.video for bad in other.bad]
        assert other.clips.dtype == torch.uint8 and other.clips.shape == batch.clips.shape
        assert other.clips.is_contiguous(memory_format=torch.channels_last_3d)
        assert (batch.clips.int() - other.clips.int()).abs().max() <= 2
        n_batches += 1
    assert n_batches


# ---------------------------------------------------------------- the same batches

@pytest.mark.parametrize('split, flags', [
    ('train', ()),
    ('train', ('--colorjitter', '--train_crop', 'corner', '--sample_t_stride', 2)),
    ('val', ('--n_val_samples', 2)),
    ('inference', ('--inference_stride', 4, '--inference_batch_size', 5)),
    ('inference', ('--inference_crop', 'nocrop', '--inference_stride', 8)),
    ('inference', ('--inference_views', '2x3', '--inference_batch_size', 6))])
def test_batches_are_those_decoded_by_loader_processes(tiny_data, split, flags):
    _assert_same(*_loaders(tiny_data.argv('unused', *flags), split))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_loader_processes_pass_the_images_on(tiny_data, split):
    plain, loader = _loaders(tiny_data.argv('unused'), split, n_threads=2)
    for epoch in (1, 2):
        if split == 'train':
            plain.batch_sampler.set_position(epoch)
            loader.batch_sampler.set_position(epoch)
        _assert_same(plain, loader)


def test_an_epoch_goes_on_from_its_middle(tiny_data):
    plain, loader = _loaders(tiny_data.argv('unused'), 'train')
    plain.batch_sampler.set_position(3)
    loader.batch_sampler.set_position(3, 2)
    _assert_same(list(plain)[2:], loader)


def test_the_draws_leave_other_random_numbers_as_they_are(tiny_data):
    _, loader = _loaders(tiny_data.argv('unused'), 'train')
    batches = iter(loader)
    next(batches)
    state = torch.get_rng_state()
    next(batches)
    assert torch.equal(torch.get_rng_state(), state)


def test_loader_processes_do_not_decode(tiny_data, monkeypatch):
    _, loader = _loaders(tiny_data.argv('unused'), 'val')
    monkeypatch.setattr(simplejpeg, 'decode_jpeg', None)
    assert sum(len(batch.labels) for batch in loader) == 18


def test_videos_that_are_left_out_are_black(tiny_data):
    argv = tiny_data.argv('unused', '--inference_stride', 8, '--inference_batch_size', 4)
    plain, loader = _loaders(argv, 'inference')
    for either in (plain, loader):
        either.leave_out([1, 3])
    _assert_same(plain, loader)
    blank = torch.cat([batch.clips[batch.videos < 0] for batch in loader])
    assert len(blank) and not blank.any()


def _as_hdf5(data, folder, names):
    """argv of the same videos as hdf5 files; a second data set has the frames in reverse."""
    annotation = data.read()
    for video_id, entry in annotation['database'].items():
        entry['annotations']['segment'] = [0, entry['annotations']['segment'][1] - 1]
        if 'label' not in entry['annotations']:
            continue
        path = folder / 'hdf5' / entry['annotations']['label'] / f'{video_id}.hdf5'
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = sorted(data.frame(video_id).parent.iterdir())
        with h5py.File(path, 'w') as file:
            for name, images in zip(names, (frames, frames[::-1])):
                stored = file.create_dataset(name, len(frames), h5py.vlen_dtype(np.uint8))
                for i, image in enumerate(images):
                    stored[i] = np.frombuffer(image.read_bytes(), np.uint8)
    (folder / 'annotation.json').write_text(json.dumps(annotation))
    return [*data.argv('unused'), '--root_path', str(folder), '--video_path', 'hdf5',
            '--file_type', 'hdf5']


@pytest.mark.parametrize('input_type, names', [('rgb', ('video',)),
                                               ('flow', ('video_u', 'video_v'))])
def test_hdf5_and_optical_flow(tiny_data, tmp_path, input_type, names):
    argv = [*_as_hdf5(tiny_data, tmp_path, names), '--input_type', input_type]
    for split in ('train', 'val'):
        _assert_same(*_loaders(argv, split))


# ---------------------------------------------------------------- broken frames

BROKEN = {
    'truncated': (lambda data: data[:-200], 'truncated'),
    'truncated after bytes of another picture':
        (lambda data: data[:2] + b'\xff\xe1\x00\x06\xff\xda\xff\xd9' + data[2:-200], 'truncated'),
    'empty': (lambda data: b'', 'empty'),
    'no image': (lambda data: b'no image', 'not a JPEG'),
}
WHOLE = ('--sample_duration', 30)  # every frame is read


@pytest.mark.parametrize('n_threads', [0, 2])
@pytest.mark.parametrize('name', BROKEN)
def test_broken_frames_are_named(own_data, name, n_threads):
    break_it, word = BROKEN[name]
    own_data.frame('red_4', 5).write_bytes(break_it(own_data.frame('red_4', 5).read_bytes()))
    _, loader = _loaders(own_data.argv('unused', *WHOLE), 'val', n_threads)
    with pytest.raises(FrameError, match=f'red_4/image_00005.jpg: the frame is {word}'):
        list(loader)


@pytest.mark.parametrize('change, words', [
    (lambda image: image.convert('L'), 'grey'), (lambda image: image.resize((20, 20)), '20x20')])
def test_frames_that_are_unlike_the_others_are_named(own_data, change, words):
    path = own_data.frame('red_4', 5)
    change(Image.open(path)).save(path)
    _, loader = _loaders(own_data.argv('unused', *WHOLE), 'val')
    with pytest.raises(FrameError, match=f'image_00005.jpg: the frame is {words}'):
        list(loader)


def test_bytes_after_a_frame_do_no_harm(own_data):
    path = own_data.frame('red_4', 5)
    path.write_bytes(path.read_bytes() + b'\0\0')
    _assert_same(*_loaders(own_data.argv('unused', *WHOLE), 'val'))


def _break_inside(path):
    """Headers and end are there, but the picture is made by a table that is not."""
    data = bytearray(path.read_bytes())
    data[data.index(START_OF_SCAN) + 6] = 0x22
    path.write_bytes(data)


@pytest.mark.parametrize('flags', [(), ('--bad_frames', 'skip')])
@pytest.mark.parametrize('n_threads', [0, 2])
def test_what_only_the_device_sees_is_named(own_data, flags, n_threads):
    _break_inside(own_data.frame('green_5', 7))
    argv = own_data.argv('unused', *WHOLE, *flags)
    _, loader = _loaders(argv, 'val', n_threads)
    with pytest.raises(FrameError) as raised:
        list(loader)
    sentence = str(raised.value)
    assert 'green_5/image_00007.jpg: the frame cannot be decoded on cpu' in sentence
    assert 'drop --decode_device cuda' in sentence and '\n' not in sentence


def test_a_frame_of_optical_flow_that_only_the_device_sees_is_named(tiny_data, tmp_path):
    argv = _as_hdf5(tiny_data, tmp_path, ('video_u', 'video_v'))
    with h5py.File(tmp_path / 'hdf5' / 'blue' / 'blue_4.hdf5', 'r+') as file:
        path = tmp_path / 'frame.jpg'
        path.write_bytes(file['video_v'][3].tobytes())
        _break_inside(path)
        file['video_v'][3] = np.frombuffer(path.read_bytes(), np.uint8)
    _, loader = _loaders([*argv, '--input_type', 'flow', *WHOLE], 'val')
    with pytest.raises(FrameError, match='blue_4.hdf5: frame 3: the frame cannot be decoded'):
        list(loader)


@pytest.mark.parametrize('split, flags', [
    ('train', ('--train_t_crop', 'center', *WHOLE)),
    ('val', ('--sample_duration', 4, '--batch_size', 3)),
    ('inference', ('--sample_duration', 4, '--inference_views', '3x2'))])
def test_bad_frames_are_skipped_as_by_loader_processes(own_data, split, flags, capsys):
    for video_id in ('red_1', 'red_4'):  # of training, and of the other two
        own_data.frame(video_id).write_bytes(b'no image')
    for frame in own_data.frame('blue_5').parent.iterdir():
        frame.write_bytes(frame.read_bytes()[:-100])
    argv = own_data.argv('unused', *flags, '--bad_frames', 'skip')
    _assert_same(*_loaders(argv, split))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f'bad frames: {1 if split == "train" else 2} of')


# ---------------------------------------------------------------- the commands

@pytest.fixture
def on_cpu(monkeypatch):
    """--decode_device cuda decodes on the CPU."""
    def device(opts, _device):
        return CPU if opts.decode_device == 'cuda' else None
    for module in (main, benchmark):
        monkeypatch.setattr(module, 'decoding_device', device)
    return ['--decode_device', 'cuda']


def _runnable(argv):
    """Without --no_cuda, which does not go with the flag."""
    return [flag for flag in argv if flag != '--no_cuda']


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='is of machines without GPU')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')


@needs_no_gpu
def test_a_run_is_the_same(tiny_data, tmp_path, on_cpu):
    more = ('--n_epochs', 1, '--inference', '--tensorboard')
    assert run_main(tiny_data.argv(tmp_path / 'cpu', *more)) == 0
    assert run_main(_runnable(tiny_data.argv(tmp_path / 'device', *more, *on_cpu))) == 0
    for name in ('train.log', 'train_batch.log', 'val.log'):
        rows, others = (np.loadtxt(tmp_path / folder / name, skiprows=1, ndmin=2)
                        for folder in ('cpu', 'device'))
        assert np.allclose(rows, others, rtol=1e-2, atol=1e-3)
    results, others = (json.loads((tmp_path / folder / 'val.json').read_text())['results']
                       for folder in ('cpu', 'device'))
    assert results.keys() == others.keys()
    for video_id, entries in results.items():
        scores, near = ({entry['label']: entry['score'] for entry in found}
                        for found in (entries, others[video_id]))
        assert near == pytest.approx(scores, abs=0.02)


@needs_no_gpu
def test_a_device_is_needed(tiny_data, tmp_path, capsys):
    argv = _runnable(tiny_data.argv(tmp_path / 'results', '--decode_device', 'cuda'))
    assert run_main(argv) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('error: --decode_device cuda') and 'no CUDA device' in line
    assert not (tmp_path / 'results').exists()


@needs_no_gpu
def test_the_benchmark_measures_the_loader(tiny_data, tmp_path, on_cpu, capsys):
    argv = _runnable(tiny_data.argv(tmp_path, '--n_threads', 1, *on_cpu))
    benchmark.main([*argv, '--seconds', 0.01, '--parts', 'loader'])
    assert 'training clip: decode' in capsys.readouterr().out


@needs_gpu
@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_clips_decoded_on_a_gpu_are_near(tmp_path, split):
    """Two levels of 255 on average, of frames as large as real ones."""
    argv = [*benchmark.make_data(tmp_path, n_videos=3, n_frames=20), '--result_path', 'unused',
            '--dataset', 'ucf101', '--batch_size', '6', '--n_threads', '0', '--manual_seed', '3']
    opts = parse_opts([*argv, '--decode_device', 'cuda'])
    annotation, device = read_annotation(opts.annotation_path), torch.device('cuda', 0)
    loader = build_loader(opts, split, annotation, pin_memory=True, decode_device=device)
    plain = build_loader(parse_opts(argv), split, annotation)
    for batch, near in zip(plain, loader, strict=True):
        assert near.clips.device == device and near.clips.dtype == torch.uint8
        assert all(torch.equal(a, b.cpu()) for a, b in zip(batch[1:4], near[1:4]))
        assert near.clips.is_contiguous(memory_format=torch.channels_last_3d)
        assert (batch.clips.float() - near.clips.cpu().float()).abs().mean() <= 2
