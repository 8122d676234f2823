"""Compute the optical flow of a data set's videos: an HDF5 file of grey JPEG images for each video.

    python -m util_scripts.generate_flow_hdf5 DIR_PATH DST_PATH DATASET [--method dis]

Needs OpenCV, which is not among the requirements: pip install opencv-python-headless, or
opencv-contrib-python-headless for --method tvl1.

Image t shows how far each pixel moves from frame t to frame t + 1: to the right in `video_u`, down
in `video_v`. The last image repeats the one before it, so that a video has as many as it has
frames, and an annotation file is right for both.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import simplejpeg

from datasets.scaling import Scaler
from datasets.video import Video, VideoError
from runtime.arguments import Parser, between
from runtime.errors import InputError, run
from util_scripts.generate_video_hdf5 import Hdf5File
from util_scripts.generate_video_jpgs import build_extraction_parser, extract_videos
from util_scripts.helpers.video_io import frames_at

# Motion of -BOUND...BOUND pixels per frame is mapped to 0...255, as in two-stream networks (Wang et
# al., "Temporal Segment Networks", ECCV 2016).
BOUND = 20
INSTALL = {'dis': 'opencv-python-headless', 'tvl1': 'opencv-contrib-python-headless'}


def opencv() -> Any:
    """The module cv2. Raises ImportError where it is not installed."""
    import cv2
    return cv2


def as_image(flow: np.ndarray) -> np.ndarray:
    """Pixels per frame -> uint8: -BOUND or less is 0, no motion 127.5 (rounded up), BOUND 255."""
    return np.rint((np.clip(flow, -BOUND, BOUND) / BOUND + 1) * 127.5).astype(np.uint8)


def luma(frame: Any) -> np.ndarray:
    """Brightness of a scaled frame: uint8 (H, W)."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return np.ascontiguousarray(rows[:frame.height, :frame.width])


def flow_images(video: Video, method: Any, *, size: int, quality: int, fps: float | None
                ) -> Iterator[Sequence[bytes]]:
    """(horizontal, vertical) JPEG bytes of each frame of a Video, its short side `size` pixels.

    method: OpenCV's DenseOpticalFlow. Raises VideoError where no frame decodes.
    """
    scale = Scaler(size, video.pixel_aspect)
    pictures = (luma(scale(frame)) for frame in frames_at(video, fps))
    before = next(pictures)
    flow = np.zeros((*before.shape, 2), np.float32)
    for picture in pictures:
        flow = compute(method, before, picture)
        yield encode(flow, quality)
        before = picture
    yield encode(flow, quality)


def compute(method: Any, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W, 2) float, pixels to the right and down."""
    cv2 = opencv()
    try:
        return method.calc(before, after, None)
    except cv2.error as error:
        height, width = before.shape
        raise VideoError(f'no flow of pictures of {width}x{height} ({error.err})') from None


def encode(flow: np.ndarray, quality: int) -> list[bytes]:
    """(H, W, 2) float -> JPEG bytes of both parts."""
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(as_image(flow[..., i:i + 1])), quality,
                                   'GRAY') for i in range(2)]


class DisFlow(Hdf5File):
    """Dense inverse search (Kroeger et al., ECCV 2016): fast."""

    kind = 'dis'
    datasets = ('video_u', 'video_v')

    @staticmethod
    def method() -> Any:
        cv2 = opencv()
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    @classmethod
    def encode(cls, video: Video, *, n_threads: int = 1, **settings: Any
               ) -> Iterator[Sequence[bytes]]:
        cv2 = opencv()
        cv2.setNumThreads(1)  # not `n_threads`: what DIS finds varies with their number
        return flow_images(video, cls.method(), **settings)


class Tvl1Flow(DisFlow):
    """TV-L1 (Zach et al., 2007): what most published flow was made with; slow."""

    kind = 'tvl1'

    @staticmethod
    def method() -> Any:
        return opencv().optflow.DualTVL1OpticalFlow_create()


METHODS = {'dis': DisFlow, 'tvl1': Tvl1Flow}


def build_parser() -> Parser:
    parser = build_extraction_parser(
        'generate_flow_hdf5',
        f'Compute the optical flow of videos, as HDF5 files of grey JPEG images: video_u to the '
        f'right, video_v down, in pixels per frame at the size of --size, clipped to '
        f'-{BOUND}...{BOUND} and mapped to 0...255, so that 127.5 is no motion. Needs OpenCV: pip '
        f'install {INSTALL["dis"]}, or {INSTALL["tvl1"]} for tvl1.')
    parser.add_argument('--method', choices=list(METHODS), default='dis',
                        help='dis: dense inverse search, fast; tvl1: TV-L1, slow')
    parser.add_argument('--quality', type=between(int, 1, 100), default=95, metavar='Q',
                        help='of the JPEG images, 100 is best')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        METHODS[args.method].method()
    except (ImportError, AttributeError):
        raise InputError(f'--method {args.method} needs a part of OpenCV that is not installed: '
                         f'pip install {INSTALL[args.method]}') from None
    return extract_videos(args, METHODS[args.method])


if __name__ == '__main__':
    run(main)
