"""Frame numbers: hand-made cases, recorded ones, and what random draws may give."""

import json
from collections import Counter

import pytest
import torch

import temporal_transforms as T


def test_loop_padding_starts_over_and_leaves_its_input_alone():
    frames = [1, 2, 3]
    assert T.LoopPadding(5)(frames) == [1, 2, 3, 1, 2]
    assert T.LoopPadding(2)(frames) == [1, 2]
    assert frames == [1, 2, 3]


def test_one_even_clip_is_centred():
    assert T.TemporalEvenCrop(4, 1)(range(1, 11)) == [[4, 5, 6, 7]]


def test_even_crop_of_a_short_video_is_one_looped_clip():
    assert T.TemporalEvenCrop(4, 3)(range(3)) == [[0, 1, 2, 0]]


@pytest.mark.parametrize('n_frames', [1, 15, 16, 17, 40])
def test_random_crop_draws_every_start_and_only_those(n_frames):
    torch.manual_seed(0)
    crop, size = T.TemporalRandomCrop(16), 16
    starts = Counter()
    for _ in range(600):
        clip = crop(range(1, n_frames + 1))
        assert clip == T.loop(list(range(clip[0], min(clip[0] + size, n_frames + 1))), size)
        starts[clip[0]] += 1
    assert set(starts) == set(range(1, max(1, n_frames - size + 1) + 1))
    assert max(starts.values()) < 3 * min(starts.values())


def test_shuffle_keeps_blocks_whole():
    torch.manual_seed(3)
    shuffled = T.Shuffle(4)(range(10))
    assert sorted(shuffled) == list(range(10))
    assert shuffled != list(range(10))
    blocks = [list(range(i, min(i + 4, 10))) for i in (0, 4, 8)]
    assert all(''.join(map(str, block)) in ''.join(map(str, shuffled)) for block in blocks)


def test_compose_applies_later_transforms_to_each_clip():
    both = T.Compose([T.TemporalSubsampling(2), T.SlidingWindow(4, 4), T.TemporalBeginCrop(2)])
    assert both(range(1, 17)) == [[1, 3], [9, 11]]
    nested = T.Compose([T.SlidingWindow(8, 8), T.SlidingWindow(4, 4)])
    assert nested(range(16)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize('stride', [1, 4, 16, 40])
def test_window_count_agrees_with_the_windows(stride):
    for n_frames in range(1, 70):
        windows = T.sliding_window(range(n_frames), 16, stride)
        assert len(windows) == T.n_windows(n_frames, 16, stride), n_frames


@pytest.mark.golden
def test_recorded_cases(golden_dir):
    for case in json.loads((golden_dir / 'temporal_transforms.json').read_text()):
        transform = getattr(T, case['transform'])(**case['params'])
        assert _plain(transform(range(*case['frames']))) == _expand(case['expected']), case


def _plain(frames):
    return [list(f) if isinstance(f, (list, range)) else f for f in frames]


def _expand(frames):
    if isinstance(frames, dict):
        return list(range(*frames['range']))
    return [_expand(f) if isinstance(f, (dict, list)) else f for f in frames]


@pytest.mark.parametrize('stride', [1, 3, 4, 7])
@pytest.mark.parametrize('n_frames', [1, 3, 4, 5, 8, 17])
def test_a_stream_has_the_windows_of_a_video(n_frames, stride):
    frames = list(range(n_frames))
    assert list(T.stream_windows(iter(frames), 4, stride)) == T.sliding_window(frames, 4, stride)


@pytest.mark.parametrize('transform', [
    T.LoopPadding(4), T.TemporalBeginCrop(4), T.TemporalCenterCrop(4), T.TemporalRandomCrop(4),
    T.TemporalEvenCrop(4, 1), T.TemporalEvenCrop(4, 2), T.TemporalEvenCrop(4, 5),
    T.SlidingWindow(4), T.SlidingWindow(4, 3), T.SlidingWindow(4, 7), T.EvenWindows(4, 1),
    T.EvenWindows(4, 3), T.TemporalSubsampling(3), T.Shuffle(4),
    T.Compose([T.TemporalSubsampling(2), T.TemporalEvenCrop(4, 3)]),
    T.Compose([T.TemporalSubsampling(3), T.SlidingWindow(4, 2)]),
    T.Compose([T.SlidingWindow(8, 5), T.TemporalSubsampling(2), T.SlidingWindow(3, 2)]),
], ids=lambda transform: type(transform).__name__)
def test_clips_are_counted_without_making_them(transform):
    for n_frames in range(1, 40):
        clips = T.as_clips(transform(range(n_frames)))
        assert len(clips) == transform.n_clips(n_frames), n_frames
        assert {len(clip) for clip in clips} == {transform.clip_length(n_frames)}, n_frames


@pytest.mark.parametrize('n_frames, n, begins', [
    (20, 3, [0, 6, 12]), (20, 1, [6]), (9, 3, [0, 1]), (8, 3, [0]), (5, 3, [0])])
def test_even_windows(n_frames, n, begins):
    frames = range(n_frames)
    windows = T.even_windows(frames, 8, n)
    assert [window[0] for window in windows] == begins
    assert all(len(window) == 8 for window in windows)
    assert T.n_even_windows(n_frames, 8, n) == len(windows)


def test_what_transforms_are_without_being_told():
    assert T.TemporalEvenCrop(4)(range(1, 11)) == [[4, 5, 6, 7]]
    assert T.SlidingWindow(4)(range(8)) == T.SlidingWindow(4, 4)(range(8))
    assert T.TemporalTransform().n_clips(9) == 1 and T.TemporalTransform().clip_length(9) == 9


@pytest.mark.parametrize('low, high, size, span', [(2, 2, 4, 7), (1.5, 1.5, 4, 5), (0.5, 0.5, 4, 2),
                                                   (1, 1, 1, 1)])
def test_a_clip_of_another_speed_is_every_so_many_th_frame(low, high, size, span):
    """The crop is as long as the clip needs, no longer."""
    asked = []

    def crop(n):
        asked.append(n)
        return T.TemporalBeginCrop(n)
    frames = T.SpeedJitter(crop, size, low, high)(range(20))
    assert asked == [span] and frames == [int(i * low) for i in range(size)]
    torch.manual_seed(0)
    jitter = T.SpeedJitter(T.TemporalBeginCrop, 9, 0.5, 2)
    ends = {jitter(range(40))[-1] for _ in range(200)}
    assert min(ends) == 4 and max(ends) == 15


def test_one_clip_of_several_transforms_is_a_list_of_frames():
    both = T.Compose([T.TemporalSubsampling(2), T.TemporalBeginCrop(3)])
    assert both(range(1, 9)) == [1, 3, 5] and T.Compose([])(range(3)) == range(3)
