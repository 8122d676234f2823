"""Augmentations: one draw for all frames of a clip, mixed batches, and what they are drawn from."""

import math
import os
import signal

import pytest
import torch

import spatial_transforms as S
from datasets import presets
from model import build_network
from optim import Optimization
from opts import normalization, parse_opts
from tasks import SINGLE_LABEL
from temporal_transforms import SpeedJitter, TemporalCenterCrop, TemporalRandomCrop, spaced
from tests.processes import (LIMIT_SEC, assert_same_training, run_ranks, same_state, start_main,
                             wait_for)
from tests.tiny_data import MultiLabelData, assert_same_batches, loader_of, run_main
from training import train_epoch

# The flags of every row of presets.AUGMENTATIONS, by the name of its transform.
FLAGS = {'RandomHorizontalFlip': [], 'RandAugment': ['--rand_augment', 3, 15],
         'ColorJitter': ['--colorjitter'], 'RandomErasing': ['--random_erasing', 1]}
MEAN = [round(255 * value) for value in (0.4345, 0.4051, 0.3775)]


def options(*flags):
    return parse_opts(['--video_path', 'a', '--annotation_path', 'b', '--result_path', 'c',
                       '--sample_size', '24', *map(str, flags)])


def train_transform(*flags):
    return presets.spatial_transform(options(*flags), 'train')


