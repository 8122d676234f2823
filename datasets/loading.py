"""Data sets of clips: `build_loader` makes the batches of training, validation or inference."""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
from collections import deque
from multiprocessing.util import Finalize

from torch.utils.data import DataLoader
from tqdm import tqdm

import spatial_transforms as S
import temporal_transforms as T
from datasets import annotations, sampling
from datasets.buffers import Lender, Received, empty
from datasets.decoding import Decoder, EncodedDataset, pack
from datasets.frames import READERS, FrameError, video_path
from datasets.videodataset import LEAVE_OUT, RAISE, REPLACE, VideoDataset, collate
from runtime.errors import InputError, StopSignals

# Up to this many videos are looked for before a run starts.
CHECKED_VIDEOS = 10_000


class ClipLoader(DataLoader):
    """A DataLoader of `Batch`es that raises an InputError met in a loader process as it was.

    decode: what loader processes give -> Batch or InputError; None where they give that already

    A batch all of whose videos were left out is not yielded. How many videos were bad is said at
    the end of a pass, in a line on stderr.
    """

    _leaves_out = False

    def __init__(self, dataset, *, decode=None, **options):
        super().__init__(dataset, **options)
        self._decode = decode
        # As many as are on their way: prefetched ones, and the one that is read.
        self._buffers = deque(maxlen=self.num_workers * ((self.prefetch_factor or 0) + 1))

    def check_worker_number_rationality(self):
        """No warning of torch's: more processes than processors are asked for, or the default."""

    def leave_out(self, videos):
        """Do not read these videos, by their numbers in the records: inference knows them."""
        self._leaves_out = len(videos) > 0
        self.batch_sampler.leave_out(videos)

    def _received(self):
        """Batches as loader processes made them."""
        try:
            for batch in super().__iter__():
                if isinstance(batch, Received):
                    self._buffers.append(batch.buffer)
                    batch = batch.take()
                yield self._decode(batch) if self._decode else batch
        except (ConnectionError, EOFError):
            raise _lost_process('ended while it handed over a batch') from None
        # Not where the pass is broken off: loader processes go on to write for a while.
        for buffer in self._buffers:
            empty(buffer)

    def __iter__(self):
        bad, n_clips = [], 0
        for batch in self._received():
            if isinstance(batch, InputError):
                try:
                    raise batch
                finally:
                    # Whoever holds on to the error holds on to this frame, and with it to loader
                    # processes, which take long to end when the garbage collector does it.
                    del batch
                    self._iterator = None
            bad += batch.bad
            n_clips += len(batch.labels)
            if len(batch.labels):
                yield batch
        if bad and n_clips == 0 and not self._leaves_out:
            raise FrameError(f'no video can be read; the first: {bad[0].reason}')
        if bad:
            n_videos = len({video for video, _ in bad})
            tqdm.write(f'bad frames: {n_videos} of {len(self.dataset)} videos were '
                       f'{self.dataset.on_bad_frame}; the first: {bad[0].reason}', file=sys.stderr)


def build_loader(opts, split, annotation, *, rank=0, world_size=1, pin_memory=False,
                 start_method=None, decode_device=None):
    """Loader of one split: 'train', 'val', or 'inference' (of opts.inference_subset).

    `annotation` comes from annotations.read_annotation; `start_method` is multiprocessing's, the
    platform's by default. `loader.dataset.records` says which videos there are. Where there is a
    `decode_device` (of `decoding_device`), JPEG frames are decoded and cropped on it, by the
    process that reads the batches, and clips lie there.
    """
    reader = READERS[opts.file_type, opts.input_type](**_decode_options(opts, split))
    records = build_records(opts, split, annotation, reader,
                            _say_skipped if opts.bad_frames == 'skip' else None)
    _check_paths(opts, records, reader)
    # A video that stood for another one would be counted twice where each is to count once.
    skip = REPLACE if split == 'train' else LEAVE_OUT
    dataset_type = EncodedDataset if decode_device else VideoDataset
    dataset = dataset_type(records, opts.video_path, reader, _temporal_transform(opts, split),
                           spatial_transform(opts, split), opts.manual_seed,
                           skip if opts.bad_frames == 'skip' else RAISE)
    batches = _batch_sampler(opts, split, records, rank, world_size)
    workers = {}
    if opts.n_threads > 0:
        context = multiprocessing.get_context(start_method)
        workers = {'num_workers': opts.n_threads, 'worker_init_fn': _IgnoreStops(context),
                   'persistent_workers': split != 'inference', 'multiprocessing_context': context}
    make_batch = pack if decode_device else collate
    return ClipLoader(dataset, batch_sampler=batches, pin_memory=pin_memory,
                      collate_fn=Lender(make_batch) if workers else make_batch,
                      decode=Decoder(dataset, decode_device) if decode_device else None,
                      **workers)


