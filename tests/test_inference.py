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
