"""Pixels: against Pillow, one draw a clip, and the arithmetic of normalisation."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import spatial_transforms as S


@pytest.fixture
def clip():
    """uint8 (6, 3, 30, 40): the same frame six times."""
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 30, 40), np.uint8))
    return frame.expand(6, -1, -1, -1).contiguous()


RANDOM = {
    'random crop': S.RandomResizedCrop(16),
    'corner crop': S.MultiScaleCornerCrop(16),
    'flip': S.RandomHorizontalFlip(),
    'colour': S.ColorJitter(),
}


@pytest.mark.parametrize('name', RANDOM)
def test_one_draw_for_all_frames_and_another_for_the_next_clip(name, clip):
    torch.manual_seed(0)
    results = [RANDOM[name](clip) for _ in range(8)]
    for result in results:
        assert result.dtype == torch.uint8
        assert torch.equal(result, result[:1].expand_as(result))
    assert any(not torch.equal(result, results[0]) for result in results[1:])


@pytest.mark.parametrize('height, width', [(30, 40), (40, 30), (31, 57), (16, 16), (9, 12)])
def test_center_path_gives_a_square(height, width):
    clip = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    assert S.Compose([S.Resize(16), S.CenterCrop(16)])(clip).shape == (2, 3, 16, 16)


@pytest.mark.parametrize('position', S.CORNERS)
def test_corner_crop_takes_that_corner(position):
    clip = torch.zeros(1, 1, 20, 30, dtype=torch.uint8)
    rows = {'t': slice(0, 10), 'b': slice(10, 20), 'c': slice(5, 15)}[position[0]]
    columns = {'left': slice(0, 10), 'right': slice(20, 30), 'center': slice(10, 20)}[
        position.split('_')[-1]]
    clip[..., rows, columns] = 200
    assert (S.CornerCrop(10, position, scale=0.5)(clip) == 200).all()


def test_unknown_corner_is_a_programming_error():
    with pytest.raises(ValueError, match='middle'):
        S.CornerCrop(10, 'middle')


def test_mirrored_flow_points_the_other_way(clip):
    flow, flip = clip[:, :2], S.RandomHorizontalFlip(is_flow=True)
    torch.manual_seed(0)
    mirrored = next(result for result in (flip(flow) for _ in range(20))
                    if not torch.equal(result, flow))
    assert torch.equal(mirrored[:, 0], 255 - flow[:, 0].flip(-1))
    assert torch.equal(mirrored[:, 1], flow[:, 1].flip(-1))


def test_first_channels(clip):
    assert torch.equal(S.PickFirstChannels(2)(clip), clip[:, :2])


@pytest.mark.parametrize('value_scale, mean, std', [
    (1, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), (255, (114.7748, 107.7354, 99.475), (1., 1., 1.))])
def test_normalize(clip, value_scale, mean, std):
    batch = clip.transpose(0, 1).unsqueeze(0)
    result = S.Normalize(mean, std, value_scale)(batch)
    assert result.dtype == torch.float32
    for channel in range(3):
        expected = (batch[:, channel].double() * value_scale / 255 - mean[channel]) / std[channel]
        assert torch.allclose(result[:, channel].double(), expected, atol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize('size', [112, 128, 224])
def test_resize_of_real_frames_is_pillows(golden_dir, size):
    frames = sorted((golden_dir / 'pipeline/jpg').glob('*/*/image_00005.jpg'))
    assert frames
    for path in frames:
        image = Image.open(path).convert('RGB')
        ours = S.Resize(size)(torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0))[0]
        short = min(image.size)
        shape = [size if side == short else int(size * side / short) for side in image.size]
        pillow = torch.from_numpy(np.array(image.resize(shape, Image.BILINEAR))).permute(2, 0, 1)
        assert (ours.int() - pillow.int()).abs().max() <= 2


@pytest.mark.golden
def test_crops_of_real_frames_are_pillows(golden_dir):
    path = next((golden_dir / 'pipeline/jpg').glob('*/*/image_00005.jpg'))
    image = Image.open(path).convert('RGB')
    clip = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
    torch.manual_seed(1)
    for _ in range(10):
        crop = S.RandomResizedCrop(112)
        parameters = crop.make_params([clip])
        box = [parameters[name] for name in ('left', 'top', 'width', 'height')]
        box[2:] = [box[0] + box[2], box[1] + box[3]]
        crop.make_params = lambda _: parameters
        pillow = np.array(image.crop(box).resize((112, 112), Image.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(crop(clip)[0].numpy().astype(int) - pillow).max() <= 2


@pytest.mark.parametrize('height, width', [(40, 100), (100, 40), (40, 40)])
def test_crops_lie_along_the_long_side(height, width):
    clip = torch.arange(height * width).view(1, 1, height, width).to(torch.uint8)
    crops = S.EvenCrops(40, 3)(clip)
    assert crops.shape == (3, 1, 1, 40, 40)
    assert torch.equal(crops[0], clip[..., :40, :40])
    assert torch.equal(crops[2], clip[..., -40:, -40:])
    middle = clip[..., (height - 40) // 2:, (width - 40) // 2:][..., :40, :40]
    assert torch.equal(crops[1], middle) and torch.equal(S.EvenCrops(40, 1)(clip)[0], middle)


@pytest.mark.parametrize('height, width', [(20, 50), (50, 20), (20, 20)])
def test_crops_of_a_larger_short_side_lie_along_its_middle(height, width):
    clip = torch.arange(height * width).view(1, 1, height, width).to(torch.uint8)
    resized = S.Resize(40)(clip)
    crops = S.EvenCrops(32, 3, 40)(clip)
    side = max(resized.shape[-2:]) - 32
    for i, begin in enumerate((0, round(side / 2), side)):
        top, left = (begin, 4) if height > width else (4, begin)
        assert torch.equal(crops[i], resized[..., top:top + 32, left:left + 32])


def test_what_transforms_are_without_being_told():
    """As in the papers, and in trainings that say nothing else."""
    assert S.CORNER_CROP_SCALES == pytest.approx((1, 0.8409, 0.7071, 0.5946, 0.5), abs=1e-4)
    crop = S.RandomResizedCrop(16)
    assert (*crop.scale, *crop.ratio) == pytest.approx((0.25, 1, 0.75, 4 / 3)) and crop.antialias
    jitter = S.ColorJitter()
    for strength in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert strength == pytest.approx((0.6, 1.4))
    assert jitter.hue == pytest.approx((-0.1, 0.1))


def test_a_random_crop_is_drawn_as_torchvision_draws_it(clip):
    ours, theirs = S.RandomResizedCrop(16), v2.RandomResizedCrop(16, (0.25, 1), (0.75, 1 / 0.75))
    draws = []
    for crop in (ours, theirs):
        torch.manual_seed(0)
        draws.append([crop.make_params([clip]) for _ in range(20)])
    assert draws[0] == draws[1]


def test_a_square_has_a_pixel_at_least():
    assert S.CornerCrop(10, 'bottom_right', 0.01).box(20, 30) == (19, 29, 1, 1)


def test_of_another_transform_no_part_is_resized_first():
    assert S.first_resize(S.CenterCrop(16), 20, 30)[:2] == ((0, 0, 20, 30), (20, 30))
    assert S.first_resize(S.Resize(16), 20, 32)[:2] == ((0, 0, 20, 32), (16, 25))


def test_values_are_scaled_to_1_without_being_told(clip):
    batch = clip.transpose(0, 1).unsqueeze(0)
    assert torch.allclose(S.Normalize([0.0] * 3, [1.0] * 3)(batch), batch / 255)


def test_normalisation_is_no_part_of_a_state():
    assert not S.Normalize([0.5], [0.2]).state_dict()


@pytest.mark.parametrize('flags', [{'mixup': 1.0}, {'cutmix': 1.0}])
def test_a_batch_is_mixed_in_the_one_way_that_is_asked_for(flags):
    """Pixels of two levels: pasted they stay these, mixed they lie between."""
    torch.manual_seed(0)
    clips = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 3, 2, 16, 16)
    for _ in range(20):
        mixed, _ = S.BatchMix(2, **flags)(clips, torch.tensor([0, 1]))
        is_pasted = bool(((mixed == 0) | (mixed == 200)).all())
        assert is_pasted == ('cutmix' in flags)


@pytest.mark.parametrize('position', S.CORNERS)
def test_a_corner_is_resized_as_a_whole_frame_is(position, clip):
    crop = S.CornerCrop(8, position, 0.75)
    top, left, height, width = crop.box(30, 40)
    assert (height, width) == (22, 22)
    assert torch.equal(crop(clip), S.Resize(8)(clip[..., top:top + 22, left:left + 22]))


@pytest.mark.parametrize('transform', [
    S.Resize(16), S.CornerCrop(16, 'bottom_left', 0.5), S.EvenCrops(16, 3), S.EvenCrops(16, 1, 20),
    S.CenterCrop(16), S.MultiScaleCornerCrop(16), S.RandomResizedCrop(16),
    S.Compose([S.Resize(20), S.CenterCrop(16)]), S.Compose([S.MultiScaleCornerCrop(16)])],
    ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize('height, width', [(30, 40), (40, 30)])
def test_what_is_resized_first_and_the_rest_are_the_transform(transform, height, width):
    clip = torch.randint(256, (2, 3, height, width), dtype=torch.uint8)
    torch.manual_seed(0)
    expected = transform(clip)
    torch.manual_seed(0)
    (top, left, box_height, box_width), size, rest = S.first_resize(transform, height, width)
    box = clip[..., top:top + box_height, left:left + box_width]
    found = rest(S.F.resize(box, list(size), antialias=True))
    assert torch.equal(found, expected)


def test_the_centre_of_a_clip_is_one_crop_of_all_frames(clip):
    assert S.EvenCrops(30, 1)(clip).shape == (1, 6, 3, 30, 30)
    assert S.EvenCrops(30, 3)(clip).shape == (3, 6, 3, 30, 30)
