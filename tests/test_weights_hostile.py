"""Weights files made wrong on purpose, by kind: each is refused in one sentence that names what."""

import copy
import io
import math
import random
import zipfile

import pytest
import torch

import checkpoint
from main import main
from model import load_model
from opts import CLIP_FLAGS, parsed_record
from runtime.errors import InputError
from tests.processes import same_state
from tests.tiny_data import run_main
from weights import load, read

N_FLIPS = 300


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """The path of a checkpoint of one epoch, and the command line of its training."""
    folder = tmp_path_factory.mktemp('trained')
    argv = tiny_data.argv(folder, '--n_epochs', 1, '--sample_duration', 4)
    assert main(argv) == 0
    return folder / 'save_1.pth', argv


@pytest.fixture(scope='module')
def content(trained):
    return torch.load(trained[0], weights_only=True)


def sentence(path, call=load_model):
    """What the InputError for a file says: one sentence that begins with its path."""
    with pytest.raises(InputError) as raised:
        call(path)
    text = str(raised.value)
    assert text.startswith(f'{path}: ') and '\n' not in text and '; ' in text, text
    return text


def saved(path, content, **changes):
    torch.save({**content, **changes}, path)
    return path


# ---------------------------------------------------------------- bit rot

@pytest.mark.slow
def test_flipped_bits_are_found_or_change_nothing(trained, tmp_path, seed):
    whole, rng, n_found = load(trained[0]), random.Random(seed), 0
    data = trained[0].read_bytes()
    path = tmp_path / 'save_1.pth'
    for _ in range(N_FLIPS):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert same_state(load(path), whole)
        except InputError as error:
            assert str(error).startswith(f'{path}: ') and '\n' not in str(error)
            n_found += 1
    assert n_found > 0.9 * N_FLIPS


