"""Attention in residual networks: squeeze-and-excitation and non-local blocks.

Both start as the identity, to the last bit, so that a network with attention that gets the weights
of one without gives the same logits before it is trained.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.base import Conv3d

# Of --attention.
KINDS = ('none', 'se', 'nonlocal')
REDUCTION = 16  # channels of a squeeze-and-excitation layer, divided by those in its middle


class SqueezeExcitation(nn.Module):
    """x times a gate per channel, which is computed from the averages of all channels.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equations 2 to 4. The gate is twice the
    sigmoid of theirs, and its last layer is zero at the start: it begins at 1, not near 1/2.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        mid_planes = max(1, planes // REDUCTION)
        self.fc1 = nn.Linear(planes, mid_planes)
        self.fc2 = nn.Linear(mid_planes, planes)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, planes, t, h, w) -> the same shape."""
        gate = 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3, 4))))))
        return x * gate[:, :, None, None, None]


class NonLocal(nn.Module):
    """x plus, at each place, a mean over all places, weighted by how alike they are.

    Wang et al., "Non-local Neural Networks", CVPR 2018: the embedded Gaussian of equation 4 on half
    of the channels, its products divided by the square root of their number, and a batch norm that
    is zero at the start (`start_as_identity`).
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        mid_planes = max(1, planes // 2)
        self.query = Conv3d(planes, mid_planes, 1)
        self.key = Conv3d(planes, mid_planes, 1)
        self.value = Conv3d(planes, mid_planes, 1)
        self.out = Conv3d(mid_planes, planes, 1)
        self.norm = nn.BatchNorm3d(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, planes, t, h, w) -> the same shape."""
        # (N, 1, places, mid_planes): attention with a single head.
        query, key, value = (part(x).flatten(2).transpose(1, 2).unsqueeze(1)
                             for part in (self.query, self.key, self.value))
        mean = F.scaled_dot_product_attention(query, key, value)
        mean = mean.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.norm(self.out(mean))


def start_as_identity(network: nn.Module) -> None:
    """Zero the norms of all non-local blocks, which `base.init_weights` makes ones."""
    for module in network.modules():
        if isinstance(module, NonLocal):
            nn.init.zeros_(module.norm.weight)


def is_attention(name: str) -> bool:
    """True for the name of a tensor of attention, such as layer3.1.nonlocal.out.weight."""
    return bool({'se', 'nonlocal'}.intersection(name.split('.')))
