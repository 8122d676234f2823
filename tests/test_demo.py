"""The demo: its videos tell their class by motion alone, its folder is its own, its pictures."""

import argparse
import json

import av
import numpy as np
import pytest
from PIL import Image

from opts import parse_opts
from runtime.errors import InputError
from util_scripts import demo, demo_videos
from util_scripts.demo_videos import (HEIGHT, MOTIONS, N_FRAMES, PERIODS, SENSOR_NOISE, WIDTH,
                                      Scene, Waves)
from util_scripts.helpers import demo_results, plotting
from util_scripts.helpers.evaluation import read_results, read_truth
from util_scripts.helpers.run_logs import read_log

SEED = 5
LOOKED_AT = (0, 8, N_FRAMES - 1)  # frames


def decode(path):
    """The frames of a video file, (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


# ---------------------------------------------------------------- no frame tells the class

def fixed_start_states(rng, class_name, draw_states=demo_videos.draw_states):
    """States as draw_states gives them, but all videos start at the same point: these leak."""
    states = draw_states(rng, class_name)
    return np.mod(states - states[0] + PERIODS / 2, PERIODS)


def non_uniformity(draw, n_videos=400):
    """The largest Rayleigh statistic of any class, coordinate and frame, n |mean exp(i phase)|^2.

    Of uniform phases each is distributed as exp(-z): of the 96, one above 14 is one in 10^4.
    """
    rng = np.random.default_rng(SEED)
    largest = 0
    for class_name in MOTIONS:
        paths = np.stack([draw(rng, class_name)[list(LOOKED_AT)] for _ in range(n_videos)])
        vectors = np.exp(2j * np.pi * paths / PERIODS).mean(axis=0)
        largest = max(largest, n_videos * (np.abs(vectors) ** 2).max())
    return largest


def test_states_are_uniform_at_every_frame_whatever_the_class():
    assert non_uniformity(demo_videos.draw_states) < 14


def test_the_test_of_states_sees_a_leak():
    assert non_uniformity(fixed_start_states) > 100


def single_frames(tmp_path, numbers):
    """(features, labels) of single frames, as they come out of the video files.

    Features are 12 x 12 cells of how far pixels are from the colour of the ground.
    """
    features, labels = [], []
    for label, class_name in enumerate(MOTIONS):
        for number in numbers:
            path = tmp_path / 'video.avi'
            demo_videos.make_video(demo_videos.Job(path, SEED, class_name, number))
            frames = decode(path)[list(LOOKED_AT)].astype(np.float32) / 255
            shape = np.abs(frames - np.median(frames, axis=(1, 2), keepdims=True)).mean(axis=3)
            cells = shape.reshape(len(frames), 12, HEIGHT // 12, 12, WIDTH // 12).mean(axis=(2, 4))
            features.append(cells.reshape(len(frames), -1))
            labels += [label] * len(frames)
    return np.concatenate(features), np.array(labels)


def nearest_neighbour(train, train_labels, test):
    distances = ((test[:, None] - train[None]) ** 2).sum(axis=2)
    return train_labels[distances.argmin(axis=1)]


def linear(train, train_labels, test):
    """Ridge regression on one-hot labels."""
    mean, wanted = train.mean(axis=0), np.eye(len(MOTIONS))[train_labels]
    centred = train - mean
    weights = np.linalg.solve(centred.T @ centred + np.eye(train.shape[1]), centred.T @ wanted)
    return ((test - mean) @ weights).argmax(axis=1)


def accuracies_on_single_frames(tmp_path, n_train, n_test):
    """Of nearest neighbour and of a linear classifier, of so many scenes, each in all classes."""
    train, train_labels = single_frames(tmp_path, range(n_test, n_test + n_train))
    test, test_labels = single_frames(tmp_path, range(n_test))
    return [np.mean(classify(train, train_labels, test) == test_labels)
            for classify in (nearest_neighbour, linear)]


@pytest.mark.slow
def test_single_frames_say_nothing_of_the_class(tmp_path):
    """Chance is 0.125; 240 frames of 80 videos scatter about it by 0.021 to 0.037."""
    assert max(accuracies_on_single_frames(tmp_path, 16, 10)) < 0.22


@pytest.mark.slow
def test_the_test_of_single_frames_sees_a_leak(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_videos, 'draw_states', fixed_start_states)
    assert max(accuracies_on_single_frames(tmp_path, 10, 4)) > 0.3


# ---------------------------------------------------------------- the videos

def plain_scene():
    """A white ellipse, longer along x at angle 0, on black."""
    def plain(value):
        return Waves(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)), np.full(3, value))
    return Scene(ground=plain(0.0), skin=plain(1.0), bumps=np.array([[2, 0.3, 0]]), radius=8.0)


def measure(frame):
    """x, y, angle and log of the area's root of what is white in a frame (H, W, 3)."""
    weight = frame[..., 0] * (frame[..., 0] > 255 * 8 * SENSOR_NOISE) / 255
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    area = weight.sum()
    x_mean, y_mean = (weight * x).sum() / area, (weight * y).sum() / area
    x, y = x - x_mean, y - y_mean
    angle = np.arctan2(2 * (weight * x * y).sum(), (weight * (x * x - y * y)).sum()) / 2
    return np.array([x_mean, y_mean, angle, np.log(area) / 2])


