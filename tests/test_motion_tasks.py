"""Tasks of motion: their clips, that no single frame solves them, and that they can be trained."""

import csv
import json
import random
from argparse import Namespace

import pytest

from runtime.errors import InputError
from tests.helpers import grey_frames, write_video
from tests.tiny_data import TinyData, run_main
from util_scripts.helpers.motion_clips import draw_clips, windows
from util_scripts.helpers.splits import Own
from util_scripts.motion_tasks import main


def make(data, dst, *flags):
    """(annotation, {clip: its frames as bytes})"""
    task = flags[flags.index('--task') + 1] if '--task' in flags else 'speed'
    main([str(data.root / 'jpg'), str(dst), *map(str, flags)])
    made = json.loads((dst / f'{task}.json').read_text())
    frames = {}
    for name, entry in made['database'].items():
        folder = dst / task / entry['annotations']['label'] / name
        begin, end = entry['annotations']['segment']
        frames[name] = [(folder / f'image_{number:05d}.jpg').read_bytes()
                        for number in range(begin, end)]
        assert len(list(folder.iterdir())) == end - begin
    return made, frames


@pytest.mark.parametrize('size', [2, 7, 8])
def test_windows_are_around_one_frame_and_inside(seed, size):
    draw = random.Random(seed)
    for n_frames in range(1, 80):
        found = windows(n_frames, size, [1, 2, 4], draw)
        assert bool(found) == (n_frames > 4 * (size - 1))
        for speed, frames in found.items():
            assert len(frames) == size and min(frames) >= 1 and max(frames) <= n_frames
            assert {b - a for a, b in zip(frames, frames[1:])} == {speed}
        assert len({frames[(size - 1) // 2] for frames in found.values()}) <= 1


def test_speed(tiny_data, tmp_path, capsys):
    made, frames = make(tiny_data, tmp_path, '--speeds', 1, 2, '--n_frames', 5)
    assert made['labels'] == ['1x', '2x']
    sources = {name.rpartition('_')[0] for name in frames}
    assert len(frames) == 2 * len(sources)
    for name in sources:
        slow, fast = frames[f'{name}_1x'], frames[f'{name}_2x']
        assert slow[2] == fast[2] and slow[0] != fast[0]
        assert {slow[0], slow[4]} == {fast[1], fast[3]}
    assert f'{len(frames)} clips of {len(sources)} videos' in capsys.readouterr().out


def test_direction_is_in_the_order_alone(tiny_data, tmp_path):
    made, frames = make(tiny_data, tmp_path, '--task', 'direction', '--per_video', 2)
    assert made['labels'] == ['forwards', 'backwards']
    names = [name for name in frames if name.endswith('_forwards')]
    for name in names:
        assert frames[name][::-1] == frames[name.replace('forwards', 'backwards')]
    assert len(frames) == 2 * len(names) and any(name.endswith('_2_forwards') for name in names)


def test_clips_of_a_recording_are_on_one_side(tiny_data, tmp_path):
    made, _ = make(tiny_data, tmp_path, '--n_frames', 3, '--speeds', 1, 2, '--by_group', r'_(\d)$',
                   '--val_fraction', '0.4')
    with open(tmp_path / 'speed_groups.csv', newline='') as file:
        group_of = {row['path'].partition('/')[2]: row['group'] for row in csv.DictReader(file)}
    sides = {(group_of[name], entry['subset']) for name, entry in made['database'].items()}
    assert len(sides) == len({group for group, _ in sides})
    assert len({side for _, side in sides}) == 2


def test_the_same_seed_gives_the_same_clips(tiny_data, tmp_path):
    first = make(tiny_data, tmp_path / 'a', '--n_frames', 2, '--speeds', 1, 3)
    assert first == make(tiny_data, tmp_path / 'b', '--n_frames', 2, '--speeds', 1, 3)
    assert first == make(tiny_data, tmp_path / 'a', '--n_frames', 2, '--speeds', 1, 3)
    assert first[1] != make(tiny_data, tmp_path / 'c', '--n_frames', 2, '--speeds', 1, 3, '--seed',
                            2)[1]


def test_names_that_are_no_text():
    """Bytes that are no UTF-8 are half characters in Python."""
    video = Own('a/\udcff', 'a', 'g')
    args = Namespace(seed=1, per_video=1, task='direction', n_frames=4)
    assert len(list(draw_clips([video], {video.path: 9}, args))) == 2


def test_videos_that_are_too_short(tiny_data, tmp_path):
    with pytest.raises(InputError, match='none of its 21 videos has enough frames; give a smaller '
                                         '--n_frames, or slower --speeds'):
        main([str(tiny_data.root / 'jpg'), str(tmp_path), '--n_frames', '31'])


@pytest.mark.slow
def test_a_task_can_be_trained(tmp_path):
    data = TinyData(tmp_path / 'data')
    make(data, tmp_path / 'data', '--n_frames', 4, '--speeds', 1, 2)
    argv = data.argv(tmp_path / 'r', '--n_epochs', 1, '--sample_duration', 4)
    for flag, value in (('--video_path', 'speed'), ('--annotation_path', 'speed.json'),
                        ('--n_classes', '2')):
        argv[argv.index(flag) + 1] = value
    assert run_main(argv) == 0


def test_videos_that_are_not_extracted(tmp_path):
    write_video(tmp_path / 'v' / 'a' / 'x.mp4', grey_frames([50, 100]))
    with pytest.raises(InputError, match='no folder of frames in it; extract the videos with'):
        main([str(tmp_path / 'v'), str(tmp_path / 'task')])
