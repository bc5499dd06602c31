"""What a worker does between its first and its last event: measurement, reconstruction, result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import DiffusionMBIRLib as mbir

from .. import rates
from ..devices import choose_device, device_name, precision_name
from ..errors import EngineError, InputError
from ..estimate import estimate, pixels_seen, stages
from ..geometry import Grid
from ..io.scan_npz import read_npz, write_npz
from ..methods import NETWORK_METHODS
from ..metrics import uncertainty, uncertainty_text
from ..models import find, sha256
from ..pace import pace_of, place_of
from ..preparation.thick_slices import slices_of
from ..priors.checkpoints import precision_of
from ..provenance import plain, software_version
from ..reconstruction import Result, reconstruct
from ..simulation.settings import CTScan
from ..tasks import SLICE_TASKS
from ..volume import Volume
from . import preview
from .asking import read_input
from .control import ClientGone, Control
from .files import NotSaved, sync, write_text
from .folder import BEGUN, DEVIATION, INPUT, MEASURED, PROVENANCE, RESULT, STATE, JobFolder
from .keeper import Keeper
from .machine import memory
from .messages import Event, Finished, Log, Prepared
from .partial import NAME as PARTIAL
from .partial import write_partial
from .preview import PreviewWriter
from .watch import Clock, TimedStage, Watch

_SMALL_SCAN = 64 << 20  # bytes


class Task:
    """One run of a job.  Raises what the engine raises, and OSError where the disk is full."""

    def __init__(self, folder: JobFolder, control: Control, send: Callable[[Event], None]) -> None:
        self._folder, self._control, self._send = folder, control, send
        self._request = folder.request
        self._settings = self._request.recon_settings()
        self._device = choose_device(self._request.device)
        self._prior_sha256 = sha256(find(self._settings.prior)) if self._uses_prior else ""
        self._precision = self._freeze()
        self._began = time.monotonic()
        self._keeper: Keeper | None = None
        self._watch: Watch | None = None
        self._grid: Grid | None = None
        self._unit = "HU"
        self._pace = rates.Pace()
        self._of_solver = 0.0  # seconds that are predicted for all but the network

    @property
    def _uses_prior(self) -> bool:
        return self._settings.method in NETWORK_METHODS

    def _freeze(self) -> str:
        """Note what the run finds and give its precision; one that goes on from a state keeps to what was noted.

        It would give another volume otherwise.
        """
        now = {"prior_sha256": self._prior_sha256, "device": self._device.type, "version": software_version()}
        begun, resumed = self._folder.begun(), self._folder.resumable
        if begun and begun.get("prior_sha256") != now["prior_sha256"]:
            raise InputError(
                f"prior {Path(self._settings.prior).stem!r} is no longer the file that this job began with "
                "(its SHA-256 differs); bring that file back or begin a new job"
            )
        if begun and resumed and begun.get("device") != now["device"]:
            raise InputError(
                f"this job began on {begun.get('device')}, which is not the device now ({now['device']}); "
                "resume it there or begin a new job"
            )
        precision = self._precision_of(self._settings.precision)
        if begun and resumed:
            frozen = begun.get("precision", precision)
            if frozen != precision:
                self._send(Log("info", f"the job goes on in {frozen}, as it began, not in {precision}"))
            return self._precision_of(frozen)
        write_text(self._folder.path / BEGUN, json.dumps({**now, "precision": precision}))
        return precision

    def _precision_of(self, wanted: str) -> str:
        """The precision of the network, if the method has one; raises InputError where the device cannot do it."""
        if not self._uses_prior:
            return "float32"
        return precision_name(precision_of(self._settings.prior, wanted, self._device))

    # --- the run

    def run(self) -> Finished:
        """The whole job; returns its last word."""
        try:
            return self._run()
        finally:
            if self._watch is not None:
                self._watch.close()

    def _run(self) -> Finished:
        source = self._source()
        if not self._control.warm:
            rates.note(place_of(self._device).start_key(), time.monotonic() - self._control.made)
        _slices, rows, columns = self._shape_of(source)
        # While a cancel still ends at once.
        self._pace = pace_of(self._settings, self._request.task, self._device, rows * columns)
        self._control.begin()
        self._watch = self._watcher(source)
        measurement, truth = self._measure(source) if isinstance(source, Volume) else (source, None)
        for note in measurement.notes:
            self._send(Log("info", note))
        self._grid, self._unit = measurement.result_grid, measurement.unit
        self._prepare(measurement, has_truth=truth is not None)
        result = self._reconstruct(measurement)
        self._keep_scan(measurement)
        return self._save(result, truth)

    def _keep_scan(self, measurement: Any) -> None:
        """For a report later on: a scan that was simulated, or whose file goes with the job's end, is nowhere else."""
        if (self._request.input["kind"] == "file" and not self._request.scan) or measurement.data.nbytes > _SMALL_SCAN:
            return
        with suppress(EngineError, InputError):  # a page without it is still one
            write_npz(measurement, self._folder.path / MEASURED)

    def _reconstruct(self, measurement: Any) -> Result:
        assert self._keeper is not None
        run = partial(
            reconstruct,
            measurement,
            settings=self._settings,
            device=str(self._device),
            precision=self._precision,
            monitor=self._watch,
            checkpoint=self._keeper,
        )
        return self._keeper.going_on(run)

    def _source(self) -> Any:
        """The measurement, or the volume that a scan is to be simulated of; thick slices are a measurement."""
        source, request = self._read(), self._request
        if isinstance(source, Volume) and request.task in SLICE_TASKS:
            given = {name: value for name, value in request.scan.items() if name != "seed"}
            return slices_of(source, request.task, given)
        return source

    def _read(self) -> Any:
        entries, request = self._request.input, self._request
        if entries["kind"] == "file":
            return read_input(entries)
        if entries["kind"] != "folder":
            raise InputError("this job was made by an older version, which keeps its input otherwise; begin a new job")
        path = self._folder.path / INPUT
        try:
            return replace(read_npz(path), name=request.name)
        except InputError as error:
            raise InputError(f"{path}: the job's input is missing or damaged; begin a new job") from error

    def _shape_of(self, source: Any) -> tuple[int, int, int]:
        slices, rows, columns = source.grid.shape
        factor = self._coarsen if isinstance(source, Volume) else 1
        return slices, max(1, rows // factor), max(1, columns // factor)

    @property
    def _coarsen(self) -> int:
        scan = self._request.scan_settings()
        return scan.coarsen if isinstance(scan, CTScan) else 1

    def _measure(self, volume: Volume) -> tuple[Any, Volume]:
        task, scan = self._request.task, self._request.scan
        truth = mbir.truth_for(volume, self._coarsen, task=task)
        return mbir.simulate(volume, task=task, monitor=self._watch, **scan), truth

    def _watcher(self, source: Any) -> Watch:
        simulated = isinstance(source, Volume)
        shape = self._shape_of(source)
        about = self._request.scan_settings() if simulated else source.geometry
        views, coils = getattr(about, "views_of_a_point", 0), getattr(about, "coils", 1)
        asked, task = self._settings, self._request.task
        kind = getattr(about, "scanner", getattr(about, "KIND", ""))
        of_scan: dict[str, Any] = {"views": views, "coils": coils, "scanner": kind}
        of_scan["views_in_all"] = None if simulated else getattr(about, "views", None)
        parts = stages(shape, asked, task, pace=self._pace, simulated=simulated, **of_scan)
        total = memory(self._device)[0] or None
        pace = replace(self._pace, start_s=0.0)  # it has started
        told = estimate(shape, asked, task, pace=pace, device_memory=total, simulated=simulated, **of_scan)
        solver_alone = replace(pace, network=0.0)
        self._of_solver = sum(stages(shape, asked, task, pace=solver_alone, simulated=simulated, **of_scan).values())
        self._send(Log("info", told.text))
        passes = {"diffusion": self._settings.samples}
        clock = Clock([TimedStage(name, s, passes.get(name, 1)) for name, s in parts.items()], time.monotonic())
        watch = Watch(self._control, clock, self._send)
        watch.on_no_room = lambda error: self._warn(f"previews are off: {error.strerror}; make room on the disk")
        self._keeper = Keeper(
            self._folder.path / STATE,
            self._fingerprint(),
            warn=self._warn,
            expected_s=clock.expected_s,
            client_gone=lambda: self._control.client_gone,
        )
        watch.steps_done = self._keeper.steps_done
        return watch

    def _fingerprint(self) -> str:
        what = [self._request.to_json(), self._prior_sha256, self._device.type, self._precision, software_version()]
        return hashlib.sha256("\n".join(what).encode()).hexdigest()

    def _prepare(self, measurement: Any, *, has_truth: bool) -> None:
        assert self._watch is not None
        assert self._grid is not None
        if self._control.client_gone:
            raise ClientGone
        total, free = memory(self._device)
        views = int(getattr(measurement.geometry, "views", 0))
        shape, grid = list(self._grid.shape), self._grid.to_dict()
        self._send(Prepared(shape, grid, self._unit, device_name(self._device), total, free, views, has_truth))
        try:
            self._watch.writer = PreviewWriter(self._folder.path / preview.NAME, self._grid.shape)
        except OSError as error:
            self._watch.on_no_room(error)
        self._watch.begin()

    def _warn(self, text: str) -> None:
        self._send(Log("warning", text))

    # --- results

    def _save(self, result: Result, truth: Volume | None) -> Finished:
        assert self._watch is not None
        assert self._keeper is not None
        self._watch.show(result.volume.array, self._watch.step)
        folder = self._folder.path
        try:
            result.volume.save(folder / RESULT)
            sync(folder / RESULT)
            if result.deviation is not None:
                result.deviation.save(folder / DEVIATION)
            if result.doubt is not None:
                result.doubt.save_beside(folder / RESULT)
            write_text(folder / PROVENANCE, json.dumps(plain(result.provenance), indent=1) + "\n")
        except (EngineError, OSError) as error:
            raise NotSaved(f"{RESULT} could not be written; make room and resume the job") from error
        with suppress(OSError):
            (folder / PARTIAL).unlink(missing_ok=True)
        self._note_pace(result)
        for remark in result.provenance.get("remarks", ()):
            self._warn(remark)
        metrics = _judge(result.volume, truth) if truth is not None else None
        if truth is not None and result.deviation is not None:
            known = uncertainty(result.volume, result.deviation, truth, samples=self._settings.samples)
            self._send(Log("info", f"standard deviation against error: {uncertainty_text(known)}"))
        seconds = self._keeper.seconds()
        return Finished(seconds, result.residual, result.nfe, result.network_seconds, metrics, RESULT, False)

    def _note_pace(self, result: Result) -> None:
        """Remember how fast this run was: the network, and all else against what was predicted for it."""
        assert self._watch is not None
        assert self._keeper is not None
        place, shape = place_of(self._device), result.volume.grid.shape
        pixels = shape[1] * shape[2]
        if result.nfe and result.network_seconds > 0:
            seen = result.network_seconds / (result.nfe * pixels_seen(shape, self._settings))
            rates.note(place.network_key(self._settings), seen, pixels)
        rest = self._watch.worked_s() - result.network_seconds
        if self._pace.solver and self._of_solver > 0 and rest > 0 and not self._keeper.seconds_before:
            rates.note(place.solver_key(self._request.task), self._pace.solver * rest / self._of_solver, pixels)

    def keep_partial(self) -> Finished:
        """The last word of a cancelled run; writes the newest estimate that was shown."""
        found, path = self._newest(), self._folder.path / PARTIAL
        if found is not None and self._grid is not None:
            write_partial(path, found[0], self._grid, unit=self._unit, step=found[1])
        name = PARTIAL if path.is_file() else ""
        seconds = self._keeper.seconds() if self._keeper else 0.0
        return Finished(seconds, None, 0, 0.0, None, name, True)

    def _newest(self) -> tuple[np.ndarray, int] | None:
        if self._watch is not None and self._watch.newest is not None:
            return self._watch.newest
        return preview.PreviewReader(self._folder.path / preview.NAME).read()


def _judge(volume: Volume, truth: Volume) -> dict[str, Any]:
    judged = mbir.evaluate(volume, truth)
    return {key: value for key, value in judged.items() if isinstance(value, dict)}
