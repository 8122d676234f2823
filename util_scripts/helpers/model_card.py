"""The model card of an exported network: what it is, and how to run it without this code."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from runtime.output import one_line
from util_scripts.helpers.text import n_of

# What is a mark of Markdown or HTML in a name.
MARK = re.compile(r'[\\`*\[\]<>&]')
# How many class names a card lists.
LISTED = 20
# By ending the lines that open a file, that read its record, and that run it.
OPENING = {
    '.onnx': ('import onnxruntime',
              'session = onnxruntime.InferenceSession({name!r})',
              "record = json.loads(session.get_modelmeta().custom_metadata_map['checkpoint'])",
              "session.run(None, {{'clips': clips}})[0][0]"),
    '.xml': ('import openvino',
             'core = openvino.Core(); model = core.read_model({name!r})',
             "record = json.loads(model.get_rt_info('checkpoint').astype(str))",
             "core.compile_model(model, 'CPU', "
             "{{'INFERENCE_PRECISION_HINT': 'f32'}})(clips)[0][0]"),
    '.pt2': ('import torch',
             "files = {{'checkpoint': ''}}; program = torch.export.load({name!r}, "
             'extra_files=files)',
             "record = json.loads(files['checkpoint'])",
             'program.module()(torch.from_numpy(clips)).detach().numpy()[0]')}
FRAMES = """\
n, step = record['clip_options']['sample_duration'], record['clip_options']['sample_t_stride']
images = [frame.to_image() for frame in av.open('video.mp4').decode(video=0)]
images = [images[i % len(images)] for i in range(0, n * step, step)]
pixels = np.stack([ImageOps.fit(image, ({resize}, {resize}), 2){crop} for image in images])"""
# uint8 is what the file takes, or this is computed.
NORMALISATION = """\
p = record['preprocessing']
pixels = ((pixels / 255 * p['value_scale'] - p['mean']) / p['std']).astype('float32')"""
LAST = """\
clips = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)[None])  # (1, C, T, H, W)
{output} = {run}
print({names}[{output}.argmax()])"""


def snippet(record: Mapping[str, Any], name: str) -> str:
    """Python that runs the file of this name on the first clip of video.mp4."""
    imports, load, read, run = OPENING[Path(name).suffix]
    resize = record['clip_options']['sample_resize'] or record['clip_options']['sample_size']
    size = record['clip_options']['sample_size']
    margin = (resize - size) // 2
    crop = f'.crop(({margin}, {margin}, {margin + size}, {margin + size}))' if margin else ''
    exported = record['exported']
    names = "record['class_names']" if record['class_names'] else f'range({10 ** 6})'
    lines = [f'import json, av, numpy as np, {imports.removeprefix("import ")}',
             'from PIL import ImageOps', load.format(name=name), read,
             FRAMES.format(resize=resize, crop=crop),
             *([] if exported['preprocess'] else [NORMALISATION]),
             LAST.format(output=exported['output'], run=run.format(), names=names)]
    return '\n'.join(lines)


def card(record: Mapping[str, Any], network: nn.Module, path: Path, n_bytes: int,
         differences: Sequence[tuple[str, float]], quantised: Any = None) -> str:
    """The card as Markdown.

    differences: pairs of clips, and how far the file is from its checkpoint on them
    quantised:   what int8 costs and gives, with `table()`; None without
    """
    name = _literally(path.name)
    facts = {
        'network': f'{record["arch"]}, {sum(p.numel() for p in network.parameters()):,} parameters',
        'file': f'{name}, {n_bytes / 1e6:.1f} MB, weights in {record["exported"]["weights"]}',
        **_input_and_output(record),
        'training data': 'not recorded in the checkpoint; fill in',
        'licence': 'that of the weights and of their training data; fill in',
        'accuracy': 'below' if quantised else 'not measured; fill in'}
    worst = max(difference for _, difference in differences)
    parts = [f'# {name}', '\n'.join(f'- {about}: {text}' for about, text in facts.items()),
             f'Before it was written{" (in fp32)" if quantised else ""} it was run beside its '
             f'checkpoint on {len(differences)} batches of clips. The largest difference was '
             f'{worst:.1e} of the largest output.']
    if quantised:
        parts += ['## int8', quantised.table()]
    if path.suffix in OPENING and record['network_options'].get('input_type') != 'flow':
        parts += ['## How to run it', 'The scores of the first clip of a video. A long video is '
                  'cut into such clips, and their scores are averaged.',
                  f'```python\n{snippet(record, path.name)}\n```']
    return '\n\n'.join(parts) + '\n'


def _input_and_output(record: Mapping[str, Any]) -> dict[str, str]:
    """What the file takes and gives, by what that is called in the card."""
    exported, clip, images = (record[key] for key in ('exported', 'clip_options', 'preprocessing'))
    names = record['class_names']
    n_classes = record['network_options']['n_classes']
    listed = 'not recorded' if names is None else ', '.join(map(_literally, names[:LISTED])) + (
        ', ...' if len(names) > LISTED else '')
    return {
        'takes': f'clips (N, C, T, H, W) of {clip["sample_duration"]} RGB frames of '
                 f'{clip["sample_size"]}x{clip["sample_size"]} pixels, '
                 f'{n_of(clip["sample_t_stride"], "frame")} of the video apart: '
                 f'{exported["input"]}; of any size are: {", ".join(exported["dynamic"])}',
        'preprocessing': f'short side to {clip["sample_resize"] or clip["sample_size"]} pixels, '
                         f'centre crop; 0...{images["value_scale"]}, mean '
                         f'{_numbers(images["mean"])}, std {_numbers(images["std"])}'
                         + (' (inside)' if exported['preprocess'] else ''),
        'gives': f'(N, {n_classes}) {exported["output"]}' + (
            ', any number of labels per clip' if record['multi_label'] else ''),
        'classes': f'{n_classes}: {listed}'}


def _literally(name: str) -> str:
    """A name as Markdown shows it, whatever is in it."""
    return MARK.sub(r'\\\g<0>', one_line(name))


def _numbers(values: Sequence[float]) -> str:
    return ' '.join(f'{value:.4g}' for value in values)
