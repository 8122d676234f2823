"""An export: the file is made in a folder of its own, run beside its checkpoint, and then named."""

import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from datasets.frames import VideoFrames
from datasets.presets import spatial_transform
from datasets.video import VideoError, count_frames
from model import ModelInfo, load_model
from models import network_name
from models.base import Classifier
from models.exported import logits_of
from opts import Options, clip_shape
from runtime.arguments import command_line
from runtime.engines import EXPORT_VERSION, contents_of, open_engine
from runtime.errors import InputError
from runtime.exporting import (SIZE, TIME, WRITERS, onnx_model, openvino_model, program_of,
                               write_program)
from runtime.files import refuse_what_is_no_file, write_text
from runtime.locks import lock
from runtime.output import is_quiet, note, wrote
from util_scripts.helpers.files import make_place
from util_scripts.helpers.model_card import card
from util_scripts.helpers.prediction import read_labels
from weights import describe, write_safetensors

Run = Callable[[torch.Tensor], torch.Tensor]


class Prepared(nn.Module):
    """(N, C, T, H, W) uint8 clips -> (N, n_classes) scores: a network with what is around it."""

    def __init__(self, network: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.network, self.normalize, self.scores = network, info.normalize, info.scores

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.scores(self.network(self.normalize(clips)))


@dataclass(frozen=True)
class Exported:
    """What is exported, and how.

    module:  takes what the file takes, and gives what the file gives
    record:  what travels in the file
    free:    axes of clips that may be of any size, beside that of the batch
    """

    network: Classifier
    info: ModelInfo
    module: nn.Module
    record: dict[str, Any]
    free: tuple[int, ...]
    args: Namespace

    def clips(self, n: int, n_frames: int = 0, height: int = 0, width: int = 0) -> torch.Tensor:
        """Noise as the file takes it; sizes that are 0 are those of the training."""
        channels, *sizes = clip_shape(self.info.opts)
        shape = [given or own for given, own in zip((n_frames, height, width), sizes)]
        generator = torch.Generator().manual_seed(n)
        return self.taken(torch.randint(256, (n, channels, *shape), dtype=torch.uint8,
                                        generator=generator))

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """Of what the file gives: scores near 0 and 1 would hide differences."""
        return logits_of(output, self.info.opts.multi_label) if self.args.preprocess else output

    def taken(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 clips as the file takes them."""
        return clips if self.args.preprocess else self.info.normalize(clips)


# ---------------------------------------------------------------- what is exported

def load(args: Namespace) -> Exported:
    """What the flags name. Raises InputError."""
    names = read_labels(args.labels) if args.labels else None
    network, info = load_model(args.source, 'cpu', names)
    wanted = {'time': args.dynamic_time, 'size': args.dynamic_size}
    for axis, is_free in wanted.items():
        if is_free and axis in network.fixed_axes:
            raise InputError(f'{args.source}: {network_name(network.options)} takes clips of one '
                             f'{"number of frames" if axis == "time" else "height and width"} '
                             f'when it is exported; drop --dynamic_{axis}')
    if args.half:
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
    free = TIME * args.dynamic_time + SIZE * args.dynamic_size
    return Exported(network, info, Prepared(network, info) if args.preprocess else network,
                    make_record(network, info, args), free, args)


def make_record(network: Classifier, info: ModelInfo, args: Namespace) -> dict[str, Any]:
    """What a checkpoint says of its network, and how the file was made."""
    record = describe(info.opts, network, info.class_names)
    if not info.has_names:
        record['class_names'] = None
    return {**record, 'exported': {
        'version': EXPORT_VERSION, 'preprocess': args.preprocess,
        'weights': 'int8' if args.int8 else 'fp16' if args.half else 'fp32',
        'dynamic': ['batch'] + ['time'] * args.dynamic_time + ['size'] * args.dynamic_size,
        'input': 'uint8 0...255' if args.preprocess else 'float32, normalised',
        'output': 'scores' if args.preprocess else 'logits'}}


# ---------------------------------------------------------------- writing

def files_of(target: Path) -> list[Path]:
    """What an export writes: the file, that of its weights, and the model card."""
    beside = [target.with_suffix('.bin')] if target.suffix == '.xml' else []
    return [target, *beside, target.with_name(f'{target.name}.md')]


@contextmanager
def named_at_last(target: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own; what is written there goes to where `target`
    is if the block ends well. Raises InputError."""
    folder, named = '', target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for named in files_of(target):
            refuse_what_is_no_file(named)
        named = target
        folder = tempfile.mkdtemp(prefix='.export_', dir=target.parent)
        yield Path(folder) / target.name
        # Else the network of one export could get the weights of another.
        with lock(target.with_name('.export.lock'), waits=True):
            for path in sorted(Path(folder).iterdir()):
                os.replace(path, target.parent / path.name)
    except OSError as error:
        raise InputError(f'{named}: cannot be written: {error.strerror or error}; free space, '
                         'mend the permissions or give another path') from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def make_model(what: Exported, suffix: str) -> Any:
    """The ONNX model, or that of OpenVINO, of what is exported. Raises InputError."""
    program = program_of(what.module, what.clips(2), what.free)
    make = onnx_model if suffix == '.onnx' else openvino_model
    return make(program, what.record['exported']['output'])


def write(path: Path, what: Exported) -> None:
    """Write the file in the form that its ending names. Raises InputError and OSError."""
    if path.suffix == '.safetensors':
        state = what.network.state_dict()
        if what.args.half:
            learnt = dict(what.network.named_parameters())  # not the statistics of batch norms
            state = {name: value.half() if name in learnt else value
                     for name, value in state.items()}
        write_safetensors(path, {**what.record, 'state_dict': state})
    elif path.suffix == '.pt2':
        write_program(path, program_of(what.module, what.clips(2), what.free), what.record)
    else:
        WRITERS[path.suffix](path, make_model(what, path.suffix), what.record,
                             is_half=what.args.half)


# ---------------------------------------------------------------- checking

def opened(path: Path, target: Path) -> Run:
    """What a file gives of what it takes; errors call it `target`, as it will be."""
    if path.suffix == '.safetensors':
        return load_model(path)[0]
    engine = open_engine(path)
    engine.compile()
    engine.path = target
    return engine


def shapes_to_check(what: Exported) -> list[tuple[int, int, int, int]]:
    """(clips, frames, height, width): several batches, and lengths and sizes where they are free.

    Odd ones are among them, and such as halve to odd ones.
    """
    n_frames, size = what.info.opts.sample_duration, what.info.opts.sample_size
    shapes = [(1, n_frames, size, size), (3, n_frames, size, size)]
    if TIME[0] in what.free:
        shapes += [(1, n_frames + 2, size, size), (2, 2 * n_frames + 3, size, size)]
    if SIZE[0] in what.free:
        shapes += [(1, n_frames, size + 34, size + 7), (1, n_frames, size + 1, size + 48)]
    return shapes


def clips_to_check(what: Exported) -> Iterator[tuple[str, torch.Tensor]]:
    """Pairs of what clips are, and the clips, as the file takes them."""
    for shape in shapes_to_check(what):
        yield 'x'.join(map(str, shape)), what.clips(*shape)
    for path in what.args.videos or ():
        opts = what.info.opts
        try:
            n_frames = count_frames(str(path))
        except VideoError as error:
            raise InputError(f'{path}: no video can be read there ({error}); give others as '
                             '--videos') from None
        frames = VideoFrames().read(str(path), [1 + i * opts.sample_t_stride % n_frames
                                                for i in range(opts.sample_duration)])
        clip = spatial_transform(opts, 'inference')(frames)
        yield str(path), what.taken(clip.transpose(0, 1).unsqueeze(0))


@torch.inference_mode()
def check(run: Run, what: Exported) -> list[tuple[str, float]]:
    """Pairs of clips and the difference of a file from its checkpoint on them, relative to the
    checkpoint's largest output (logit).

    Raises InputError where it is beyond --tolerance, and where the checkpoint gives the same for
    all clips, so that there is nothing to see.
    """
    found, outputs = [], []
    with tqdm(list(clips_to_check(what)), 'check', unit='batch',
              disable=is_quiet() or None) as progress:
        for name, clips in progress:
            expected, given = what.logits(what.module(clips)), what.logits(run(clips))
            difference = float((given - expected).abs().max() / expected.abs().max())
            found.append((name, difference))
            outputs.append(expected)
            if not difference <= what.args.tolerance:
                without = '; drop --dynamic_time and --dynamic_size,' if what.free else ';'
                raise InputError(
                    f'{what.args.target}: not written, as it differs from {what.args.source} by '
                    f'{difference:.1e} of the largest output on clips of {name}, more than '
                    f'--tolerance {what.args.tolerance:g}{without} give a larger --tolerance, or '
                    'write another form')
    _check_that_clips_matter(torch.cat(outputs), what)
    return found


def _check_that_clips_matter(outputs: torch.Tensor, what: Exported) -> None:
    """Raise InputError where (N, n_classes) outputs for different clips are the same but for
    --tolerance: any file that gives these few numbers would pass."""
    spread = float((outputs.amax(dim=0) - outputs.amin(dim=0)).max() / outputs.abs().max())
    if not spread > what.args.tolerance:
        raise InputError(
            f'{what.args.target}: not written, as the outputs of {what.args.source} differ by only '
            f'{spread:.1e} of the largest between clips, no more than --tolerance '
            f'{what.args.tolerance:g}, so that a check would see nothing; give trained weights, or '
            '--videos that the network tells apart')


# ---------------------------------------------------------------- the command's work

def export(args: Namespace, opts: Options | None) -> int:
    """Export, check, quantise, and say what was written; the exit status. Raises InputError."""
    what = load(args)
    target: Path = args.target
    note(f'{args.source}: {network_name(what.network.options)}, {len(what.info.class_names)} '
         f'classes, clips of {"x".join(map(str, clip_shape(what.info.opts)))}')
    quantised = None
    if opts is not None:  # data that are wrong are named before the long work
        from util_scripts.helpers.int8 import Data, quantise  # it needs nncf
        if args.json:
            make_place(args.json)
        data = Data(what, opts)
    with named_at_last(target) as path:
        write(path, what)
        differences = check(opened(path, target), what)
        worst = max(difference for _, difference in differences)
        note(f'runs as the checkpoint does on {len(differences)} batches of clips '
             f'({", ".join(name for name, _ in differences)}): the largest difference is '
             f'{worst:.1e} of the largest output')
        if opts is not None:
            quantised = quantise(path, what, data)
        n_bytes = len(contents_of(path))
        write_text(path.with_name(f'{path.name}.md'), card(what.record, what.network, target,
                                                           n_bytes, differences, quantised))
    outputs = files_of(target)
    about = f'{n_bytes / 1e6:.1f} MB; how to run it without this code is in {outputs[-1].name}'
    if quantised and args.json:
        quantised.write(args.json)
        outputs.append(args.json)
    wrote(*outputs, about=about, then=command_line('predict', 'VIDEO', '--weights', target))
    return 0
