"""Every flag of main.py: its default, its help and its checks. Parsed options never change.

    opts = parse_opts(['--video_path', 'jpg', ...])
    opts.sample_size                            # 112
    tuned = replace(opts, n_classes=101)        # a changed copy
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models import ARCHITECTURES, INPUT_CHANNELS
from runtime.arguments import (BELOW_ONE, COUNT, FLOAT, FRACTION, INTEGER, N_PROCESSES, POSITIVE,
                               POSITIVE_RATE, RATE, SEED, Parser, SwitchOrValues,
                               add_frame_template, between, name_of, opposite, words_of_files)
from runtime.errors import InputError
from runtime.files import is_path, is_special, parse_json, read_file
from runtime.schema import is_number, whole_number

# Mean and standard deviation (R, G, B) of images in 0...1.
DATASET_STATISTICS = {
    'kinetics': ((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),
    'activitynet': ((0.4477, 0.4209, 0.3906), (0.2767, 0.2695, 0.2714)),
    '0.5': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
# Flags that --root_path is joined in front of; --resume_path also takes the word auto.
PATH_FLAGS = ('video_path', 'annotation_path', 'result_path', 'resume_path', 'pretrain_path',
              'teacher_path', 'output_features', 'video_index')
# Flags that decide what the network sees.
CLIP_FLAGS = ('sample_size', 'sample_resize', 'sample_duration', 'sample_t_stride', 'mean_dataset',
              'mean', 'std', 'no_mean_norm', 'no_std_norm', 'value_scale')
# What one frame becomes. These go together: a file's are taken when none of them is given.
NORMALIZATION_FLAGS = tuple(name for name in CLIP_FLAGS if not name.startswith('sample'))
# Flags that decide, beyond rounding, what inference finds in a video.
INFERENCE_FLAGS = ('file_type', 'fast_decode', 'exact_pixels', 'inference_stride',
                   'inference_crop', 'inference_views', 'inference_no_average', 'output_topk',
                   'feature_module', 'multi_label', 'precision', 'tf32', 'backend')
# Options of a run that another does not take from its opts.json: one that went on with a checkpoint
# is not repeated by going on with it, and its paths have --root_path in front already.
NOT_REPEATED = ('opts', 'resume_path', 'root_path')
# A flag, and those that go with one value of it: given anew it takes with it those that a file of
# flags or an earlier run has beside another value.
BESIDE = {'optimizer': ('momentum', 'dampening', 'nesterov', 'adam_betas'),
          'lr_scheduler': ('multistep_milestones', 'plateau_patience'),
          'clip_schedule': ('n_epochs', 'sample_duration', 'sample_size'),
          'inference_crop': ('inference_views',)}
# A flag, and those that it takes the place of, whatever its value.
INSTEAD = {'inference_views': ('inference_stride',), 'inference_stride': ('inference_views',)}
# How frames may be stored: what commands call it, and its --file_type and --input_type; the readers
# are in datasets.frames.READERS.
STORAGES = {'jpg': ('jpg', 'rgb'), 'hdf5': ('hdf5', 'rgb'), 'flow': ('hdf5', 'flow'),
            'video': ('video', 'rgb')}
FILE_TYPES = tuple(dict.fromkeys(file_type for file_type, _ in STORAGES.values()))

# What the names of HDF5 files end with.
HDF5_ENDINGS = ('.h5', '.hdf5', '.hdf', '')

# Values of one flag that a file may record.
MAX_RECORDED = 1000

# Pairs of: is this rule broken, and the sentence that says so.
Rules = list[tuple[Any, str]]


class Options(argparse.Namespace):
    """The options of one run, read as attributes and never changed: `replace` makes a copy.

    `given` is the set of flags that stood on the command line.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f'options never change; use replace(opts, {name}=...)')

    def __delattr__(self, name: str) -> None:
        raise AttributeError('options never change')


def replace(opts: Options, /, **changes: Any) -> Options:
    """A copy of the options with some values changed; an unknown name is a TypeError."""
    unknown = changes.keys() - vars(opts).keys()
    if unknown:
        raise TypeError(f'no such option: {", ".join(sorted(unknown))}')
    return Options(**{**vars(opts), **changes})


def n_input_channels(opts: Options) -> int:
    """Channels of a frame: 3 for rgb, 2 (horizontal, vertical) for flow."""
    return INPUT_CHANNELS[opts.input_type]


def clip_shape(opts: Options) -> tuple[int, int, int, int]:
    """(C, T, H, W) of a clip as the network takes it."""
    return (n_input_channels(opts), opts.sample_duration, opts.sample_size, opts.sample_size)


