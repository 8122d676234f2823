"""Streams: what is lost and what is not, cut and back, other sizes, events as they happen."""

import array
import fcntl
import http.server
import json
import os
import random
import re
import signal
import termios
import threading
import time
from functools import partial

import pytest
import torch

from tests.helpers import grey_frames, run_script, write_video
from tests.processes import LIMIT_SEC, start_command, wait_for
from tests.streams import RtspSender, Sender, WebServer, read_request, transport_stream
from tests.test_predict import trained  # noqa: F401  (a fixture: clips of 8, each second frame)
from util_scripts.helpers import streams
from util_scripts.helpers.addresses import is_address, shown_address
from util_scripts.helpers.streams import LiveVideo, Stream, unbroken_windows
from util_scripts.helpers.video_sources import Frame

pytestmark = pytest.mark.slow


def small(frame):
    return torch.nn.functional.interpolate(frame[None].float(), (8, 8))[0].byte()


def stream_of(sender, *, every=1, n_held=1000, reconnect_sec=0.5, **options):
    return Stream(lambda: LiveVideo(sender.address), 'it', small, every=every, n_held=n_held,
                  reconnect_sec=reconnect_sec, **options)


def taken(stream, wait_sec=0.0):
    """[(run, number)] of all that a reader gets, who waits after each."""
    found = []
    with stream:
        for item in stream.items():
            if item is not None:
                found.append((item[0], item[1].number))
                time.sleep(wait_sec)
    return found


def until(stream, is_enough):
    """The items up to one."""
    items = []
    with stream:
        for item in filter(None, stream.items()):
            items.append(item)
            if is_enough(*item):
                return items
    raise AssertionError('the stream ended')


def assert_unbroken(found, every=1):
    """Frames of a run follow one another."""
    for (run, number), (next_run, next_number) in zip(found, found[1:]):
        assert next_run > run or next_number == number + every


# ---------------------------------------------------------------- senders of all kinds

@pytest.mark.parametrize('kind', [Sender, RtspSender])
def test_a_sender_in_real_time(tmp_path, kind):
    data = transport_stream(tmp_path / 'a.ts', 50)
    with kind([(data, 2.0)]) as sender:
        stream = stream_of(sender, every=2)
        found = taken(stream)
    assert_unbroken(found, 2)
    assert stream.counts.frames >= 49 and stream.counts.dropped == 0
    assert len({run for run, _ in found}) == 1 and abs(len(found) - 25) <= 1
    assert stream.failure is None


def test_a_sender_that_is_slow(tmp_path):
    """A quarter of real time: nothing is lost, and times are those of the pictures."""
    data = transport_stream(tmp_path / 'a.ts', 12)
    with Sender([(data, 2.0)]) as sender:
        stream = stream_of(sender)
        with stream:
            found = [item[1] for item in stream.items() if item is not None]
    assert stream.counts.dropped == 0 and [frame.number for frame in found] == list(range(1, 13))
    assert found[-1].begin_sec == pytest.approx(11 / 25, abs=0.02)


def test_a_sender_that_is_fast_and_a_reader_that_is_slow(tmp_path):
    """Frames are dropped and counted; those that are given follow one another."""
    data = transport_stream(tmp_path / 'a.ts', 300)
    with Sender([(data, 0.0)]) as sender:
        stream = stream_of(sender, n_held=16)
        found = taken(stream, 0.02)
    assert_unbroken(found)
    assert stream.counts.frames == 300 and stream.counts.dropped > 0
    assert len(found) + stream.counts.dropped == 300
    # It never lies further behind than what is held.
    assert found[-1][1] == 300


def test_a_sender_can_be_made_to_wait(tmp_path):
    data = transport_stream(tmp_path / 'a.ts', 100)
    with Sender([(data, 0.0)]) as sender:
        stream = stream_of(sender, n_held=4, keeps_all=True)
        found = taken(stream, 0.002)
    assert [number for _, number in found] == list(range(1, 101)) and not stream.counts.dropped


