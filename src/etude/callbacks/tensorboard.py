"""TensorBoard: the scalars of a run as event files, each point once however often the run was killed."""

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from etude.base.files import make_folder, storage
from etude.base.regular import reading
from etude.callbacks.rows import parameters, placed, sweep_of
from etude.train.watch.callback import RunView

METRICS = "metrics.jsonl"
NOT_SCALARS = frozenset({"step", "tokens", "samples"})
"""Keys of a row that say where it stands."""

SESSION = "_hparams_/session_start_info"
"""Where the plugin "hparams" looks for the parameters of a run."""
TAIL_BYTES = 1 << 18
"""How much of the end of `metrics.jsonl` is read: more than the rows that one process can have cut and one step has."""


class TensorBoardLogger:
    """Writes every number of a row against its step, at once, so that what a kill leaves is whole.

    Each file begins with the config as hyper-parameters, by which TensorBoard lists and filters runs. The file is
    opened by the first row. Points that an earlier process wrote after the checkpoint from which this one
    goes on are taken back, by the mark that TensorBoard knows for a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._parameters: dict[str, bool | float | str] = {}

    def on_fit_start(self, run: RunView) -> None:
        """Remember the config."""
        self._parameters = parameters(run.config)

    def log(self, row: Mapping[str, object]) -> None:
        """Write one row."""
        step, numbers = placed(row, NOT_SCALARS)
        if self._file is None:
            self._open(step)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, step: int) -> None:
        make_folder(self._folder)
        earlier = any(self._folder.glob("events.out.tfevents.*"))
        now = time.time()
        # TensorBoard reads files in the order of their names: nanoseconds keep two starts in one second apart.
        name = f"events.out.tfevents.{int(now):010d}.{time.time_ns() % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
        with storage("write", self._folder / name):
            self._file = (self._folder / name).open("xb", buffering=0)
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if earlier:
            mark = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=now, step=self._first_new(step), session_log=mark))
        if self._parameters:
            self._write(Event(wall_time=now, summary=self._described(now)))

    def _described(self, now: float) -> Summary:
        """The parameters as the plugin "hparams" reads them, under the names of the sweep and of the run.

        Written here because tensorboard's own function takes seconds to import.
        """
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        run = self._folder.absolute().parent
        names = filter(None, (sweep_of(run), run.name))
        told = SessionStartInfo(group_name="/".join(names), start_time_secs=now)
        for name, value in self._parameters.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(told.hparams[name], kind, value)
        content = HParamsPluginData(session_start_info=told, version=0).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
        nothing = TensorProto(
            dtype=1, float_val=[0.0], tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        )
        value_ = Summary.Value(tag=SESSION, metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)
        return Summary(value=[value_])

    def _first_new(self, step: int) -> int:
        """The first step that this process logs anew: one after the last that the resumed `metrics.jsonl` kept."""
        try:
            kept = [found for found in self._logged() if found < step]
        except (OSError, ValueError, KeyError):
            return step
        return kept[-1] + 1 if kept else 0

    def _logged(self) -> list[int]:
        """The steps of the last rows of `metrics.jsonl`."""
        with reading(self._folder.parent / METRICS) as rows:
            size = rows.seek(0, os.SEEK_END)
            rows.seek(max(0, size - TAIL_BYTES))
            lines = rows.read().split(b"\n")[1 if size > TAIL_BYTES else 0 :]
        return [json.loads(line)["step"] for line in lines if line]

    def _write(self, event: Event) -> None:
        if self._file is not None:
            self._file.write(framed(event.SerializeToString()))


def framed(content: bytes) -> bytes:
    """A record of an event file: length, its checksum, content, its checksum, all little-endian.

    Written here because tensorboard's own writer takes a third of a second to import.
    """
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))


def masked_crc32c(content: bytes) -> int:
    """The checksum of records: CRC-32C (RFC 3720), rotated and shifted so that checksums of checksums differ.

    >>> hex(masked_crc32c(b"123456789"))
    '0xc78ab0e5'
    """
    crc = FULL
    for byte in content:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= FULL
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & FULL


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


FULL: Final = 0xFFFFFFFF
TABLE: Final = tuple(_entry(value) for value in range(256))