@pytest.fixture
def frame():
    """uint8 (1, 3, 30, 40): colours that all differ, none of them 0 or 255."""
    return torch.randint(1, 255, (1, 3, 30, 40), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- one draw for a clip

def test_each_augmentation_has_its_flags_here():
    for name, flags in FLAGS.items():
        wanted = [row for row, (is_wanted, _) in enumerate(presets.AUGMENTATIONS)
                  if is_wanted(options('--no_hflip', *flags)) or not flags and row == 0]
        made = train_transform(*([] if not flags else ['--no_hflip']), *flags).transforms[1:]
        assert len(wanted) == 1 and [type(part).__name__ for part in made] == [name]
    assert len(FLAGS) == len(presets.AUGMENTATIONS)


@pytest.mark.parametrize('crop', ['random', 'corner', 'center'])
@pytest.mark.parametrize('name', FLAGS)
def test_identical_frames_stay_identical(frame, name, crop):
    transform = train_transform('--train_crop', crop, *FLAGS[name])
    torch.manual_seed(1)
    results = [transform(frame.expand(5, -1, -1, -1).contiguous()) for _ in range(20)]
    for result in results:
        assert result.shape == (5, 3, 24, 24) and result.dtype == torch.uint8
        assert torch.equal(result, result[:1].expand_as(result))
    assert any(not torch.equal(result, results[0]) for result in results[1:])


@pytest.mark.parametrize('flags', [('--mixup', 1), ('--cutmix', 1), ('--mixup', 1, '--cutmix', 1)])
def test_identical_frames_stay_identical_in_a_mixed_batch(frame, flags):
    """Each clip is of a frame of its own."""
    mix = presets.batch_mix(options(*flags))
    clips = torch.stack([frame[0], frame[0].flip(-1), 255 - frame[0]]).unsqueeze(2).expand(
        -1, -1, 4, -1, -1)
    torch.manual_seed(1)
    results = [mix(clips, torch.tensor([0, 1, 2]))[0] for _ in range(10)]
    assert all(torch.equal(mixed, mixed[:, :, :1].expand_as(mixed)) for mixed in results)
    assert sum(not torch.equal(mixed, clips.float()) for mixed in results) > 5


@pytest.mark.parametrize('operation', ['Brightness', 'Color', 'Contrast', 'Posterize', 'Solarize',
                                       'AutoContrast', 'Equalize'])
def test_operations_on_colours_do_the_same_in_frames_that_differ(frame, operation):
    """A colour becomes the same colour in a dark frame and in a bright one."""
    dark, bright = frame // 3, 128 + frame // 3
    shared = torch.tensor([30, 90, 160], dtype=torch.uint8).view(1, 3, 1, 1).expand(-1, -1, 30, 8)
    clip = torch.cat([torch.cat([dark, shared], -1), torch.cat([bright, shared], -1)])
    transform = S.RandAugment([0, 0, 0], 1, 20)
    space = {operation: transform._AUGMENTATION_SPACE[operation]}
    transform._AUGMENTATION_SPACE = space
    result = transform(clip)
    assert not torch.equal(result, clip)
    colours = result[..., -8:]
    assert torch.equal(colours, colours[:1, :, :1, :1].expand_as(colours))


# ---------------------------------------------------------------- strengths

def grey(level, n_frames=2):
    return torch.full((n_frames, 3, 8, 8), level, dtype=torch.uint8)


def jittered(flags, clip, n=200):
    jitter = train_transform('--no_hflip', '--train_crop', 'center', *flags).transforms[-1]
    torch.manual_seed(1)
    return [jitter(clip) for _ in range(n)]


@pytest.mark.parametrize('flags, share', [
    (['--colorjitter', 0.2, 0, 0, 0], 0.2), (['--colorjitter', 0.8, 0, 0, 0], 0.8),
    (['--colorjitter'], 0.4)])
def test_strength_of_brightness(flags, share):
    """Grey has no colour, and a plain frame no contrast: brightness alone changes it."""
    levels = [int(result[0, 0, 0, 0]) for result in jittered(flags, grey(100))]
    assert 100 * (1 - share) - 1 <= min(levels) < 100 * (1 - 0.9 * share)
    assert 100 * (1 + 0.9 * share) < max(levels) <= 100 * (1 + share) + 1


@pytest.mark.parametrize('flags, share', [
    (['--colorjitter', 0, 0.3, 0, 0], 0.3), (['--colorjitter', 0, 0.9, 0, 0], 0.9)])
def test_strength_of_contrast(flags, share):
    clip = torch.cat([grey(80)[..., :4], grey(120)[..., :4]], -1)
    distances = [int(result.max()) - int(result.min()) for result in jittered(flags, clip)]
    assert 40 * (1 - share) - 2 <= min(distances) < 40 * (1 - 0.8 * share)
    assert 40 * (1 + 0.8 * share) < max(distances) <= 40 * (1 + share) + 2


@pytest.mark.parametrize('flags, share', [
    (['--colorjitter', 0, 0, 0.3, 0], 0.3), (['--colorjitter', 0, 0, 0.9, 0], 0.9)])
def test_strength_of_saturation(flags, share):
    clip = torch.stack([grey(level)[:, 0] for level in (120, 100, 80)], dim=1)
    distances = [int(result[0, 0, 0, 0]) - int(result[0, 2, 0, 0])
                 for result in jittered(flags, clip)]
    assert 40 * (1 - share) - 2 <= min(distances) < 40 * (1 - 0.8 * share)
    assert 40 * (1 + 0.8 * share) < max(distances) <= 40 * (1 + share) + 2


@pytest.mark.parametrize('flags, share', [
    (['--colorjitter', 0, 0, 0, 0.05], 0.05), (['--colorjitter', 0, 0, 0, 0.3], 0.3)])
def test_strength_of_hue(flags, share):
    """Red turns: by a third of the circle it is green."""
    red = torch.stack([grey(level)[:, 0] for level in (200, 0, 0)], dim=1)
    angles = []
    for result in jittered(flags, red):
        r, g, b = result[0, :, 0, 0].tolist()
        angles.append(math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b) / (2 * math.pi))
    assert -share - 0.02 <= min(angles) < -0.85 * share
    assert 0.85 * share < max(angles) <= share + 0.02


@pytest.mark.parametrize('flags', [
    ('--rand_augment', 0, 0), ('--random_erasing', 0), ('--mixup', 0, '--cutmix', 0),
    ('--repeated_aug', 1, '--class_weights', 'none')])
def test_flags_that_say_off(tiny_data, flags):
    """As a resumed training needs them, which takes flags that are not given from the file."""
    assert_same_batches(list(loader_of(tiny_data, 'train', *flags)),
                        list(loader_of(tiny_data, 'train')))
    assert presets.batch_mix(options(*flags)) is None


def test_no_strength_changes_nothing(frame):
    assert all(torch.equal(result, frame)
               for result in jittered(['--colorjitter', 0, 0, 0, 0], frame, 10))


def test_the_bare_switch_is_as_it_was(frame):
    assert options('--colorjitter').colorjitter is True and options().colorjitter is False
    same = ['--colorjitter', 0.4, 0.4, 0.4, 0.1]
    assert options(*same).colorjitter == [0.4, 0.4, 0.4, 0.1]
    for result, other in zip(jittered(['--colorjitter'], frame), jittered(same, frame)):
        assert torch.equal(result, other)


