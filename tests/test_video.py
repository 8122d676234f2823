"""Video files read as they are: each frame is the image that extraction makes of it."""

import csv
import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import main as main_module
import spatial_transforms as S
from datasets import video
from datasets.frames import (EMPTY, MISSING, UNDECODABLE, WRONG_COUNT, FrameError, Hdf5Frames,
                             JpgFrames, VideoFrames)
from datasets.scaling import SHORT_SIDE, Box, Cropper, Scaler, find_span
from datasets.video import (EndError, SeekError, Sought, Video, VideoError, count_frames,
                            count_packets, find_video, read_rgb)
from tests.helpers import cut_short, grey_frames, write_sound, write_video
from tests.tiny_data import run_main
from util_scripts import check_data, folder_json, generate_video_hdf5, generate_video_jpgs, predict
from util_scripts.generate_video_jpgs import Job, extract
from util_scripts.helpers.video_io import jpegs
from util_scripts.helpers.video_sources import find_sources
from util_scripts.helpers.videos import is_video


def noise(n_frames=60, height=48, width=64, seed=0):
    """(T, H, W, 3) uint8: blocks of random colours, others in each frame, which survive coding."""
    blocks = np.random.default_rng(seed).integers(0, 255, (n_frames, height // 16, width // 16, 3))
    return blocks.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)


def from_start(path, numbers, size=SHORT_SIDE):
    """{number: picture} by decoding all before it."""
    with Video(path) as opened:
        return dict(video._from_start(opened, numbers, Scaler(size, opened.pixel_aspect, 'rgb24')))


def same_frames(path, numbers, n_frames=None, size=SHORT_SIDE):
    found = dict(read_rgb(path, numbers, n_frames=n_frames, size=size))
    expected = from_start(path, numbers, size)
    return found.keys() == expected.keys() and all(
        np.array_equal(found[number], expected[number]) for number in numbers)


def remux(source, path, container):
    """The coded video of a file as a raw stream."""
    with av.open(str(source)) as original, av.open(str(path), 'w', format=container) as raw:
        stream = raw.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.size:
                packet.stream = stream
                raw.mux(packet)


@pytest.fixture
def no_start(monkeypatch):
    """Decoding from the start is an error."""
    def fail(*_):
        raise AssertionError('decoded from the start')
    monkeypatch.setattr(video, '_from_start', fail)


# ---------------------------------------------------------------- seeking

# Encoder, file, its options: B frames, open groups of pictures, hidden frames, other containers.
CODINGS = {
    'h264': ('libx264', 'a.mp4', {}),
    'h264 B frames': ('libx264', 'a.mp4', {'bf': '3', 'x264-params': 'b-pyramid=normal'}),
    'h264 open': ('libx264', 'a.mp4', {'bf': '3', 'x264-params': 'open-gop=1:scenecut=0'}),
    'h264 refresh': ('libx264', 'a.mp4', {'x264-params': 'intra-refresh=1'}),
    'h264 mkv': ('libx264', 'a.mkv', {'bf': '3'}),
    'h264 mov': ('libx264', 'a.mov', {}),
    'h264 avi': ('libx264', 'a.avi', {'bf': '3'}),
    'h265 open': ('libx265', 'a.mp4', {'x265-params': 'open-gop=1:bframes=4:log-level=0'}),
    'mpeg4': ('mpeg4', 'a.mp4', {}),
    'mpeg4 avi': ('mpeg4', 'a.avi', {'bf': '2'}),
    'vp9': ('libvpx-vp9', 'a.webm', {'lag-in-frames': '10', 'auto-alt-ref': '1'}),
    'vp8': ('libvpx', 'a.webm', {}),
    'vp8 hidden': ('libvpx', 'a.webm', {'lag-in-frames': '10', 'auto-alt-ref': '1'}),
    'av1': ('libsvtav1', 'a.mkv', {'preset': '12'}),
}


@pytest.mark.slow
@pytest.mark.parametrize('coding', CODINGS)
def test_a_clip_is_that_of_decoding_from_the_start(tmp_path, coding):
    codec, name, options = CODINGS[coding]
    size = (64, 96) if codec == 'libsvtav1' else (48, 64)
    path = str(write_video(tmp_path / name, noise(60, *size), codec=codec, gop_size=10,
                           options=options))
    assert count_frames(path) == 60
    clips = [range(1, 61), range(33, 49), range(60, 61), range(21, 22), range(30, 50, 7),
             [3, 4, 41, 42, 59]]
    for clip in clips:
        assert same_frames(path, list(clip), 60, size=48), clip


@pytest.mark.parametrize('coding', ['h264', 'h264 B frames', 'h264 mkv', 'h264 mov', 'mpeg4',
                                    'vp8'])
def test_frames_before_the_key_frame_are_not_decoded(tmp_path, no_start, monkeypatch, coding):
    monkeypatch.setattr(video, 'MIN_CHECKED', 1)
    codec, name, options = CODINGS[coding]
    path = str(write_video(tmp_path / name, noise(), codec=codec, gop_size=10, options=options))
    decoded, decode = [], Sought._decode

    def counted(*args):
        frames = decode(*args)
        decoded.extend(frames)
        return frames
    monkeypatch.setattr(Sought, '_decode', counted)
    assert len(dict(read_rgb(path, [2, 45, 46], n_frames=60))) == 3
    assert len(decoded) <= 2 + 10


@pytest.mark.parametrize('name, codec, given, is_placed', [
    ('a.mp4', 'mpeg4', {}, True), ('a.avi', 'mpeg4', {}, True), ('a.m4v', 'mpeg4', {}, True),
    ('a.mp4', 'libx264', {'options': {'bf': '0'}}, True),
    ('a.mp4', 'libx264', {'options': {'bf': '3'}}, False), ('a.mkv', 'mpeg4', {}, False),
    ('a.mp4', 'mpeg4', {'rotation': 90}, False), ('a.mp4', 'mpeg4', {'pixel_aspect': 2}, True)])
def test_the_third_clip_of_a_file_is_read_without_opening_it(tmp_path, monkeypatch, name, codec,
                                                             given, is_placed):
    path = str(write_video(tmp_path / name, noise(), codec=codec, gop_size=10, **given))
    clips, found = [[25, 26, 40], [3, 4, 5, 6], [45, 46, 47, 59, 60]], []
    expected = [from_start(path, clip) for clip in clips]
    opened, open_file = [], video.open_file
    monkeypatch.setattr(video, 'open_file',
                        lambda *args, **kwargs: opened.append(1) or open_file(*args, **kwargs))
    for clip in clips:
        opened.clear()
        found.append(dict(read_rgb(path, clip, n_frames=60)))
    assert not opened if is_placed else opened
    assert all(np.array_equal(found[i][number], expected[i][number])
               for i, clip in enumerate(clips) for number in clip)
    with pytest.raises(EndError, match='it ends after frame 60'):
        list(read_rgb(path, [59, 61], n_frames=60))


def test_a_part_of_a_video_is_read_by_seeking_after_one_look_at_the_whole(tmp_path, monkeypatch,
                                                                          no_start):
    path = str(write_video(tmp_path / 'a.mp4', noise(), codec='libx264', gop_size=10))
    counted = []
    count = video._count_frames.__wrapped__
    video._count_frames.cache_clear()
    monkeypatch.setattr(video, '_count_frames', lambda *args: counted.append(1) or count(*args))
    assert len(dict(read_rgb(path, [45], n_frames=50))) == 1
    assert counted == [1]
    assert len(dict(read_rgb(path, [5], n_frames=50))) == 1  # before the second key frame
    assert counted == [1]


@pytest.mark.parametrize('stamps', [lambda s: s[::-1], lambda s: [None] * len(s),
                                    lambda s: [10 ** 12] * len(s), lambda s: [s[0]] * len(s)])
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_wrong_time_stamps_do_not_mislead(tmp_path, monkeypatch, name, stamps):
    path = str(write_video(tmp_path / name, noise(), codec='libx264', gop_size=10))
    packets = Video.packets

    def wrong(opened):
        found = packets(opened)
        return found._replace(stamps=stamps(found.stamps))
    monkeypatch.setattr(Video, 'packets', wrong)
    for clip in ([1, 2], [30, 31], [5, 59, 60]):
        assert same_frames(path, clip, 60, size=48)


def damage(path, begin=0.5, part=0.05):
    data = bytearray(path.read_bytes())
    at, n = int(len(data) * begin), int(len(data) * part)
    data[at:at + n] = b'\xff' * n
    path.write_bytes(data)


@pytest.mark.parametrize('given', ['count', 'no count'])
def test_numbers_are_those_of_extraction_after_an_error_in_the_middle(tmp_path, given):
    path = write_video(tmp_path / 'a.mp4', noise(100), codec='libx264', gop_size=10)
    damage(path)
    n_frames = len(extracted(path, tmp_path / 'jpg'))
    assert 80 <= n_frames < 100 == count_packets(str(path))
    assert VideoFrames().count(str(tmp_path / 'a')) == n_frames
    numbers = list(range(n_frames - 9, n_frames + 1))
    assert same_frames(str(path), numbers, n_frames if given == 'count' else None)
    with pytest.raises(FrameError, match=f'ends after frame {n_frames}') as raised:
        VideoFrames().read(str(tmp_path / 'a'), [n_frames + 1], n_frames)
    assert raised.value.kind == WRONG_COUNT


@pytest.mark.slow
@pytest.mark.parametrize('codec, extension', [('libx264', 'mp4'), ('mpeg4', 'mkv'),
                                              ('libvpx', 'webm')])
def test_damaged_files_give_the_same_frames_wherever_decoding_begins(tmp_path, monkeypatch, codec,
                                                                     extension):
    """Decoders do not tell all that they make up: of such files one in hundreds may differ."""
    monkeypatch.setattr(video, 'MIN_CHECKED', 1)
    made = write_video(tmp_path / f'made.{extension}', noise(60, 96, 128), codec=codec, gop_size=10)
    with Video(str(made)) as opened:
        assert opened.is_forgetful == (codec == 'libvpx')  # FFmpeg says nothing of damage there
    data, rng = made.read_bytes(), random.Random(0)
    n_same = n_other = n_told = 0
    for trial in range(30):
        broken = bytearray(data)
        for at in rng.sample(range(len(data) // 5, len(data)), 3):
            broken[at:at + 20] = rng.randbytes(len(broken[at:at + 20]))
        path = tmp_path / f'{trial}.{extension}'
        path.write_bytes(broken)
        try:
            n_frames = count_frames(str(path))
        except VideoError:
            continue
        begin = rng.randrange(1, n_frames)
        numbers = list(range(begin, min(begin + 3, n_frames + 1)))
        try:
            is_same = same_frames(str(path), numbers, n_frames, size=48)
        except VideoError:
            n_told += 1
            continue
        n_same, n_other = n_same + is_same, n_other + (not is_same)
    assert n_same > 10 and n_other <= (codec != 'libvpx')
    assert n_told > 0 or codec == 'libvpx'


# Encoder, file, what ends a picture.
SILENT = [('libvpx', 'a.webm', b''), ('mjpeg', 'a.avi', b'\xff\xd9')]


@pytest.fixture(scope='module', params=SILENT, ids=lambda param: param[0])
def cut_packets(request, tmp_path_factory):
    """A file of 20 frames, of which every fourth lacks half of its data: its decoder shows there
    what the memory holds, and says nothing."""
    codec, name, end = request.param
    folder = tmp_path_factory.mktemp('cut')
    made = write_video(folder / f'made.{name}', noise(20, 96, 128), codec=codec, gop_size=20,
                       options={'deadline': 'realtime', 'strict': 'unofficial'})
    path = str(folder / name)
    with av.open(str(made)) as original, av.open(path, 'w') as cut:
        stream = cut.add_stream_from_template(original.streams.video[0])
        for number, packet in enumerate(original.demux(video=0), 1):
            data = bytes(packet)
            if data:
                data = data if number % 4 else data[:len(data) // 2] + end
                part = av.Packet(data)
                part.stream, part.time_base = stream, packet.time_base
                part.pts, part.dts, part.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                cut.mux(part)
    with Video(path) as opened:
        assert sum(1 for _ in opened.frames()) == 20 and opened.damage is None
    return path


def test_lost_parts_of_a_picture_do_not_depend_on_which_frames_are_wanted(cut_packets):
    whole = from_start(cut_packets, range(1, 21), 48)
    for step in (2, 3, 4, 7):
        some = from_start(cut_packets, list(whole)[1::step], 48)
        assert all(np.array_equal(some[number], whole[number]) for number in some)


def test_nor_on_frames_that_are_kept(cut_packets):
    with Video(cut_packets) as opened:
        one_by_one = [frame.to_ndarray() for frame in opened.frames()]
    with Video(cut_packets) as opened:
        kept = [frame.to_ndarray() for frame in list(map(opened.kept, opened.frames()))]
    assert np.array_equal(one_by_one, kept)
    for fps in (None, 30):
        made = {}
        for n_threads in (1, 3):
            with Video(cut_packets) as opened:
                made[n_threads] = list(jpegs(opened, size=48, quality=6, fps=fps,
                                             n_threads=n_threads))
        assert made[1] == made[3]


def write_damaged(path):
    """Number of a frame that FFmpeg flags in a video whose every packet decodes."""
    write_video(path, noise(40, 96, 128), codec='mpeg4', gop_size=10)
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(100):
        broken = bytearray(data)
        at = rng.randrange(len(data) // 3, len(data) * 2 // 3)
        broken[at:at + 4] = rng.randbytes(4)
        path.write_bytes(broken)
        with Video(str(path)) as opened:
            flagged = [number for number, frame in enumerate(opened.frames(), 1)
                       if frame.is_corrupt]
        if flagged and opened.damage == f'frame {flagged[0]} is damaged':
            return flagged[0]
    raise AssertionError('no such damage is found')


def test_what_ffmpeg_flags_is_told_by_all_that_read(tmp_path, capsys):
    videos = tmp_path / 'v' / 'run'
    bad = write_damaged(videos / 'bad.avi')
    for name in ('good', 'better'):
        write_video(videos / f'{name}.avi', noise(40, 96, 128, seed=len(name)), codec='mpeg4')
    assert generate_video_jpgs.main([str(tmp_path / 'v'), str(tmp_path / 'jpg'), 'ucf101',
                                     '--n_jobs', '1']) == 1
    assert f'bad.avi: frame {bad} is damaged, the frames that decode' in capsys.readouterr().err
    reader, path = VideoFrames(), str(videos / 'bad')
    for is_exact in (False, True):
        reader = VideoFrames(is_exact=is_exact)
        with pytest.raises(FrameError, match=f'bad.avi.*frame {bad} is damaged') as raised:
            reader.read_transformed(path, [bad - 1, bad], 40, lambda clip: clip)
        assert raised.value.kind == UNDECODABLE
        assert len(reader.read_transformed(path, [1, 2], 40, lambda clip: clip)) == 2
    folder_json.main([str(tmp_path / 'v'), str(tmp_path / 'own.json'), '--val_fraction', '0'])
    flags = ['--video_path', str(tmp_path / 'v'), '--annotation_path', str(tmp_path / 'own.json'),
             '--file_type', 'video', '--no_val', '--n_threads', '0', '--sample_duration', '40',
             '--sample_size', '32', '--no_cuda', '--model_depth', '10', '--batch_size', '3',
             '--resnet_widen_factor', '0.125', '--n_epochs', '1']
    assert check_data.main(flags) == 1
    assert f'undecodable: training: {videos}/bad' in capsys.readouterr().err
    training = [*flags, '--result_path', str(tmp_path / 'r')]
    with pytest.raises(FrameError, match=f'frame {bad} is damaged'):
        main_module.main(training)
    main_module.main([*training, '--bad_frames', 'skip'])
    assert '1 of 3 videos were replaced' in capsys.readouterr().err
    assert predict.main([str(videos), '--weights', str(tmp_path / 'r' / 'save_1.pth'),
                         '--no_cuda']) == 1
    assert f'damaged: {videos}/bad.avi: frame {bad} is damaged' in capsys.readouterr().err


@pytest.mark.videos
@pytest.mark.slow
def test_of_good_files_none_is_called_damaged(videos_dir):
    damaged = []
    for folder in ('ucf101', 'hmdb51', 'odd'):
        for path in (videos_dir / folder).rglob('*'):
            if not is_video(path.name):
                continue
            try:
                with Video(str(path)) as opened:
                    flagged = [n for n, frame in enumerate(opened.frames(), 1) if frame.is_corrupt]
            except VideoError:
                continue
            if flagged:
                damaged.append(path.name)
    assert damaged == ['decord_corrupted.mp4']


def extracted(path, folder, storage=generate_video_jpgs.JpgFolders, quality=1):
    """Names of the images of a video."""
    outcome = extract(Job(path, folder, storage, SHORT_SIDE, quality, None))
    assert outcome.kind in ('done', 'damaged')
    return sorted(folder.glob('*.jpg')) if folder.is_dir() else [folder]


def test_key_frames_that_are_none(tmp_path):
    """Without the table at the end of an .avi each packet is said to be a key frame."""
    moving = np.stack([np.roll(noise(1)[0], 2 * number, axis=1) for number in range(40)])
    made = write_video(tmp_path / 'a.avi', moving, codec='msmpeg4', gop_size=10)
    cut_short(made, 0.7)
    with Video(str(made)) as opened:
        assert len(opened.packets().keys) > 4
    n_frames = count_frames(str(made))
    assert same_frames(str(made), [15, 16], n_frames, 48)
    assert same_frames(str(made), [7], None, 48)


def test_frames_that_are_made_from_a_damaged_one_that_is_shown_after_them(tmp_path, monkeypatch):
    """What is made up for it is not the same everywhere: they are decoded from the start."""
    made = write_video(tmp_path / 'a.mp4', noise(12, 96, 128), codec='libx264',
                       options={'bf': '3', 'x264-params': 'b-adapt=0:scenecut=0'})
    whole = made.read_bytes()
    with av.open(str(made)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
    source = packets[1]
    before = sorted(packet.pts for packet in packets).index(source.pts)
    starts, from_start, n_flagged = [], video._from_start, 0
    monkeypatch.setattr(video, '_from_start', lambda *args: starts.append(1) or from_start(*args))
    for trial in range(30):
        rng, data = random.Random(trial), bytearray(whole)
        at = source.pos + rng.randrange(source.size // 4, source.size - 8)
        data[at:at + 4] = rng.randbytes(4)
        made.write_bytes(data)
        with Video(str(made)) as opened:
            flagged = [n for n, frame in enumerate(opened.frames(), 1) if frame.is_corrupt]
        if flagged[:1] == [before + 1]:
            n_flagged += 1
            assert list(read_rgb(str(made), [before])) and len(starts) == n_flagged
    assert n_flagged > 10


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path):
    """As extraction does; such a stream is decoded from the start."""
    small = write_video(tmp_path / 'small.mp4', noise(20), codec='mpeg4', gop_size=5)
    assert same_frames(str(small), [12, 13], 20)
    with Video(str(small)) as opened:
        opened.shape = opened.shape._replace(width=1)
        rows = opened.packets()
        with pytest.raises(SeekError):
            list(opened.seek(rows, 2)[1].frames())
        with pytest.raises(SeekError):
            list(opened.seek(rows, 2)[1].picked([12]))


@pytest.mark.parametrize('rotation', [90, 180, -90])
def test_rotation_is_honoured(tmp_path, rotation):
    path = write_video(tmp_path / 'a.mp4', noise(30), codec='libx264', gop_size=5,
                       rotation=rotation)
    plain = write_video(tmp_path / 'b.mp4', noise(30), codec='libx264', gop_size=5)
    turned, = VideoFrames(48).read(str(path.with_suffix('')), [22], 30)
    upright, = VideoFrames(48).read(str(plain.with_suffix('')), [22], 30)
    assert torch.equal(turned, torch.rot90(upright, rotation // 90, (1, 2)))


@pytest.mark.parametrize('name', ['a.mp4', 'a.avi', 'a.mkv'])
def test_titles_that_are_not_utf8_are_no_hindrance(tmp_path, name):
    path = write_video(tmp_path / name, noise(30), codec='libx264', title='un deux trois')
    path.write_bytes(path.read_bytes().replace(b'un deux', b'\xe9n d\xe9ux'))
    assert b'\xe9n d\xe9ux' in path.read_bytes()
    assert VideoFrames(48).read(str(path.with_suffix('')), [22], 30)[0].shape[0] == 3


def test_frames_of_a_variable_rate_are_counted_not_timed(tmp_path):
    times = np.cumsum([1, 1, 7, 2, 30] * 12).tolist()
    path = write_video(tmp_path / 'a.mp4', noise(), codec='libx264', gop_size=10, times=times)
    assert same_frames(str(path), [44, 45, 46], 60)
    picture, = VideoFrames(48).read(str(tmp_path / 'a'), [45], 60)
    assert (picture.permute(1, 2, 0).numpy().astype(int) - noise()[44]).std() < 20


def test_nothing_stays_open(tmp_path):
    write_video(tmp_path / 'a.mp4', noise(30), codec='libx264', gop_size=5)
    write_video(tmp_path / 'b.avi', noise(30))
    (tmp_path / 'c.mp4').write_bytes(b'no video')
    reader, before = VideoFrames(), len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        reader.read(str(tmp_path / 'a'), [20, 25], 30)
        reader.read(str(tmp_path / 'b'), [20], 30)
        for path, frames in (('a', [99]), ('c', [1]), ('d', [1])):
            with pytest.raises(FrameError):
                reader.read(str(tmp_path / path), frames)
    assert len(os.listdir('/proc/self/fd')) == before


# ---------------------------------------------------------------- files

@pytest.mark.parametrize('name', ['a.avi', 'a.MP4', 'a.Mkv', 'b.c.mov', '動画 é.mp4', 'a:b.mp4',
                                  '%05d.mp4', 'n' * 251 + '.mp4'])
def test_the_extension_is_found(tmp_path, name):
    made = write_video(tmp_path / f'made.{name.rpartition(".")[2].lower()}', grey_frames([50, 90]))
    path = str(made.rename(tmp_path / name))
    stem = path.rpartition('.')[0]
    assert find_video(stem) == find_video(path) == path
    assert VideoFrames().count(stem) == 2
    assert VideoFrames().read(stem, [2, 1]).shape == (2, 3, 240, 320)


def test_other_files_are_not_taken_for_it(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in ('a.txt', 'ab.mp4', 'a.x.mp4'):
        (tmp_path / name).touch()
    assert find_video(str(tmp_path / 'a')) is None
    # Names that no file can have, as annotations may hold them.
    assert find_video(f'{tmp_path}/a\0') is None and find_video('\0/\0') is None
    assert find_video('\ud800/a') is None
    assert VideoFrames().count(str(tmp_path / 'a')) == VideoFrames().announced('gone/a') == 0


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / 'empty.avi').touch()
    (tmp_path / 'text.mp4').write_text('no video at all\n' * 100)
    write_sound(tmp_path / 'sound.mp4')
    cut_short(write_video(tmp_path / 'no index.mp4', noise()), 0.5)
    kinds = {'empty': EMPTY, 'text': UNDECODABLE, 'sound': UNDECODABLE, 'no index': UNDECODABLE,
             'gone': MISSING}
    for stem, kind in kinds.items():
        with pytest.raises(FrameError, match=stem) as raised:
            VideoFrames().read(str(tmp_path / stem), [1])
        assert raised.value.kind == kind
    for stem in ('empty', 'gone'):
        with pytest.raises(FrameError, match=stem):
            VideoFrames().check(str(tmp_path / stem), 1, 2)


@pytest.mark.parametrize('extension', ['.mkv', '.avi'])
def test_a_file_that_is_cut_short_gives_the_frames_it_has(tmp_path, extension):
    path = write_video(tmp_path / f'a{extension}', noise(100))
    cut_short(path, 0.6)
    n_frames = count_frames(str(path))
    assert n_frames == len(extracted(path, tmp_path / 'jpg')) < 70
    # The last one may be cut itself, which newer versions of FFmpeg call damaged.
    assert same_frames(str(path), [n_frames - 2, n_frames - 1], n_frames)


# ---------------------------------------------------------------- crops while decoding

def smooth(n_frames=30, height=240, width=320):
    """(T, H, W, 3) uint8: colours that change slowly along the sides, slower with each frame."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 100 * np.sin(x / (9 + t) + y / 17 + channel) for t in range(n_frames)
                      for channel in range(3)])
    return waves.reshape(n_frames, 3, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


TRANSFORMS = {
    'random': S.Compose([S.RandomResizedCrop(56), S.RandomHorizontalFlip()]),
    'corner': S.Compose([S.MultiScaleCornerCrop(56), S.RandomHorizontalFlip()]),
    'center': S.Compose([S.Resize(56), S.CenterCrop(56)]),
    'whole': S.Resize(56),
    'views': S.EvenCrops(56, 3),
    'other': S.RandomHorizontalFlip(),
}


def transformed(path, transform, is_exact, seed):
    torch.manual_seed(seed)
    clip = VideoFrames(is_exact=is_exact).read_transformed(str(path), [22, 23], 30, transform)
    return clip.float(), torch.rand(())


@pytest.fixture(scope='module', params=[0, 90, 180, -90])
def turned(request, tmp_path_factory):
    """A video that a player has to turn by so many degrees."""
    return write_video(tmp_path_factory.mktemp('turned') / 'a.mp4', smooth(), codec='libx264',
                       gop_size=5, rotation=request.param).with_suffix('')


@pytest.mark.slow
@pytest.mark.parametrize('name', TRANSFORMS)
def test_crops_while_decoding_are_those_of_whole_frames(turned, name):
    for seed in range(4):
        fast, next_draw = transformed(turned, TRANSFORMS[name], False, seed)
        exact, next_exact_draw = transformed(turned, TRANSFORMS[name], True, seed)
        assert fast.shape == exact.shape and fast.dtype == exact.dtype
        assert torch.equal(next_draw, next_exact_draw)
        assert (fast - exact).abs().mean() < 2
        assert (exact - exact.flip(-1)).abs().mean() > 10


@pytest.mark.slow
@pytest.mark.parametrize('size', [(240, 320), (256, 340), (120, 162), (182, 242)])
def test_boxes_are_scaled_to_the_file(tmp_path, size):
    path = write_video(tmp_path / 'a.mkv', smooth(30, *size), codec='libx264', gop_size=5,
                       options={'crf': '5'}).with_suffix('')
    for seed in range(6):
        fast, _ = transformed(path, TRANSFORMS['random'], False, seed)
        exact, _ = transformed(path, TRANSFORMS['random'], True, seed)
        assert (fast - exact).abs().mean() < 3


@pytest.mark.parametrize('pix_fmt', ['yuv420p', 'yuvj420p', 'yuv444p', 'yuv420p10le', 'gray'])
def test_no_colour_of_a_crop_is_a_level_off(pix_fmt):
    """Extraction rounds chroma down where it changes the range of levels: blue by 0.9."""
    frame = av.VideoFrame.from_ndarray(noise(1, 256, 320)[0], format='rgb24').reformat(
        format=pix_fmt)
    frame.time_base = Fraction(1, 25)
    exact = Scaler(64, 1, 'rgb24').pixels(frame).transpose(2, 0, 1).astype(float)
    crop = Cropper(lambda height, width: (Box(0, 0, height, width), (height, width)), 64)
    off = (crop.pixels(frame) - exact).mean((1, 2))
    assert abs(off).max() < 0.6, off


def test_repeated_frames_come_again(tmp_path):
    path = str(write_video(tmp_path / 'a.mp4', smooth(12, 48, 64), gop_size=5).with_suffix(''))
    clip = VideoFrames(48).read_transformed(path, [3, 4, 3], 12, S.Resize(24))
    assert torch.equal(clip[0], clip[2]) and not torch.equal(clip[0], clip[1])


@pytest.mark.parametrize('container', ['avi', 'h264'])
def test_files_without_time_stamps_are_sought_in(tmp_path, container, no_start):
    codec = 'libx264' if container == 'h264' else 'mpeg4'
    made = write_video(tmp_path / ('a.avi' if container == 'avi' else 'a.mp4'), noise(),
                       gop_size=10, codec=codec, options={'bf': '0'})
    path = made if container == 'avi' else tmp_path / f'raw.{container}'
    if container != 'avi':
        remux(made, path, container)
    assert len(dict(read_rgb(str(path), [45, 46], n_frames=60))) == 2


# ---------------------------------------------------------------- all ways to store frames

READERS = {'jpg': JpgFrames(), 'hdf5': Hdf5Frames(), 'video': VideoFrames()}


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """{storage: path} of one moving picture of 30 frames."""
    root = tmp_path_factory.mktemp('stored')
    ground = np.random.default_rng(3).integers(0, 255, (15, 40, 3)).repeat(16, 0).repeat(16, 1)
    frames = np.stack([ground[:, 8 * i:8 * i + 320] for i in range(30)]).astype(np.uint8)
    path = write_video(root / 'a.mp4', frames, codec='libx264', gop_size=10)
    extracted(path, root / 'jpg')
    extracted(path, root / 'a.hdf5', generate_video_hdf5.Hdf5File)
    return {'jpg': str(root / 'jpg'), 'hdf5': str(root / 'a.hdf5'), 'video': str(root / 'a')}


def clip_of(stored, storage, numbers):
    """Frames counted from 1, float (T, C, H, W)."""
    reader = READERS[storage]
    frames = [number - 1 + reader.first_frame for number in numbers]
    return reader.read(stored[storage], frames, 30).float()


@pytest.mark.parametrize('storage', READERS)
def test_contract_of_readers(stored, storage):
    reader, path = READERS[storage], stored[storage]
    first = reader.first_frame
    assert reader.count(path) == reader.announced(path) == 30
    assert reader.check(path, first, first + 30) is None
    clip = reader.read(path, [first + 20, first, first + 1])
    assert clip.shape == (3, 3, 240, 320) and clip.dtype == torch.uint8
    assert torch.equal(clip[1:], reader.read(path, [first, first + 1], 30))
    with pytest.raises(FrameError, match=path):
        reader.read(path, [first + 30], 30)
    with pytest.raises(FrameError, match='gone'):
        reader.check('gone/a', 1, 2)
    with pytest.raises(FrameError, match='gone'):
        reader.read('gone/a', [1])
    assert reader.count('gone/a') == reader.announced('gone/a') == 0


@pytest.mark.parametrize('storage', READERS)
def test_all_storages_give_the_same_clip(stored, storage):
    """Hard edges of random colours are the worst for JPEG; real clips are below."""
    numbers = [1, 2, 9, 10, 11, 12, 25, 30]
    clip, jpgs = clip_of(stored, storage, numbers), clip_of(stored, 'jpg', numbers)
    assert (clip - jpgs).abs().mean() < 3
    assert (clip - jpgs).mean().abs() < 0.5
    if storage == 'hdf5':
        assert torch.equal(clip, jpgs)
    neighbours = clip_of(stored, 'jpg', [number % 30 + 1 for number in numbers])
    distance = (clip - neighbours).abs().flatten(1).mean(1)
    assert distance.min() > 10


# ---------------------------------------------------------------- with the commands

def test_a_run_on_video_files(tmp_path, capsys):
    for number in range(8):
        label = 'dark' if number % 2 else 'light'
        levels = [20 + 4 * i + 100 * (number % 2) for i in range(20)]
        write_video(tmp_path / 'videos' / label / f'v{number}.mp4', grey_frames(levels))
    folder_json.main([str(tmp_path / 'videos'), str(tmp_path / 'own.json')])
    assert run_main(['--root_path', tmp_path, '--video_path', 'videos', '--annotation_path',
                     'own.json', '--result_path', 'results', '--file_type', 'video', '--n_classes',
                     2, '--model_depth', 10, '--resnet_widen_factor', 0.125, '--sample_size', 32,
                     '--sample_duration', 8, '--batch_size', 4, '--n_threads', 0, '--n_epochs', 1,
                     '--no_cuda', '--inference']) == 0
    assert (tmp_path / 'results' / 'val.json').exists()


# ---------------------------------------------------------------- real clips

def rows_of(videos_dir):
    with open(videos_dir / 'SOURCES.csv', newline='') as file:
        return [row for row in csv.DictReader(file)]


@pytest.mark.videos
@pytest.mark.parametrize('folder', ['ucf101', 'hmdb51', 'kinetics', 'other', 'odd', 'fight_surv'])
def test_seeking_is_exact_in_real_clips(videos_dir, folder):
    rows = [row for row in rows_of(videos_dir) if row['path'].startswith(folder + '/')]
    random.seed(0)
    for row in random.sample(rows, 12) if folder == 'fight_surv' else rows:
        path = str(videos_dir / row['path'])
        n_frames = count_frames(path)
        begin = random.randint(n_frames // 2, max(n_frames // 2, n_frames - 7)) or 1
        clip = list(range(begin, min(begin + 8, n_frames + 1)))
        assert same_frames(path, clip, n_frames, size=64), row['path']


# Files in which key frames may be jumped to, and those in which frames are counted from the start.
SOUGHT = {'ucf101/videos/Basketball/v_Basketball_g01_c01.avi': True,
          'ucf101/videos/Fencing/v_Fencing_g01_c06.mp4': True,  # a raw stream under that name
          # B frames, whose order is not told
          'ucf101/videos/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi': False,
          'hmdb51/videos/ride_horse/ride_horse.mp4': True,
          'kinetics/videos/arm wrestling/demo.mp4': True,
          'kinetics/videos/flipping pancake/flipping_a_pancake.mkv': True,
          'odd/tc_dog_eating_854132.mp4': True,
          'odd/tc_nasa_13013.mp4': True,
          'odd/tc_var_fps_video.mp4': True,
          'odd/decord_corrupted.mp4': False}


@pytest.mark.videos
@pytest.mark.parametrize('path', SOUGHT)
def test_which_real_clips_are_jumped_into(videos_dir, path, monkeypatch):
    path, is_sought = str(videos_dir / path), SOUGHT[path]
    n_frames = count_frames(path)
    starts, from_start = [], video._from_start
    monkeypatch.setattr(video, '_from_start', lambda *args: starts.append(1) or from_start(*args))
    assert dict(read_rgb(path, [n_frames - 2], n_frames=n_frames, size=64))
    assert bool(starts) != is_sought


@pytest.mark.videos
@pytest.mark.parametrize('path', ['ucf101/videos/Basketball/v_Basketball_g01_c01.avi',
                                  'kinetics/videos/arm wrestling/demo.mp4',
                                  'odd/tc_nasa_13013_rotated.mp4',
                                  'odd/tc_dog_eating_854132.mp4'])
def test_real_clips_are_little_other_than_their_jpgs(videos_dir, tmp_path, path):
    """One and a half levels of 255 on average, beside JPEG images of best quality."""
    file = videos_dir / path
    names = extracted(file, tmp_path / 'jpg')
    numbers = list(range(len(names) // 2, len(names), 3))
    clip = VideoFrames().read(str(file.with_suffix('')), numbers, len(names)).float()
    jpgs = JpgFrames().read(str(tmp_path / 'jpg'), numbers).float()
    assert clip.shape == jpgs.shape
    assert (clip - jpgs).abs().mean() < 1.5 and (clip - jpgs).mean((0, 2, 3)).abs().max() < 0.2


@pytest.mark.videos
@pytest.mark.slow
@pytest.mark.parametrize('pattern', ['ucf101/videos/*/*.mp4', 'hmdb51/videos/*/*.mp4',
                                     'fight_surv/fight/fi*1.mp4'])
def test_random_crops_are_within_one_level_of_exact_ones(videos_dir, pattern):
    """On average over the clips of a data set, whose frames are scaled to 240 pixels by the exact
    path and not by the other."""
    paths = sorted(videos_dir.glob(pattern))
    assert len(paths) > 1
    fast, exact, crop = VideoFrames(), VideoFrames(is_exact=True), S.RandomResizedCrop(112)
    off = []
    for trial in range(24):
        path = str(paths[trial % len(paths)])
        n_frames = count_frames(path)
        clips = []
        for reader in (fast, exact):
            torch.manual_seed(trial)
            frame = int(torch.randint(1, n_frames + 1, ()))
            clips.append(reader.read_transformed(path, [frame], n_frames, crop).float())
        off.append((clips[0] - clips[1]).abs().mean().item())
    assert np.mean(off) < 1 and max(off) < 2


def test_edges_of_crops_are_nearly_where_they_should_be():
    seed = random.randrange(2 ** 32)
    print('seed', seed)
    draw, offs, rounded = random.Random(seed), [], []
    for _ in range(2000):
        stored, n_out = draw.choice([240, 256, 340, 480]), draw.choice([112, 224])
        n = draw.uniform(20, stored)
        begin = draw.uniform(0, stored - n)
        span = find_span(begin, begin + n, stored, n_out)
        assert 0 <= span.begin and span.begin + span.n <= stored
        assert 0 <= span.skipped <= span.scaled - n_out
        edges = [span.begin + edge * span.n / span.scaled
                 for edge in (span.skipped, span.skipped + n_out)]
        offs.append(max(abs(edges[0] - begin), abs(edges[1] - begin - n)))
        rounded.append(max(abs(round(begin) - begin), abs(round(begin + n) - begin - n)))
    assert np.mean(offs) < np.mean(rounded) / 2
    assert all(ours < theirs + 0.1 for ours, theirs in zip(offs, rounded))
    assert find_span(0, 240, 240, 112) == (0, 240, 112, 0)
    assert find_span(12, 112, 240, 50) == (12, 100, 50, 0)


@pytest.mark.parametrize('make, said', [
    (os.mkfifo, 'it is a pipe'), (os.mkdir, 'Is a directory'), (lambda path: None, 'No such file'),
    (lambda path: path.symlink_to('/dev/zero'), 'it is a device')])
def test_what_is_no_file_is_not_opened(tmp_path, make, said):
    make(tmp_path / 'a.mp4')
    for read in (Video, count_frames, count_packets, lambda path: list(read_rgb(path, [1]))):
        with pytest.raises(VideoError, match=said):
            read(str(tmp_path / 'a.mp4'))


def test_a_name_like_a_protocol_is_that_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / 'a.mp4', grey_frames(range(0, 200, 10)))
    os.rename('a.mp4', 'concat:a.mp4')
    assert find_sources([Path('concat:a.mp4')], 25)[0].length_sec() == pytest.approx(0.8, abs=0.05)
