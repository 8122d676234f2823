"""Heat maps of videos as pictures: a strip of frames, a video with the score below, an array.

A video is decoded three times: for its scores, for the heat of its class, and to be drawn, so that
memory holds small maps alone, however long it is.
"""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F

from datasets.frames import FrameError
from datasets.presets import spatial_transform
from datasets.video import VideoError, reason
from models.base import Classifier
from models.exported import ExportedNetwork
from runtime.errors import InputError
from runtime.figures import (evenly, film_strip, heat_over, label_frames, save_figure,
                             strips_figure, titled)
from runtime.files import replacing
from runtime.logs import Progress
from runtime.output import wrote
from temporal_transforms import stream_windows
from util_scripts.helpers.captions import draw_curve
from util_scripts.helpers.grad_cam import GradCam
from util_scripts.helpers.prediction import batches, load_network, output_paths, predict_video, say
from util_scripts.helpers.text import nearest_or_all
from util_scripts.helpers.video_sources import Frame, Source, find_sources
from util_scripts.helpers.video_writing import write_mp4

FRAMES_A_STRIP = 8
BATCH_SIZE = 4  # windows at once: a backward pass takes several times the memory of a prediction


@dataclass
class Heat:
    """The heat of a class in one video.

    maps:     (n_frames, h, w) in 0...1, one per frame that the network sees; 1 is the most in the
              video
    scores:   [(second in the middle of a window, score of the class)]
    end_sec:  of the last window
    n_frames: of a video that is shorter than a clip, less than the clip's
    """

    label: str
    score: float
    maps: np.ndarray
    scores: list[tuple[float, float]]
    end_sec: float
    module_name: str
    n_frames: int

    def of(self, place: int, height: int, width: int) -> np.ndarray:
        """(height, width) in 0...1: the heat of frame `place`, from 0, in that size."""
        small = torch.from_numpy(self.maps[place])[None, None]
        # Linear along time and then over the frame is trilinear, as the whole map would be.
        return F.interpolate(small, (height, width), mode='bilinear')[0, 0].numpy()


# ---------------------------------------------------------------- one video

def class_number(name: str, class_names: tuple[str, ...]) -> int:
    """Raises InputError with the nearest names for one that is not a class."""
    if name not in class_names:
        raise InputError(f'--class {name}: no such class{nearest_or_all(name, class_names)}')
    return class_names.index(name)


def heat_of_video(source: Source, network: Classifier, info: Any, *, class_name: str | None = None,
                  module_name: str = '', stride: int | None = None) -> Heat:
    """The `Heat` of a video, of the class that is predicted or of `class_name`.

    Raises VideoError or FrameError where no frame can be read, and InputError.
    """
    size, every = info.opts.sample_duration, info.opts.sample_t_stride
    prediction = predict_video(source, network, info, topk=0, stride=stride or size,
                               batch_size=BATCH_SIZE)
    label = class_name or prediction.result[0]['label']
    cam = GradCam(network, class_number(label, info.class_names), module_name)
    sums: dict[int, torch.Tensor] = {}
    counts: dict[int, int] = {}
    with source.opened(spatial_transform(info.opts, 'inference'), every) as (frames, _, _):
        for window, maps in _maps_of_windows(frames, cam, info, size, stride or size):
            for frame, small in zip(window, maps):
                place = (frame.number - 1) // every
                sums[place] = sums.get(place, 0) + small
                counts[place] = counts.get(place, 0) + 1
    # Frames between windows, of a stride above the length of a clip, have no heat.
    none = torch.zeros_like(next(iter(sums.values())))
    mean = torch.stack([sums[place] / counts[place] if place in sums else none
                        for place in range(max(sums) + 1)])
    relative = mean / mean.max().clamp(min=1e-12)
    scores = [((window['begin_sec'] + window['end_sec']) / 2, _score_of(window['result'], label))
              for window in prediction.windows]
    return Heat(label, _score_of(prediction.result, label), relative.numpy(), scores,
                prediction.end_sec, cam.module_name, len(mean))


def _maps_of_windows(frames: Iterable[Frame], cam: GradCam, info: Any, size: int, stride: int
                     ) -> Iterator[tuple[list[Frame], torch.Tensor]]:
    """(window, (T, h, w) heat: of each of its frames, in the places of the map) of each window."""
    for batch, clips in batches(stream_windows(frames, size, stride), BATCH_SIZE):
        heat = cam(info.normalize(clips.to(cam.device))).cpu().float()
        along_time = F.interpolate(heat.unsqueeze(1), (size, *heat.shape[2:]), mode='trilinear')
        yield from zip(batch, along_time[:, 0])


def _score_of(result: list[dict[str, Any]], label: str) -> float:
    return next(entry['score'] for entry in result if entry['label'] == label)


# ---------------------------------------------------------------- pictures

