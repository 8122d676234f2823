"""Grad-CAM: by the definition, on the moving shape, with random weights, of every family, on files.
"""

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import models
from models import generate_model
from runtime.figures import heat_over
from tests.helpers import grey_frames, run_script, write_sound, write_video
from tests.tiny_data import run_main
from util_scripts.demo_videos import HEIGHT, WIDTH, draw_scene, draw_states, render
from util_scripts.helpers.captions import draw_curve
from util_scripts.helpers.grad_cam import GradCam, default_module

CLASSES = ('MoveLeft', 'MoveRight')
# Clips that a family takes, where 8 frames of 64 pixels are too small.
CLIPS = {'s3d': (16, 224), 'mvit_v1_b': (16, 224), 'mvit_v2_s': (16, 224)}
# They differ from others in depth, width and kernels alone.
ALIKE = {'r3d_18', 'mc3_18', 'r2plus1d_34', 'mvit_v1_b', 'swin3d_s', 'swin3d_b', 'wideresnet'}
# What makes a family's network small.
SMALL = {'csn': {'model_depth': 26}, 'x3d': {'model_size': 'xs'},
         **{name: {'resnet_widen_factor': 0.125} for name in ('resnet', 'resnet2p1d', 'preresnet')}}


# ---------------------------------------------------------------- the definition

def test_the_definition():
    """Of a global average and one linear layer the derivative is the layer's weight, so that the
    heat of the last map is known: CAM (Zhou et al., 2016), of which Grad-CAM is the general form.
    """
    torch.manual_seed(0)
    network = generate_model('resnet', 10, n_classes=3, resnet_widen_factor=0.125).eval()
    clips = torch.randn(2, 3, 16, 112, 112)
    heat = GradCam(network, 1, 'layer4')(clips)
    with torch.no_grad():
        maps = network.forward_features(clips)
    n_places = maps[0, 0].numel()
    expected = torch.einsum('c,ncthw->nthw', network.fc.weight[1].detach() / n_places, maps)
    torch.testing.assert_close(heat, expected.clamp(min=0))
    assert heat.shape == (2, 1, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize('model', [name for name in models.ARCHITECTURES if name not in ALIKE])
def test_every_family(model):
    torch.manual_seed(0)
    network = generate_model(model, **{'model_depth': models.default_depth(model), 'n_classes': 3,
                                       **SMALL.get(model, {})}).eval()
    if model.startswith('mvit'):
        del network.blocks[4:-2]  # which are alike
    n_frames, size = CLIPS.get(model, (8, 64))
    clips = torch.randn(1, 3, n_frames, size, size)
    name = default_module(network, clips, 1)
    # Of random weights a class may have no place that speaks for it, but not all three.
    for number in range(3):
        heat = GradCam(network, number, name)(clips)
        assert min(heat.shape[2:]) >= 4 and heat.min() >= 0
        if heat.max() > 0:
            return
    raise AssertionError('no class has a place that speaks for it')


def test_the_last_stage_is_taken_where_it_has_places():
    network = generate_model('resnet', 10, n_classes=3, resnet_widen_factor=0.125).eval()
    taken = [default_module(network, torch.randn(1, 3, 4, size, size), 0)
             for size in (112, 64, 48, 16)]
    assert taken == ['layer4', 'layer3', 'layer2', 'layer1']


# ---------------------------------------------------------------- sanity

def moving(class_name, number, n_frames=8):
    """(frames of a video of the demo (T, H, W, 3), True in the box of its shape (T, H, W))."""
    scene = draw_scene(np.random.default_rng([5, number]))
    rng = np.random.default_rng([5, number, CLASSES.index(class_name)])
    states = draw_states(rng, class_name, n_frames)
    reach = scene.radius * (1 + scene.bumps[:, 1].sum())
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    boxes = [(abs(np.mod(x - state[0] + WIDTH / 2, WIDTH) - WIDTH / 2) <= reach)
             & (abs(np.mod(y - state[1] + HEIGHT / 2, HEIGHT) - HEIGHT / 2) <= reach)
             for state in states]
    return render(rng, scene, states), np.array(boxes)


def as_clips(videos):
    return torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 255 - 0.45


@pytest.fixture(scope='module')
def sane():
    """(network that tells left from right, clips that it did not see, labels, boxes)."""
    torch.manual_seed(2)
    network = generate_model('resnet', 10, n_classes=2, resnet_widen_factor=0.25, conv1_t_size=3)
    labels = torch.arange(2).repeat(64)
    clips = as_clips([moving(CLASSES[label], number)[0] for number, label in enumerate(labels)])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for epoch in range(10):
        for batch in torch.randperm(len(labels)).split(16):
            optimizer.zero_grad()
            F.cross_entropy(network(clips[batch]), labels[batch]).backward()
            optimizer.step()
    network.eval()
    unseen = [moving(CLASSES[number % 2], 1000 + number) for number in range(24)]
    return (network, as_clips([frames for frames, _ in unseen]), torch.arange(2).repeat(12),
            np.stack([boxes for _, boxes in unseen]))


def heat_of(network, clips, labels, size=None):
    maps = torch.cat([GradCam(network, int(label), 'layer2')(clip[None])
                      for clip, label in zip(clips, labels)])
    return F.interpolate(maps[:, None], size or clips.shape[2:], mode='trilinear')[:, 0].numpy()


@pytest.mark.slow
def test_the_heat_lies_on_the_moving_shape(sane):
    network, clips, labels, boxes = sane
    with torch.no_grad():
        accuracy = (network(clips).argmax(dim=1) == labels).float().mean()
    heat = heat_of(network, clips, labels)
    inside = (heat * boxes).sum(axis=(1, 2, 3)) / heat.sum(axis=(1, 2, 3))
    print(f'accuracy {accuracy:.2f}, heat in the box {inside.mean():.3f}, chance '
          f'{boxes.mean():.3f}')
    assert accuracy > 0.8
    assert inside.mean() > 1.3 * boxes.mean()


@pytest.mark.slow
def test_random_weights_give_another_map(sane):
    """The sanity check of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018."""
    from scipy.stats import spearmanr
    network, clips, labels, _ = sane
    torch.manual_seed(7)
    other = generate_model('resnet', 10, n_classes=2, resnet_widen_factor=0.25, conv1_t_size=3)
    maps = [heat_of(a_network, clips, labels, (4, 6, 6)) for a_network in (network, other.eval())]
    correlations = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(*maps)]
    print(f'rank correlation {np.nanmean(correlations):.3f}')
    assert np.nanmean(correlations) < 0.5