def decoding_device(opts, device):
    """Where a run on `device` decodes frames outside of loader processes, None for nowhere.

    Raises InputError where --decode_device wants a GPU and the run is on none.
    """
    if opts.decode_device == 'cpu':
        return None
    if device.type != 'cuda':
        raise InputError('--decode_device cuda decodes on a GPU, and no CUDA device was found: '
                         'drop the flag')
    return device


@contextlib.contextmanager
def naming_lost_processes():
    """Within it InputError stands for torch's error that a loader process was lost, which may come
    at any time."""
    try:
        yield
    except RuntimeError as error:
        lost = re.match(r'DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.]+)', str(error))
        if not lost:
            raise
        raise _lost_process(lost[1]) from None


def _lost_process(what):
    return InputError(f'a loader process {what}, as when memory runs out: give a smaller '
                      '--n_threads or --batch_size; --resume_path auto goes on from the last '
                      'checkpoint')


class _IgnoreStops:
    """Begins a loader process: requests to stop are for the main process alone, until that ends.

    When Python exits it terminates such processes with the same signal, and waits for them.
    """

    def __init__(self, context):
        self._main_ends = context.Event()
        # Before those processes are terminated, also in a main process that is a child itself.
        Finalize(None, self._main_ends.set, exitpriority=100)

    def __call__(self, _worker):
        for number in StopSignals.SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_):
        if self._main_ends.is_set():
            os._exit(0)


def _say_skipped(_path, error):
    print(f'--bad_frames skip: {error}', file=sys.stderr)


def build_records(opts, split, annotation, reader, on_error=None):
    """Records of the split's samples; how many videos are left out is said on stderr.

    on_error: called with path and FrameError of a video whose frames cannot be counted, which is
              left out then; None raises the error. Only frames of taxonomies have to be counted.
    """
    subset = annotations.SUBSETS[opts.inference_subset if split == 'inference' else split]
    if (opts.dataset == 'activitynet') != annotation.is_taxonomy:
        schema = 'a taxonomy (ActivityNet)' if annotation.is_taxonomy else 'a label list'
        raise annotations.AnnotationError(f'{annotation.path}: is {schema} annotation; '
                                          f'it does not go with --dataset {opts.dataset}')
    if annotation.is_taxonomy and opts.multi_label:
        raise annotations.AnnotationError(f'{annotation.path}: is a taxonomy (ActivityNet), which '
                                          'has one label a segment, and --multi_label is for '
                                          'lists of labels; drop the flag')
    if annotation.is_taxonomy:
        def count_frames(path):
            path = video_path(opts.video_path, path, reader.suffix)
            try:
                return reader.announced(path)
            except FrameError as error:
                if on_error is None:
                    raise
                on_error(path, error)
                return 0
        records, n_left_out = annotations.taxonomy_records(
            annotation, subset, count_frames, first_frame=reader.first_frame,
            trimmed=split != 'inference')
    else:
        records, n_left_out = annotations.label_list_records(
            annotation, subset, first_frame=reader.first_frame, multi_label=opts.multi_label)
    if n_left_out:
        print(f'{annotation.path}: {n_left_out} of {n_left_out + len(records)} videos of subset '
              f'{subset!r} are left out: they have no frames', file=sys.stderr)
    return records