def _heated(source: Source, heat: Heat, info: Any
            ) -> Iterator[tuple[Frame, np.ndarray, np.ndarray]]:
    """(frame, its pixels (H, W, 3) as the network sees them, its heat (H, W)) of a video."""
    every = info.opts.sample_t_stride
    with source.opened(spatial_transform(info.opts, 'inference'), every) as (frames, _, _):
        for place, frame in enumerate(islice(frames, heat.n_frames)):
            pixels = frame.pixels.permute(1, 2, 0).numpy()
            yield frame, pixels, heat.of(place, *pixels.shape[:2])


def write_strip(source: Source, heat: Heat, info: Any, path: Path) -> None:
    """Evenly placed frames, and below each the same with its heat. Raises InputError."""
    wanted = evenly(0, heat.n_frames - 1, FRAMES_A_STRIP)
    chosen = [entry for place, entry in enumerate(_heated(source, heat, info)) if place in wanted]
    plain = np.stack([pixels for _, pixels, _ in chosen])
    hot = np.stack([heat_over(pixels, warmth) for _, pixels, warmth in chosen])
    strips = [film_strip(plain), film_strip(hot)]
    figure, (upper, lower) = strips_figure(strips)
    titled(upper, f'{heat.label}: {heat.score:.2f}', source.path.name)
    titled(lower, 'what speaks for it (Grad-CAM)', f'{heat.module_name}; bright is most')
    for axes in (upper, lower):
        label_frames(axes, [frame.number for frame, _, _ in chosen], plain.shape[2],
                     strips[0].shape[1])
    save_figure(figure, path)


def write_heat_video(source: Source, heat: Heat, info: Any, path: Path, fps: float) -> None:
    """The frames with their heat, the score of the class over time below. Raises InputError."""
    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        for frame, pixels, warmth in _heated(source, heat, info):
            yield frame.begin_sec, draw_curve(heat_over(pixels, warmth), heat.label, heat.scores,
                                              frame.begin_sec, heat.end_sec)
    with replacing(path) as temporary:
        write_mp4(temporary, pictures(), fps)


def write_array(source: Source, heat: Heat, info: Any, path: Path) -> None:
    """The heat (n_frames, H, W) float32 in 0...1, frame by frame."""
    with replacing(path) as temporary:
        array = None
        for place, (_, pixels, warmth) in enumerate(_heated(source, heat, info)):
            if array is None:
                array = np.lib.format.open_memmap(temporary, 'w+', np.float32,
                                                  (heat.n_frames, *pixels.shape[:2]))
            array[place] = warmth
        del array  # to the file


# ---------------------------------------------------------------- the command's work

def show_heat(args: Namespace) -> int:
    """Do what the flags of `gradcam` say; the exit status. Raises InputError."""
    sources = find_sources(args.files, args.fps, args.frame_template)
    network, info = load_network(args)
    if isinstance(network, ExportedNetwork):
        raise InputError(f'{args.weights}: is an exported network, which has no derivatives; give '
                         'the checkpoint that it was exported of')
    if args.class_name is not None:
        class_number(args.class_name, info.class_names)  # before any video is read
    targets = output_paths(sources, args.output, '.mp4', '--output')
    failures: dict[Path, str] = {}
    written: list[Path] = []
    with Progress(len(sources), 'gradcam', unit='video') as progress:
        for source in sources:
            try:
                written += _show_heat_of(source, targets[source], network, info, args)
            except (VideoError, FrameError, av.error.FFmpegError) as error:
                failures[source.path] = reason(error)
            progress.update(1)
    for path, why in failures.items():
        say(f'failed: {path}: {why}', sys.stderr)
    if written:
        wrote(*written)
    return 1 if failures else 0


def _show_heat_of(source: Source, target: Path, network: Classifier, info: Any, args: Namespace
                  ) -> list[Path]:
    """Write the files of a video; these."""
    heat = heat_of_video(source, network, info, class_name=args.class_name,
                         module_name=args.module or '', stride=args.stride)
    if heat.n_frames < info.opts.sample_duration:
        say(f'{source.path}: has {heat.n_frames} frames for clips of '
            f'{info.opts.sample_duration}, which repeat them: its heat says little of when',
            sys.stderr)
    if not heat.maps.any():
        say(f'{source.path}: nothing in it speaks for {heat.label} at {heat.module_name}: the heat '
            'is 0 everywhere', sys.stderr)
    with source.opened() as (_, fps, _):
        pass
    paths = [target.with_suffix('.png'), target]
    write_strip(source, heat, info, paths[0])
    write_heat_video(source, heat, info, paths[1], fps / info.opts.sample_t_stride)
    if args.npy:
        paths.append(target.with_suffix('.npy'))
        write_array(source, heat, info, paths[-1])
    say(f'{source.path}: {heat.label} {heat.score:.3f}, heat of {heat.module_name}')
    return paths
