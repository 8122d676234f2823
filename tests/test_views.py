"""Testing with several windows and crops: where they lie, and that each counts once."""

import json

import pytest
import torch

import main
import temporal_transforms as T
from datasets.frames import JpgFrames
from model import load_model
from runtime.errors import InputError
from spatial_transforms import EvenCrops, Resize
from tests.processes import run_ranks
from tests.tiny_data import run_main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('n_frames, n, begins', [
    (20, 3, [0, 6, 12]), (20, 1, [6]), (9, 3, [0, 1]), (8, 3, [0]), (5, 3, [0])])
def test_even_windows(n_frames, n, begins):
    frames = range(n_frames)
    windows = T.even_windows(frames, 8, n)
    assert [window[0] for window in windows] == begins
    assert all(len(window) == 8 for window in windows)
    assert T.n_even_windows(n_frames, 8, n) == len(windows)


@pytest.mark.parametrize('height, width', [(40, 100), (100, 40), (40, 40)])
def test_crops_lie_along_the_long_side(height, width):
    clip = torch.arange(height * width).view(1, 1, height, width).to(torch.uint8)
    crops = EvenCrops(40, 3)(clip)
    assert crops.shape == (3, 1, 1, 40, 40)
    assert torch.equal(crops[0], clip[..., :40, :40])
    assert torch.equal(crops[2], clip[..., -40:, -40:])
    middle = clip[..., (height - 40) // 2:, (width - 40) // 2:][..., :40, :40]
    assert torch.equal(crops[1], middle) and torch.equal(EvenCrops(40, 1)(clip)[0], middle)


@pytest.mark.parametrize('height, width', [(20, 50), (50, 20), (20, 20)])
def test_crops_of_a_larger_short_side_lie_along_its_middle(height, width):
    clip = torch.arange(height * width).view(1, 1, height, width).to(torch.uint8)
    resized = Resize(40)(clip)
    crops = EvenCrops(32, 3, 40)(clip)
    side = max(resized.shape[-2:]) - 32
    for i, begin in enumerate((0, round(side / 2), side)):
        top, left = (begin, 4) if height > width else (4, begin)
        assert torch.equal(crops[i], resized[..., top:top + 32, left:left + 32])


def argv(tiny_data, folder, *more):
    return tiny_data.argv(folder, '--resume_path', 'viewed/save_1.pth', '--no_train', '--no_val',
                          '--inference', '--output_topk', 0, *more)


@pytest.fixture(scope='module')
def viewed(tiny_data):
    """Results with 4 windows and 3 crops, by video id."""
    assert run_main(tiny_data.argv('viewed', '--n_epochs', 1, '--learning_rate', 0.002)) == 0
    assert run_main(argv(tiny_data, 'viewed', '--inference_views', '4x3')) == 0
    return json.loads((tiny_data.root / 'viewed' / 'val.json').read_text())['results']


def test_scores_are_the_mean_over_all_views(tiny_data, viewed):
    network, info = load_model(tiny_data.root / 'viewed' / 'save_1.pth')
    database = tiny_data.read()['database']
    for video_id, result in viewed.items():
        _, end = database[video_id]['annotations']['segment']
        frames = Resize(32)(JpgFrames().read(str(tiny_data.frame(video_id).parent), range(1, end)))
        views = [crop[torch.tensor(window) - 1].transpose(0, 1)
                 for window in T.even_windows(range(1, end), 8, 4)
                 for crop in EvenCrops(32, 3)(frames)]
        with torch.no_grad():
            mean = network(info.normalize(torch.stack(views))).softmax(dim=1).mean(dim=0)
        scores = {entry['label']: entry['score'] for entry in result}
        assert [scores[name] for name in info.class_names] == pytest.approx(mean.tolist(), abs=1e-5)


def test_processes_and_batches_count_each_view_once(tiny_data, viewed, tmp_path):
    command = argv(tiny_data, tmp_path, '--inference_views', '4x3', '--inference_batch_size', 2)
    status, said = run_ranks(2, command, tmp_path / 'output')
    assert status == [0, 0], said
    results = json.loads((tmp_path / 'val.json').read_text())['results']
    for video_id, result in viewed.items():
        for one, other in zip(result, results[video_id], strict=True):
            assert one['label'] == other['label']
            assert one['score'] == pytest.approx(other['score'], abs=1e-5)


@pytest.mark.parametrize('more, said', [
    (['--inference_views', '10'], 'not WINDOWSxCROPS'), (['--inference_views', '0x3'], 'not WIND'),
    (['--inference_views', '4x3', '--inference_stride', '8'], 'drop one'),
    (['--inference_views', '4x3', '--inference_crop', 'nocrop'], 'drop one')])
def test_wrong_flags(tiny_data, tmp_path, more, said):
    with pytest.raises(InputError, match=said):
        main.main(tiny_data.argv(tmp_path, *more))