def test_a_recording_on_a_server_is_read_whole(tmp_path):
    path = write_video(tmp_path / 'a.mkv', grey_frames(range(0, 240, 3)))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    with WebServer(partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'{server.url}/{path.name}'
        stream = Stream(lambda: LiveVideo(address), 'it', small, every=1, n_held=4,
                        reconnect_sec=30)
        found = taken(stream, 0.002)
        server.shutdown()
    assert len(found) == 80 and stream.counts.dropped == 0 and stream.counts.connections == 1


def test_another_size_in_mid_stream(tmp_path):
    first = transport_stream(tmp_path / 'a.ts', 30)
    second = transport_stream(tmp_path / 'b.ts', 30, height=96, width=80)
    with Sender([(first + second, 1.0)]) as sender:
        stream = stream_of(sender)
        with stream:
            shapes = [tuple(item[1].pixels.shape) for item in stream.items() if item is not None]
    assert len(shapes) >= 56 and set(shapes) == {(3, 8, 8)}


def test_cut_and_back(tmp_path):
    data, said = transport_stream(tmp_path / 'a.ts', 40), []
    with Sender([(data[:len(data) // 2], 0.5), (data, 0.5)]) as sender:
        stream = stream_of(sender, reconnect_sec=30, say=said.append)
        items = until(stream, lambda run, frame: run == 1 and frame.number > 50)
    numbers = [frame.number for _, frame in items]
    seconds = [frame.begin_sec for _, frame in items]
    assert stream.counts.connections == 2 and numbers == list(range(1, len(numbers) + 1))
    assert len({run for run, _ in items}) == 2 and len(numbers) > 50
    assert seconds == sorted(seconds) and stream.failure is None
    assert re.match(r'it: lost after [\d.]+ s \(.*\); trying again for 30 s', said[0])
    assert re.match(r'it: back after [\d.]+ s', said[1])


def test_bytes_that_are_broken_lose_frames_alone(tmp_path, seed):
    data = bytearray(transport_stream(tmp_path / 'a.ts', 100))
    rng = random.Random(seed)
    for place in rng.sample(range(len(data) // 4, len(data)), 60):
        data[place] = rng.randrange(256)
    with Sender([(bytes(data), 0.5)]) as sender:
        stream = stream_of(sender, n_held=200)
        found = taken(stream)
    assert len(found) > 20 and stream.failure is None


# ---------------------------------------------------------------- windows

def test_windows_do_not_reach_over_a_break():
    def items():
        for number in range(1, 31):
            if number != 13:
                yield int(number > 13), Frame(number, number / 25, torch.zeros(1))
            else:
                yield None
    found = [window and [frame.number for frame in window]
             for window in unbroken_windows(items(), 5, 5)]
    assert found == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], None, [14, 15, 16, 17, 18],
                     [19, 20, 21, 22, 23], [24, 25, 26, 27, 28]]


# ---------------------------------------------------------------- the command

def run(trained, *argv):  # noqa: F811
    return run_script('predict', *argv, '--weights', trained, '--no_cuda')


def test_windows_of_a_stream(trained, tmp_path):  # noqa: F811
    data = transport_stream(tmp_path / 'a.ts', 64)
    with Sender([(data, 1.0)]) as sender:
        done = run(trained, sender.address, '--reconnect', 0.3, '--stride', 8, '--json',
                   tmp_path / 'a.json', '--timeline', '--keep_all')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(' s  ' in line for line in lines) == 4 and '4 windows' in lines[-2]
    written = json.loads((tmp_path / 'a.json').read_text())
    assert list(written['results']) == [sender.address]
    assert [window['segment'] for window in written['timeline'][sender.address]] == [
        [1, 16], [17, 32], [33, 48], [49, 64]]


@pytest.mark.slow
def test_events_come_as_they_happen(trained, tmp_path):  # noqa: F811
    """Through a pipe, whose end comes only when the first line has been read."""
    output, pipe = tmp_path / 'output', tmp_path / 'pipe'
    os.mkfifo(pipe)
    data = transport_stream(tmp_path / 'a.ts', 200)
    process = start_command('util_scripts.predict', [
        '-', '--weights', trained, '--no_cuda', '--events', '--threshold', 0.01, '--keep_all',
        '--stride', 4], output, stdin=pipe)
    with open(pipe, 'wb') as sender:
        sender.write(data)
        sender.flush()
        wait_for(lambda: '"begin"' in output.read_text(), process)
    process.join(LIMIT_SEC)
    said = output.read_text()
    lines = [json.loads(line) for line in said.splitlines() if line[0] == '{']
    assert process.exitcode == 0, said
    assert {(line['kind'], line['label']) for line in lines} == {
        (kind, label) for kind in ('begin', 'end') for label in ('red', 'green', 'blue')}
    assert lines[-1]['end_sec'] > 5 and lines[-1]['source'] == '-'
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT[\d:.]+\+00:00', lines[0]['time'])
    assert '200 frames in, 0 dropped' in said


@pytest.mark.slow
def test_ctrl_c_ends_a_pipe_that_says_nothing(trained, tmp_path):  # noqa: F811
    output, pipe = tmp_path / 'output', tmp_path / 'pipe'
    os.mkfifo(pipe)
    process = start_command('util_scripts.predict', ['-', '--weights', trained, '--no_cuda'],
                            output, stdin=pipe)
    with open(pipe, 'wb', buffering=0) as sender:
        sender.write(b'\0')
        n_unread = array.array('i', [1])
        wait_for(lambda: not (fcntl.ioctl(sender, termios.FIONREAD, n_unread) or n_unread[0]),
                 process)  # it is read from, and waits for more
        os.kill(process.pid, signal.SIGINT)
        process.join(LIMIT_SEC)
    assert process.exitcode == 0 and 'Traceback' not in output.read_text()


def test_an_address_that_refuses(trained):  # noqa: F811
    with Sender([]) as sender:
        pass
    done = run(trained, sender.address, '--reconnect', 30)
    assert done.returncode == 1
    assert f'failed: {sender.address}: Connection refused; check the address' in done.stderr


def test_an_address_that_does_not_answer(trained, monkeypatch):  # noqa: F811
    monkeypatch.setattr(streams, 'ANSWER_SEC', 0.5)
    with Sender([(b'', 0)]) as sender:
        quiet = sender._socket
        sender._show = lambda connection, *_: (read_request(connection), connection.recv(1))
        done = run(trained, sender.address)
        assert quiet is sender._socket
    assert done.returncode == 1 and 'no answer within 0.5 s; check the address' in done.stderr


def test_a_stream_that_falls_silent_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, 'ANSWER_SEC', 1.0)
    data, said = transport_stream(tmp_path / 'a.ts', 40), []
    with Sender([(data, 0.2)] * 20) as sender:
        show = sender._show

        def hang(connection, *arguments):
            show(connection, *arguments)
            connection.recv(1)  # until the reader leaves
        sender._show = hang
        stream = stream_of(sender, reconnect_sec=60, say=said.append)
        until(stream, lambda run, frame: run > 0)
    assert any('nothing came for 1 s' in line for line in said)


@pytest.mark.parametrize('text, expected', [
    ('rtsp://a/b', True), ('HTTP://a', True), ('-', True), ('a.mp4', False), ('C:\\a.mp4', False),
    ('a:b.mp4', False), ('--', False)])
def test_addresses(text, expected):
    assert is_address(text) is expected


def test_passwords_are_not_shown():
    assert shown_address('rtsp://me:secret@camera/1?x=@') == 'rtsp://camera/1?x=@'


# ---------------------------------------------------------------- a file that is still written

@pytest.mark.parametrize('suffix', ['ts', 'mkv', 'avi'])
def test_a_file_that_is_being_written_is_read_to_what_there_is(
        trained, tmp_path, suffix):  # noqa: F811
    whole = write_video(tmp_path / f'whole.{suffix}', grey_frames(list(range(0, 250)) * 4),
                        codec='mpeg2video').read_bytes()
    path = tmp_path / f'a.{suffix}'
    with open(path, 'wb') as file:
        file.write(whole[:len(whole) * 2 // 3])
        file.flush()
        done = run(trained, path, '--json', tmp_path / 'a.json')
        assert done.returncode in (0, 1) and 'Traceback' not in done.stderr
        assert list(json.loads((tmp_path / 'a.json').read_text())['results']) == [str(path)]
        n_windows = int(re.search(r'(\d+) windows\)', done.stdout)[1])
        file.write(whole[len(whole) * 2 // 3:])
    later = run(trained, path)
    assert 20 <= n_windows < int(re.search(r'(\d+) windows\)', later.stdout)[1])


@pytest.mark.parametrize('address', [
    'http://', 'foo://x', 'http://127.0.0.1:99999/a', 'rtsp://127.0.0.1:1/\33[2J\nerror: forged',
    'http://a\0b/', 'file:///dev/zero', 'http://127.0.0.1:1/' + 'x' * 5000])
def test_addresses_that_are_none(trained, address):  # noqa: F811
    done = run(trained, address, '--reconnect', 0)
    lines = [line for line in done.stderr.splitlines() if line.startswith('failed: ')]
    assert done.returncode == 1 and len(lines) == 1 and lines[0].endswith('; check the address')
    assert 'Traceback' not in done.stderr and '\33' not in done.stdout + done.stderr


def test_what_is_no_video_in_mid_stream_is_passed_over(tmp_path, seed):
    data = transport_stream(tmp_path / 'a.ts', 30)
    with Sender([(data + random.Random(seed).randbytes(100_000) + data, 0.5)]) as sender:
        stream = stream_of(sender)
        found = taken(stream)
    # Chance may make a picture of it, and what it hits of the next one is lost.
    assert len(found) > 40 and stream.failure is None