def normalization(opts: Options) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std), one value per channel each, in units of images scaled to 0...value_scale."""
    dataset_mean, dataset_std = DATASET_STATISTICS[opts.mean_dataset]
    mean = opts.mean or [opts.value_scale * value for value in dataset_mean]
    std = opts.std or [opts.value_scale * value for value in dataset_std]
    if opts.no_mean_norm:
        mean = (0.0, 0.0, 0.0)
    if opts.no_std_norm:
        std = (1.0, 1.0, 1.0)
    channels = n_input_channels(opts)
    return tuple(mean[:channels]), tuple(std[:channels])


def to_json(opts: Options) -> str:
    """The options as the text of opts.json: one flag per line, sorted."""
    values = {name: value for name, value in vars(opts).items() if name != 'given'}
    return json.dumps(values, indent=1, sort_keys=True, default=str) + '\n'


def _views(text: str) -> tuple[int, int]:
    """10x3 -> (10, 3)"""
    windows, crops = map(whole_number, text.partition('x')[::2])
    if not windows or not crops:
        raise argparse.ArgumentTypeError(f'{text!r} is not WINDOWSxCROPS, such as 10x3')
    return windows, crops


class ClipPhase(NamedTuple):
    """A part of --clip_schedule: clips of so many frames and pixels, for so many epochs."""

    n_frames: int
    size: int
    n_epochs: int


def clip_phases(opts: Options) -> list[ClipPhase]:
    """The parts of --clip_schedule; without it one, of the clips of all epochs."""
    if opts.clip_schedule is None:
        return [ClipPhase(opts.sample_duration, opts.sample_size, opts.n_epochs)]
    return [ClipPhase(*map(int, re.split('[x@]', text))) for text in opts.clip_schedule]


def _clip_phase(text: str) -> str:
    """8x64@40: as it is, since checkpoints hold texts and numbers alone."""
    if not re.fullmatch('[1-9][0-9]{0,8}x[1-9][0-9]{0,8}@[1-9][0-9]{0,8}', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not FRAMESxPIXELS@EPOCHS, such as 8x64@40')
    return text


def _implied(values: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Flags that were not given and that --clip_schedule says."""
    if not values['clip_schedule']:
        return {}
    phases = clip_phases(Options(**values))
    said = {'sample_duration': phases[-1].n_frames, 'sample_size': phases[-1].size,
            'n_epochs': sum(phase.n_epochs for phase in phases)}
    return {name: value for name, value in said.items() if name not in given}


# ---------------------------------------------------------------- the flags, by group

def _add_data_flags(parser: Parser) -> None:
    add = parser.add_argument_group('data').add_argument
    add('--root_path', type=Path, metavar='DIR',
        help='joined in front of the other paths where those are relative')
    add('--video_path', type=Path, metavar='DIR',
        help='folder of the videos\' frames, or of the videos')
    add('--annotation_path', type=Path, metavar='FILE', help='annotation JSON')
    add('--result_path', type=Path, metavar='DIR',
        help='folder for logs, checkpoints and results; made where it is missing')
    add('--dataset', default='kinetics',
        choices=('kinetics', 'activitynet', 'ucf101', 'hmdb51', 'mit'),
        help='layout of the frames and schema of the annotation; found where it is not given: '
             'activitynet for an annotation with a taxonomy')
    add('--n_classes', type=POSITIVE, default=400, metavar='N',
        help='number of classes; found where it is not given: that of the annotation\'s labels')
    add('--multi_label', action='store_true',
        help='a video has a list of labels, of any length: train with binary cross entropy, score '
             'each class by a sigmoid, and measure mean average precision (mAP)')
    add('--file_type', default='jpg', choices=FILE_TYPES,
        help='how the frames are stored: a folder of images or one hdf5 file per video, or the '
             'video files themselves; found where it is not given: what lies in the folder')
    add_frame_template(add)
    add('--input_type', default='rgb', choices=tuple(INPUT_CHANNELS),
        help='rgb (3 channels), or optical flow (2 channels, from hdf5)')
    add('--check_paths', action=argparse.BooleanOptionalAction, default=None,
        help='look for every video\'s frames before the run starts; by default this is done for '
             'up to 10000 videos, and above that a missing video is named when it is read')
    add('--bad_frames', default='error', choices=('error', 'skip'),
        help='what to do about frames that cannot be read: error stops and names video and frame; '
             'skip takes the next good video of the same class in training, leaves such clips out '
             'elsewhere, and says how many there were')
    add('--accimage', action='store_true',
        help='accepted for old scripts, without effect: that image library is no longer kept')


def _add_clip_flags(parser: Parser) -> None:
    add = parser.add_argument_group('clips').add_argument
    add('--sample_size', type=POSITIVE, default=112, metavar='PIXELS',
        help='height and width of a clip')
    add('--sample_resize', type=COUNT, default=0, metavar='PIXELS',
        help='short side of the frames before a crop of --sample_size at the centre or along the '
             'long side, such as 256 for 224; 0: --sample_size')
    add('--sample_duration', type=POSITIVE, default=16, metavar='FRAMES',
        help='frames in a clip')
    add('--sample_t_stride', type=POSITIVE, default=1, metavar='N',
        help='keep every N-th frame of a video, in training, validation and inference')
    add('--train_crop', default='random', choices=('random', 'corner', 'center'),
        help='random: random area and aspect; corner: one of the corners or the centre at one of '
             'five scales; center: short side to --sample_size, centre')
    add('--train_crop_min_scale', type=FRACTION, default=0.25, metavar='AREA',
        help='random crop: smallest share of the frame\'s area')
    add('--train_crop_min_ratio', type=FRACTION, default=0.75, metavar='RATIO',
        help='random crop: smallest aspect ratio; the largest is its inverse')
    add('--no_hflip', action='store_true',
        help='no horizontal flips in training; for classes that tell left from right')
    add('--colorjitter', action=SwitchOrValues, type=RATE, metavar='X',
        help='change brightness, contrast and saturation by up to 40 %% and hue by up to 10 %% '
             'of the colour circle, the same for all frames of a clip; or by four shares of your '
             'own, in that order, such as 0.8 0.8 0.8 0.2')
    add('--train_t_crop', default='random', choices=('random', 'center'),
        help='which frames of a training video make the clip')
    add('--n_val_samples', type=POSITIVE, default=3, metavar='N',
        help='evenly placed clips per video in validation; a validation batch is '
             'batch_size // n_val_samples videos')
    add('--mean_dataset', default='kinetics', choices=tuple(DATASET_STATISTICS),
        help='whose mean and standard deviation are subtracted and divided by')
    add('--mean', type=FLOAT, nargs=3, metavar=('R', 'G', 'B'),
        help='mean to subtract instead, in units of the scaled image')
    add('--std', type=POSITIVE_RATE, nargs=3, metavar=('R', 'G', 'B'),
        help='standard deviation to divide by instead, in units of the scaled image')
    add('--no_mean_norm', action='store_true', help='subtract no mean')
    add('--no_std_norm', action='store_true', help='divide by no standard deviation')
    add('--value_scale', type=int, default=1, choices=(1, 255),
        help='images in 0...1 or in 0...255')


