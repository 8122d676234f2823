"""Predictions on files as they are: the scores of main.py's inference, and what is said of them."""

import csv
import json
import os
import signal
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.video import Video
from model import load_model
from runtime.errors import InputError, Stopped
from tests.helpers import (cut_short, files_of_at_most, grey_frames, run_script, write_sound,
                           write_video)
from tests.tiny_data import run_main
from util_scripts import generate_video_jpgs, predict
from util_scripts.helpers import live, prediction, video_sources
from util_scripts.helpers.captions import MIN_SHORT_SIDE, clock, draw_scores


@pytest.fixture(scope='module')
def trained(tiny_data):
    """A checkpoint of clips of 8 frames and 32 pixels, every second frame of the video."""
    argv = tiny_data.argv('trained', '--n_epochs', 1, '--sample_t_stride', 2,
                          '--learning_rate', 0.002)
    assert run_main(argv) == 0
    return tiny_data.root / 'trained' / 'save_1.pth'


@pytest.fixture(scope='module')
def inferred(tiny_data, trained):
    """Results of main.py's inference on frames of the validation videos, a row a window."""
    argv = tiny_data.argv('inferred', '--resume_path', 'trained/save_1.pth', '--no_train',
                          '--no_val', '--inference', '--inference_stride', 5,
                          '--inference_no_average', '--output_topk', 0)
    assert run_main(argv) == 0
    return json.loads((tiny_data.root / 'inferred' / 'val.json').read_text())['results']


def scores(entries):
    return {entry['label']: entry['score'] for entry in entries}


@pytest.fixture
def command(trained, tmp_path, capsys):
    """Run the command: (status, what --json holds, stdout, stderr)."""
    def call(*argv):
        path = tmp_path / 'out.json'
        status = predict.main([*map(str, argv), '--weights', str(trained), '--no_cuda', '--json',
                               str(path)])
        return status, json.loads(path.read_text()), *capsys.readouterr()
    return call


def coloured_video(path, n_frames=23, fps=25):
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 90, (n_frames, 5, 6, 3)).repeat(32, axis=1).repeat(32, axis=2)
    frames[..., 1] += np.linspace(0, 30, n_frames, dtype=int)[:, None, None]
    return write_video(path, frames.astype(np.uint8), fps=fps)


def add_sound(path, out_path, codec):
    """The video with a tone beside it."""
    with av.open(str(path)) as source, av.open(str(out_path), 'w') as container:
        pictures = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream(codec, rate=16000, layout='mono')
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        tone = np.sin(np.arange(32000) / 5) * 0.5
        for begin in range(0, 32000, 1000):
            samples = (tone[None, begin:begin + 1000] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format='s16', layout='mono')
            frame.sample_rate, frame.pts = 16000, begin
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return out_path


# ---------------------------------------------------------------- the same scores

def test_folders_of_frames_get_the_scores_of_inference(tiny_data, inferred, command):
    folders = [tiny_data.root / 'jpg' / video_id.split('_')[0] / video_id for video_id in inferred]
    status, data, _, _ = command(*folders, '--stride', 5, '--timeline', '--batch_size', 3)
    assert status == 0 and data['failed'] == {}
    for folder, video_id in zip(folders, inferred):
        windows = data['timeline'][str(folder)]
        expected = inferred[video_id]
        assert [w['segment'] for w in windows] == [w['segment'] for w in expected]
        for window, other in zip(windows, expected):
            assert scores(window['result']) == pytest.approx(scores(other['result']), abs=1e-5)
        mean = {label: np.mean([scores(w['result'])[label] for w in expected])
                for label in scores(expected[0]['result'])}
        assert scores(data['results'][str(folder)]) == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize('file_type, tolerance', [('jpg', 0.005), ('video', 1e-5)])
