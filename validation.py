"""Validation: how many clips, and how many videos, are classified right."""

import torch

import distributed
from metrics import (Sums, confusion_counts, mean_class_accuracy, mean_per_group,
                     topk_hits)

COUNTED = ('clips', 'loss', 'clip_top1', 'clip_top5', 'videos', 'video_top1', 'video_top5')


@torch.no_grad()
def evaluate(loader, model, normalize, criterion, *, n_classes, device, on_step=None):
    """Pass once over a loader whose batches hold whole videos.

    Returns a dict of means, and a dict of counts (n_classes, n_classes), rows true and columns
    predicted: {'clip': of clips, 'video': of videos}.

    `on_step` is called with the number of videos after each batch. Counts of several processes are
    added, each having its share of the loader.

    loss, clip_top1, clip_top5:  over the clips
    video_top1, video_top5:      over the videos, of softmax scores averaged over a video's clips
    clip_mean_class, video_mean_class: mean over the classes of their top-1
    """
    model.eval()
    confusion = torch.zeros(2, n_classes, n_classes, dtype=torch.int64, device=device)
    sums = Sums(dict.fromkeys(COUNTED, 0))
    for batch in loader:
        logits = model(normalize(batch.clips.to(device, non_blocking=True)))
        labels = batch.labels.to(device, non_blocking=True)
        videos = batch.videos.to(device, non_blocking=True)
        n_clips = len(labels)
        clip_top1, clip_top5 = topk_hits(logits, labels, (1, 5))
        scores, _ = mean_per_group(logits.softmax(dim=1), videos)
        video_labels = mean_per_group(labels.double().unsqueeze(1), videos)[0].long().flatten()
        video_top1, video_top5 = topk_hits(scores, video_labels, (1, 5))
        confusion += torch.stack([confusion_counts(logits, labels),
                                  confusion_counts(scores, video_labels)])
        sums.add(clips=n_clips, loss=criterion(logits, labels) * n_clips, clip_top1=clip_top1,
                 clip_top5=clip_top5, videos=len(scores), video_top1=video_top1,
                 video_top5=video_top5)
        if on_step:
            on_step(len(scores))
    sums = Sums(dict(zip(COUNTED, distributed.total(sums.tensor(COUNTED, device)).tolist())))
    confusion = dict(zip(('clip', 'video'), distributed.total(confusion).cpu()))
    means = {'loss': sums.mean('loss', 'clips'),
             'clip_top1': sums.mean('clip_top1', 'clips'),
             'clip_top5': sums.mean('clip_top5', 'clips'),
             'video_top1': sums.mean('video_top1', 'videos'),
             'video_top5': sums.mean('video_top5', 'videos'),
             **{f'{kind}_mean_class': mean_class_accuracy(counts)
                for kind, counts in confusion.items()}}
    return means, confusion
