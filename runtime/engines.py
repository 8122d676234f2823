"""Engines: what runs an exported network, by the ending of its file.

    engine = open_engine('r3d.onnx')
    engine.record['class_names'], engine.shape   # what it says of itself; (C, T, H, W)
    engine.compile()
    logits = engine(clips)                       # (N, C, T, H, W) -> (N, n_classes)
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from runtime.errors import InputError
from runtime.files import file_size, parse_json

# Of the record that travels in a file; one of a later version is refused.
EXPORT_VERSION = 1
# What the record is called in the metadata of a file.
RECORD = 'checkpoint'
INPUT = 'clips'
# Modules of other projects -> what pip calls the package that has them.
EXTRAS = {'onnx': 'onnx', 'onnxruntime': 'onnxruntime', 'onnxscript': 'onnxscript',
          'openvino': 'openvino', 'nncf': 'nncf'}
INSTALL = 'pip install -r requirements-export.txt'
# Of the sizes of a clip, what a file with any of them has in its shape.
ANY = 0


def extra(name: str, purpose: str) -> Any:
    """The module of a library that only exported networks need. Raises InputError without it."""
    # OpenVINO and NNCF, by a module of its own, and ONNX Runtime would tell their makers of calls.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    os.environ['ORT_DISABLE_TELEMETRY'] = '1'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the libraries' own deprecations
            module = importlib.import_module(name)
    except ImportError:
        raise InputError(f'{purpose} needs {EXTRAS[name]}, which is not installed: '
                         f'{INSTALL}') from None
    logging.getLogger(name).setLevel(logging.ERROR)
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it torch's exporter, and NNCF, keep their progress and warnings to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it logs each step, and formats that for whoever listens
    try:
        with (warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()),
              contextlib.redirect_stderr(io.StringIO())):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


class Engine:
    """One exported network.

    record:    what a checkpoint says of its network, and `exported`: how the file was made
    shape:     (C, T, H, W) of a clip; `ANY` where the file takes any size
    n_classes: how many it gives, `ANY` where it does not say that
    """

    def __init__(self, path: Path, record: Mapping[str, Any], taken: Sequence[Any],
                 given: Sequence[Any]) -> None:
        self.path, self.record = path, record
        _, *self.shape = map(_size, taken)
        _, self.n_classes = map(_size, given)
        self._run: Callable[[torch.Tensor], torch.Tensor] | None = None

    def compile(self, precision: str = 'fp32', backend: str = 'auto') -> None:
        """Make it ready to run: in fp32, or by OpenVINO in bf16 or fp16. Raises InputError."""
        raise NotImplementedError

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) as the file takes them -> (N, n_classes) as it gives them, fp32."""
        if self._run is None:
            self.compile()
        assert self._run is not None
        wanted, given = self.shape, clips.shape[1:]
        if any(size not in (ANY, own) for size, own in zip(wanted, given)):
            names = 'x'.join('any' if size == ANY else str(size) for size in wanted)
            raise InputError(f'{self.path}: takes clips of {names} (channels, frames, height, '
                             f'width), and these are of {"x".join(map(str, given))}; export the '
                             'checkpoint with --dynamic_time or --dynamic_size, or give '
                             '--sample_duration or --sample_size of the file')
        try:
            output = self._run(clips)
            if len(output) != len(clips):
                raise ValueError(f'gives {len(output)} for {len(clips)} clips')
        except (MemoryError, torch.OutOfMemoryError):  # whatever the size of a clip
            raise
        except Exception as error:  # of libraries, such as of a pool that is larger than its map
            sizes = 'x'.join(map(str, given))
            raise InputError(f'{self.path}: cannot run on clips of {sizes} ({_reason(error)}); '
                             'give more frames or pixels, or export the checkpoint without '
                             '--dynamic_time and --dynamic_size') from None
        return output

    def _compile_by_openvino(self, precision: str) -> None:
        try:
            self._run = compiled(self.path, precision)
        except RuntimeError as error:
            raise InputError(f'{self.path}: OpenVINO cannot read this network ({_reason(error)}); '
                             'drop --backend openvino, or export to .xml') from None

    def _only_fp32(self, precision: str) -> None:
        if precision != 'fp32':
            raise InputError(f'{self.path}: runs in the precision that it was exported in, and '
                             f'--precision {precision} was given; drop the flag, or add --backend '
                             'openvino')


class TorchEngine(Engine):
    """A program of torch.export (.pt2)."""

    def __init__(self, path: Path) -> None:
        files = {RECORD: ''}
        with quiet():
            self._program = torch.export.load(path, extra_files=files)
        clips = next(node for node in self._program.graph.nodes
                     if node.op == 'placeholder' and node.name == INPUT)
        [output] = self._program.graph.output_node().args[0]
        super().__init__(path, parse_json(files[RECORD] or '{}'), clips.meta['val'].shape,
                         output.meta['val'].shape)

    def compile(self, precision: str = 'fp32', backend: str = 'auto') -> None:
        if backend == 'openvino':
            raise InputError(f'{self.path}: OpenVINO does not read .pt2; export the checkpoint '
                             'to .xml, or drop --backend')
        self._only_fp32(precision)
        module, device = self._program.module(), torch.device('cpu')

        def run(clips: torch.Tensor) -> torch.Tensor:
            nonlocal module, device
            if clips.device != device:  # its weights are made on the CPU
                device = clips.device
                module = move_to_device_pass(self._program, device).module()
            with torch.inference_mode():
                return module(clips.contiguous()).float()
        self._run = run


