"""What training, validation and inference of one run share."""

import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from features import FeatureTap
from models.base import Classifier
from opts import Options, to_json
from runtime import distributed, logs
from runtime.errors import Stopped, StopSignals
from runtime.files import write_json, write_opts
from runtime.hardware import environment
from runtime.locks import result_folder
from tasks import Task
from weights import Weights


@dataclass(frozen=True)
class Run:
    """One run of main.py in one of its processes.

    weights:        the weights file that it starts from, None without
    description:    what a checkpoint says of the network, beside the training state
    loaders:        by split, those that the run needs
    network:        the network itself; `in_precision` is it in the precision and memory format of
                    the run, and `model` what is trained, parallel or not
    normalize:      makes the network's input, on the device
    tap:            catches the features that --output_features wants, None without
    command:        the whole command that goes on with this run's training, '' where a launcher's
                    part of it is not known
    """

    opts: Options
    world: distributed.World
    device: torch.device
    log: logs.RunLog
    stop: StopSignals
    weights: Weights | None
    class_names: tuple[str, ...]
    description: Mapping[str, Any]
    loaders: Mapping[str, Any]
    network: Classifier
    in_precision: nn.Module
    model: nn.Module
    normalize: nn.Module
    task: Task
    tap: FeatureTap | None
    command: str

    def take_folder(self, held: ExitStack) -> None:
        """Have the result folder until `held` ends, and set aside what an earlier training left
        there: called once nothing is left to be refused. Raises InputError."""
        opts = self.opts
        if not self.world.is_main:
            return
        held.enter_context(result_folder(opts.result_path, is_training=not opts.no_train,
                                         is_new=opts.resume_path is None))
        write_opts(opts.result_path, to_json(opts))
        write_json(opts.result_path / 'environment.json', environment(self.device))
        self.log.options({name: value for name, value in vars(opts).items() if name != 'given'})

    def evaluated_model(self) -> nn.Module:
        """What evaluation calls: processes have different numbers of batches, so none waits for
        another in it."""
        if self.world.size == 1:
            return self.model
        distributed.share_buffers(self.network)
        return self.in_precision

    def stop_asked(self) -> int:
        """The signal that asked any process to stop, 0 for none; the same answer in all of them.
        All processes call it."""
        asked = torch.tensor([self.stop.signum], device=self.device)
        if int(distributed.total(asked)):
            self.stop.signum = self.stop.signum or signal.SIGTERM
        return self.stop.signum

    def stopped(self, cure: str = '') -> Stopped:
        """The Stopped to raise: only rank 0 says how to go on, with --resume_path auto by default.
        """
        name = signal.Signals(self.stop.signum).name
        if not cure:
            cure = 'go on with --resume_path auto' + (f': {self.command}' if self.command else '')
        return Stopped(self.stop.signum,
                       f'stopped by {name}; {cure}' if self.world.is_main else '')