def _check_paths(opts, records, reader):
    """Raise FrameError where videos are missing, if they are to be looked for.

    Where bad frames are skipped it is said, as long as there is any video.
    """
    if not opts.video_path.is_dir():
        raise FrameError(f'{opts.video_path}: no such folder; check --video_path and --root_path')
    looked_for = len(records) <= CHECKED_VIDEOS if opts.check_paths is None else opts.check_paths
    if not looked_for:
        return
    errors = []
    for i in range(len(records)):
        frames = records.frames(i)
        try:
            reader.check(video_path(opts.video_path, records.paths[i], reader.suffix),
                         frames.start, frames.stop)
        except FrameError as error:
            errors.append(str(error))
    if not errors:
        return
    more = f' (and {len(errors) - 1} more of {len(records)} videos)' if len(errors) > 1 else ''
    if opts.bad_frames == 'error' or len(errors) == len(records):
        raise FrameError(errors[0] + more)
    _say_skipped(opts.video_path, errors[0] + more)


def _decode_options(opts, split):
    """What a reader of JPEG frames is told of --fast_decode."""
    if not opts.fast_decode:
        return {}
    # A random crop may be much smaller than the frame, so none is left out there.
    return {'is_fast': True, 'min_side': 0 if split == 'train' else opts.sample_size}


def _temporal_transform(opts, split):
    if split == 'inference' and opts.inference_views:
        crop = T.EvenWindows(opts.sample_duration, opts.inference_views[0])
    elif split == 'inference':
        crop = T.SlidingWindow(opts.sample_duration, opts.inference_stride)
    elif split == 'val':
        crop = T.TemporalEvenCrop(opts.sample_duration, opts.n_val_samples)
    else:
        crop = {'random': T.TemporalRandomCrop,
                'center': T.TemporalCenterCrop}[opts.train_t_crop](opts.sample_duration)
    return T.Compose([T.TemporalSubsampling(opts.sample_t_stride), crop])


def spatial_transform(opts, split):
    """What happens to the pixels of a split's clips: uint8 (T, C, H, W) -> uint8 (T, C, h, w).

    With --inference_views, S crops of each: uint8 (S, T, C, h, w).
    """
    if split == 'inference' and opts.inference_views:
        return S.EvenCrops(opts.sample_size, opts.inference_views[1])
    if split == 'inference' and opts.inference_crop == 'nocrop':
        return S.Resize(opts.sample_size)
    if split != 'train':
        return S.Compose([S.Resize(opts.sample_size), S.CenterCrop(opts.sample_size)])
    crops = {
        'random': lambda: [S.RandomResizedCrop(opts.sample_size, opts.train_crop_min_scale,
                                               opts.train_crop_min_ratio)],
        'corner': lambda: [S.MultiScaleCornerCrop(opts.sample_size)],
        'center': lambda: [S.Resize(opts.sample_size), S.CenterCrop(opts.sample_size)],
    }
    transforms = crops[opts.train_crop]()
    if not opts.no_hflip:
        transforms.append(S.RandomHorizontalFlip(is_flow=opts.input_type == 'flow'))
    if opts.colorjitter:
        transforms.append(S.ColorJitter())
    return S.Compose(transforms)


def _batch_sampler(opts, split, records, rank, world_size):
    shares = {'rank': rank, 'world_size': world_size}
    if split == 'train':
        return sampling.ShuffledBatches(len(records), opts.batch_size, opts.manual_seed, **shares)
    if split == 'val':
        n_videos = max(1, opts.batch_size // opts.n_val_samples)
        return sampling.VideoBatches(len(records), n_videos, **shares)
    n_frames = -(-(records.ends - records.begins) // opts.sample_t_stride)
    n_crops = 1
    if opts.inference_views:
        n_views, n_crops = opts.inference_views
        n_clips = [T.n_even_windows(n, opts.sample_duration, n_views) for n in n_frames.tolist()]
    else:
        n_clips = [T.n_windows(n, opts.sample_duration, opts.inference_stride)
                   for n in n_frames.tolist()]
    return sampling.ClipBatches(n_clips, opts.inference_batch_size or opts.batch_size,
                                opts.inference_crop == 'nocrop', n_crops=n_crops, **shares)
