"""torchvision's video networks: its own modules and names, behind what all networks here share.

Their state dicts are torchvision's. What these were trained on is in its Weights classes.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import get_model, get_model_weights
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.video.mvit import MultiscaleBlock, PositionalEncoding
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet
from torchvision.models.video.s3d import SepInceptionBlock3D

from models import INPUT_CHANNELS
from models.base import Classifier, kept_statistics, run_steps
from runtime.errors import InputError

# By network the frames of a clip and their rate when its accuracy was measured. All tensors of
# swin3d_t are in swin3d_s too, which so is to be recognised first.
CLIPS = {'r3d_18': (16, 15), 'mc3_18': (16, 15), 'r2plus1d_18': (16, 15), 's3d': (128, 15),
         'mvit_v1_b': (16, 7.5), 'mvit_v2_s': (16, 7.5),
         'swin3d_s': (32, 15), 'swin3d_t': (32, 15), 'swin3d_b': (32, 15)}
# Frames per second of the videos that most of Kinetics is made of.
VIDEO_RATE = 30
# By how the names of networks begin, where they were published.
PAPERS = {
    **dict.fromkeys(('r3d', 'mc3', 'r2plus1d'),
                    'Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action '
                    'Recognition", CVPR 2018'),
    's3d': 'Xie et al., "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in '
           'Video Classification", ECCV 2018',
    'mvit_v1': 'Fan et al., "Multiscale Vision Transformers", ICCV 2021',
    'mvit_v2': 'Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification '
               'and Detection", CVPR 2022',
    'swin3d': 'Liu et al., "Video Swin Transformer", CVPR 2022'}
# R(2+1)D of 34 layers, as trained on IG-65M (Ghadiyaram et al., CVPR 2019).
IG65M = 'r2plus1d_34'


class TorchvisionNetwork(Classifier):
    """The parts of a network of torchvision, under its names; `name` is for what is said of it.

    The feature map of ResNets and Swin is (N, F, T, H/16, W/16) and (N, F, T/2, H/32, W/32), more
    or less; that of S3D is (N, 1024, T/8, H/32, W/32), that of MViT the single place of its class
    token.
    """

    first: str              # the first convolution
    steps: tuple[str, ...]  # modules that make the feature map, in order
    block: type[nn.Module]  # what activation checkpointing keeps the inputs of

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.name = name
        for part, module in network.named_children():
            self.add_module(part, module)
        weight = self.get_submodule(self.classifier_name).weight
        assert isinstance(weight, torch.Tensor)
        self.num_features = weight.shape[1]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        return run_steps(self, self.steps, x)

    def recompute_blocks(self) -> None:
        """Keep less for the backward pass: only what enters each block."""
        for module in self.modules():
            if isinstance(module, self.block):
                setattr(module, 'forward', recomputed(module))


class ResNet(TorchvisionNetwork):
    """R3D, MC3 and R(2+1)D; see `PAPERS` for this and the others."""

    first = 'stem.0'
    steps = ('stem', 'layer1', 'layer2', 'layer3', 'layer4')
    block = BasicBlock


class S3D(TorchvisionNetwork):
    """Separable Inception.

    Raises InputError for clips of less than 14 frames or 224 pixels, which its head cannot pool.
    """

    avgpool: nn.Module
    classifier: nn.Module

    first = 'features.0.0.0'
    steps = ('features',)
    block = SepInceptionBlock3D
    fixed_axes = ('size',)
    classifier_name = 'classifier.1'

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, 1024, t, h, w) feature map."""
        n_frames, *sides = x.shape[2:]
        if n_frames < 14 or any(side < 224 for side in sides):
            raise InputError(f'{self.name} takes clips of at least 14 frames and 224 pixels, and '
                             f'these are of {n_frames} frames and {min(sides)} pixels; give a '
                             'larger --sample_duration or --sample_size')
        return super().forward_features(x)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Feature map -> logits (or features) in windows of two frames and 7x7, then their mean."""
        pooled = self.avgpool(features)
        return (pooled if pre_logits else self.classifier(pooled)).mean(dim=(2, 3, 4))


class MViT(TorchvisionNetwork):
    """Multiscale vision transformer, of both versions.

    Raises InputError for clips of any other size than 16 frames of 224x224, since there are as many
    weights for places.
    """

    conv_proj: nn.Module
    pos_encoding: PositionalEncoding
    blocks: nn.ModuleList
    norm: nn.Module
    head: nn.Module

    first = 'conv_proj'
    block = MultiscaleBlock
    fixed_axes = ('time', 'size')
    classifier_name = 'head.1'
    channel_axis = -1

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 16, 224, 224) float clips -> (N, F, 1, 1, 1), the class token."""
        n_frames, height, width = x.shape[2:]
        if (n_frames, height, width) != (16, 224, 224):
            raise InputError(f'{self.name} takes clips of 16 frames of 224x224 pixels alone, and '
                             f'these are of {n_frames} frames of {height}x{width}; give '
                             '--sample_duration 16 --sample_size 224')
        x = self.pos_encoding(self.conv_proj(x).flatten(2).transpose(1, 2))
        places = (self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size)
        for block in self.blocks:
            x, places = block(x, places)
        return self.norm(x)[:, 0, :, None, None, None]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(N, F, 1, 1, 1) class token -> (N, n_classes) logits, or (N, F) with `pre_logits`."""
        token = features.mean(dim=(2, 3, 4))
        return token if pre_logits else self.head(token)


class Swin(TorchvisionNetwork):
    """Video Swin transformer, for clips of any size."""

    # With any size torch.export takes minutes, and ends in a graph that others do not read.
    fixed_axes = ('time', 'size')
    first = 'patch_embed.proj'
    steps = ('patch_embed', 'pos_drop', 'features', 'norm')
    block = SwinTransformerBlock
    classifier_name = 'head'
    channel_axis = -1

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T, H, W) float clips -> (N, F, t, h, w) feature map."""
        return super().forward_features(x).permute(0, 4, 1, 2, 3)