def _add_augmentation_flags(parser: Parser) -> None:
    add = parser.add_argument_group('augmentation and sampling').add_argument
    add('--rand_augment', type=COUNT, nargs=2, metavar=('N', 'M'),
        help='RandAugment: N random operations on colours or geometry, of magnitude M in 0...30, '
             'the same for all frames of a clip; 2 9 is common, 0 0: off')
    add('--random_erasing', type=between(float, 0, 1), default=0.0, metavar='P',
        help='with probability P erase a random box, the same in all frames of a clip, to the '
             'mean that is subtracted')
    add('--mixup', type=RATE, default=0.0, metavar='ALPHA',
        help='mix each clip of a batch with another, and their labels, in a proportion from '
             'Beta(ALPHA, ALPHA); 0: off; with --cutmix too, each batch draws one of the two')
    add('--cutmix', type=RATE, default=0.0, metavar='ALPHA',
        help='put a box of another clip of the batch into each, through all frames, and mix their '
             'labels by area, in a proportion from Beta(ALPHA, ALPHA); 0: off')
    add('--speed_jitter', type=POSITIVE_RATE, nargs=2, metavar=('LOW', 'HIGH'),
        help='take every x-th frame for a clip (after --sample_t_stride), x drawn for each clip '
             'from LOW...HIGH; below 1 frames repeat')
    add('--repeated_aug', type=POSITIVE, default=1, metavar='K',
        help='K clips of each video in a batch, drawn and augmented differently; an epoch has K '
             'clips of each video')
    add('--class_weights', default='none', choices=('none', 'balanced'),
        help='balanced: videos of rare classes count more in the training loss, so that all '
             'classes count alike (with --multi_label: present and absent alike in each class)')
    add('--balanced_sampling', action='store_true',
        help='draw all classes alike often in training, videos of rare classes several times; an '
             'epoch has as many clips as without')


def _add_architecture_flags(add: Any) -> None:
    """The flags that, with --n_classes and --input_type, define the network."""
    add('--model', default='resnet', choices=tuple(ARCHITECTURES), metavar='NAME',
        type=name_of(ARCHITECTURES, 'family of networks'),
        help=f'family of networks: {", ".join(ARCHITECTURES)}')
    add('--model_depth', type=POSITIVE, default=18, metavar='N',
        help='layers: 10, 18, 34, 50, 101, 152 or 200 (resnet, resnet2p1d, preresnet); '
             '50 ... 200 (wideresnet, resnext); 121, 169, 201 or 264 (densenet); 26, 50, 101 or '
             '152 (csn); the others have none')
    add('--conv1_t_size', type=POSITIVE, default=7, metavar='FRAMES',
        help='kernel size in time of the first convolution; odd')
    add('--conv1_t_stride', type=POSITIVE, default=1, metavar='FRAMES',
        help='stride in time of the first convolution')
    add('--no_max_pool', action='store_true', help='no max pooling after the first convolution')
    add('--resnet_shortcut', default='B', choices=('A', 'B'),
        help='A: padding with zeros; B: a convolution where the shape changes')
    add('--resnet_widen_factor', type=POSITIVE_RATE, default=1.0, metavar='X',
        help='multiplies the channels of all layers')
    add('--attention', default='none', choices=('none', 'se', 'nonlocal'),
        help='of the families of ResNets: se, squeeze-and-excitation in each block; nonlocal, '
             'non-local blocks after every other block of the third and fourth stage; both change '
             'nothing before they are trained')
    add('--wide_resnet_k', type=POSITIVE, default=2, metavar='K',
        help='width of the bottlenecks of wideresnet')
    add('--resnext_cardinality', type=POSITIVE, default=32, metavar='N',
        help='groups of resnext\'s convolutions')
    add('--csn_interaction', default='reduced', choices=('reduced', 'preserved'),
        help='what mixes the channels of csn\'s blocks beside the 1x1x1 convolutions around: '
             'nothing, or one more of them')
    add('--model_size', default='m', choices=('xs', 's', 'm', 'l'),
        help='size of x3d; xs, s and m are one network for clips of 4, 13 and 16 frames')


def _add_network_flags(parser: Parser) -> None:
    add = parser.add_argument_group('network').add_argument
    _add_architecture_flags(add)
    add('--pretrain_path', type=Path, metavar='FILE',
        help='start from these weights with a new classifier of --n_classes')
    add('--keep_classifier', action='store_true',
        help='keep the classifier of --pretrain_path, whose classes must be those of the '
             'annotation, in any order')
    add('--n_pretrain_classes', type=COUNT, default=0, metavar='N',
        help='classes of --pretrain_path; checked where given, otherwise read from the file')
    add('--ft_begin_module', default='', metavar='NAME',
        help='first module that is trained: conv1, layer1 ... layer4, fc (densenet: denseblock1 '
             '..., classifier; i3d: Conv3d_1a_7x7 ... Mixed_5c, logits); what comes before is '
             'frozen; empty: all are trained')
    add('--unfreeze_epoch', type=COUNT, default=0, metavar='EPOCH',
        help='train also what comes before --ft_begin_module after this epoch; 0: never')
    add('--freeze_bn', action='store_true',
        help='leave all batch norms as they are in the weights: statistics, scales and offsets')
    add('--dropout', type=BELOW_ONE, metavar='P',
        help='share of the classifier\'s inputs that training replaces by 0 (default: that of the '
             'family, 0.2 of s3d, 0.5 of mvit_v1_b and mvit_v2_s and 0 of all others)')


