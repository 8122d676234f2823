"""Exporting: a network as a program that runs without this code (torch.export, ONNX, OpenVINO).

    program = program_of(network, clips, free=(2,))    # any number of clips, and of frames
    write_onnx(path, program, record)
"""

import copy
import errno
import hashlib
import io
import json
import keyword
import os
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
from torch import nn

from runtime.engines import INPUT, RECORD, compiled, extra, quiet
from runtime.errors import InputError
from runtime.files import replacing

OPSET = 20
# Axes of clips (N, C, T, H, W) that may be of any size, and the flags that make them so.
TIME, SIZE = (2,), (3, 4)
# Sizes that free axes of an example have: no map in a network shrinks to one place, which programs
# would be made for, and no two sizes are the same by chance.
LARGE = {2: 72, 3: 320, 4: 352}
AXES = {0: 'N', 2: 'T', 3: 'H', 4: 'W'}


def program_of(network: nn.Module, clips: torch.Tensor, free: Collection[int] = ()
               ) -> torch.export.ExportedProgram:
    """The network in evaluation mode as a program, whose input is called `clips`.

    clips: an example, (N, C, T, H, W), of two clips or more
    free:  axes beside that of the batch whose size may be any

    Raises InputError for a network that cannot be exported, or not with these axes.
    """
    network = _without_keywords(copy.deepcopy(network).cpu().eval())
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in (0, *free)}
    # Nothing is computed here, so that large sizes cost nothing.
    clips = clips.new_zeros([LARGE[axis] if axis in free else size
                             for axis, size in enumerate(clips.shape)])
    try:
        # Else the sizes of the example decide: a map of one frame would stay of one frame.
        with (torch.no_grad(), quiet(), fx_config.patch(  # type: ignore[attr-defined]
                backed_size_oblivious=True)):
            return torch.export.export(_Named(network), (clips,),
                                       dynamic_shapes={INPUT: dynamic})
    except InputError:
        raise
    except Exception as error:  # torch's exporter fails in many ways
        if free:
            axes = ['number of frames'] * (TIME[0] in free) + ['height and width'] * (
                SIZE[0] in free)
            raise InputError('this network takes clips of one size alone: its program cannot be '
                             f'made for any {" or ".join(axes)} ({_reason(error)}); drop '
                             '--dynamic_time or --dynamic_size') from None
        raise InputError(f'torch.export cannot make a program of this network '
                         f'({_reason(error)}); write .safetensors, which hold weights '
                         'alone') from None


