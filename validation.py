"""Validation: loss and metrics over clips and over videos, and how they are logged."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metrics import Sums, mean_per_group
from opts import Options
from run import Run
from runtime import distributed, logs
from tasks import NotFinite, Task
from weights import Weights

# What is averaged, over clips or over videos.
AVERAGED = {'loss': 'clips', 'clip_top1': 'clips', 'clip_top5': 'clips', 'video_top1': 'videos',
            'video_top5': 'videos'}
COUNTED = ('clips', 'videos', *AVERAGED)


@torch.no_grad()
def evaluate(loader: Any, model: nn.Module, normalize: nn.Module, task: Task, *, n_classes: int,
             device: torch.device, on_step: Callable[[int], bool] | None = None,
             on_end: Callable[[], None] | None = None
             ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Pass once over a loader whose batches hold whole videos.

    Returns a dict of means, and a dict of counts (n_classes, n_classes), rows true and columns
    predicted: {'clip': of clips, 'video': of videos}; multi-label it is empty.

    `on_step` is called with the number of videos after each batch, and leaves the others out where
    it returns True; `on_end` is called by all processes after that. Counts of several processes are
    added, each having its share of the loader.

    loss, clip_top1, clip_top5:  over the clips
    video_top1, video_top5:      over the videos, of the task's scores averaged over a video's clips
    clip_mean_class, video_mean_class: mean over the classes of their top-1
    clip_map, video_map:         multi-label instead: mean over the classes of average precision

    Multi-label, a hit of top-k is that one of the labels is among the k best classes.

    Raises NotFinite for a video with logits that are not finite.
    """
    model.eval()
    accumulator = task.accumulator(n_classes, device)
    sums = Sums(dict.fromkeys(COUNTED, 0))
    for batch in loader:
        logits = model(normalize(batch.clips.to(device, non_blocking=True)))
        labels = batch.labels.to(device, non_blocking=True)
        videos = batch.videos.to(device, non_blocking=True)
        _check_finite(logits, videos, loader)
        scores, video_labels = by_video(task.scores(logits), labels, videos)
        accumulator.add((logits, labels), (scores, video_labels))
        sums.add(**_hits(task, 'clip', logits, labels), loss=task.criterion(logits, labels)
                 * len(labels), **_hits(task, 'video', scores, video_labels))
        if on_step and on_step(len(scores)):
            break
    if on_end:
        on_end()
    sums = Sums(dict(zip(COUNTED, distributed.total(sums.tensor(COUNTED, device)).tolist())))
    metrics, confusion = accumulator.total()
    means = {name: sums.mean(name, count) for name, count in AVERAGED.items()}
    return {**means, **metrics}, confusion


def _hits(task: Task, what: str, scores: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """What is counted of clips or of videos: how many there are, and hits of top-1 and top-5."""
    top1, top5 = task.hits(scores, labels, (1, 5))
    return {f'{what}s': len(labels), f'{what}_top1': top1, f'{what}_top5': top5}


def _check_finite(logits: torch.Tensor, videos: torch.Tensor, loader: Any) -> None:
    """Raise NotFinite for the first video with a logit that is not finite."""
    bad = videos[~logits.isfinite().all(dim=1)].tolist()
    if bad:
        raise NotFinite(loader.dataset.records.video_ids[bad[0]])


def by_video(scores: torch.Tensor, labels: torch.Tensor, videos: torch.Tensor
             ) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean scores and labels of each video of a batch, (V, n_classes) and as `labels` are.

    scores: (N, n_classes), one row per clip; labels: as `Batch` has them; videos: (N,) their
    numbers
    """
    mean_scores, _ = mean_per_group(scores, videos)
    # All clips of a video have the same labels, and so their mean is those.
    mean_labels, _ = mean_per_group(labels.double().view(len(labels), -1), videos)
    return mean_scores, mean_labels.to(labels.dtype).view(-1, *labels.shape[1:])


def validate(run: Run, epoch: int, save: Callable[[], None] | None = None) -> dict[str, float]:
    """Validate once, log it, return the metrics; a request to stop calls `save`, then raises
    Stopped. So do scores that are not finite, with NotFinite, unless the weights are no better."""
    loader = run.loaders['val']
    run.stop.finishing = 'the batch is finished' + (', then save_last.pth is written' if save
                                                    else '')

    def on_step(n_videos: int) -> bool:
        progress.update(n_videos)
        return bool(run.stop.signum)

    def on_end() -> None:
        # All stop together: one alone would save while others wait for its counts, for ever.
        if run.stop_asked():
            if not save:
                raise run.stopped('the same command begins anew')
            save()
            raise run.stopped()

    with run.log.progress(loader.batch_sampler.n_own_videos(), f'validate {epoch}',
                          unit='video') as progress:
        try:
            metrics, confusion = evaluate(loader, run.evaluated_model(), run.normalize, run.task,
                                          device=run.device, n_classes=len(run.class_names),
                                          on_step=on_step, on_end=on_end)
        except NotFinite:
            weights = run.network.state_dict().values()
            if save and all(tensor.isfinite().all() for tensor in weights):
                save()  # another precision can go on from here
            raise
    run.log.validation(epoch, metrics, confusion, run.class_names)
    return metrics


def val_line(metrics: dict[str, float], run: Run) -> str:
    """The metrics of a validation in words; of few classes top-5 says nothing."""
    shown = [f'{words} {metrics[name]:.3f}' for name, words in run.task.shown.items()
             if len(run.class_names) > 5 or not name.endswith('top5')]
    return ', '.join([f'validation loss {metrics["loss"]:.4f}', *shown])


def evaluated_epoch(weights: Weights | None) -> int:
    """The epoch that a validation without training is of: our checkpoint's, 1 for other files."""
    return weights.epoch or 1 if weights and weights.is_ours else 1


def warn_of_no_labels(opts: Options, records: Any, log: logs.RunLog) -> None:
    """Say where a validation cannot tell how well the classes are found."""
    if not records.class_counts().any():
        follows = 'their mAP is nan' + (
            '' if opts.no_train else ', and no save_best.pth is written')
        log.warn(f'{opts.annotation_path}: none of the {len(records)} videos for validation has a '
                 f'label: {follows}; add their labels, or give --no_val')