def test_auto_goes_on_from_the_next_good_checkpoint(tiny_data, tmp_path, capsys):
    argv = tiny_data.argv(tmp_path, '--sample_duration', 4, '--no_val')
    assert run_main(argv) == 0
    path = tmp_path / 'save_2.pth'
    data = bytearray(path.read_bytes())
    data[data.index(load(path)['state_dict']['fc.weight'].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    assert run_main([*argv, '--resume_path', 'auto']) == 0
    said = capsys.readouterr()
    assert f'passed over: {path}: is damaged' in said.err
    assert f'--resume_path auto: {tmp_path / "save_1.pth"}' in said.out


def test_a_file_without_checksums_is_read(content, tmp_path):
    settings = torch.utils.serialization.config.save
    settings.compute_crc32 = False
    try:
        saved(tmp_path / 'a.pth', content)
    finally:
        settings.compute_crc32 = True
    assert same_state(load(tmp_path / 'a.pth')['state_dict'], dict(content['state_dict']))


# ---------------------------------------------------------------- tensors

def _with(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


ODD_TENSORS = {
    'nan': lambda t: _with(t, math.nan), 'infinity': lambda t: _with(t, math.inf),
    '-infinity': lambda t: _with(t, -math.inf), 'int64': lambda t: t.long(),
    'uint8': lambda t: t.byte(), 'bool': lambda t: t > 0, 'complex': lambda t: t.cfloat(),
    'sparse': lambda t: t.to_sparse(), 'csr': lambda t: t.flatten(1).to_sparse_csr(),
    'quantised': lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    'float8_e4m3fn': lambda t: t.to(torch.float8_e4m3fn), 'bits8': lambda t: t.byte().view(
        torch.bits8), 'nested': lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged),
    'meta': lambda t: t.to('meta'), 'scalar': lambda t: t.sum(), 'none': lambda t: t[:0],
    'expanded': lambda t: torch.zeros(()).expand(t.shape),
    'of 256 GB': lambda t: torch.zeros(()).expand(2 ** 36, *t.shape[1:]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of torch, of the kinds of tensors that are made here
@pytest.mark.parametrize('kind', ODD_TENSORS)
@pytest.mark.parametrize('name', ['conv1.weight', 'fc.weight'])
def test_a_tensor_that_is_no_weight_is_named(content, tmp_path, kind, name):
    state_dict = dict(content['state_dict'])
    state_dict[name] = ODD_TENSORS[kind](state_dict[name])
    assert name in sentence(saved(tmp_path / 'a.pth', content, state_dict=state_dict))


def test_large_numbers_are_finite_though_their_sum_is_not(content, tmp_path):
    state_dict = {**content['state_dict'], 'fc.weight': torch.full((3, 3), 3e38)}
    path = saved(tmp_path / 'a.pth', content, state_dict=state_dict)
    assert read(path).not_finite == ()
    state_dict['fc.weight'] = torch.tensor([math.inf, -math.inf])
    path = saved(tmp_path / 'a.pth', content, state_dict=state_dict)
    assert read(path).not_finite == ('fc.weight',)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', sorted(ODD_TENSORS.keys() - {'nan', 'infinity', '-infinity'}))
def test_optimiser_states_of_another_kind_or_shape(trained, content, tmp_path, kind):
    optimizer = copy.deepcopy(content['optimizer'])
    state = optimizer['state'][0]
    state['momentum_buffer'] = ODD_TENSORS[kind](state['momentum_buffer'])
    path = saved(tmp_path / 'a.pth', content, optimizer=optimizer)
    if kind in ('int64', 'uint8', 'bool', 'scalar'):
        return  # torch makes them what the parameter is
    argv = [*trained[1], '--result_path', tmp_path / 'results', '--n_epochs', 2]
    assert 'optimi' in sentence(path, lambda path: main([*map(str, argv), '--resume_path',
                                                         str(path)]))


@pytest.mark.parametrize('odd, status', [
    ({'momentum_buffer': None}, 2), ({'momentum_buffer': 'a'}, 2), ({'momentum_buffer': 1.5}, 2),
    ({}, 0)])
def test_optimiser_states_of_some_parameters(trained, content, tmp_path, odd, status):
    """Steps of all are made together; one that has no state yet begins with its first."""
    optimizer = copy.deepcopy(content['optimizer'])
    optimizer['state'][3] = odd
    path = saved(tmp_path / 'a.pth', content, optimizer=optimizer)
    argv = [*map(str, trained[1]), '--result_path', str(tmp_path / 'results'), '--n_epochs', '2',
            '--resume_path', str(path)]
    if status:
        assert 'optimi' in sentence(path, lambda path: main(argv))
    else:
        main(argv)


@pytest.mark.parametrize('name, odd', [('last_epoch', 'a'), ('milestones', [[1]]),
                                       ('milestones', 'a'), ('rates', ['a'])])
def test_schedules_of_another_kind(content, tmp_path, name, odd):
    path = saved(tmp_path / 'a.pth', content, scheduler={**content['scheduler'], name: odd})
    assert f'scheduler.{name}' in sentence(path)


def test_more_shared_weights_than_any_network_has(tmp_path):
    shared = torch.zeros(100_000).half()
    path = tmp_path / 'a.pth'
    torch.save({f'layer{i}.weight': shared for i in range(1000)}, path)
    assert 'claims' in sentence(path, load)


def test_a_record_of_a_network_that_the_file_does_not_hold(content, tmp_path):
    for name, value in (('resnet_widen_factor', 1e5), ('resnet_widen_factor', 1e300),
                        ('stem_planes', 65_536), ('conv1_t_size', 10 ** 9 + 1)):
        path = saved(tmp_path / 'a.pth', content,
                     network_options={**content['network_options'], name: value})
        assert 'network' in sentence(path)


# ---------------------------------------------------------------- archives

def repacked(source, path, change=lambda name, data: data, **options):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, 'w', **options) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return path


def test_an_archive_that_unpacks_to_more_than_itself(tmp_path):
    torch.save({'a.weight': torch.zeros(2_000_000)}, tmp_path / 'a.pth')
    path = repacked(tmp_path / 'a.pth', tmp_path / 'b.pth', compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000 and 'unpacks to 8000' in sentence(path, load)


class Large:
    def __reduce__(self):
        return bytearray, (2 ** 40,)


@pytest.mark.parametrize('is_zip', [True, False])
def test_memory_that_a_pickle_asks_for(tmp_path, is_zip):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'a': torch.zeros(2)}, 'b': Large()}, path,
               _use_new_zipfile_serialization=is_zip)
    assert 'bytearray' in sentence(path, load)


def test_values_in_values(tmp_path):
    nested = [1]
    for _ in range(100):
        nested = [nested, nested]  # 2 ** 100 ways to its end
    path = saved(tmp_path / 'a.pth', {'state_dict': {'a': torch.zeros(2)}}, more=nested)
    assert 'nested deeper' in sentence(path, load)


# ---------------------------------------------------------------- fields

ODD_VALUES = {
    'an int': 5, 'negative': -1, 'a bool': True, 'inf': math.inf, 'nan': math.nan, 'none': None,
    'text': 'text', 'no text': '', 'bytes': b'\0', 'a list': [1, 'a'], 'empty': [], 'a dict': {},
    'a tensor': torch.zeros(2), 'large': 10 ** 18, 'a list of lists': [[[]]], 'a set': {1, 2},
    'a flag': '--no_train', 'names twice': ['red', 'red', 'blue'],
    'a large list': list(range(100_000)), 'a nul': 'a\0b', 'escape': '\33[2J',
}


def _right(field, value, right):
    """True where an odd value is one that the field may have."""
    if isinstance(right, bool):
        return isinstance(value, bool)
    if isinstance(right, int):
        return type(value) is int
    return type(value) in ((int, float) if isinstance(right, float) else (type(right),))


FIELDS = ('format_version', 'epoch', 'class_names', 'multi_label', 'arch', 'versions',
          'network_options', 'clip_options', 'optimizer', 'scheduler', 'options', 'state_dict')


@pytest.mark.slow
def test_fields_of_the_wrong_kind(content, tmp_path, seed):
    cases = [(field, odd) for field in FIELDS for odd in ODD_VALUES]
    for field, odd in random.Random(seed).sample(cases, 80):
        value = ODD_VALUES[odd]
        path = saved(tmp_path / 'a.pth', content, **{field: value})
        try:
            load_model(path)
        except InputError as error:
            assert str(error).startswith(f'{path}: ') and '\n' not in str(error)
        else:
            assert _right(field, value, content[field]) or (
                field, odd) == ('class_names', 'none'), (field, odd)


@pytest.mark.slow
def test_recorded_flags_of_the_wrong_kind(content, tmp_path, seed):
    """Each flag of a record: refused, or a value that the flag takes."""
    groups = ('network_options', 'clip_options')
    cases = [(group, name, odd) for group in groups for name in content[group]
             for odd in ODD_VALUES]
    for group, name, odd in random.Random(seed).sample(cases, 60):
        path = saved(tmp_path / 'a.pth', content,
                     **{group: {**content[group], name: ODD_VALUES[odd]}})
        try:
            load_model(path)
        except InputError as error:
            assert '\n' not in str(error), (group, name, odd)


@pytest.mark.slow
@pytest.mark.parametrize('odd', ODD_VALUES)
def test_records_as_flags_take_them(content, odd):
    flags = {**content['network_options'], **content['clip_options'], **content['options']}
    del flags['stem_planes']  # it has no flag
    for name, right in flags.items():
        try:
            parsed = parsed_record({name: ODD_VALUES[odd]})[name]
            assert right is None or type(parsed) in (type(right), list), (name, parsed)
        except InputError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize('odd', ODD_VALUES)
def test_positions_of_the_wrong_kind(trained, content, tmp_path, odd):
    position = {'epoch': 1, 'batch': 1, 'sums': {'clips': 4.0, 'loss': 1.0, 'hits': 1.0},
                'lr': 0.05, 'batch_size': 4, 'manual_seed': 1, 'records': 'a'}
    for name in position:
        changed = {**position, name: ODD_VALUES[odd]}
        path = saved(tmp_path / 'a.pth', content, position=changed)
        try:
            assert read(path).training['position'].keys() == position.keys()
        except InputError as error:
            assert str(error).startswith(f'{path}: its position.{name}'), error
    path = saved(tmp_path / 'a.pth', content, position=ODD_VALUES[odd])
    assert odd == 'none' or 'position' in sentence(path, read)


def test_clips_larger_than_memory(content, tmp_path):
    for name in CLIP_FLAGS[:3]:
        path = saved(tmp_path / 'a.pth', content,
                     clip_options={**content['clip_options'], name: 10 ** 9})
        assert 'clip_options' in sentence(path)


# ---------------------------------------------------------------- bytes

@pytest.mark.slow
def test_mutated_files(trained, tmp_path, seed):
    """Whatever bytes come in a file, it loads or is refused in one sentence."""
    rng = random.Random(seed)
    plain = io.BytesIO()
    torch.save(load(trained[0]), plain, _use_new_zipfile_serialization=False)
    originals = [trained[0].read_bytes(), plain.getvalue()]
    for number in range(120):
        data = bytearray(originals[number % 2])
        for _ in range(rng.randint(1, 8)):
            begin = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 2000)),
                                len(data) - 1 - rng.randrange(min(len(data), 2000))])
            action = rng.randrange(4)
            if action == 0:
                data[begin] = rng.randrange(256)
            elif action == 1:
                del data[begin:begin + rng.randint(1, 100)]
            elif action == 2:
                data[begin:begin] = rng.randbytes(rng.randint(1, 100))
            else:
                data[begin:begin + 8] = b'\xff' * 8
        path = tmp_path / 'a.pth'
        path.write_bytes(data)
        try:
            load_model(path)
        except InputError as error:
            assert str(error).startswith(f'{path}: ') and '\n' not in str(error)


def test_checkpoints_that_are_right_stay_so(trained, content, tmp_path):
    checkpoint.save(tmp_path / 'a.pth', content)
    assert same_state(load(tmp_path / 'a.pth'), load(trained[0]))
    load_model(tmp_path / 'a.pth')