class OnnxEngine(Engine):
    """An ONNX model, run by ONNX Runtime, or by OpenVINO where that is asked for."""

    def __init__(self, path: Path) -> None:
        runtime = extra('onnxruntime', f'{path}: to run an ONNX model')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        wanted = ['CUDAExecutionProvider'] * torch.cuda.is_available() + ['CPUExecutionProvider']
        self._session = runtime.InferenceSession(path, options, providers=[
            name for name in wanted if name in runtime.get_available_providers()])
        [clips], [output] = self._session.get_inputs(), self._session.get_outputs()
        if clips.name != INPUT:
            raise ValueError(f'takes {clips.name}, not {INPUT}')
        meta = self._session.get_modelmeta().custom_metadata_map
        super().__init__(path, parse_json(meta.get(RECORD, '{}')), clips.shape, output.shape)

    def compile(self, precision: str = 'fp32', backend: str = 'auto') -> None:
        if backend == 'openvino':
            self._compile_by_openvino(precision)
            return
        self._only_fp32(precision)
        session = self._session

        def run(clips: torch.Tensor) -> torch.Tensor:
            [output] = session.run(None, {INPUT: clips.cpu().contiguous().numpy()})
            return torch.from_numpy(output).to(clips.device)
        self._run = run


class OpenVinoEngine(Engine):
    """An OpenVINO IR (.xml, with its .bin beside it)."""

    def __init__(self, path: Path) -> None:
        openvino = extra('openvino', f'{path}: to run an OpenVINO model')
        with open(path, 'rb') as file:
            # Of other XML it would say on stderr that it is no text of TensorFlow either.
            if b'<net ' not in file.read(4096):
                raise ValueError('no IR of OpenVINO')
        if not path.with_suffix('.bin').exists():
            raise InputError(f'{path}: lacks its .bin, which holds the weights; copy that beside '
                             'it, or export the checkpoint again')
        model = openvino.Core().read_model(path)
        [clips], [output] = model.inputs, model.outputs
        text = model.get_rt_info(RECORD).astype(str) if RECORD in model.rt_info else '{}'
        super().__init__(path, parse_json(text), *(
            [ANY if size.is_dynamic else size.get_length() for size in list(end.partial_shape)]
            for end in (clips, output)))

    def compile(self, precision: str = 'fp32', backend: str = 'auto') -> None:
        self._compile_by_openvino(precision)


# The engines by the ending of the file.
ENGINES: dict[str, Callable[[Path], Engine]] = {
    '.onnx': OnnxEngine, '.xml': OpenVinoEngine, '.pt2': TorchEngine}


def is_exported(path: str | Path) -> bool:
    """True for the name of a file that an engine runs."""
    return Path(path).suffix in ENGINES


def open_engine(path: str | Path) -> Engine:
    """The engine of a file. Raises InputError where it cannot be read, is cut short, is not of this
    code, or of a later version of it."""
    path = Path(path)
    try:
        file_size(path)  # before it is opened, which a pipe might never end
        engine = ENGINES[path.suffix](path)
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); check the path') from None
    except InputError:
        raise
    except Exception as error:  # bytes that are no model fail in any way there is
        raise InputError(f'{path}: not an exported network, or one that is cut short or too new '
                         f'for what runs it ({_reason(error)}); export the checkpoint again, or: '
                         f'{INSTALL} --upgrade') from None
    exported = engine.record.get('exported') if isinstance(engine.record, Mapping) else None
    if not isinstance(exported, Mapping):
        raise InputError(f'{path}: does not say how its clips are prepared, as it is no file of '
                         'util_scripts.export; export the checkpoint with that')
    if exported.get('version') not in range(1, EXPORT_VERSION + 1):
        raise InputError(f'{path}: is of export version {exported.get("version")}, and this code '
                         f'reads versions up to {EXPORT_VERSION}; update the code, or export the '
                         'checkpoint again')
    return engine


def _size(size: Any) -> int:
    """A size in the shape of a file; `ANY` for the name or symbol of one that may be any."""
    return size if isinstance(size, int) else ANY


def _reason(error: Exception) -> str:
    """What a library says of a file, without which line of its code says it."""
    *_, last = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = last.rpartition(' failed:')[2]
    if said.startswith('/'):  # file, line and function
        said = said.partition(') ')[2]
    return said.strip().rstrip('.')[:120]


def contents_of(path: Path) -> bytes:
    """All that is in a file, and of an OpenVINO IR in the .bin beside it."""
    beside = path.with_suffix('.bin')
    return path.read_bytes() + (
        beside.read_bytes() if path.suffix == '.xml' and beside.exists() else b'')


def compiled(model: Any, precision: str = 'fp32', cache: Path | None = None
             ) -> Callable[[torch.Tensor], torch.Tensor]:
    """An OpenVINO model, or the path of one, as a function of clips on the CPU.

    precision: what it computes in; OpenVINO would take bf16 by itself where that is fast
    cache:     a folder for what is compiled, so that it is done once
    """
    openvino = extra('openvino', '--backend openvino')
    settings: dict[str, Any] = {
        'INFERENCE_PRECISION_HINT': {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}[precision],
        'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    core = openvino.Core()
    if cache:
        core.set_property({'CACHE_DIR': str(cache)})
    request = core.compile_model(model, 'CPU', settings).create_infer_request()

    def run(clips: torch.Tensor) -> torch.Tensor:
        output = request.infer([clips.cpu().contiguous().numpy()])
        return torch.from_numpy(output[0].copy()).to(clips.device)
    return run