def test_erasing_is_of_one_box_to_the_mean(frame):
    erase = train_transform('--random_erasing', 1).transforms[-1]
    clip = frame.expand(3, -1, -1, -1).contiguous()
    torch.manual_seed(1)
    for _ in range(20):
        is_erased = (erase(clip) != clip).any(dim=1)
        rows, columns = is_erased[0].nonzero().unbind(1)
        box = erase(clip)[:, :, rows.min():rows.max() + 1, columns.min():columns.max() + 1]
        assert box.shape[-2] * box.shape[-1] < 0.4 * 30 * 40
        assert torch.equal(is_erased, is_erased[:1].expand_as(is_erased))
        torch.manual_seed(len(rows))
    torch.manual_seed(1)
    result = erase(clip)
    erased = result[:, :, (result != clip).any(1)[0]]
    assert torch.equal(erased, torch.tensor(MEAN, dtype=torch.uint8).view(3, 1).expand_as(erased))


def test_erasing_has_its_probability(frame):
    erase = train_transform('--random_erasing', 0.25).transforms[-1]
    torch.manual_seed(1)
    n_erased = sum(not torch.equal(erase(frame), frame) for _ in range(400))
    assert 70 < n_erased < 130


def test_erased_pixels_are_zero_for_the_network(frame):
    for flags in ([], ['--mean_dataset', '0.5'], ['--no_mean_norm'], ['--value_scale', 255]):
        opts = options('--random_erasing', 1, *flags)
        blank = torch.tensor(presets._blank(opts)).view(1, 3, 1, 1, 1)
        assert S.Normalize(*normalization(opts), opts.value_scale)(blank).abs().max() < 0.01


@pytest.mark.parametrize('magnitude, angle', [(0, 0), (15, 15), (30, 30)])
def test_magnitude_of_rand_augment(frame, magnitude, angle):
    transform = S.RandAugment(MEAN, 1, magnitude)
    transform._AUGMENTATION_SPACE = {'Rotate': transform._AUGMENTATION_SPACE['Rotate']}
    torch.manual_seed(1)
    turned = [S.F.rotate(frame, sign * angle, S.v2.InterpolationMode.BILINEAR, fill=MEAN)
              for sign in (1, -1)]
    for _ in range(5):
        assert any(torch.equal(transform(frame), other) for other in turned) or angle


# ---------------------------------------------------------------- speed

def test_spaced_frames():
    assert spaced(range(10, 40), 5, 1.5) == [10, 11, 13, 14, 16]
    assert spaced(range(10, 40), 4, 0.5) == [10, 10, 11, 11]
    assert spaced(range(10, 40), 4, 1) == [10, 11, 12, 13]


def test_speeds_are_drawn_from_the_whole_range():
    jitter = SpeedJitter(TemporalRandomCrop, 11, 0.5, 3)
    torch.manual_seed(1)
    clips = [jitter(range(1, 201)) for _ in range(300)]
    spans = torch.tensor([clip[-1] - clip[0] for clip in clips])
    assert all(len(clip) == 11 == jitter.clip_length(200) for clip in clips)
    assert all(clip == sorted(clip) and set(clip) <= set(range(1, 201)) for clip in clips)
    assert spans.min() in (5, 6) and spans.max() == 29
    assert 14 < spans.float().mean() < 20  # 17 where it is even
    assert all(max(steps) - min(steps) <= 1
               for steps in ([b - a for a, b in zip(clip, clip[1:])] for clip in clips))


def test_speed_jitter_keeps_crop_and_loops_short_videos():
    assert SpeedJitter(TemporalCenterCrop, 4, 2, 2)(range(1, 12)) == [3, 5, 7, 9]
    assert SpeedJitter(TemporalCenterCrop, 4, 2, 2)(range(1, 5)) == [1, 3, 1, 3]
    torch.manual_seed(1)
    assert SpeedJitter(TemporalRandomCrop, 4, 1, 1)(range(1, 5)) == [1, 2, 3, 4]


def test_speed_is_of_what_the_stride_leaves(tiny_data):
    flags = ('--sample_t_stride', 2, '--train_t_crop', 'center', '--sample_duration', 3)
    once = next(iter(loader_of(tiny_data, 'train', *flags))).segments
    twice = next(iter(loader_of(tiny_data, 'train', *flags, '--speed_jitter', 2, 2))).segments
    assert (once[:, 1] - once[:, 0]).tolist() == [5] * 4
    assert (twice[:, 1] - twice[:, 0]).tolist() == [9] * 4


# ---------------------------------------------------------------- mixed batches