# ---------------------------------------------------------------- the command

@pytest.fixture(scope='module')
def weights(tiny_data):
    assert run_main(tiny_data.argv('heated', '--n_epochs', 1, '--sample_t_stride', 2)) == 0
    return tiny_data.root / 'heated' / 'save_1.pth'


def flickering(path, n_frames=40):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 255, (n_frames, 6, 8, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return write_video(path, frames.astype(np.uint8))


def run(weights, *argv):
    return run_script('gradcam', *argv, '--weights', weights, '--no_cuda')


@pytest.mark.slow
def test_pictures_of_a_video(weights, tmp_path):
    video = flickering(tmp_path / 'a.mp4')
    done = run(weights, video, '--output', tmp_path / 'out', '--npy', '--class', 'green')
    assert done.returncode == 0, done.stderr
    assert 'a.mp4: green ' in done.stdout and 'a.npy' in done.stdout
    heat = np.load(tmp_path / 'out' / 'a.npy')
    # Of every second frame, as the network sees them; the most in a video is 1.
    assert heat.shape == (20, 32, 32) and heat.dtype == np.float32
    assert heat.min() >= 0 and 0.3 < heat.max() <= 1
    with Image.open(tmp_path / 'out' / 'a.png') as picture:
        assert picture.width > 1000 and picture.height > 200
    with av.open(str(tmp_path / 'out' / 'a.mp4')) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert len(frames) == 20 and frames[0].shape[0] > frames[0].shape[1] == 360


@pytest.mark.slow
def test_a_folder_of_frames_and_windows_that_overlap(weights, tiny_data, tmp_path):
    folder = tiny_data.root / 'jpg' / 'red' / 'red_0'
    done = run(weights, folder, '--output', tmp_path, '--stride', 2, '--module', 'layer1', '--npy')
    assert done.returncode == 0 and 'heat of layer1' in done.stdout
    assert np.isfinite(np.load(tmp_path / 'red_0.npy')).all()


def test_a_video_shorter_than_a_clip_is_said(weights, tmp_path):
    video = write_video(tmp_path / 'a.mp4', grey_frames([10, 90, 200]))
    done = run(weights, video, '--output', tmp_path / 'out')
    assert done.returncode == 0 and 'has 2 frames for clips of 8, which repeat them' in done.stderr


def test_a_class_that_is_like_no_other(weights, tmp_path):
    video = flickering(tmp_path / 'a.mp4', 8)
    done = run(weights, video, '--output', tmp_path / 'out', '--class', '???')
    said = 'error: --class ???: no such class; there are red, green, blue'
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == said


def test_a_file_that_is_broken(weights, tmp_path):
    write_sound(tmp_path / 'in' / 'a.mp4')
    flickering(tmp_path / 'in' / 'b.mp4', 16)
    done = run(weights, tmp_path / 'in', '--output', tmp_path / 'out')
    assert done.returncode == 1 and f'failed: {tmp_path / "in" / "a.mp4"}: ' in done.stderr
    assert (tmp_path / 'out' / 'b.mp4').exists()


@pytest.mark.slow
def test_an_exported_network_has_no_derivatives(weights, tmp_path):
    assert run_script('export', weights, tmp_path / 'a.pt2').returncode == 0
    done = run_script('gradcam', flickering(tmp_path / 'a.mp4', 8), '--weights',
                      tmp_path / 'a.pt2', '--no_cuda')
    assert done.returncode == 2 and 'is an exported network, which has no' in done.stderr


# ---------------------------------------------------------------- pixels

def test_heat_is_drawn_where_it_is():
    frame = grey_frames([100], 40, 60)[0]
    heat = np.zeros((40, 60), np.float32)
    heat[:, 30:] = 1
    drawn = heat_over(frame, heat)
    assert (drawn[:, :30] == 100).all() and (np.ptp(drawn[:, 30:], axis=2) > 20).all()


def test_the_curve_is_below_the_picture():
    frame = grey_frames([200], 360, 480)[0]
    early, late = (draw_curve(frame, 'run', [(1, 0.0), (3, 1.0)], sec, 4) for sec in (0.5, 3.5))
    assert (early[:360] == 200).all() and early.shape == late.shape and early.shape[0] > 400
    assert (early != late).any()