def test_a_video_gets_the_scores_of_extraction_and_inference(
        tmp_path, trained, tiny_data, command, file_type, tolerance):
    video = coloured_video(tmp_path / 'videos' / 'green' / 'a.mp4')
    assert generate_video_jpgs.main([str(tmp_path / 'videos'), str(tmp_path / 'jpg'), 'ucf101',
                                     '--n_jobs', '1']) == 0
    annotation = {'labels': ['red', 'green', 'blue'], 'database': {
        'a': {'subset': 'validation', 'annotations': {'label': 'green', 'segment': [1, 24]}}}}
    (tmp_path / 'a.json').write_text(json.dumps(annotation))
    argv = tiny_data.argv(tmp_path / 'out', '--resume_path', trained, '--no_train', '--no_val',
                          '--inference', '--file_type', file_type, '--video_path',
                          tmp_path / ('jpg' if file_type == 'jpg' else 'videos'),
                          '--annotation_path', tmp_path / 'a.json')
    assert run_main(argv) == 0
    expected = json.loads((tmp_path / 'out' / 'val.json').read_text())['results']['a']
    _, data, _, _ = command(video)
    assert scores(data['results'][str(video)]) == pytest.approx(scores(expected), abs=tolerance)


def test_memory_holds_one_batch_of_windows(trained):
    network, info = load_model(trained)
    n_read = 0

    def frames():
        nonlocal n_read
        for n_read in range(1, 10_001, 2):  # as --sample_t_stride of the training has it
            pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
            yield video_sources.Frame(n_read, n_read / 25, pixels)
    windows = prediction.classify(frames(), 25, network, info, stride=8, batch_size=2)
    next(windows)
    assert n_read == 8 * 2 * 2 - 1  # two windows of eight of every second frame
    assert next(windows).segment == (17, 32)


# ---------------------------------------------------------------- what is found and what is said

def test_broken_files_are_named_and_the_rest_goes_on(tmp_path, command):
    good = coloured_video(tmp_path / 'in' / 'deep' / 'good.mp4', n_frames=40)
    cut_short(coloured_video(tmp_path / 'in' / 'cut.avi', n_frames=40), 0.6)
    write_sound(tmp_path / 'in' / 'sound.mp4')
    (tmp_path / 'in' / 'empty.mkv').touch()
    (tmp_path / 'in' / 'notes.txt').touch()
    status, data, out, err = command(tmp_path / 'in', good)
    assert status == 1
    assert [path.rsplit('/')[-1] for path in data['results']] == ['cut.avi', 'good.mp4']
    assert [path.rsplit('/')[-1] for path in data['failed']] == ['empty.mkv', 'sound.mp4']
    assert 'no video stream' in err and 'damaged: ' in err
    assert '2 videos, ' in out and ' clips/s; 1 damaged, 2 failed' in out


@pytest.mark.slow
@pytest.mark.videos
def test_files_that_break_pipelines(videos_dir, command):
    names = ['decord_corrupted.mp4', 'decord_unordered.mov', 'decord_video_90.mov',
             'tc_h264_10bits.mp4', 'tc_testsrc2_odd_width_vp9.mp4', 'tc_nasa_13013_rotated.mp4']
    status, data, _, err = command(*(videos_dir / 'odd' / name for name in names))
    assert status == 1 and len(data['results']) == len(names) and data['failed'] == {}
    assert [line.split(':')[0] for line in err.splitlines()[1:]] == ['damaged']


def test_table_and_csv(tmp_path, command):
    video = coloured_video(tmp_path / 'a.mp4', n_frames=40, fps=20)
    status, data, out, _ = command(video, '--topk', 2, '--timeline', '--csv', tmp_path / 'a.csv')
    lines = out.splitlines()
    assert status == 0 and lines[0] == f'{video}  (1.95 s, 2 windows)'
    best = data['results'][str(video)][0]
    assert lines[1] == f'    {best["score"]:.3f}  {best["label"]}'
    assert lines[3].startswith('       0.00 -    0.75 s  ')
    with open(tmp_path / 'a.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['window'], row['rank']) for row in rows] == [
        ('', '1'), ('', '2'), ('1', '1'), ('1', '2'), ('2', '1'), ('2', '2')]
    assert rows[2]['end_sec'] == '0.75' and rows[0]['label'] == best['label']