def _add_optimisation_flags(parser: Parser) -> None:
    add = parser.add_argument_group('optimisation').add_argument
    add('--optimizer', default='sgd', choices=('sgd', 'adamw'),
        help='sgd: stochastic gradient descent with momentum; adamw: Adam with decoupled weight '
             'decay, for learning rates of about 0.001')
    add('--momentum', type=BELOW_ONE, default=0.9, metavar='X', help='momentum')
    add('--dampening', type=RATE, default=0.0, metavar='X',
        help='dampening of the momentum; 0 with --nesterov')
    add('--nesterov', action='store_true', help='Nesterov momentum')
    add('--adam_betas', type=BELOW_ONE, nargs=2, default=[0.9, 0.999], metavar=('B1', 'B2'),
        help='decay of the means of gradients and of their squares in adamw')
    add('--weight_decay', '--wd', type=RATE, default=1e-3, metavar='X', help='weight decay')
    add('--no_norm_decay', action='store_true',
        help='no weight decay of norms and biases')
    add('--batch_size', '--bs', type=POSITIVE, default=128, metavar='CLIPS',
        help='clips in a batch, over all processes of a node')
    add('--accumulate', type=POSITIVE, default=1, metavar='N',
        help='add up the gradients of N batches before each step, which so is that of one batch '
             'of N times --batch_size, but for batch norm')
    add('--clip_grad_norm', type=RATE, default=0.0, metavar='X',
        help='scale gradients down whose norm, over all weights, is above this; 0: do not')
    add('--batchnorm_sync', action='store_true',
        help='share batch-norm statistics between processes; needs several processes on GPUs')


def _add_schedule_flags(parser: Parser) -> None:
    add = parser.add_argument_group('learning rate and epochs').add_argument
    add('--learning_rate', '--lr', type=POSITIVE_RATE, default=0.1, metavar='X',
        help='learning rate before any decay')
    add('--lr_scheduler', default='multistep', choices=('multistep', 'plateau', 'cosine'),
        help='multistep: divide the learning rate by 10 at --multistep_milestones; plateau: when '
             'the validation loss has stopped falling; cosine: let it fall to 0 at --n_epochs '
             'along half a cosine, step by step')
    add('--multistep_milestones', type=POSITIVE, nargs='+', default=[50, 100, 150],
        metavar='EPOCH', help='epochs after which the learning rate is divided by 10')
    add('--overwrite_milestones', action='store_true',
        help='on resume take --multistep_milestones from the command line, not from the '
             'checkpoint')
    add('--plateau_patience', type=COUNT, default=10, metavar='EPOCHS',
        help='epochs without improvement before plateau divides')
    add('--warmup_epochs', type=RATE, default=0.0, metavar='EPOCHS',
        help='let the learning rate grow linearly, step by step, in the first so many epochs, '
             'which may be a fraction')
    add('--layer_decay', type=FRACTION, default=1.0, metavar='X',
        help='learning rate of each stage as a share of that of the stage behind it')
    add('--head_lr_factor', type=POSITIVE_RATE, default=1.0, metavar='X',
        help='multiplies the learning rate of the classifier')
    add('--n_epochs', '--epochs', type=POSITIVE, default=200, metavar='N',
        help='train up to this epoch')
    add('--early_stopping', type=COUNT, default=0, metavar='EPOCHS',
        help='stop after so many epochs without a better validation, by what decides which is '
             'save_best.pth; 0: do not')
    add('--clip_schedule', type=_clip_phase, nargs='+', metavar='FRAMESxPIXELS@EPOCHS',
        help='train on smaller clips first, such as 8x64@40 16x112@10: the batch grows as the clip '
             'shrinks, from --batch_size of the last, and with it the learning rate; the last is '
             'the clip of --sample_duration and --sample_size, and the epochs make --n_epochs')


def _add_regularisation_flags(parser: Parser) -> None:
    add = parser.add_argument_group('regularisation and distillation').add_argument
    add('--label_smoothing', type=BELOW_ONE, default=0.0, metavar='X',
        help='share of each target that is spread evenly over all classes')
    add('--ema_decay', type=BELOW_ONE, default=0.0, metavar='X',
        help='keep a moving average of the weights, which loses 1 - X of itself to the weights '
             'after each step; it is validated, saved beside the weights, and used wherever the '
             'checkpoint is, such as 0.999; 0: none')
    add('--teacher_path', type=Path, metavar='FILE',
        help='weights of a larger network with the same classes, or more: train towards what it '
             'gives for each clip, too (distillation)')
    add('--distill_temperature', type=POSITIVE_RATE, default=4.0, metavar='T',
        help='what the logits of both are divided by there')
    add('--distill_weight', type=FRACTION, default=0.5, metavar='X',
        help='share of that loss; the labels\' has the rest')


def _add_run_flags(parser: Parser) -> None:
    add = parser.add_argument_group('run').add_argument
    add('--opts', type=Path, metavar='FILE',
        help='take the options of an earlier run, from its opts.json: all but --resume_path; flags '
             'that are given win. Likewise @FILE takes the flags in a text file, such as '
             '@recipes/finetune.txt. To turn a switch of either off give its opposite, such as '
             '--no_tf32 for --tf32 and --train for --no_train')
    add('--resume_path', type=Path, metavar='FILE',
        help='go on with the training of this checkpoint, or of the newest in --result_path '
             '(auto; a new training where there is none, from --pretrain_path if given); with '
             '--no_train evaluate it')
    add('--no_train', action='store_true', help='do not train')
    add('--random_weights', action='store_true',
        help='with --no_train and no weights: evaluate the new network as it is, to try things or '
             'to measure')
    add('--use_ema', default='auto', choices=('auto', 'yes', 'no'),
        help='of a file that holds a moving average of the weights (--ema_decay) evaluate or '
             'fine-tune that, or with no the weights of the last step; auto: the average where '
             'there is one')
    add('--no_val', action='store_true', help='do not validate')
    add('--checkpoint', type=POSITIVE, default=10, metavar='N',
        help='write save_{epoch}.pth every N epochs')
    add('--checkpoint_minutes', type=RATE, default=0.0, metavar='M',
        help='also write save_last.pth every M minutes, with the position in the epoch; 0: only '
             'when the run is stopped')
    add('--keep', type=COUNT, default=0, metavar='N',
        help='keep the newest N of the save_{epoch}.pth; 0: all; save_best.pth, the best by video '
             'top-1 (with --multi_label by video mAP), always stays')
    add('--skip_nonfinite', action='store_true',
        help='skip steps whose loss is not finite, and count them, instead of stopping')
    add('--tensorboard', action='store_true',
        help='write TensorBoard events beside the logs')
    add('--manual_seed', '--seed', type=SEED, default=1, metavar='N',
        help='seed of everything random: weights, order, crops')


