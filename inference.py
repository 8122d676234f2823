"""Inference: scores of every window of every video, and the result JSON made of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from features import FeatureTap, pack
from results import partial_results, take_over, write_all_features, write_results
from run import Run
from runtime import distributed
from runtime.errors import StopSignals
from tasks import Task, check_finite, finite_or_nan


class VideoWindows(NamedTuple):
    """What was found in one video, K windows of it.

    video:    its number in the records
    scores:   (K, n_classes), as the task reads logits; nan where those are not finite
    segments: (K, 2) first frame and last frame + 1
    features: (K, D), None where nothing was tapped
    """

    video: int
    scores: torch.Tensor
    segments: torch.Tensor
    features: torch.Tensor | None


@torch.no_grad()
def predict(loader: Iterable[Any], model: nn.Module, normalize: nn.Module, task: Task, *,
            device: torch.device, on_step: Callable[[int], object] | None = None,
            tap: FeatureTap | None = None, n_windows: Callable[[int], int] | None = None
            ) -> Iterator[VideoWindows]:
    """Yield the `VideoWindows` of each video, in the loader's order.

    The windows of a video follow each other in the loader; those of no video, whose number is -1,
    are passed over. `on_step` is called with the number of windows after each batch; `tap` is one
    of the model. A video is yielded once it has `n_windows(video)`; without, or where it has
    fewer, when the next one begins.
    """
    model.eval()
    video: int = -1
    rows: list[list[torch.Tensor]] = []
    for batch in loader:
        logits = model(normalize(batch.clips.to(device, non_blocking=True)))
        scores = finite_or_nan(task.scores(logits.float()), logits).cpu()
        features = tap.take() if tap else [None] * len(scores)
        for this_video, *row in zip(batch.videos.tolist(), scores, batch.segments, features):
            if this_video < 0:
                continue
            if this_video != video and rows:
                yield _gathered(video, rows)
                rows = []
            video = this_video
            rows.append(row)
            if n_windows and len(rows) == n_windows(video):
                yield _gathered(video, rows)
                rows = []
        if on_step:
            on_step(int((batch.videos >= 0).sum()))
    if rows:
        yield _gathered(video, rows)


def _gathered(video: int, rows: list) -> VideoWindows:
    scores, segments, features = zip(*rows)
    return VideoWindows(video, torch.stack(scores), torch.stack(segments),
                        None if features[0] is None else torch.stack(features))


def feature_rows(found: VideoWindows, average: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(features (n, D), segments (n, 2)) of `VideoWindows`: one row per window, or their average.
    """
    assert found.features is not None
    if not average:
        return found.features, found.segments
    whole = torch.stack([found.segments[:, 0].min(), found.segments[:, 1].max()])
    return found.features.mean(dim=0, keepdim=True), whole.unsqueeze(0)


def video_result(scores: torch.Tensor, segments: torch.Tensor, class_names: Sequence[str],
                 topk: int, average: bool) -> list[dict[str, Any]]:
    """The entry of one video in the result JSON.

    Averaged over the windows: [{'label', 'score'}, ...], best first; else a list of
    {'segment': [first, last + 1], 'result': that of the window}.
    """
    if average:
        return ranked(scores.mean(dim=0), class_names, topk)
    return [{'segment': segment, 'result': ranked(row, class_names, topk)}
            for row, segment in zip(scores, segments.tolist())]


def ranked(scores: torch.Tensor, class_names: Sequence[str], topk: int
           ) -> list[dict[str, Any]]:
    """(n_classes,) scores -> [{'label', 'score'}, ...], the `topk` best (<= 0: all), best first;
    scores have six decimals."""
    n = len(class_names) if topk <= 0 else min(topk, len(class_names))
    best = scores.topk(n)
    return [{'label': class_names[i], 'score': round(score, 6)}
            for score, i in zip(best.values.tolist(), best.indices.tolist())]


# ---------------------------------------------------------------- the inference of a run

def infer(run: Run) -> None:
    """Classify the videos of --inference_subset; write {inference_subset}.json, and features.

    What is found is kept video by video, for an inference that is stopped to go on with.
    """
    opts, loader = run.opts, run.loaders['inference']
    average = not opts.inference_no_average
    records, n_windows = loader.dataset.records, loader.batch_sampler.n_windows
    model = run.evaluated_model()
    if run.tap:  # it is on the network itself, not on copies of it on several GPUs
        model = run.in_precision
    partial = partial_results(opts, run.world, records, run.network)
    results, features = take_over(partial, loader, run.world, run.log)
    run.stop.finishing = 'the batch is finished, and results so far are kept'
    with (run.log.progress(loader.batch_sampler.n_own_clips(), 'inference',
                           unit='clip') as progress,
          run.tap or nullcontext(), partial):
        for found in predict(_until_stopped(loader, run.stop), model, run.normalize, run.task,
                             device=run.device, on_step=progress.update, tap=run.tap,
                             n_windows=n_windows):
            check_finite(records.video_ids[found.video], found.scores, found.features)
            result = video_result(found.scores, found.segments, run.class_names,
                                  opts.output_topk, average)
            results[found.video] = result
            row: dict[str, Any] = {'result': result}
            if run.tap:
                features[found.video] = feature_rows(found, average)
                row['features'] = pack(*features[found.video])
            # A video with bad frames is read again, so that they are counted again.
            if len(found.scores) == n_windows(found.video):
                partial.add(records.video_ids[found.video], row)
    if run.stop_asked():
        raise run.stopped(*(['the same command goes on'] if opts.no_train else []))
    write_results(opts.result_path / f'{opts.inference_subset}.json', results, records, run.world,
                  run.log)
    if run.tap:
        write_all_features(opts.output_features, features, records, run.world, run.log)
    distributed.wait_for_all()
    partial.remove()


def _until_stopped(loader: Iterable[Any], stop: StopSignals) -> Iterator[Any]:
    """The batches of a loader, up to a request to stop."""
    for batch in loader:
        yield batch
        if stop.signum:
            return
