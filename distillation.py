"""Distillation: a network is trained to give what a larger one, its teacher, gives."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from model import ModelInfo, load_model
from opts import Options, clip_phases, n_input_channels
from runtime.errors import InputError
from runtime.hardware import in_precision

# How many names of classes an error lists.
LISTED = 4


class Teacher:
    """The logits that a trained network gives for the clips of another's training.

    path:        its weights file
    opts:        of the training, whose precision it computes in
    class_names: of the training, in the order of its logits

    Clips get the normalisation of the teacher's file, and its size where that is another. `warn`
    takes a line where its classes have no names. Raises InputError where the classes are not all
    among the teacher's, and for a teacher that cannot take such clips.
    """

    def __init__(self, path: Path, opts: Options, class_names: Sequence[str],
                 device: torch.device, warn: Callable[[str], None]) -> None:
        network, info = load_model(path, device)
        for name in ('input_type', 'multi_label'):
            if getattr(info.opts, name) != getattr(opts, name):
                raise InputError(f'--teacher_path {path}: was trained with {name} '
                                 f'{getattr(info.opts, name)}, and this training has '
                                 f'{getattr(opts, name)}; give another teacher')
        self._columns = torch.tensor(_columns(path, info, class_names, warn), device=device)
        self._network = in_precision(network, device, precision=opts.precision,
                                     memory_format=opts.memory_format, tf32=opts.tf32)
        self._normalize, self._size = info.normalize, info.opts.sample_size
        channels = n_input_channels(opts)
        try:
            for phase in clip_phases(opts):
                self(torch.zeros(1, channels, phase.n_frames, phase.size, phase.size,
                                 dtype=torch.uint8, device=device))
        except InputError as error:
            raise InputError(f'--teacher_path {path}: {error}') from None

    @torch.no_grad()
    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """(N, C, T, h, w) clips in 0...255 -> (N, n_classes) logits."""
        if clips.shape[-2:] != (self._size, self._size):
            clips = F.interpolate(clips.float(), (clips.shape[2], self._size, self._size),
                                  mode='trilinear')
        return self._network(self._normalize(clips))[:, self._columns]


def _columns(path: Path, info: ModelInfo, class_names: Sequence[str],
             warn: Callable[[str], None]) -> list[int]:
    """Which of the teacher's logits is that of each class."""
    if not info.has_names and len(info.class_names) == len(class_names):
        warn(f'{path}: holds no class names; its classes are taken to be in the order of this '
             'training\'s')
        return list(range(len(class_names)))
    missing = [name for name in class_names if name not in info.class_names]
    if missing:
        more = ', ...' if len(missing) > LISTED else ''
        raise InputError(f'--teacher_path {path}: the teacher has {len(info.class_names)} classes '
                         f'without {", ".join(missing[:LISTED])}{more}; give one that was trained '
                         'on the classes of the annotation')
    return [info.class_names.index(name) for name in class_names]


class DistillationLoss:
    """(1 - weight) of a loss with the labels, and weight of one with the teacher: T² times the KL
    divergence from its softmax to the network's, of logits / T (Hinton et al., 2015, section 2).

    criterion:   (logits, labels, clips) -> mean loss over the clips
    temperature: T
    """

    def __init__(self, criterion: Callable[..., torch.Tensor], teacher: Teacher, *,
                 temperature: float, weight: float) -> None:
        self._criterion, self._teacher = criterion, teacher
        self._temperature, self._weight = temperature, weight

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, clips: torch.Tensor
                 ) -> torch.Tensor:
        own = F.log_softmax(logits / self._temperature, dim=1)
        wanted = F.log_softmax(self._teacher(clips) / self._temperature, dim=1)
        soft = F.kl_div(own, wanted, reduction='batchmean', log_target=True)
        return ((1 - self._weight) * self._criterion(logits, labels, clips)
                + self._weight * self._temperature ** 2 * soft)