@pytest.mark.slow
def test_the_annotated_video(tmp_path, command):
    video = coloured_video(tmp_path / 'a.mp4', n_frames=40, fps=20)
    assert command(video, '--annotate', tmp_path / 'out.mp4')[0] == 0
    with av.open(str(tmp_path / 'out.mp4')) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 40
    assert min(frames[0].width, frames[0].height) == MIN_SHORT_SIDE
    assert float(frames[20].time) == pytest.approx(1.0, abs=0.01)
    assert command(video, '--annotate', tmp_path / 'many')[0] == 0
    assert (tmp_path / 'many' / 'a.mp4').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('format_name, codec', [('mp4', 'aac'), ('avi', 'pcm_s16le')])
def test_the_annotated_video_keeps_its_sound(tmp_path, command, format_name, codec):
    """As it is, or encoded where MP4 holds no such sound; 2 s of a tone beside 2 s of pictures."""
    silent = coloured_video(tmp_path / 'silent.mp4', n_frames=50)
    video = add_sound(silent, tmp_path / f'a.{format_name}', codec)
    assert command(video, '--annotate', tmp_path / 'out.mp4')[0] == 0
    with av.open(str(tmp_path / 'out.mp4')) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == 'aac'
        frames = [frame for frame in container.decode(sound)]
    assert sum(frame.samples for frame in frames) / sound.rate == pytest.approx(2, abs=0.1)
    assert max(abs(frame.to_ndarray()).max() for frame in frames) > 0.1


def test_the_time_is_drawn():
    assert [clock(sec) for sec in (0.05, 61.25, 3661.25)] == ['0:00.0', '1:01.2', '1:01:01.2']
    bright = grey_frames([255], 360, 480)[0]
    entries = [{'label': 'run', 'score': 0.5}]
    timed, plain = draw_scores(bright, entries, 61.25), draw_scores(bright, entries)
    assert (timed[:180] == plain[:180]).all() and (timed[300:, :120] < 90).any()
    assert (plain[300:] == 255).all()


# ---------------------------------------------------------------- stopped, and going on

@pytest.fixture
def stopping(monkeypatch):
    """Videos end in a request to stop, after so many frames; without a number they are whole."""
    def after(n_frames):
        class Stopping(Video):
            def frames(self):
                for number, frame in enumerate(super().frames(), 1):
                    yield frame
                    if number == n_frames:
                        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(video_sources, 'Video', Stopping)
    return after


@pytest.mark.slow
@pytest.mark.parametrize('n_frames', [3, 60, 96])
def test_a_stopped_prediction_goes_on(tmp_path, command, stopping, capsys, n_frames):
    first = coloured_video(tmp_path / 'a.mp4', n_frames=24)
    video = coloured_video(tmp_path / 'b [1].mp4', n_frames=120)
    argv = [first, video, '--stride', 4, '--batch_size', 2, '--timeline', '--csv',
            tmp_path / 'out.csv']
    _, whole, _, err = command(*argv)
    assert 'taken over' not in err and not list(tmp_path.glob('*.jsonl'))
    rows = (tmp_path / 'out.csv').read_text()
    stopping(n_frames)
    with pytest.raises(Stopped, match='the same command goes on'):
        command(*argv)
    capsys.readouterr()
    found = json.loads((tmp_path / 'out.json').read_text())['timeline']
    assert sum(map(len, found.values())) < sum(map(len, whole['timeline'].values()))
    assert all(whole['timeline'][name][:len(windows)] == windows
               for name, windows in found.items())
    n_found = sum(map(len, found.values()))
    stopping(None)
    status, data, out, err = command(*argv)
    assert status == 0 and (f'{n_found} windows are taken over' in err) == (n_found > 0)
    assert list(data['timeline']) == list(whole['timeline'])
    for name, windows in whole['timeline'].items():
        for window, again in zip(windows, data['timeline'][name], strict=True):
            assert window['segment'] == again['segment']
            assert scores(again['result']) == pytest.approx(scores(window['result']), abs=1e-5)
    assert len((tmp_path / 'out.csv').read_text()) == len(rows)
    assert f'written: {tmp_path / "out.json"}, {tmp_path / "out.csv"}' in out
    assert not list(tmp_path.glob('*.jsonl'))


