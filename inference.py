"""Inference: scores of every window of every video, and the result JSON made of them."""

from typing import NamedTuple

import torch


class VideoWindows(NamedTuple):
    """What was found in one video, K windows of it.

    video:    its number in the records
    scores:   (K, n_classes), as the task reads logits
    segments: (K, 2) first frame and last frame + 1
    features: (K, D), None where nothing was tapped
    """

    video: int
    scores: torch.Tensor
    segments: torch.Tensor
    features: torch.Tensor | None


@torch.no_grad()
def predict(loader, model, normalize, task, *, device, on_step=None, tap=None, n_windows=None):
    """Yield the `VideoWindows` of each video, in the loader's order.

    The windows of a video follow each other in the loader; those of no video, whose number is -1,
    are passed over. `task` is a tasks.Task; `on_step` is called with the number of windows after
    each batch; `tap` is a features.FeatureTap of the model. A video is yielded once it has
    `n_windows(video)`; without, or where it has fewer, when the next one begins.
    """
    model.eval()
    video, rows = None, []
    for batch in loader:
        logits = model(normalize(batch.clips.to(device, non_blocking=True)))
        scores = task.scores(logits.float()).cpu()
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


def _gathered(video, rows):
    scores, segments, features = zip(*rows)
    return VideoWindows(video, torch.stack(scores), torch.stack(segments),
                        None if features[0] is None else torch.stack(features))


def feature_rows(found, average):
    """(features (n, D), segments (n, 2)) of `VideoWindows`: a row a window, or their average."""
    if not average:
        return found.features, found.segments
    whole = torch.stack([found.segments[:, 0].min(), found.segments[:, 1].max()])
    return found.features.mean(dim=0, keepdim=True), whole.unsqueeze(0)


def video_result(scores, segments, class_names, topk, average):
    """The entry of one video in the result JSON.

    Averaged over the windows: [{'label', 'score'}, ...], best first; else a list of
    {'segment': [first, last + 1], 'result': that of the window}.
    """
    if average:
        return ranked(scores.mean(dim=0), class_names, topk)
    return [{'segment': segment, 'result': ranked(row, class_names, topk)}
            for row, segment in zip(scores, segments.tolist())]


def ranked(scores, class_names, topk):
    """(n_classes,) scores -> [{'label', 'score'}, ...], the `topk` best (<= 0: all), best first."""
    n = len(class_names) if topk <= 0 else min(topk, len(class_names))
    best = scores.topk(n)
    return [{'label': class_names[i], 'score': score}
            for score, i in zip(best.values.tolist(), best.indices.tolist())]
