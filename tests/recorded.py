"""Networks beside recorded numbers of those that they are to be equal to."""

import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch


def recorded_value(name, shape):
    """The rule of the golden folder: normal numbers seeded by the entry's name, on a scale by kind.

    Kernels and matrices have the variance 2 / fan in, variances are exp(0.2 z), other weights
    1 + z / 10, the rest z / 10; counters are zero.
    """
    if name.endswith('num_batches_tracked'):
        return torch.zeros((), dtype=torch.int64)
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        z *= math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith('running_var'):
        z = np.exp(z * 0.2)
    elif name.endswith('weight'):
        z = z * 0.1 + 1
    else:
        z *= 0.1
    return torch.from_numpy(z)


@contextmanager
def without_numbers():
    """Networks that are built within it have shapes and no numbers, and no time is spent to draw
    these, which is most of what such a network costs."""
    draws = [name for name in vars(torch.nn.init) if name.endswith('_') and name[0] != '_']
    with torch.device('meta'), mock.patch.multiple(torch.nn.init, **dict.fromkeys(
            draws, lambda tensor, *_, **__: tensor)):
        yield


# The values of the case before, which the next one may share for the most part.
_known = {}


def assert_is_recorded(network, case, rename=dict, *, has_logits=True):
    """A network on the meta device has the names, shapes, parameters and logits of a case.

    rename:     {recorded name: value} -> {name of the network's: value}
    has_logits: whether these are computed, which takes seconds
    """
    names, shapes = zip(*case['state_dict'])
    shape_of = rename(dict(case['state_dict']))
    assert [(k, list(v.shape)) for k, v in network.state_dict().items()] == list(shape_of.items())
    assert sum(p.numel() for p in network.parameters()) == case['n_parameters']
    if not has_logits:
        return
    keys = list(zip(names, map(tuple, shapes)))
    with ThreadPoolExecutor() as pool:  # numpy fills arrays outside the interpreter's lock
        made = [_known[key] if key in _known else pool.submit(recorded_value, *key)
                for key in keys]
        values = [value if torch.is_tensor(value) else value.result() for value in made]
    _known.clear()
    _known.update(zip(keys, values))
    values = dict(zip(names, values))
    network.load_state_dict(rename(values), assign=True)
    clip = torch.from_numpy(np.random.RandomState(0).standard_normal(case['input']))
    with torch.inference_mode():
        logits = network.eval()(clip)[0, :10]
    torch.testing.assert_close(logits, torch.tensor(case['logits'], dtype=torch.float64),
                               rtol=1e-6, atol=0)