def recomputed(block: nn.Module) -> Callable[..., Any]:
    """A block's `forward`, of which training keeps the inputs alone; see base.recomputable.

    The draws of dropout and of stochastic depth are the same in the second pass.
    """
    forward = block.forward

    def run(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False,
                          context_fn=lambda: (nullcontext(), kept_statistics(block)))
    return run


def make_r2plus1d_34(num_classes: int) -> nn.Module:
    """R(2+1)D of 34 layers in torchvision's parts, with the widths of Caffe2, where it comes from.

    There a block whose channels change has middle channels of its wider convolution in both.
    """
    network = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem, num_classes)
    for stage, planes in ((network.layer2, 128), (network.layer3, 256), (network.layer4, 512)):
        convolution = Conv2Plus1D(planes, planes, planes * 9 // 4)
        for part in convolution:
            if isinstance(part, nn.Conv3d):
                nn.init.kaiming_normal_(part.weight, mode='fan_out', nonlinearity='relu')
        stage[0].conv2[0] = convolution
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-3
    return network


def set_input_channels(network: nn.Module, name: str, n_channels: int) -> None:
    """Make the convolution of this name one, with new weights, of so many channels."""
    first = network.get_submodule(name)
    assert isinstance(first, nn.Conv3d)
    network.set_submodule(name, nn.Conv3d(
        n_channels, first.out_channels, first.kernel_size,  # type: ignore[arg-type]
        first.stride, first.padding, bias=first.bias is not None))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Family:
    """A network as `models.ARCHITECTURES` has it, and how its weights are recognised."""

    name: str
    OPTIONS: Mapping[str, Any] = field(default_factory=dict)

    def generate_model(self, *, n_classes: int = 400, n_input_channels: int = 3
                       ) -> TorchvisionNetwork:
        """The network, initialised as torchvision does it."""
        network = (make_r2plus1d_34(n_classes) if self.name == IG65M
                   else get_model(self.name, num_classes=n_classes))
        if n_input_channels != 3:
            set_input_channels(network, self.kind.first, n_input_channels)
        return self.kind(self.name, network)

    @property
    def kind(self) -> type[TorchvisionNetwork]:
        """What it becomes here."""
        return next(kind for mark, kind in KINDS.items() if self.name.startswith(mark))

    @property
    def paper(self) -> str:
        """Where it was published."""
        return next(text for mark, text in PAPERS.items() if self.name.startswith(mark))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The flags of clips and normalisation of torchvision's weights, or like theirs."""
        transforms = get_model_weights(self.name if self.name != IG65M else 'r2plus1d_18'
                                       ).DEFAULT.transforms()
        flags: dict[str, Any] = {
            'sample_size': transforms.crop_size[0], 'sample_resize': min(transforms.resize_size),
            'mean': list(transforms.mean), 'std': list(transforms.std)}
        if self.name in CLIPS:
            n_frames, rate = CLIPS[self.name]
            flags.update(sample_duration=n_frames, sample_t_stride=round(VIDEO_RATE / rate))
        return flags

    def class_names(self, n_classes: int) -> tuple[str, ...] | None:
        """torchvision's own list, of 400 classes; None of another number and of IG-65M."""
        if self.name == IG65M:
            return None
        names = get_model_weights(self.name).DEFAULT.meta['categories']
        return tuple(names) if len(names) == n_classes else None

    def recognise(self, state_dict: Mapping[str, Any], file: Mapping[str, Any]) -> bool:
        """True if all tensors are there, in their shapes; the classifier may be another or none."""
        first = f'{self.kind.first}.weight'
        return first in state_dict and all(
            name in state_dict and _same_shape(state_dict[name], shape, name == first)
            for name, shape in _shapes(self.name).items())

    def options(self, state_dict: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `models.generate_model`; n_classes 0 for weights without a classifier."""
        weight = state_dict.get(f'{self.kind.classifier_name}.weight')
        inputs = {n_channels: name for name, n_channels in INPUT_CHANNELS.items()}
        return {'model': self.name, 'n_classes': 0 if weight is None else weight.shape[0],
                'input_type': inputs[state_dict[f'{self.kind.first}.weight'].shape[1]]}


def _same_shape(tensor: torch.Tensor, shape: tuple[int, ...], is_first: bool) -> bool:
    """True for a tensor of this shape; of the first convolution inputs may be of any type."""
    if not is_first:
        return tensor.shape == shape
    return (tensor.dim() == len(shape) and tensor.shape[1] in INPUT_CHANNELS.values()
            and (tensor.shape[0], *tensor.shape[2:]) == (shape[0], *shape[2:]))


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    """{name: shape} of a network's tensors, but for its classifier.

    Counters of batches are left out, as files from before torch 0.4.1 have none.
    """
    with torch.device('meta'):
        network = FAMILIES[name].generate_model()
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()
            if not key.startswith(f'{network.classifier_name}.')
            and not key.endswith('.num_batches_tracked')}


# By how the names of networks begin, what they become here.
KINDS: dict[str, type[TorchvisionNetwork]] = {
    'r3d': ResNet, 'mc3': ResNet, 'r2plus1d': ResNet, 's3d': S3D, 'mvit': MViT, 'swin3d': Swin}
FAMILIES = {name: Family(name) for name in (*CLIPS, IG65M)}
