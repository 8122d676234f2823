"""The networks for torch.hub: one entry for each family, by its name, and `load_model`.

    torch.hub.load('OWNER/REPO', 'resnet', 18, n_classes=51)
    torch.hub.load('PATH', 'csn', model_depth=50, csn_interaction='preserved', source='local')
    network, info = torch.hub.load('PATH', 'load_model', 'results/save_200.pth', source='local')

torch is imported when an entry is called.
"""

from collections.abc import Callable as _Callable, Sequence as _Sequence
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

from models import ARCHITECTURES, generate_model as _generate_model

if _TYPE_CHECKING:
    import torch as _torch

    from model import ModelInfo as _ModelInfo
    from models.base import Classifier as _Classifier

# torch.hub checks that these are installed.
dependencies = ['torch', 'torchvision', 'numpy']


def _entry(model: str) -> _Callable[..., '_Classifier']:
    """The entry of a family."""
    def make(model_depth: int | None = None, **options: _Any) -> '_Classifier':
        return _generate_model(model, model_depth, **options)
    make.__name__ = make.__qualname__ = model
    make.__doc__ = f"""A new network of the family {model}: (N, C, T, H, W) float -> (N, n_classes).

    model_depth: layers, for a family that has depths
    options:     n_classes, input_type ('rgb' or 'flow'), and what the family takes, named as the
                 flags of main.py

    TypeError for an option that no family has; InputError for an unknown depth and for what the
    network refuses.
    """
    return make


def load_model(path: str | _Path, device: '_torch.device | str' = 'cpu',
               class_names: _Sequence[str] | None = None, use_ema: bool | None = None
               ) -> 'tuple[_Classifier, _ModelInfo]':
    """(network, ModelInfo) of a checkpoint or of released weights; see `model.load_model`."""
    from model import load_model as load
    return load(path, device, class_names, use_ema)


globals().update({name: _entry(name) for name in ARCHITECTURES})