@pytest.mark.parametrize('class_name', MOTIONS)
def test_a_class_moves_as_its_name_says(class_name):
    """Five frames from the middle of a picture, so that nothing wraps and nothing fades."""
    step = np.array([1, 1, np.radians(8), 0.03]) * MOTIONS[class_name]
    start = np.array([WIDTH / 2, HEIGHT / 2, 0.3, PERIODS[3] * (0.15 if step[3] >= 0 else 0.4)])
    states = start + np.arange(5)[:, None] * step
    frames = demo_videos.render(np.random.default_rng(SEED), plain_scene(), states)
    moved = measure(frames[-1]) - measure(frames[0])
    assert (np.abs(moved - 4 * step) < (0.9, 0.9, 0.06, 0.04)).all()


def test_a_shape_that_leaves_on_one_side_comes_back_on_the_other():
    states = np.array([[WIDTH - 0.5, HEIGHT / 2, 0, 0.1]])
    frame = demo_videos.render(np.random.default_rng(SEED), plain_scene(), states)[0]
    row = frame[HEIGHT // 2, :, 0]
    assert row[0] > 200 and row[-1] > 200 and row[WIDTH // 2] < 50


def test_same_seed_same_bytes(tmp_path):
    def bytes_of(name, seed):
        path = tmp_path / name
        demo_videos.make_video(demo_videos.Job(path, seed, 'Grow', 3))
        return path.read_bytes()

    assert bytes_of('a.avi', 1) == bytes_of('b.avi', 1)
    assert bytes_of('a.avi', 1) != bytes_of('c.avi', 2)


@pytest.mark.slow
def test_the_data_set_is_laid_out_as_ucf101(tmp_path, capsys):
    argv = [str(tmp_path), '--n_train', '5', '--n_val', '2', '--seed', '3']
    demo_videos.main(argv)
    assert '8 classes, 5 training and 2 test videos' in capsys.readouterr().out
    splits = {name: (tmp_path / 'splits' / name).read_text().splitlines()
              for name in ('classInd.txt', 'trainlist01.txt', 'testlist01.txt')}
    assert splits['classInd.txt'][:2] == ['1 Grow', '2 MoveDown']
    assert splits['testlist01.txt'][:2] == ['Grow/v_Grow_g01_c01.avi', 'Grow/v_Grow_g01_c02.avi']
    assert splits['trainlist01.txt'][4:6] == ['Grow/v_Grow_g03_c01.avi 1',
                                              'MoveDown/v_MoveDown_g02_c01.avi 2']
    listed = {line.split()[0] for name in ('trainlist01.txt', 'testlist01.txt')
              for line in splits[name]}
    videos = tmp_path / 'videos'
    assert listed == {str(path.relative_to(videos)) for path in videos.rglob('*.avi')}
    assert len(listed) == 8 * 7
    written = decode(videos / 'Shrink' / 'v_Shrink_g01_c02.avi')
    assert written.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    drawn = demo_videos.make_frames(3, 'Shrink', 1)
    assert np.abs(written.astype(int) - drawn).mean() < 6  # colours are stored at half resolution
    with pytest.raises(InputError, match='already there'):
        demo_videos.main(argv)


@pytest.mark.parametrize('numbers', [(1, 1), (80, 20), (3, 9)])
def test_no_group_is_in_both_lists(numbers):
    groups = [{number // demo_videos.CLIPS_PER_GROUP for number in split}
              for split in demo_videos.split_numbers(*numbers)]
    assert not groups[0] & groups[1]


# ---------------------------------------------------------------- the demo

ARGS = argparse.Namespace(seed=7, n_train=80, n_val=20, n_epochs=3)


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results' / 'precious.txt').write_text('x')
    with pytest.raises(InputError, match='no demo made it'):
        demo.main(['--dst', str(tmp_path)])
    assert [path.name for path in tmp_path.rglob('*')] == ['results', 'precious.txt']


def test_a_rerun_deletes_what_a_demo_made_and_nothing_else(tmp_path):
    dst = tmp_path / 'new' / 'folder'
    demo.clear_folder(dst)
    for name in ('results/save_1.pth', 'jpg/Grow', 'notes/mine'):
        (dst / name).mkdir(parents=True)
    demo.clear_folder(dst)
    assert sorted(path.name for path in dst.iterdir()) == sorted(['notes', demo.MARKER])


def test_a_file_in_place_of_the_folder_is_an_input_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='cannot be used'):
        demo.clear_folder(tmp_path / 'file')


@pytest.mark.parametrize('stage', ['train', 'infer'])
def test_the_flags_of_main_exist(stage, tmp_path):
    script, *flags = demo.commands(tmp_path, ARGS)[stage]
    opts = parse_opts(flags)
    assert script == 'main.py'
    assert opts.no_hflip or stage == 'infer'
    assert opts.n_classes == len(MOTIONS) and opts.result_path == tmp_path / 'results'


def test_infer_takes_the_last_checkpoint_of_the_training(tmp_path):
    flags = demo.commands(tmp_path, ARGS)['infer']
    assert flags[flags.index('--resume_path') + 1] == 'results/save_3.pth'


@pytest.mark.parametrize('code, status', [
    ('import sys; sys.exit(3)', 3),
    ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 137)])
def test_a_stage_that_fails_stops_the_demo(code, status, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(demo, 'commands', lambda *_: {
        'first': ['-c', 'print("from first")'], 'second': ['-c', code],
        'third': ['-c', 'print("from third")']})
    assert demo.main(['--dst', str(tmp_path / 'demo')]) == status
    said = capfd.readouterr()
    assert '$ python -c' in said.out and 'from first\n' in said.out
    assert 'from third\n' not in said.out
    assert said.err == (f'the demo stopped: stage "second" ended with exit status {status}, for '
                        'the reason above\n')


def finished_run(dst):
    """What the commands leave behind, of two videos a class; one of them is taken for Grow."""
    database, results = {}, {}
    for number, class_name in enumerate(list(MOTIONS) * 2):
        video_id = demo_videos.video_name(class_name, number)
        folder = dst / 'jpg' / class_name / video_id
        folder.mkdir(parents=True)
        for frame in demo_results.FRAME_NUMBERS:
            Image.new('RGB', (WIDTH, HEIGHT), (8 * frame, 90, 90)).save(
                folder / f'image_{frame:05d}.jpg')
        database[video_id] = {'subset': 'validation', 'annotations': {'label': class_name}}
        said = 'Grow' if number == 9 else class_name
        results[video_id] = [{'label': said, 'score': 0.9}]
    (dst / 'results').mkdir()
    (dst / demo.ANNOTATION).write_text(json.dumps({'labels': list(MOTIONS), 'database': database}))
    (dst / 'results' / 'val.json').write_text(json.dumps({'results': results}))
    (dst / 'results' / 'train.log').write_text('epoch\tloss\tacc\tlr\n1\t2\t.3\t.1\n2\t1\t.6\t.1\n')
    (dst / 'results' / 'val.log').write_text('epoch\tloss\tacc\tvideo_top1\n1\t2\t.2\t.3\n')


@pytest.mark.slow
def test_the_report_is_that_of_the_result_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, 'commands', lambda *_: {'all': ['-c', 'pass']})
    monkeypatch.setattr(demo, 'run_stage', lambda _: finished_run(tmp_path) or 1.5)
    assert demo.main(['--dst', str(tmp_path), '--seed', '4']) == 0
    report = json.loads((tmp_path / 'results' / 'demo.json').read_text())
    assert report['accuracy'] == 15 / 16 and report['n_videos'] == 16 and report['seed'] == 4
    assert report['seconds']['all'] == 1.5
    *_, right, written, then = capsys.readouterr().out.splitlines()
    assert right.startswith('93.8% of 16 unseen videos')
    assert written.startswith('written: ') and written.endswith('demo.json')
    assert then.startswith('next: ') and then.endswith(f'report {tmp_path / "results"}')
    for name in ('curves.png', 'confusion.png', 'clips.png'):
        with Image.open(tmp_path / 'results' / name) as picture:
            assert picture.width > 700


def test_wrong_clips_come_first(tmp_path):
    finished_run(tmp_path)
    _, truth, _ = read_truth(tmp_path / demo.ANNOTATION, 'validation')
    scores, _ = read_results(tmp_path / 'results' / 'val.json', truth, len(MOTIONS), 1)
    (wrong, label), *right = demo_results.choose_clips(truth, scores, list(MOTIONS))
    assert label == 'MoveDown' and list(scores[wrong]) == ['Grow']
    assert [label for _, label in right] == list(MOTIONS)
    assert all(list(scores[video_id]) == [label] for video_id, label in right)


# ---------------------------------------------------------------- pictures

def test_curves_are_drawn_of_what_is_there(tmp_path):
    (tmp_path / 'train.log').write_text('epoch\tloss\tacc\tlr\n1\t2.5\t0.25\t0.1\n')
    table = read_log(tmp_path / 'train.log')
    assert table['loss'].tolist() == [2.5]
    plotting.draw_runs({'': {'training': table}}, tmp_path / 'curves.pdf')
    assert (tmp_path / 'curves.pdf').read_bytes().startswith(b'%PDF')
