"""Inference: scores of every window of every video, and the result JSON made of them."""

import torch


@torch.no_grad()
def predict(loader, model, normalize, *, device, on_step=None):
    """Yield (video, scores, segments) for each video, in the loader's order.

    video: its number in the records; scores: (K, n_classes) softmax, a row a window; segments:
    (K, 2) first frame and last frame + 1. The windows of a video follow each other in the loader.
    """
    model.eval()
    video, scores, segments = None, [], []
    for batch in loader:
        logits = model(normalize(batch.clips.to(device, non_blocking=True)))
        windows = zip(batch.videos.tolist(), logits.float().softmax(dim=1).cpu(), batch.segments)
        for this_video, score, segment in windows:
            if this_video != video and scores:
                yield video, torch.stack(scores), torch.stack(segments)
                scores, segments = [], []
            video = this_video
            scores.append(score)
            segments.append(segment)
        if on_step:
            on_step(len(batch.videos))
    if scores:
        yield video, torch.stack(scores), torch.stack(segments)


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