def _add_inference_flags(parser: Parser) -> None:
    add = parser.add_argument_group('inference').add_argument
    add('--inference', action='store_true',
        help='classify the videos of --inference_subset and write {inference_subset}.json')
    add('--inference_subset', default='val', choices=('train', 'val', 'test'),
        help='which videos inference is for')
    add('--inference_stride', type=POSITIVE, default=16, metavar='FRAMES',
        help='stride of the sliding window of inference')
    add('--inference_crop', default='center', choices=('center', 'nocrop'),
        help='center: centre crop; nocrop: the whole frame, a batch holds clips of one video')
    add('--inference_views', type=_views, metavar='WINDOWSxCROPS',
        help='instead of a sliding window and one crop: so many windows of a video, evenly placed '
             '(fewer of a short one), in so many crops along the long side; 10x3 is common')
    add('--inference_no_average', action='store_true',
        help='one result per window instead of one per video')
    add('--inference_batch_size', type=COUNT, default=0, metavar='CLIPS',
        help='clips in a batch of inference; 0: --batch_size')
    add('--output_topk', type=INTEGER, default=5, metavar='K',
        help='classes in a result, best first; 0 or less: all')
    add('--output_features', type=Path, metavar='FILE.h5',
        help='inference also writes features: a row per video, or with --inference_no_average '
             'a row per window')
    add('--feature_module', default='', metavar='NAME',
        help='module whose output, averaged over time and space, is written there, such as layer4; '
             'empty: the pooled features that the classifier gets')


def _add_hardware_flags(parser: Parser) -> None:
    add = parser.add_argument_group('hardware').add_argument
    add('--no_cuda', action='store_true', help='run on the CPU')
    add('--n_threads', '--num_workers', type=N_PROCESSES, default=4, metavar='N',
        help='loader processes of a node; 0: load in the main process')
    add('--fast_decode', action='store_true',
        help='decode jpg and hdf5 frames faster and less exactly: colours are rounded more '
             'coarsely, and outside of training frames come at half, a quarter ... of their size '
             'where --sample_size is that much smaller')
    add('--exact_pixels', action='store_true',
        help='make whole frames of video files, the pixels of extraction, and crop and resize '
             'these; slower: without it what is cropped is resized once, while it is decoded')
    add('--video_index', type=Path, metavar='FILE',
        help='keep there, across runs, where the key frames of video files are; made where it is '
             'missing; for raw streams (.m4v ...), .mkv and .avi, whose packets are read otherwise '
             'when a process first meets a file')
    add('--precision', default='fp32', choices=('fp32', 'bf16', 'fp16'),
        help='what the network computes in (autocast); weights stay fp32; fp16 scales the loss')
    add('--memory_format', default='auto', choices=('auto', 'channels_last', 'contiguous'),
        help='order of weights and activations in memory; auto: channels_last, but contiguous for '
             'fp32 without --tf32 on GPUs')
    add('--tf32', action='store_true',
        help='let GPUs round the inputs of fp32 products to 10 bits of mantissa')
    add('--backend', default='auto', choices=('auto', 'openvino'),
        help='what runs a network with --no_train: torch, and for an exported file what its ending '
             'says (auto), or OpenVINO, on the CPU, also for a checkpoint')
    add('--compile', action='store_true',
        help='compile the network (torch.compile); the first steps take long')
    add('--grad_checkpointing', action='store_true',
        help='keep only the inputs of blocks and compute the rest again in the backward pass: less '
             'memory, one more forward pass per step; for long clips')
    add('--profile', type=COUNT, default=0, metavar='N',
        help='write a trace of N training steps after the first 4, steps.pt.trace.json.gz, for '
             'Perfetto or TensorBoard')


def _add_distributed_flags(parser: Parser) -> None:
    add = parser.add_argument_group('distributed').add_argument
    add('--distributed', action='store_true',
        help='start one process per GPU on this node; torchrun, srun and mpirun need no flag')
    add('--dist_url', default='tcp://127.0.0.1:23456', metavar='URL',
        help='tcp://HOST:PORT of the first node')
    add('--world_size', type=between(int, 1, 2 ** 20, also=-1), default=-1, metavar='NODES',
        help='number of nodes, for --distributed; -1: one')


def _names_of(*groups: Callable[[Parser], None]) -> tuple[str, ...]:
    """Names of the flags that functions add."""
    parser = Parser('', '', has_notes=False)
    for add_flags in groups:
        add_flags(parser)
    return tuple(vars(parser.parse_args([])))


# Flags that define the network: a checkpoint records those that its family takes.
NETWORK_FLAGS = ('n_classes', 'input_type',
                 *_names_of(lambda parser: _add_architecture_flags(parser.add_argument)))