@pytest.fixture
def clips():
    """uint8 (4, 3, 2, 20, 30), each of one level alone: 10, 60, 110, 160."""
    levels = torch.tensor([10, 60, 110, 160], dtype=torch.uint8)
    return levels.view(4, 1, 1, 1, 1).expand(4, 3, 2, 20, 30).contiguous(
        memory_format=torch.channels_last_3d)


LABELS = torch.tensor([2, 0, 0, 1])
SHARES = torch.tensor([[0, 0, 1.], [1, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_mixup_by_hand(clips):
    mix = S.BatchMix(3, mixup=0.8)
    torch.manual_seed(1)
    kept = []
    for _ in range(200):
        mixed, targets = mix(clips, LABELS)
        share = float(targets[0, 2])  # clip 0 is mixed with clip 3: classes 2 and 1
        expected = [10 * share + 160 * (1 - share), 60 * share + 10 * (1 - share),
                    110 * share + 60 * (1 - share), 160 * share + 110 * (1 - share)]
        for clip, level in zip(mixed, expected):
            assert torch.allclose(clip, torch.tensor(level), atol=1e-3)
        other = 1 - share
        assert targets.flatten().tolist() == pytest.approx(
            [0, other, share, share, 0, other, 1, 0, 0, other, share, 0], abs=1e-6)
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)
        kept.append(share)
    kept = torch.tensor(kept)
    # Of Beta(0.8, 0.8) the mean is 1/2, the variance 1 / (4 * 2.6).
    assert abs(kept.mean() - 0.5) < 0.1 and abs(kept.var() - 1 / 10.4) < 0.03


def test_cutmix_by_hand(clips):
    mix = S.BatchMix(3, cutmix=1)
    torch.manual_seed(2)
    areas = set()
    for _ in range(50):
        mixed, targets = mix(clips, LABELS)
        is_other = mixed[0, 0, 0] == 160
        rows, columns = is_other.nonzero().unbind(1)
        share = 1 - len(rows) / 600
        if len(rows):  # a box
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        for i, (own, other) in enumerate(zip((10, 60, 110, 160), (160, 10, 60, 110))):
            expected = torch.where(is_other, float(other), float(own)).expand(3, 2, 20, 30)
            assert torch.equal(mixed[i], expected)
            labels = share * SHARES[i] + (1 - share) * SHARES[i - 1]
            assert torch.allclose(targets[i], labels, atol=1e-6)
        areas.add(len(rows))
    assert len(areas) > 10


def test_labels_of_several_classes_mix_alike(clips):
    has = torch.tensor([[1., 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]])
    torch.manual_seed(3)
    mixed, targets = S.BatchMix(3, mixup=1)(clips, has)
    share = (float(mixed[1, 0, 0, 0, 0]) - 10) / 50
    assert torch.allclose(targets, share * has + (1 - share) * has.roll(1, 0), atol=1e-6)


def test_each_batch_draws_one_of_both(clips):
    mix = S.BatchMix(3, mixup=1, cutmix=1)
    torch.manual_seed(1)
    n_cut = sum(len(mix(clips, LABELS)[0][0].unique()) == 2 for _ in range(200))
    assert 60 < n_cut < 140


def test_the_draw_of_a_batch_is_that_of_seed_epoch_and_batch(tiny_data):
    def draw(seed, epoch, i, **shares):
        batches = loader_of(tiny_data, 'train', '--manual_seed', seed, **shares).batch_sampler
        batches.set_position(epoch, 1)
        with batches.batch_draw(i):
            return torch.rand(3).tolist()
    before = torch.get_rng_state()
    first = draw(1, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert draw(1, 2, 3, rank=1, world_size=2) == first
    assert len({tuple(draw(*parts)) for parts in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


@pytest.mark.slow
@pytest.mark.parametrize('flag', ['--mixup', '--cutmix'])
def test_six_steps_are_those_of_a_plain_loop(tiny_data, flag):
    """A loop that mixes by itself, in proportions that are drawn as ours are; in float64."""
    # Of smaller clips the last batch norms see few values, and make much of any rounding.
    flags = (flag, 0.7, '--sample_size', 48, '--batch_size', 6)
    opts = parse_opts(tiny_data.argv('unused', *flags))
    loader, mix = loader_of(tiny_data, 'train', *flags), presets.batch_mix(opts)
    normalize = S.Normalize(*normalization(opts)).double()
    network, plain = build_network(opts).double().train(), build_network(opts).double().train()
    optimization = Optimization(list(network.parameters()), opts, torch.device('cpu'))
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    for epoch in (1, 2, 3):
        loader.batch_sampler.set_position(epoch)
        train_epoch(loader, network, normalize, SINGLE_LABEL, optimization,
                    device=torch.device('cpu'), mix=mix)
        for i, batch in enumerate(loader):
            clips = normalize(batch.clips)
            with loader.batch_sampler.batch_draw(i):  # which pixels are whose, and how much
                own, _ = mix(torch.tensor([1, 0]).view(2, 1, 1, 1, 1).expand(-1, 3, 8, 48, 48),
                             torch.tensor([0, 0]))
            kept = own[0, 0, 0].double()
            share = kept.mean()
            mixed = torch.stack([kept * clips[n] + (1 - kept) * clips[n - 1]
                                 for n in range(len(clips))])
            losses = -torch.log_softmax(plain(mixed), dim=1)
            loss = sum(share * losses[n, label] + (1 - share) * losses[n, batch.labels[n - 1]]
                       for n, label in enumerate(batch.labels)) / len(clips)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    begin, ours, end = (torch.nn.utils.parameters_to_vector(own.parameters()) for own in (
        build_network(opts), network, plain))
    assert (ours - end).norm() < 1e-5 * (end - begin).norm()


def test_a_mixed_clip_is_right_with_either_label(tiny_data):
    """The network always answers class 1."""
    loader = loader_of(tiny_data, 'train', '--batch_size', 12)
    network = torch.nn.Sequential(torch.nn.AvgPool3d((8, 32, 32)), torch.nn.Flatten(),
                                  torch.nn.Linear(3, 3))
    torch.nn.init.zeros_(network[2].weight)
    network[2].bias.data = torch.tensor([0., 1, 0])

    class Still:
        lr = 0.0

        def step(self, losses, only_if=None):
            list(losses)
            return True
    labels = next(iter(loader)).labels
    has = [1 in (int(labels[i]), int(labels[i - 1])) for i in range(12)]
    means = train_epoch(loader, network, S.Normalize([0.4] * 3, [0.3] * 3), SINGLE_LABEL, Still(),
                        device=torch.device('cpu'), mix=S.BatchMix(3, mixup=1))
    assert means['acc'] == pytest.approx(sum(has) / 12)


# ---------------------------------------------------------------- runs

ALL = ('--rand_augment', 2, 9, '--random_erasing', 0.5, '--mixup', 0.4, '--cutmix', 1,
       '--speed_jitter', 0.5, 2, '--repeated_aug', 2, '--colorjitter', 0.3, 0.3, 0.3, 0.05,
       '--balanced_sampling')


def test_batches_are_the_same_for_any_number_of_loader_processes(tiny_data):
    batches = list(loader_of(tiny_data, 'train', *ALL))
    assert_same_batches(list(loader_of(tiny_data, 'train', *ALL, '--n_threads', 2)), batches)
    assert not torch.equal(batches[0].clips[0], batches[0].clips[2])


@pytest.mark.slow
@pytest.mark.parametrize('threads', [0, 2])
def test_training_resumes_to_the_bit(tiny_data, tmp_path, threads):
    """Resumed with paths alone: the flags are taken from the file."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    argv = tiny_data.argv(whole, '--n_epochs', 3, '--no_val', '--n_threads', threads, *ALL)
    assert run_main(argv) == 0
    assert run_main(['--root_path', tiny_data.root, '--video_path', 'jpg', '--annotation_path',
                     'annotation.json', '--result_path', parts, '--n_threads', 0, '--no_cuda',
                     '--no_val', '--checkpoint', 1, '--resume_path', whole / 'save_1.pth']) == 0
    states = [torch.load(folder / 'save_3.pth', weights_only=True) for folder in (whole, parts)]
    assert same_state(*states)


def test_batches_of_a_clip_schedule_hold_whole_videos(tiny_data, tmp_path, capsys):
    """3.6 times fewer pixels would make batches of 21.3 clips."""
    flags = ('--clip_schedule', '4x24@1', '8x32@1', '--batch_size', 6, '--repeated_aug', 3,
             '--mixup', 1, '--speed_jitter', 0.5, 2)
    argv = tiny_data.argv(tmp_path, '--no_val', *flags)
    for flag in ('--n_epochs', '--sample_size', '--sample_duration'):
        place = argv.index(flag)
        del argv[place:place + 2]
    assert run_main(argv) == 0
    text = capsys.readouterr().out
    assert 'clips of 4 frames of 24x24, 2 batches of 21' in text
    assert 'clips of 8 frames of 32x32, 6 batches of 6' in text


@pytest.mark.slow
def test_a_stop_within_an_epoch_changes_nothing(tiny_data, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    flags = ('--n_epochs', 4, '--resume_path', 'auto', *ALL)
    assert run_main(tiny_data.argv(whole, *flags)) == 0
    parts.mkdir()
    process = start_main(tiny_data.argv(parts, *flags), parts / 'output')
    wait_for((parts / 'save_1.pth').exists, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signal.SIGTERM, (parts / 'output').read_text()
    print('stopped at', torch.load(parts / 'save_last.pth', weights_only=True)['position'])
    assert run_main(tiny_data.argv(parts, *flags)) == 0
    assert_same_training(parts, whole, 4)


@pytest.mark.slow
def test_several_processes_end_alike_and_resume(tiny_data, tmp_path):
    flags = ('--n_epochs', 2, '--no_val', '--batch_size', 8, '--accumulate', 2, *ALL)
    for folder, more in {'whole': (), 'parts': ('--resume_path', tmp_path / 'whole/save_1.pth')
                         }.items():
        (tmp_path / folder).mkdir()
        argv = tiny_data.argv(tmp_path / folder, *flags, *more)
        status, said = run_ranks(2, argv, tmp_path / folder / 'output')
        assert status == [0, 0] and 'Warning' not in said, said
    states = [torch.load(tmp_path / folder / 'save_2.pth', weights_only=True)
              for folder in ('whole', 'parts')]
    assert same_state(*states)


@pytest.mark.parametrize('flags', [
    ('--mixup', 1, '--cutmix', 1, '--balanced_sampling'), ('--class_weights', 'balanced')])
def test_several_labels_per_video(tmp_path, flags):
    data = MultiLabelData(tmp_path / 'data')
    assert run_main(data.argv(tmp_path / 'results', '--n_epochs', 1, *flags)) == 0


# ---------------------------------------------------------------- bad input

WRONG = {
    'negative operations': (['--rand_augment', -1, 9], ['--rand_augment', "'-1'", 'at least 0']),
    'negative magnitude': (['--rand_augment', 2, -1], ['--rand_augment', "'-1'", 'at least 0']),
    'erasing above 1': (['--random_erasing', 1.5], ['--random_erasing', "'1.5'", '0 to 1']),
    'erasing below 0': (['--random_erasing', -0.1], ['--random_erasing', "'-0.1'", '0 to 1']),
    'mixup below 0': (['--mixup', -1], ['--mixup', "'-1'", 'at least 0']),
    'cutmix below 0': (['--cutmix', -0.2], ['--cutmix', "'-0.2'", 'at least 0']),
    'alpha of no number': (['--mixup', 'nan'], ['--mixup', 'nan']),
    'alpha of too much': (['--cutmix', 1e30], ['--cutmix 1e+30', 'give 0.001 to 1000']),
    'mixup with weights': (['--mixup', 1, '--class_weights', 'balanced'],
                           ['--mixup', '--class_weights', 'drop one']),
    'speed of 0': (['--speed_jitter', 0, 2], ['--speed_jitter', "'0'", 'above 0']),
    'draws of 0': (['--repeated_aug', 0], ['--repeated_aug', 'at least 1']),
    'negative strength': (['--colorjitter', 0.1, -0.2, 0.3, 0], ['--colorjitter', "'-0.2'"]),
}


@pytest.mark.parametrize('name', WRONG)
def test_bad_flags(tiny_data, tmp_path, capsys, name):
    flags, words = WRONG[name]
    assert run_main(tiny_data.argv(tmp_path / 'results', *flags)) == 2
    error, = capsys.readouterr().err.splitlines()
    assert all(word in error for word in ('error: ', *words)), error
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize('flags', [['--random_erasing', 1], ['--mixup', 1], ['--cutmix', 1]])
def test_optical_flow_is_erased_and_mixed(flags):
    opts = options('--input_type', 'flow', '--file_type', 'hdf5', *flags)
    clip = torch.full((4, 2, 30, 40), 200, dtype=torch.uint8)
    assert presets.spatial_transform(opts, 'train')(clip).shape == (4, 2, 24, 24)
    mix = presets.batch_mix(opts)
    assert not mix or mix(clip.transpose(0, 1)[None].expand(2, -1, -1, -1, -1),
                          torch.tensor([0, 1]))[0].shape == (2, 2, 4, 30, 40)
