"""The page: a column of settings beside the slice views, and what becomes of them.

What a browser may change are the entries of the shared state; ``session`` checks them.  All who have the page open see
the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import quote

from trame.app import get_server
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v3

from ..errors import EngineError, InputError, one_line
from ..jobs.messages import Event, Failed, Finished, Log, Prepared, Preview, Progress
from ..provenance import NOTICE
from ..tasks import task_info
from .session import Look, Session, Wish, amount_of, event_line, presets_for
from .views import GIVEN, RESULT, Views, window_of

_EVERY_S = 0.1
_WIDTH = 330
_WISHED = tuple(item.name for item in fields(Wish))
_REFUSALS = (InputError, EngineError, OSError, MemoryError)


class Page:
    """One server of trame with its state, views and run."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.server = get_server("diffusionmbir", client_type="vue3")
        self._state = self.server.state
        self._views = Views(self.server)
        self._look: Look | None = None
        self._tasks: set[Any] = set()
        self._state.update(
            {
                "trame__title": "DiffusionMBIR", "sources": session.sources.names(), "source": None,
                "tasks": [], "task": None, "amount": "", "amount_label": "", "coarsen": "", "can_coarsen": False,
                "presets": [], "preset": None, "steps": "", "is_scan": False,
                "running": False, "ending": False, "looking": False, "line": "", "fraction": 0.0, "problem": "",
                "saved": "", "shown": GIVEN, "has_given": False, "has_result": False,
                "window": [0.0, 1.0], "window_range": [0.0, 1.0], "unit": "", "previews": 0,
            }
        )  # fmt: skip
        self._state.change("source")(self._on_source)
        self._state.change("task")(self._on_task)
        self._state.change("shown")(self._on_shown)
        self._state.change("window")(self._on_window)
        self._build()

    def begin(self) -> None:
        """The server is up: choose what is there, and follow runs from now on."""
        with self._state:
            self._state.source = self._state.sources[0]
        self._spawn(self._follow())

    def add_routes(self, app: Any) -> None:
        """The newest result, to be fetched by the browser."""
        from aiohttp import web

        async def fetch(request: Any) -> Any:
            path = self.session.saved
            if path is None or not path.is_file():
                raise web.HTTPNotFound
            named = f"attachment; filename*=UTF-8''{quote(path.name)}"
            return web.FileResponse(
                path, headers={"Content-Disposition": named, "Content-Type": "application/octet-stream"}
            )

        app.router.add_get("/result", fetch)

    # --- what it looks like

    def _build(self) -> None:
        with VAppLayout(self.server) as layout:
            layout.root.theme = "dark"
            client.Style("html { overflow-y: auto; }")  # no bar for scrolling where nothing is to be scrolled
            with v3.VAppBar(density="compact"):
                v3.VAppBarTitle("DiffusionMBIR")
                html.Div(NOTICE, classes="mr-4 text-warning", id="notice")
            with (
                v3.VNavigationDrawer(permanent=True, width=_WIDTH, location="left"),
                html.Div(classes="pa-3 d-flex flex-column", style="gap:10px"),
            ):
                self._build_settings()
                self._build_run()
                self._build_shown()
            with v3.VMain(), html.Div(style="height:calc(100vh - 48px);display:flex", id="views"):
                self._views.place(layout)

    def _build_settings(self) -> None:
        free = {"disabled": ("running || looking",), "density": "compact", "hide_details": True}
        number: dict[str, Any] = {**free, "type": "number"}
        v3.VSelect(label="Data", v_model=("source",), items=("sources",), id="source", **free)
        v3.VSelect(label="Task", v_model=("task",), items=("tasks",), v_show="!is_scan", id="task", **free)
        v3.VTextField(label=("amount_label",), v_model=("amount",), v_show="!is_scan", id="amount", **number)
        v3.VTextField(
            label="Coarser grid (1: as it is)", v_model=("coarsen",), v_show="!is_scan && can_coarsen", id="coarsen",
            **number,
        )  # fmt: skip
        v3.VSelect(label="Preset", v_model=("preset",), items=("presets",), id="preset", **free)
        v3.VTextField(label="Steps (empty: of the preset)", v_model=("steps",), id="steps", **number)

    def _build_run(self) -> None:
        with html.Div(classes="d-flex", style="gap:10px"):
            v3.VBtn(
                "Run",
                click=(self._run, f"[{{{', '.join(_WISHED)}}}]"),
                disabled=("running || looking || !preset",),
                color=("running || looking || !preset ? undefined : 'primary'",),  # pale blue looks like a button
                id="run",
            )
            v3.VBtn("Cancel", click=self._cancel, disabled=("!running || ending",), id="cancel")
        v3.VProgressLinear(model_value=("100 * fraction",), height=6, color="primary", id="progress")
        html.Div("{{ line }}", classes="text-body-2", style="min-height:1.5em", id="line")
        v3.VAlert(
            "{{ problem }}", v_show="problem", type="error", density="compact", id="problem",
            style="overflow-wrap:anywhere",
        )  # fmt: skip
        with html.Div(v_show="saved", classes="text-body-2", style="overflow-wrap:anywhere", id="saved"):
            html.Div("Saved: {{ saved }}")
            html.A("Download", href="/result", download=True, classes="text-primary")

    def _build_shown(self) -> None:
        with v3.VBtnToggle(
            v_model=("shown",), v_show="has_given && has_result", mandatory=True, density="compact", id="shown"
        ):
            v3.VBtn("Given", value=GIVEN)
            v3.VBtn("Reconstruction", value=RESULT)
        with html.Div(v_show="has_given || has_result"):
            wide = "window_range[1] - window_range[0] > 100"  # whole numbers tell enough
            exact = "Number(window[{0}].toPrecision(4))"
            low, high = (f"{{{{ {wide} ? Math.round(window[{k}]) : {exact.format(k)} }}}}" for k in (0, 1))
            html.Div(f"Shown: {low} to {high} {{{{ unit }}}}", classes="text-body-2", id="range")
            v3.VRangeSlider(
                v_model=("window",), min=("window_range[0]",), max=("window_range[1]",), density="compact",
                step=("(window_range[1] - window_range[0]) / 500",), hide_details=True, throttle=50, id="window",
            )  # fmt: skip

    # --- what is chosen

    async def _on_source(self, source: Any, **_: Any) -> None:
        if source is None or self.session.running:
            return
        with self._state:
            self._state.update({"looking": True, "problem": "", "line": "reading", "sources": self._names()})
        try:
            look = await asyncio.to_thread(self.session.look, source)
        except _REFUSALS as error:
            look = None
            self._refuse(error)
        with self._state:
            self._state.looking = False
            self._state.line = ""
            if look is not None and self._state.source == source:
                self._take(look)

    def _names(self) -> list[str]:
        return self.session.sources.names()

    def _take(self, look: Look) -> None:
        self._look = look
        for name in (GIVEN, RESULT):
            self._views.forget(name)
        is_scan = look.volume is None
        self._state.update({"has_given": not is_scan, "has_result": False, "is_scan": is_scan, "fraction": 0.0})
        if look.volume is not None:
            self._set_window(look.volume.array)
            self._state.unit = look.volume.unit
            self._views.put(GIVEN, look.volume.array, look.volume.grid)
            self._show(GIVEN)
        self._state.tasks = [{"title": task_info(name).label, "value": name} for name in look.tasks]
        self._state.task = look.tasks[0]
        self._offer(look.tasks[0])

    def _on_task(self, task: Any, **_: Any) -> None:
        if self._look is not None and task in self._look.tasks:
            self._offer(task)

    def _offer(self, task: str) -> None:
        """The settings of a task, as they are usual."""
        amount, is_scan = amount_of(task), bool(self._state.is_scan)
        presets = list(presets_for(task, is_scan=is_scan))
        self._state.update({"presets": presets, "can_coarsen": task_info(task).data == "CT"})
        self._state.update({"amount_label": amount.label, "amount": amount.usual, "coarsen": 1, "preset": presets[0]})

    def _on_shown(self, shown: Any, **_: Any) -> None:
        if shown in (GIVEN, RESULT) and self._views.holds(shown):
            self._views.show(shown)

    def _show(self, name: str) -> None:
        self._state.shown = name
        self._views.show(name)

    def _on_window(self, window: Any, **_: Any) -> None:
        if isinstance(window, list) and len(window) == 2 and all(isinstance(value, int | float) for value in window):
            self._views.set_window(*map(float, window))

    def _set_window(self, array: Any) -> None:
        low, high = window_of(array)
        self._views.set_window(low, high)
        self._state.window_range = [low - (high - low) / 2, high + (high - low) / 2]
        self._state.window = [low, high]

    # --- a run

    async def _run(self, wish: Any = None) -> None:
        """wish: the fields of the form as they stand in the browser, which may be ahead of what it told."""
        state = self._state
        named = wish if isinstance(wish, dict) else {}
        wish = Wish(**{name: named.get(name) for name in _WISHED})
        with state:
            state.update({"looking": True, "problem": "", "saved": "", "fraction": 0.0, "line": "beginning"})
        try:
            await asyncio.to_thread(self.session.start, wish)
        except _REFUSALS as error:
            self._refuse(error)
        with state:
            state.looking = False
            state.running = self.session.running
            if state.running:
                self._views.forget(RESULT)
                state.update({"has_result": False, "ending": False, "previews": 0})
                if self._views.holds(GIVEN):
                    self._show(GIVEN)

    def _cancel(self) -> None:
        self._state.update({"ending": True, "line": "cancelling"})
        self.session.cancel()

    async def _follow(self) -> None:
        """As long as the server runs: tell what the job tells."""
        while True:
            await asyncio.sleep(_EVERY_S)
            events = self.session.poll()
            if not events:
                continue
            try:
                await self._tell(events)
            except _REFUSALS as error:  # an error of ours must not end the page
                self._refuse(error)

    async def _tell(self, events: Sequence[Event]) -> None:
        with self._state:
            for event in events:
                if isinstance(event, Progress | Prepared):
                    self._state.line = event_line(event)
                if isinstance(event, Prepared):
                    self._state.unit = event.unit
                if isinstance(event, Progress):
                    self._state.fraction = event.fraction
                if isinstance(event, Log) and event.level == "error":
                    self._state.problem = one_line(event.text)
        if any(isinstance(event, Preview) for event in events):
            found = await asyncio.to_thread(self.session.preview)
            with self._state:
                if found is not None:
                    self._put_result(*found)
                    self._state.previews += 1
        last = events[-1]
        if isinstance(last, Finished | Failed):
            await self._end(last)

    async def _end(self, last: Finished | Failed) -> None:
        before = self.session.saved
        try:
            volume = await asyncio.to_thread(self.session.result)
        except _REFUSALS as error:
            volume = None
            self._refuse(error)
        with self._state:
            self._state.update({"running": False, "ending": False})
            if isinstance(last, Finished):
                self._state.line = f"{event_line(last)}{self.session.how_to_go_on}"
            if volume is not None:
                self._put_result(volume.array, volume.grid)
            if self.session.saved is not None and self.session.saved != before:
                self._state.update({"saved": self.session.saved.name, "fraction": 1.0})

    def _put_result(self, array: Any, grid: Any) -> None:
        first = not self._views.holds(RESULT)
        if first and not self._views.holds(GIVEN):
            self._set_window(array)
        self._views.put(RESULT, array, grid)
        if first:
            self._state.has_result = True
            self._show(RESULT)

    def _refuse(self, error: BaseException) -> None:
        with self._state:
            reason = "memory ran out" if isinstance(error, MemoryError) else one_line(error)
            self._state.update({"problem": reason, "line": ""})

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