# All off by default.
AUGMENTATION_FLAGS = _names_of(_add_augmentation_flags)
# Flags that decide, beside those, how a network is trained; a checkpoint records them.
TRAINING_FLAGS = (
    *AUGMENTATION_FLAGS,
    *(name for name in _names_of(_add_optimisation_flags, _add_schedule_flags,
                                 _add_regularisation_flags) if name != 'overwrite_milestones'),
    'dataset', 'file_type', 'fast_decode', 'exact_pixels', 'bad_frames', 'train_crop',
    'train_crop_min_scale', 'train_crop_min_ratio', 'no_hflip', 'colorjitter', 'train_t_crop',
    'n_val_samples', 'ft_begin_module', 'unfreeze_epoch', 'freeze_bn', 'dropout', 'skip_nonfinite',
    'manual_seed', 'precision', 'tf32')
_GROUPS = (_add_data_flags, _add_clip_flags, _add_augmentation_flags, _add_network_flags,
           _add_optimisation_flags, _add_schedule_flags, _add_regularisation_flags, _add_run_flags,
           _add_inference_flags, _add_hardware_flags, _add_distributed_flags)


# ---------------------------------------------------------------- parsing

def build_parser(prog: str = 'python main.py',
                 description: str = 'Train, validate and run 3D ResNets for action recognition.'
                 ) -> Parser:
    """The parser of main.py, or of a command with the same flags."""
    parser = Parser(prog, description, usage='%(prog)s --video_path DIR --annotation_path FILE ...')
    for add_flags in _GROUPS:
        add_flags(parser)
    return parser


def parse_opts(argv: Sequence[str] | None = None, parser: Parser | None = None) -> Options:
    """Options from the command line (`argv`, or sys.argv). Raises InputError on a bad one.

    parser: one made by `build_parser` to which flags were added

    Words such as @recipes/scratch.txt stand for the flags in that file, and --opts for those of an
    earlier run; what is given beside them wins, as BESIDE and INSTEAD have it.
    """
    parser = parser or build_parser()
    of_files, typed = words_of_files(list(map(str, sys.argv[1:] if argv is None else argv)), parser)
    given = _given(parser, [*of_files, *typed])
    if 'opts' in given:
        of_files = [*_words_of_run(given['opts'], given, parser), *of_files]
        given = _given(parser, [*of_files, *typed])
    overridden = _overridden(parser, of_files, typed)
    values = vars(parser.parse_args([*of_files, *typed]))
    for name in overridden:
        values[name] = parser.get_default(name)
        del given[name]
    if values['root_path'] is not None:
        for name in PATH_FLAGS:
            if values[name] not in (None, Path('auto')):
                values[name] = values['root_path'] / values[name]
    implied = _implied(values, set(given))
    opts = Options(**{**values, **implied}, given=frozenset({*given, *implied}))
    check(opts)
    return opts


def _given(parser: Parser, words: Sequence[str]) -> dict[str, Any]:
    """{name: value} of the flags that stand on a command line."""
    no_values = dict.fromkeys(vars(parser.parse_part(words)))
    untouched = argparse.Namespace(**no_values)  # no default replaces these Nones
    return {name: value for name, value in vars(parser.parse_part(words, untouched)).items()
            if value is not None}


