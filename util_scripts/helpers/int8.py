"""int8: an exported network is quantised by clips of its training set, and measured beside itself.

Static quantisation after training by NNCF: ranges of activations come from calibration clips (Jacob
et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018).
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace as with_fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets.annotations import check_class_count, read_annotation
from datasets.loading import build_loader
from defaults import resolved
from model import adopt_options, load_model, match_class_names, read_weights
from models.base import Classifier
from models.exported import ExportedNetwork
from opts import Options, replace
from runtime.engines import contents_of, extra, quiet
from runtime.errors import InputError
from runtime.exporting import WRITERS
from runtime.files import write_json
from runtime.output import is_quiet, note
from tasks import TASKS
from util_scripts.helpers.exports import Exported
from validation import evaluate

BATCH_SIZE = 8      # of the throughput, and of the data where none is given
METRICS = {False: ('video_top1', 'video top-1'), True: ('video_map', 'video mAP')}
# Whose layers the int8 kernels of OpenVINO and ONNX Runtime are for.
LAYERS = ('Conv', 'Convolution', 'GroupConvolution', 'MatMul', 'Gemm')
FLOAT, INT8 = 'fp32', 'int8'
HEADER = ('', 'accuracy', 'MB', 'ms a clip', 'speed', f'clips/s in batches of {BATCH_SIZE}',
          'speed')


@dataclass(frozen=True)
class Row:
    """One version of the network: accuracy, bytes of its file, seconds of one clip and of each clip
    of a batch."""

    name: str
    accuracy: float
    n_bytes: int
    clip_sec: float
    batch_clip_sec: float


@dataclass(frozen=True)
class Quantised:
    """What int8 costs and gives, beside the network as it was; `rows` begins with that.

    kept: names of the layers that stayed in floating point
    """

    metric: str
    n_videos: int
    n_calibration: int
    kept: tuple[str, ...]
    rows: tuple[Row, ...]

    def table(self) -> str:
        """As Markdown."""
        first = self.rows[0]
        lines: list[Sequence[str]] = [HEADER, ['---'] * len(HEADER)]
        for row in self.rows:
            lines.append([row.name, f'{row.accuracy:.4f}', f'{row.n_bytes / 1e6:.1f}',
                          f'{1e3 * row.clip_sec:.1f}', f'{first.clip_sec / row.clip_sec:.2f}',
                          f'{1 / row.batch_clip_sec:.1f}',
                          f'{first.batch_clip_sec / row.batch_clip_sec:.2f}'])
        kept = ', '.join(self.kept) or 'none'
        return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines) + (
            f'\n\nAccuracy is {self.metric} on {self.n_videos} videos for validation; '
            f'{self.n_calibration} clips of the training set showed the ranges. Times are medians '
            f'of turns in one run ({torch.get_num_threads()} threads). Layers in floating point: '
            f'{kept}.')

    def write(self, path: Path) -> None:
        """The same as JSON. Raises InputError."""
        write_json(path, {**asdict(self), 'threads': torch.get_num_threads()})


# ---------------------------------------------------------------- data

class Data:
    """Clips to calibrate with, and videos to measure with, as the flags of main.py name them.

    Raises InputError where these are wrong.
    """

    def __init__(self, what: Exported, opts: Options) -> None:
        if what.args.accuracy_control and what.info.opts.multi_label:
            raise InputError('--accuracy_control is for one label a video; drop it')
        extra('nncf', '--int8')  # before the long work
        weights = read_weights(what.args.source, opts)
        annotation = read_annotation(opts.annotation_path)
        opts, found = resolved(opts, annotation, has_classes=True, has_network=True)
        if found:
            note(found)
        opts = adopt_options(opts, weights)
        if 'batch_size' not in opts.given:
            opts = replace(opts, batch_size=max(BATCH_SIZE, opts.n_val_samples))
        self.annotation = with_fields(annotation, class_names=match_class_names(
            annotation.class_names, weights))
        check_class_count(self.annotation, opts.n_classes)
        self.opts, self.what, self.task = opts, what, TASKS[opts.multi_label]
        self.loader = build_loader(opts, 'val', self.annotation)
        self.n_videos = len(self.loader.dataset.records)
        self.key, self.metric = METRICS[opts.multi_label]

    def calibration(self, n_clips: int) -> list[np.ndarray]:
        """Up to so many clips of the training set, each in a batch of its own, as the file takes
        them; of different videos, at their middle."""
        opts = replace(self.opts, train_crop='center', train_t_crop='center', no_hflip=True,
                       colorjitter=False)
        found: list[np.ndarray] = []
        with tqdm(None, 'calibration clips', total=n_clips, unit='clip',
                  disable=is_quiet() or None) as progress:
            for batch in build_loader(opts, 'train', self.annotation):
                clips = self.what.taken(batch.clips)[:n_clips - len(found)]
                found += [clip[None].contiguous().numpy() for clip in clips]
                progress.update(len(clips))
                if len(found) >= n_clips:
                    break
        return found

    def accuracy(self, network: Classifier) -> float:
        """Accuracy by video of a network on the validation set."""
        with tqdm(None, 'validation', total=self.n_videos, unit='video', leave=False,
                  disable=is_quiet() or None) as progress:
            metrics, _ = evaluate(self.loader, network, self.what.info.normalize, self.task,
                                  n_classes=len(self.annotation.class_names),
                                  device=torch.device('cpu'), on_step=progress.update)
        return metrics[self.key]


# ---------------------------------------------------------------- quantising

class Watched:
    """Items that NNCF takes as often as it likes, under a bar that its silence leaves visible."""

    def __init__(self, items: Iterable[Any], title: str, unit: str) -> None:
        self._items, self._title, self._unit = items, title, unit
        self._stream = sys.stderr

    def __iter__(self) -> Iterator[Any]:
        return iter(tqdm(self._items, self._title, unit=self._unit, leave=False,
                         disable=is_quiet() or None, file=self._stream))


class Quantiser:
    """Versions of one exported model in int8, by the same calibration clips."""

    def __init__(self, path: Path, clips: Sequence[np.ndarray], is_transformer: bool) -> None:
        self.nncf = extra('nncf', '--int8')
        self.is_onnx, self.clips = path.suffix == '.onnx', clips
        if self.is_onnx:
            self.model = extra('onnx', '--int8').load(path)
        else:
            self.model = extra('openvino', '--int8').Core().read_model(path)
        self._more = {'model_type': self.nncf.ModelType.TRANSFORMER} if is_transformer else {}

    def layers(self) -> list[str]:
        """Names of convolutions and products with weights, in the order of the data."""
        if self.is_onnx:
            return [node.name for node in self.model.graph.node if node.op_type in LAYERS]
        return [op.get_friendly_name() for op in self.model.get_ordered_ops()
                if op.get_type_name() in LAYERS]

    def named(self, parts: Sequence[str]) -> list[str]:
        """Names of layers of which a part is given; one that is given whole stands for itself
        alone. Raises InputError where there is none."""
        layers = self.layers()
        whole = set(map(module_of, layers))
        found = [name for name in layers if any(
            part == module_of(name) or part in name and part not in whole for part in parts)]
        if parts and not found:
            raise InputError(f'--keep_float {" ".join(parts)}: no layer is called so; they are '
                             f'{", ".join(map(module_of, layers))}')
        return found

    def _dataset(self) -> Any:
        take: Callable[[Any], Any] = (lambda clip: {'clips': clip}) if self.is_onnx else (
            lambda clip: clip)
        return self.nncf.Dataset(Watched(self.clips, 'ranges of activations', 'clip'), take)

    def quantised(self, kept: Sequence[str]) -> Any:
        """The model in int8 but for layers of these names."""
        model = self.model if self.is_onnx else self.model.clone()
        with quiet():
            return self.nncf.quantize(model, self._dataset(),
                                      subset_size=len(self.clips), **self._scope(kept),
                                      **self._more)

    def _scope(self, kept: Sequence[str]) -> dict[str, Any]:
        return {'ignored_scope': self.nncf.IgnoredScope(names=[*kept])} if kept else {}

    def controlled(self, data: Data, max_drop: float, kept: Sequence[str]) -> Any:
        """The model in int8 but for the layers that NNCF finds to cost most, until the accuracy
        falls by no more than `max_drop`."""
        opts = replace(data.opts, batch_size=data.opts.n_val_samples)  # a video in a batch
        loader = build_loader(opts, 'val', data.annotation)

        def validate(model: Any, batches: Iterable[Any]) -> tuple[float, list[float]]:
            request = model.create_infer_request()
            hits = []
            for batch in batches:
                output = torch.from_numpy(request.infer(
                    [data.what.taken(batch.clips).contiguous().numpy()])[0])
                mean = output.softmax(dim=1).mean(dim=0) if data.what.module is \
                    data.what.network else output.mean(dim=0)
                hits.append(float(mean.argmax() == batch.labels[0]))
            return float(np.mean(hits)), hits

        with quiet():
            return self.nncf.quantize_with_accuracy_control(
                self.model.clone(), self._dataset(),
                self.nncf.Dataset(Watched(loader, 'accuracy control', 'video')),
                validate, max_drop=max_drop, subset_size=len(self.clips), **self._scope(kept),
                **self._more)


def module_of(name: str) -> str:
    """The module whose layer it is: OpenVINO appends /WithoutBiases and the like."""
    return name.split('/')[0]


def in_float(path: Path) -> tuple[str, ...]:
    """Names of the layers of a quantised file whose weights are not quantised."""
    if path.suffix == '.onnx':
        graph = extra('onnx', '--int8').load(path).graph
        weights = {tensor.name for tensor in graph.initializer}
        return tuple(node.name for node in graph.node
                     if node.op_type in LAYERS and node.input[1] in weights)
    model = extra('openvino', '--int8').Core().read_model(path)
    return tuple(module_of(op.get_friendly_name()) for op in model.get_ordered_ops()
                 if op.get_type_name() in LAYERS
                 and op.input_value(1).get_node().get_type_name() == 'Constant')


# ---------------------------------------------------------------- measuring

def turns(runs: Sequence[Callable[[torch.Tensor], torch.Tensor]], clips: torch.Tensor,
          seconds: float) -> list[float]:
    """Median seconds of each run on the clips; all take turns."""
    for run in runs:
        run(clips)  # the first is slow
    times: list[np.ndarray] = []
    end = time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < end:
        marks = [time.perf_counter()]
        for run in runs:
            run(clips)
            marks.append(time.perf_counter())
        times.append(np.diff(marks))
    return [float(value) for value in np.median(times, axis=0)]


def versions(path: Path, what: Exported, data: Data, clips: Sequence[np.ndarray], folder: Path
             ) -> dict[str, tuple[Path, str]]:
    """{name: (file, precision)} of what is measured: fp32, bf16 where that is fast, int8, and those
    of --compare_layers. Raises InputError for a name of no layer."""
    args, quantiser = what.args, Quantiser(path, clips, what.network.channel_axis == -1)
    layers = quantiser.layers()
    kept = quantiser.named(args.keep_float)
    found = {FLOAT: (path, 'fp32')}
    if path.suffix == '.xml' and torch.cpu.get_capabilities().get('avx512_bf16'):
        found['bf16'] = path, 'bf16'
    wanted = {INT8: kept}
    if args.compare_layers:
        wanted |= {f'{INT8}, first layer in fp32': [*kept, layers[0]],
                   f'{INT8}, last layer in fp32': [*kept, layers[-1]],
                   f'{INT8}, first and last in fp32': [*kept, layers[0], layers[-1]]}
    for number, (name, names) in enumerate(wanted.items()):
        made = folder / f'{number}{path.suffix}'
        model = (quantiser.controlled(data, args.max_drop, names)
                 if name == INT8 and args.accuracy_control else quantiser.quantised(names))
        WRITERS[path.suffix](made, model, what.record)
        found[name] = made, 'fp32'
    return found


def quantise(path: Path, what: Exported, data: Data) -> Quantised:
    """Replace the exported file by its int8 version, which is measured beside it.

    Raises InputError where there is nothing to calibrate with, and where the accuracy falls by more
    than --max_drop.
    """
    clips = data.calibration(what.args.calibration_clips)
    with tempfile.TemporaryDirectory(prefix='int8_', dir=path.parent) as folder:
        found = versions(path, what, data, clips, Path(folder))
        int8_file, _ = found[INT8]
        measured = measure(what, data, found)
        result = Quantised(data.metric, data.n_videos, len(clips), in_float(int8_file), measured)
        print(result.table(), flush=True)
        check_drop(result, what, found)
        if what.args.accuracy_control:
            names = result.kept
            print(f'--accuracy_control: keeps {", ".join(names)} in floating point; the same '
                  f'without a search: --keep_float {" ".join(names)}' if names else
                  '--accuracy_control: no layer has to stay in floating point', flush=True)
        for made in Path(folder).glob(f'{int8_file.stem}.*'):
            shutil.copyfile(made, path.with_suffix(made.suffix))
    return result


def measure(what: Exported, data: Data, found: Mapping[str, tuple[Path, str]]) -> tuple[Row, ...]:
    """A `Row` for each version."""
    networks = [load_model(file, precision=precision)[0] for file, precision in found.values()]
    accuracies = [data.accuracy(network) for network in networks]
    runs = [network.run for network in networks if isinstance(network, ExportedNetwork)]
    clip_sec = turns(runs, what.clips(1), what.args.seconds)
    batch_sec = turns(runs, what.clips(BATCH_SIZE), what.args.seconds)
    return tuple(Row(name, accuracy, len(contents_of(file)), one, many / BATCH_SIZE)
                 for (name, (file, _)), accuracy, one, many
                 in zip(found.items(), accuracies, clip_sec, batch_sec))


def check_drop(result: Quantised, what: Exported, found: Mapping[str, tuple[Path, str]]
               ) -> None:
    """Raise InputError where int8 costs more accuracy than --max_drop."""
    by_name = {row.name: row.accuracy for row in result.rows}
    drop = by_name[FLOAT] - by_name[INT8]
    if drop <= what.args.max_drop:
        return
    better = [name for name, accuracy in by_name.items()
              if name.startswith(f'{INT8},') and by_name[FLOAT] - accuracy <= what.args.max_drop]
    control = 'give --accuracy_control, which finds the layers to keep in floating point'
    if what.args.accuracy_control:
        control = ('the layers that --accuracy_control found to keep are not enough: give a larger '
                   '--max_drop, or more --calibration_clips, or leave out --int8')
    cure = (f'{better[0].removeprefix(INT8 + ", ")} is enough: give --keep_float '
            f'{" ".join(in_float(found[better[0]][0]))}' if better else control)
    raise InputError(f'{what.args.target}: not written, as int8 lowers {result.metric} by '
                     f'{drop:.4f}, more than --max_drop {what.args.max_drop:g}; {cure}')
