"""Predictions on streams: what is said as it happens, and nothing that grows with time."""

import json
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from datasets.presets import spatial_transform
from datasets.video import Video, Webcam
from models.base import Classifier
from runtime.errors import StopSignals
from runtime.files import write_text
from runtime.output import wrote
from tasks import check_finite
from util_scripts.helpers.addresses import PIPE, shown_address
from util_scripts.helpers.events import EventFinder, Note, as_webvtt
from util_scripts.helpers.prediction import (Collected, Prediction, load_network, prepare_outputs,
                                             rules_of, say, scored, window_line, write_csv,
                                             write_json)
from util_scripts.helpers.streams import LiveVideo, Stream, unbroken_windows

# Seconds of frames that wait to be taken, at the most: so far it is behind, and no further.
HELD_SEC = 2
USUAL_FPS = 30
EVENTS_END_SEC = 3.0  # after a stream has been silent for so long


class Live:
    """The work of `predict` on one stream.

    prediction: the scores averaged over all windows; of events and windows those that an output
                asks for
    """

    def __init__(self, stream: Stream, network: Classifier, info: Any, args: Namespace) -> None:
        self._stream, self._network, self._info, self._args = stream, network, info, args
        self.prediction = Prediction(stream.name)
        finder = EventFinder(info.class_names, rules_of(args, info)) if args.events else None
        self.collected = Collected(
            self.prediction, info, args.topk, finder,
            on_window=None if finder else lambda entry: say(window_line(entry)),
            on_note=self._tell, keeps_windows=args.timeline and bool(args.json or args.csv),
            keeps_events=bool(args.json or args.csv or args.vtt))

    def run(self, is_stopped: Callable[[], object]) -> None:
        """Say what comes, until the stream is over or `is_stopped`. Raises InputError for scores
        that are not finite."""
        opts, stream, last = self._info.opts, self._stream, time.monotonic()
        for frames in unbroken_windows(stream.items(), opts.sample_duration, self._args.stride):
            if is_stopped():
                break
            if frames is not None:
                last = time.monotonic()
                [window] = scored([frames], stream.fps, self._network, self._info)
                check_finite(stream.name, window.scores)
                self.collected.add(window)
            elif time.monotonic() - last > EVENTS_END_SEC:
                self.collected.end_events()
        self.collected.finish()

    def _tell(self, note: Note) -> None:
        """Print an event as a JSON line, as it begins and as it ends."""
        kind, event = note
        begin = datetime.fromtimestamp(self._stream.begin_time + event.begin_sec, timezone.utc)
        line = {'kind': kind, 'source': self._stream.name, **event.as_json(),
                'time': begin.isoformat(timespec='milliseconds')}
        print(json.dumps(line), flush=True)


def predict_stream(args: Namespace) -> int:
    """Predict on an address, the pipe or a camera; the exit status. Raises InputError."""
    is_camera = args.webcam is not None
    name = f'camera {args.webcam}' if is_camera else shown_address(args.files[0])

    def opener() -> Video:
        return Webcam(args.webcam) if is_camera else LiveVideo(args.files[0])
    network, info = load_network(args)
    prepare_outputs(args, info)
    opts = info.opts
    is_sent_once = is_camera or args.files == [PIPE]
    n_held = max(2 * opts.sample_duration, HELD_SEC * USUAL_FPS // opts.sample_t_stride)
    stream = Stream(opener, name, spatial_transform(opts, 'inference'), every=opts.sample_t_stride,
                    n_held=n_held, keeps_all=args.keep_all,
                    reconnect_sec=0 if is_sent_once else args.reconnect,
                    say=lambda line: say(line, sys.stderr))
    live = Live(stream, network, info, args)
    # Ctrl-C is the end of its video.
    with StopSignals() as stop, stream:
        live.run(lambda: stop.signum)
    return _report(live, stream, args)


def _report(live: Live, stream: Stream, args: Namespace) -> int:
    """Say how it went, and write what was asked for; the exit status."""
    failures = {stream.name: f'{stream.failure}; check the address'} if stream.failure else {}
    predictions = [live.prediction] if live.collected.n_windows else []
    # Events have stdout for themselves, so that another program can read them.
    to = sys.stderr if args.events else sys.stdout
    for entry in live.prediction.result:
        say(f'    {entry["score"]:.3f}  {entry["label"]}', to)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / (1e6 if sys.platform == 'darwin' else 1e3)
    counts = stream.counts
    say(f'{stream.name}: {counts.frames} frames in, {counts.dropped} dropped, '
        f'{live.collected.n_windows} windows, {counts.connections} connections, {megabytes:.0f} MB '
        'of memory at the most', to)
    if args.json:
        write_json(args.json, predictions, failures, args.timeline)
    if args.csv:
        write_csv(args.csv, predictions, args.timeline, args.events)
    if args.vtt:
        write_text(args.vtt, as_webvtt(live.prediction.events or ()))
    written = list(filter(None, (args.json, args.csv, args.vtt)))
    if written:
        wrote(*written, file=to)
    for source, why in failures.items():
        say(f'failed: {source}: {why}', sys.stderr)
    return 1 if failures else 0