def _overridden(parser: Parser, of_files: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The flags of files that go with what is typed otherwise; see BESIDE and INSTEAD."""
    before, own = _given(parser, of_files), _given(parser, typed)
    gone = {name for flag in own for name in INSTEAD.get(flag, ())}
    for flag, value in own.items():
        if value != before.get(flag, parser.get_default(flag)):
            gone.update(BESIDE.get(flag, ()))
    return [name for name in before if name in gone and name not in own]


def _words_of_run(path: Path, given: Mapping[str, Any], parser: Parser) -> list[str]:
    """The command line of the options in an opts.json that are no defaults.

    Its paths are taken as they are: they have its --root_path in front. Raises InputError.
    """
    cure = 'give the opts.json in the result folder of a run'
    try:
        record = parse_json(read_file(path))
    except OSError as error:
        raise InputError(f'--opts {path}: cannot be read ({error.strerror}); {cure}') from None
    except ValueError as error:
        raise InputError(f'--opts {path}: not JSON ({error}); {cure}') from None
    if not isinstance(record, dict):
        raise InputError(f'--opts {path}: holds no options by name; {cure}')
    defaults = json.loads(to_json(Options(**vars(parser.parse_part([])))))
    left_out = set(NOT_REPEATED)
    if given.get('resume_path') not in (None, Path('auto')):
        left_out.add('pretrain_path')
    words, taken = [], {}
    for name, value in record.items():
        if name in left_out or value == defaults.get(name, ''):
            continue
        if name in PATH_FLAGS and 'root_path' in given and isinstance(value, str):
            value = os.path.abspath(value)
        try:
            own = as_words(name, value)
            parser.parse_part(own)
        except InputError as error:
            raise InputError(f'--opts {path}: {error}') from None
        taken[name] = value
        words += own
    try:
        parsed_record(taken)  # no value is a flag
    except InputError as error:
        raise InputError(f'--opts {path}: {error}') from None
    return words


def as_words(name: str, value: Any) -> list[str]:
    """An option as words of a command line, [] for None."""
    if value is None:
        return []
    if value is False:
        return ['--no-check_paths' if name == 'check_paths' else opposite(f'--{name}')]
    if name == 'inference_views' and isinstance(value, (list, tuple)):
        value = 'x'.join(map(str, value))
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [f'--{name}', *(str(value) for value in values if value is not True)]


def parsed_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """{flag: value} as a file records them, each as its flag takes it. Raises InputError where
    one has a value that its flag does not take."""
    argv = []
    for name, value in record.items():
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(values) > MAX_RECORDED or not all(map(_may_be_flag, values)):
            raise InputError(f'argument --{name}: a {type(value).__name__} is no value of a flag')
        argv += as_words(name, value)
    parsed = vars(build_parser().parse_args(argv))
    for name, value in record.items():
        is_list = isinstance(value, (list, tuple))
        if is_list != isinstance(parsed[name], (list, tuple)) or (
                (value is None or isinstance(value, bool)) and value is not parsed[name]):
            raise InputError(f'argument --{name}: {value} is not a value of it')
    return {name: parsed[name] for name in record}


def _may_be_flag(value: Any) -> bool:
    """True for what a value of a flag may be in a file: no text that is a flag itself, or that no
    command line can have, and no number that cannot be written as one."""
    if isinstance(value, str):
        return type(value) is str and not value.startswith('--') and is_path(value)
    return value is None or type(value) in (bool, float) or is_number(value)


def check(opts: Options) -> None:
    """Raise InputError where flags that are valid each by itself do not go together."""
    for rules in (_run_rules, _optimisation_rules, _schedule_rules, _tuning_rules, _frame_rules,
                  _augmentation_rules, _inference_rules, _path_rules):
        for broken, sentence in rules(opts):
            if broken:
                raise InputError(sentence)


def _run_rules(opts: Options) -> Rules:
    return [
        (opts.no_train and opts.no_val and not opts.inference,
         '--no_train and --no_val without --inference leave nothing to do: drop one of them'),
        (opts.random_weights and not opts.no_train,
         '--random_weights evaluates a new network, and a training begins with one anyway: drop '
         'it, or add --no_train'),
        (opts.random_weights and (opts.resume_path or opts.pretrain_path),
         '--random_weights evaluates a new network, and weights were given too: drop one of them'),
        (opts.use_ema != 'auto' and opts.resume_path and not opts.no_train,
         '--use_ema chooses the weights to evaluate or to start from, and a training goes on with '
         'those of its last step: drop it, or add --no_train'),
        (opts.use_ema != 'auto' and not opts.resume_path and not opts.pretrain_path,
         '--use_ema chooses among the weights of a file: give --resume_path or --pretrain_path, or '
         'drop it'),
        (opts.backend != 'auto' and not opts.no_train,
         f'--backend {opts.backend} runs networks and does not train them: add --no_train, or drop '
         'it'),
        (opts.keep_classifier and opts.pretrain_path is None
         and opts.resume_path in (None, Path('auto')),
         '--keep_classifier is for the classes of --pretrain_path: add --pretrain_path FILE, or '
         'drop it'),
        (opts.profile > 0 and opts.no_train,
         '--profile traces training steps: drop --no_train'),
        (opts.conv1_t_size % 2 == 0,
         f'--conv1_t_size {opts.conv1_t_size} is even: give an odd number of frames'),
        (0 < opts.sample_resize < opts.sample_size,
         f'--sample_resize {opts.sample_resize} leaves no crop of --sample_size '
         f'{opts.sample_size}: give at least as many pixels'),
    ]


def _optimisation_rules(opts: Options) -> Rules:
    of_sgd = [name for name in ('momentum', 'dampening', 'nesterov') if name in opts.given]
    return [
        (opts.lr_scheduler == 'plateau' and opts.no_val and not opts.no_train,
         '--lr_scheduler plateau watches the validation loss: drop --no_val or use multistep'),
        (opts.nesterov and opts.momentum == 0,
         '--nesterov needs a --momentum above 0'),
        (opts.optimizer != 'sgd' and of_sgd,
         f'--{"".join(of_sgd[:1])} is for --optimizer sgd, and this is {opts.optimizer}: drop it'),
        (opts.optimizer != 'adamw' and 'adam_betas' in opts.given,
         '--adam_betas is for --optimizer adamw: add that, or drop it'),
        # Scripts of 2020 have them beside plateau.
        (opts.lr_scheduler not in ('multistep', 'plateau') and 'multistep_milestones' in opts.given,
         '--multistep_milestones is for --lr_scheduler multistep, and this is '
         f'{opts.lr_scheduler}: drop one'),
        (opts.warmup_epochs >= opts.n_epochs,
         f'--warmup_epochs {opts.warmup_epochs:g} leaves none of --n_epochs {opts.n_epochs}: give '
         'fewer'),
        (opts.lr_scheduler == 'multistep' and opts.warmup_epochs > min(opts.multistep_milestones),
         f'--warmup_epochs {opts.warmup_epochs:g} is beyond the first of --multistep_milestones '
         f'({min(opts.multistep_milestones)}): give fewer, or later milestones'),
    ]


def _schedule_rules(opts: Options) -> Rules:
    phases = clip_phases(opts)
    n_epochs, last = sum(phase.n_epochs for phase in phases), phases[-1]
    return [
        (opts.n_epochs != n_epochs,
         f'--clip_schedule has {n_epochs} epochs, and --n_epochs is {opts.n_epochs}: make them the '
         'same, or leave --n_epochs out'),
        ((last.n_frames, last.size) != (opts.sample_duration, opts.sample_size),
         f'--clip_schedule ends with clips of {last.n_frames}x{last.size}, and --sample_duration '
         f'and --sample_size are {opts.sample_duration}x{opts.sample_size}: make them the same, or '
         'leave these out'),
        (any(phase.n_frames * phase.size ** 2 > last.n_frames * last.size ** 2
             for phase in phases),
         '--clip_schedule has larger clips than its last, which are those that the network is '
         'for: put these last'),
    ]


def _tuning_rules(opts: Options) -> Rules:
    of_teacher = [name for name in ('distill_temperature', 'distill_weight') if name in opts.given]
    return [
        (opts.unfreeze_epoch > 0 and not opts.ft_begin_module,
         '--unfreeze_epoch ends what --ft_begin_module begins: add that, or drop it'),
        (opts.unfreeze_epoch >= opts.n_epochs,
         f'--unfreeze_epoch {opts.unfreeze_epoch} is not before --n_epochs {opts.n_epochs}: give '
         'an earlier one'),
        (opts.freeze_bn and not opts.no_train and not opts.pretrain_path and not opts.resume_path,
         '--freeze_bn keeps the batch norms of given weights, and a new network has none worth '
         'keeping: give --pretrain_path FILE, or drop it'),
        (opts.label_smoothing > 0 and opts.multi_label,
         '--label_smoothing is for one label per video, and --multi_label has any number: drop '
         'one'),
        (opts.teacher_path is not None and opts.multi_label,
         '--teacher_path is for one label per video, and --multi_label has any number: drop one'),
        (opts.teacher_path is None and of_teacher,
         f'--{"".join(of_teacher[:1])} is for distillation: add --teacher_path FILE, or drop it'),
        (opts.early_stopping > 0 and opts.no_val and not opts.no_train,
         '--early_stopping watches the validation: drop --no_val, or it'),
    ]


def _frame_rules(opts: Options) -> Rules:
    return [
        (opts.input_type == 'flow' and opts.file_type != 'hdf5',
         '--input_type flow is read from hdf5: add --file_type hdf5'),
        (opts.fast_decode and opts.file_type == 'video',
         '--fast_decode is for JPEG frames, and --file_type video has none: drop one of them'),
        (opts.video_index is not None and opts.file_type != 'video',
         '--video_index is for video files: add --file_type video, or drop it'),
        (opts.frame_template is not None and opts.file_type != 'jpg',
         '--frame_template is for folders of frames: add --file_type jpg, or drop it'),
        (opts.exact_pixels and opts.file_type != 'video',
         '--exact_pixels is for video files: add --file_type video, or drop it'),
    ]


def _augmentation_rules(opts: Options) -> Rules:
    n_operations, magnitude = opts.rand_augment or (0, 0)
    low, high = opts.speed_jitter or (1, 1)
    jitter = [] if isinstance(opts.colorjitter, bool) else opts.colorjitter
    mixes = '--mixup' if opts.mixup else '--cutmix'
    is_mixed, is_flow = opts.mixup or opts.cutmix, opts.input_type == 'flow'
    n_draws = opts.repeated_aug
    return [
        (magnitude > 30,
         f'--rand_augment has magnitudes of 0 to 30, not {magnitude}: give a smaller M'),
        (n_operations > 100,
         f'--rand_augment {n_operations} {magnitude} leaves nothing of a clip: give an N of at '
         'most 100'),
        (is_flow and opts.rand_augment,
         '--rand_augment is for images, and optical flow is none: drop it'),
        (is_flow and opts.colorjitter,
         '--colorjitter is for colours, and optical flow has none: drop it'),
        (jitter and len(jitter) != 4,
         f'--colorjitter takes no number or four (brightness, contrast, saturation, hue), not '
         f'{len(jitter)}: give the others too'),
        (len(jitter) == 4 and jitter[3] > 0.5,
         '--colorjitter turns hue by at most 0.5, half of the colour circle: give a smaller '
         'fourth number'),
        (low > high, f'--speed_jitter {low:g} {high:g} has LOW above HIGH: swap them'),
        (not 0.01 <= low <= high <= 100,
         f'--speed_jitter {low:g} {high:g} is no change of speed: give 0.01 to 100'),
        *((not 0.001 <= alpha <= 1000,
           f'--{name} {alpha:g} is a proportion that is always the same: give 0.001 to 1000, or 0')
          for name, alpha in (('mixup', opts.mixup), ('cutmix', opts.cutmix)) if alpha),
        (opts.batch_size % n_draws,
         f'--batch_size {opts.batch_size} is no multiple of --repeated_aug {n_draws}: give '
         f'--batch_size {(opts.batch_size // n_draws + 1) * n_draws}, say'),
        (is_mixed and opts.batch_size == 1,
         f'{mixes} mixes the clips of a batch, and --batch_size 1 has one: give a larger batch'),
        (is_mixed and opts.class_weights != 'none',
         f'{mixes} makes clips of two classes, and --class_weights weighs a clip by one: drop one '
         'of them; --balanced_sampling goes with both'),
        (opts.balanced_sampling and opts.class_weights != 'none',
         '--balanced_sampling and --class_weights both make up for rare classes: drop one of them'),
    ]


def _inference_rules(opts: Options) -> Rules:
    return [
        (opts.inference_views is not None and opts.inference_crop == 'nocrop',
         '--inference_views are crops, and --inference_crop nocrop is none: drop one'),
        (opts.inference_views is not None and 'inference_stride' in opts.given,
         '--inference_views place windows evenly, and --inference_stride places them otherwise: '
         'drop one'),
        (opts.output_features is not None and opts.output_features.is_dir(),
         f'--output_features {opts.output_features}: is a folder; give a file in it'),
        (is_special(opts.output_features),
         f'--output_features {opts.output_features}: is a pipe, socket or device; give a file'),
        (opts.output_features is not None and opts.output_features.suffix not in HDF5_ENDINGS,
         f'--output_features {opts.output_features}: it is an HDF5 file that is written; let its '
         'name end with .h5'),
        (opts.output_features is not None and not opts.inference,
         '--output_features are those of an inference: add --inference'),
        (opts.feature_module and opts.output_features is None,
         '--feature_module says which features are written: add --output_features FILE.h5'),
    ]


def _path_rules(opts: Options) -> Rules:
    needed = {'video_path': 'folder of frames', 'annotation_path': 'annotation JSON',
              'result_path': 'folder for results'}
    return [
        (opts.resume_path not in (None, Path('auto')) and opts.pretrain_path is not None,
         '--resume_path and --pretrain_path are both given: --resume_path goes on with a '
         'training, --pretrain_path starts a new one; keep one of them'),
        *((getattr(opts, name) is None, f'--{name} is missing: give the path of the {what}')
          for name, what in needed.items()),
    ]
