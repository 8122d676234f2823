"""Features of windows and videos: what is in the file, whoever computes it."""

import numpy as np
import pytest
import torch

import main
from features import Features, FeatureTap, read_features, write_features
from model import load_model
from models import generate_model
from runtime.errors import InputError
from tests.processes import LIMIT_SEC, run_ranks, start_main
from tests.tiny_data import CLASSES, run_main


@pytest.fixture(scope='module')
def weights(tiny_data):
    assert run_main(tiny_data.argv('featured', '--n_epochs', 1)) == 0
    return tiny_data.root / 'featured' / 'save_1.pth'


def argv(tiny_data, folder, weights, *more):
    return tiny_data.argv(folder, '--resume_path', weights, '--no_train', '--no_val', '--inference',
                          '--inference_stride', 5, '--output_features', folder / 'f.h5', *more)


def test_a_row_a_window_and_their_average(tiny_data, weights, tmp_path):
    assert run_main(argv(tiny_data, tmp_path / 'a', weights)) == 0
    assert run_main(argv(tiny_data, tmp_path / 'b', weights, '--inference_no_average')) == 0
    videos, windows = (read_features(tmp_path / name / 'f.h5') for name in 'ab')
    assert videos.video_ids == [f'{name}_{i}' for name in CLASSES for i in (4, 5)]
    assert videos.class_names == list(CLASSES) and videos.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(windows.features) > 6 and windows.features.dtype == np.float32
    for i, video_id in enumerate(videos.video_ids):
        own = [row for row, other in enumerate(windows.video_ids) if other == video_id]
        np.testing.assert_allclose(windows.features[own].mean(axis=0), videos.features[i],
                                   rtol=1e-5)
        assert windows.segments[own][0].tolist() == [1, 9]
        assert videos.segments[i].tolist() == [1, windows.segments[own].max()]


def test_they_are_what_the_classifier_gets(tiny_data, weights, tmp_path):
    more = ['--inference_no_average', '--feature_module']
    for name, module in (('fc', 'fc'), ('layer4', 'layer4')):
        assert run_main(argv(tiny_data, tmp_path / name, weights, *more, module)) == 0
    assert run_main(argv(tiny_data, tmp_path / 'pooled', weights, more[0])) == 0
    pooled, logits, layer4 = (torch.from_numpy(read_features(tmp_path / name / 'f.h5').features)
                              for name in ('pooled', 'fc', 'layer4'))
    network, _ = load_model(weights)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(pooled), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer4, pooled)  # the pooled features are those of layer4


@pytest.mark.slow
def test_processes_write_each_row_once(tiny_data, weights, tmp_path):
    assert run_main(argv(tiny_data, tmp_path / 'one', weights, '--inference_batch_size', 1)) == 0
    command = argv(tiny_data, tmp_path / 'two', weights, '--inference_batch_size', 1)
    status, said = run_ranks(2, command, tmp_path / 'output')
    assert status == [0, 0], said
    assert said.count('6 rows of features of 6 videos') == 1
    one, two = (read_features(tmp_path / name / 'f.h5') for name in ('one', 'two'))
    assert one.video_ids == two.video_ids
    np.testing.assert_allclose(one.features, two.features, rtol=1e-5, atol=1e-7)


def test_videos_without_label(tiny_data, weights, tmp_path):
    assert run_main(argv(tiny_data, tmp_path, weights, '--inference_subset', 'test')) == 0
    assert read_features(tmp_path / 'f.h5').labels.tolist() == [-1] * 3


@pytest.mark.slow
def test_a_full_disk(tiny_data, weights, tmp_path):
    """HDF5's own account of it is no sentence, and it crashes as the process ends."""
    command = argv(tiny_data, tmp_path, weights)
    assert run_main(command) == 0
    size = (tmp_path / 'f.h5').stat().st_size
    (tmp_path / 'f.h5').unlink()
    process = start_main(command, tmp_path / 'output', file_limit=size - 100)
    process.join(LIMIT_SEC)
    output = (tmp_path / 'output').read_text()
    assert process.exitcode == 2 and 'Traceback' not in output, output
    assert output.splitlines()[-1] == (f'error: {tmp_path / "f.h5"}: cannot be written: File too '
                                       'large; free space, mend the permissions or give another '
                                       'path')
    assert not list(tmp_path.glob('*f.h5*'))


@pytest.mark.parametrize('model, depth', [('resnet2p1d', 10), ('densenet', 121)])
def test_other_networks(model, depth):
    network = generate_model(model, depth, n_classes=3).eval()
    tap = FeatureTap(network)
    with torch.no_grad(), tap:
        network(torch.rand(2, 3, 8, 32, 32))
        assert tap.take().shape == (2, network.num_features)


@pytest.mark.parametrize('more, said', [
    (['--feature_module', 'layer5'], 'layer5: no such module; the network has layer4'),
    (['--feature_module', 'layer4', '--output_features'], 'expected one argument')])
def test_wrong_flags(tiny_data, weights, tmp_path, more, said):
    with pytest.raises(InputError, match=said):
        main.main([str(word) for word in argv(tiny_data, tmp_path, weights, *more)])


def test_features_need_an_inference(tiny_data, tmp_path):
    with pytest.raises(InputError, match='add --inference'):
        main.main(tiny_data.argv(tmp_path, '--output_features', 'f.h5'))
    with pytest.raises(InputError, match='add --output_features'):
        main.main(tiny_data.argv(tmp_path, '--feature_module', 'fc'))


def test_names_of_half_characters_and_numbers_of_no_class(tmp_path):
    """As Python has the bytes of file names that are no UTF-8."""
    content = Features(np.eye(2, dtype=np.float32), ['a\udcff', '\ud800'], np.ones((2, 2), int),
                       np.array([-1, 0]), ['\udc80'])
    write_features(tmp_path / 'f.h5', content)
    found = read_features(tmp_path / 'f.h5')
    assert found.video_ids == content.video_ids and found.class_names == content.class_names
    for labels in ([-2, 0], [0, 1], [0, 2 ** 62]):
        write_features(tmp_path / 'f.h5', content._replace(labels=np.array(labels)))
        with pytest.raises(InputError, match='no numbers of its 1 classes'):
            read_features(tmp_path / 'f.h5')


def test_files_that_are_no_features(tmp_path):
    with pytest.raises(InputError, match='no such file'):
        read_features(tmp_path / 'f.h5')
    (tmp_path / 'f.h5').write_text('text')
    with pytest.raises(InputError, match='not a file of features'):
        read_features(tmp_path / 'f.h5')
    (tmp_path / 'folder').touch()
    with pytest.raises(InputError, match='cannot be written'):
        write_features(tmp_path / 'folder' / 'f.h5', Features(*[np.zeros(1)] * 5))
