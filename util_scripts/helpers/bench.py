"""What the measurements of a benchmark share: options, a device, and how long to measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.annotations import Annotation
from datasets.loading import build_loader
from opts import Options, normalization, replace
from spatial_transforms import Normalize
from weights import Weights


@dataclass(frozen=True)
class Bench:
    """One benchmark: what its measurements take.

    weights: those of --resume_path, which may be an exported network; None without
    """

    opts: Options
    annotation: Annotation
    device: torch.device
    seconds: float
    is_against_plain: bool
    videos: Path | None = None
    against: tuple[str, ...] = ()
    weights: Weights | None = None

    def loader(self, split: str, **changes: Any) -> Any:
        """The loader of a split as main.py has it, of options with these changes."""
        opts = replace(self.opts, **changes)
        return build_loader(opts, split, self.annotation, pin_memory=self.device.type == 'cuda')

    def normalize(self) -> Normalize:
        mean, std = normalization(self.opts)
        return Normalize(mean, std, self.opts.value_scale).to(self.device)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