class _Named(nn.Module):
    """A network whose argument is called as the input of exported files is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(clips)


def _without_keywords(network: nn.Module) -> nn.Module:
    """The network with its modules called nonlocal_ where they were `nonlocal`.

    The code that torch's exporter writes names them, and cannot by a keyword of Python.
    """
    for module in network.modules():
        for name in [name for name in module._modules if keyword.iskeyword(name)]:
            module._modules[f'{name}_'] = module._modules.pop(name)
            for key, value in vars(module).items():
                if isinstance(value, tuple) and name in value:  # the steps of a block
                    setattr(module, key, tuple(f'{step}_' if step == name else step
                                               for step in value))
    return network


def write_program(path: Path, program: torch.export.ExportedProgram,
                  record: Mapping[str, Any]) -> None:
    """Write a .pt2 with the record inside. Raises OSError."""
    with quiet(), io.BytesIO() as file:
        torch.export.save(program, file, extra_files={RECORD: json.dumps(record)})
        path.write_bytes(file.getvalue())


def onnx_model(program: torch.export.ExportedProgram, output: str) -> Any:
    """The program as an ONNX model (onnx.ModelProto); `output` names what it gives.

    Raises InputError for an operator that ONNX has not.
    """
    for name in ('onnx', 'onnxscript'):
        extra(name, 'export to ONNX or OpenVINO')
    try:
        with quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET,
                                     input_names=[INPUT], output_names=[output])
            assert made is not None
            model = made.model_proto
    except Exception as error:  # torch's exporter fails in many ways
        raise InputError(f'this network cannot be exported to ONNX ({_reason(error)}); write '
                         '.pt2, which torch runs, or .safetensors') from None
    _name_by_modules(model.graph)
    for axis, size in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if size.dim_param:
            size.dim_param = AXES[axis]
    return model


def _name_by_modules(graph: Any) -> None:
    """Let nodes with weights be called as the module that has these: layer1.0.conv1."""
    taken = set()
    for node in graph.node:
        weight = node.input[1] if len(node.input) > 1 else ''
        name = re.sub(r'^(network\.)+', '', weight).removesuffix('.weight')
        if name != weight and name not in taken:
            taken.add(name)
            node.name = name


def store_as_half(model: Any) -> None:
    """Let the large weights of an ONNX model be stored in 16 bits; it computes as before."""
    onnx = extra('onnx', 'export to ONNX')
    large = [tensor for tensor in model.graph.initializer
             if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1]
    casts = []
    for tensor in large:
        values = onnx.numpy_helper.to_array(tensor).astype('float16')
        name, half_name = tensor.name, f'{tensor.name}_half'
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, half_name))
        casts.append(onnx.helper.make_node('Cast', [half_name], [name], f'{name}_cast',
                                           to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    shapes = [info for info in model.graph.value_info]
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        info for info in shapes if info.name not in {tensor.name for tensor in large})


def write_onnx(path: Path, model: Any, record: Mapping[str, Any], *, is_half: bool = False
               ) -> None:
    """Write an ONNX model with the record inside. Raises OSError."""
    if is_half:
        store_as_half(model)
    onnx = extra('onnx', 'export to ONNX')
    onnx.helper.set_model_props(model, {
        **{entry.key: entry.value for entry in model.metadata_props if entry.key != RECORD},
        RECORD: json.dumps(record)})
    onnx.save(model, path)


def openvino_model(program: torch.export.ExportedProgram, output: str) -> Any:
    """The program as OpenVINO's model (openvino.Model); `output` names what it gives.

    By ONNX, which keeps the names of layers; what that cannot say, OpenVINO takes from the program
    itself. Raises InputError for an operator that it has not.
    """
    openvino = extra('openvino', 'export to OpenVINO')
    model = onnx_model(program, output)
    try:
        return openvino.Core().read_model(model.SerializeToString())
    except Exception:  # OpenVINO's own, such as for the masks of Swin
        pass
    try:
        with quiet():
            found = openvino.convert_model(program)
        sizes = [size.dim_value or -1 for size in model.graph.input[0].type.tensor_type.shape.dim]
        found.reshape(sizes)
        found.input(0).get_tensor().set_names({INPUT})
        found.output(0).get_tensor().set_names({output})
        return found
    except Exception as error:
        raise InputError(f'OpenVINO cannot take this network ({_reason(error)}); write .onnx, '
                         'which ONNX Runtime runs, or .pt2') from None


def write_openvino(path: Path, model: Any, record: Mapping[str, Any], *,
                   is_half: bool = False) -> None:
    """Write an IR, `path` (.xml) and its weights in a .bin beside it, with the record inside.
    Raises OSError."""
    model.set_rt_info(json.dumps(record), RECORD)
    _save(model, path, is_half)


def _save(model: Any, path: Path, is_half: bool = False) -> None:
    import openvino
    try:
        openvino.save_model(model, path, compress_to_fp16=is_half)
    except RuntimeError:  # it does not say more
        raise OSError(errno.EIO, 'OpenVINO cannot write there') from None


WRITERS: dict[str, Callable[..., None]] = {'.onnx': write_onnx, '.xml': write_openvino}


# ---------------------------------------------------------------- OpenVINO for a checkpoint

def compiled_network(network: nn.Module, clip_shape: Sequence[int], key: str, precision: str
                     ) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as OpenVINO runs it, for any number of clips (C, T, H, W).

    Made once for each `key`, and then taken from the user's cache. Raises InputError.
    """
    openvino = extra('openvino', '--backend openvino')
    name = hashlib.sha256(f'{key} {openvino.__version__}'.encode()).hexdigest()[:24]
    folder = _cache_folder()
    path = folder / f'{name}.xml'
    if path.exists():
        with suppress(RuntimeError):  # what lies there may be damaged, and is then made again
            return compiled(path, precision, folder)
    program = program_of(network, torch.randn(2, *clip_shape))
    model = openvino_model(program, 'logits')
    with (replacing(path.with_suffix('.bin')) as weights, replacing(path) as temporary,
          tempfile.TemporaryDirectory(prefix='.', dir=folder) as own):
        made = Path(own) / path.name
        _save(model, made)
        made.with_suffix('.bin').rename(weights)
        made.rename(temporary)
    return compiled(path, precision, folder)


def _cache_folder() -> Path:
    """Where compiled networks are kept, for this user. Raises InputError."""
    given = os.environ.get('XDG_CACHE_HOME')
    try:
        folder = Path(given or Path.home() / '.cache') / '3d-resnets'
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, RuntimeError) as error:  # the second where no home is known
        raise InputError('--backend openvino keeps what it compiles, and cannot in '
                         f'{given or "~/.cache"} ({getattr(error, "strerror", error)}); give '
                         'another folder in the variable XDG_CACHE_HOME') from None
    return folder


def _reason(error: BaseException) -> str:
    """What an exporter could not do, in a few words: the operator, where it names one."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 9:
        causes.append(cause)
    text = re.sub(r'\x1b\[\d+m', '', '\n'.join(map(str, causes)))
    operator = re.search(r'aten[.:]+[\w.]+', text)
    lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
    said = lines[0][:120] if lines else type(error).__name__
    return f'{operator[0]}: {said}' if operator else said