def test_another_video_of_the_same_name_is_not_taken_over(tmp_path, command, stopping, capsys):
    video = coloured_video(tmp_path / 'a.mp4', n_frames=60)
    stopping(50)
    with pytest.raises(Stopped):
        command(video, '--stride', 4, '--batch_size', 1, '--timeline')
    stopping(None)
    coloured_video(tmp_path / 'a.mp4', n_frames=40)
    _, data, _, _ = command(video, '--stride', 4, '--batch_size', 1, '--timeline')
    assert data['timeline'][str(video)][-1]['segment'][1] <= 41


# ---------------------------------------------------------------- text on pictures, cameras, errors

@pytest.mark.parametrize('name, said', [('a.jpg', 'is a picture, not a video'),
                                        ('a.png', 'is a picture, not a video'),
                                        ('a.txt', 'is a text file, not a video')])
def test_what_is_no_video_is_refused(tmp_path, command, name, said):
    if name == 'a.txt':
        (tmp_path / name).write_text('hello there\n' * 50)
    else:
        Image.fromarray(grey_frames([90], 48, 64)[0]).save(tmp_path / name)
    with pytest.raises(InputError, match=said):
        command(tmp_path / name)


def test_more_labels_than_classes_are_said(tmp_path, command):
    video = coloured_video(tmp_path / 'a.mp4')
    assert '--topk 7: there are 3 classes, and all are given' in command(video, '--topk', 7)[3]
    assert '--topk' not in command(video)[3]


@pytest.mark.parametrize('height, width', [(17, 400), (400, 100), (720, 1280)])
def test_text_is_light_on_dark(height, width):
    bright = grey_frames([255], height, width)[0]
    drawn = draw_scores(bright, [{'label': 'a class with a very long name' * 4, 'score': 0.0}])
    corner = drawn[:drawn.shape[0] // 4, :drawn.shape[1] // 2]
    assert (corner.max(axis=2) < 90).any() and (drawn[-1, -1] == 255).all()
    assert min(drawn.shape[:2]) == max(MIN_SHORT_SIDE, min(height, width))


@pytest.mark.slow
def test_a_camera_is_read_until_ctrl_c(tmp_path, monkeypatch, command):
    video = coloured_video(tmp_path / 'a.mp4', n_frames=40)

    class Camera(video_sources.Video):
        def frames(self):
            for frame in super().frames():
                yield frame
                time.sleep(0.05)  # at a camera's pace, so that it is read before the signal
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                yield frame
                time.sleep(0.02)
    monkeypatch.setattr(live, 'Webcam', lambda number: Camera(video))
    status, data, out, _ = command('--webcam', 0)
    assert status == 0 and list(data['results']) == ['camera 0']
    assert out.splitlines()[0].startswith('       0.00 -    0.60 s')


def test_no_camera_is_said(command):
    status, data, _, err = command('--webcam', 77)
    assert status == 1 and list(data['failed']) == ['camera 77']
    assert 'failed: camera 77: ' in err


def test_labels(tmp_path):
    (tmp_path / 'a.txt').write_text('run\nswim\n\n')
    assert prediction.read_labels(tmp_path / 'a.txt') == ('run', 'swim')
    (tmp_path / 'a.json').write_text('{"labels": ["run", "swim"], "database": {}}')
    assert prediction.read_labels(tmp_path / 'a.json') == ('run', 'swim')


def test_tables_hold_no_control_characters(tmp_path):
    label = 'a\33]0;b'
    said = prediction.Prediction('v\n\33[2J\udcff.mp4', [{'label': label, 'score': 0.5}])
    prediction.write_csv(tmp_path / 'a.csv', [said], timeline=False)
    with open(tmp_path / 'a.csv', newline='') as file:
        _, row = csv.reader(file)
    assert row == ['v\\n\\x1b[2J\\udcff.mp4', '', '0.0', '0.0', '1', 'a\\x1b]0;b', '0.500000']


def test_the_annotated_video_on_a_full_disk(tmp_path, trained):
    video = write_video(tmp_path / 'v.mp4', grey_frames(range(0, 200, 20)))
    with files_of_at_most(1000):
        done = run_script('predict', video, '--weights', trained, '--no_cuda', '--annotate',
                          tmp_path / 'a.mp4')
    assert done.returncode == 2 and f'error: {tmp_path}/a.mp4: cannot be written: ' in done.stderr
    assert not list(tmp_path.glob('.a*'))
