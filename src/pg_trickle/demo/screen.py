"""What is shown: a live screen on a terminal, a line now and then where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pg_trickle.demo import data
from pg_trickle.demo.measure import Figures, Late
from pg_trickle.demo.proof import Verdict
from pg_trickle.demo.replay import Written

# From here on there is room for what each table is an example of, and more figures.
WIDE_COLUMNS = 116
# From here on there is room for rows of a stream table as well.
TALL_LINES = 34
BAR_CELLS = 24
FAST_MS, SLOW_MS = 100, 1000
UNKNOWN = Text("–", style="dim")


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one picture shows."""

    figures: Sequence[Figures]
    written: Written
    rows_per_second: float
    elapsed: float
    seconds: float | None
    dsn: str
    latest: Sequence[Late] = ()


class Screen:
    """A console that is either a terminal or a log."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=False)

    @property
    def is_live(self) -> bool:
        return self.console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        self.console.print(what)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Something that takes a moment."""
        if self.is_live:
            with self.console.status(what):
                yield
        else:
            self.say(f"{what} …")
            yield

    @contextmanager
    def loading(self, tables: Iterable[str]) -> Iterator[data.Progress]:
        """Progress bars, one a table; the function that moves them on."""
        bars = Progress(
            TextColumn("  {task.description:<9}"),
            BarColumn(bar_width=40),
            TextColumn("{task.percentage:>4.0f} %"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.is_live,
        )
        tasks: dict[str, TaskID] = {table: bars.add_task(table, total=None) for table in tables}
        with bars:
            yield lambda table, done, total: bars.update(tasks[table], completed=done, total=total)

    @contextmanager
    def live(self) -> Iterator[Live]:
        """A picture that is drawn anew all the time, and leaves no trace."""
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            yield live


def picture(state: State, width: int, height: int) -> RenderableType:
    """The live screen."""
    legend = Table.grid(padding=(0, 1))
    for term, meaning in (
        ("lag", "from the writer's COMMIT to the refresh's that shows it; median of 5 s"),
        ("delta", "change rows that a refresh reads"),
        ("ratio", "REFRESH MATERIALIZED VIEW of the same query ÷ refresh"),
        ("psql", f'"{state.dsn}"'),
    ):
        legend.add_row(Text(term, style="bold dim"), Text(meaning, style="dim", no_wrap=True, overflow="ellipsis"))
    parts: list[RenderableType] = [_heading(state), _figures(state.figures, width), legend]
    if height >= TALL_LINES and state.latest:
        parts += [Text(), _latest(state.latest)]
    return Group(*parts)


def line(state: State) -> str:
    """The live screen in one line."""
    lags = [each.lag_ms for each in state.figures if each.lag_ms is not None]
    ratios = [each.ratio for each in state.figures if each.ratio is not None]
    parts = [
        f"{state.elapsed:4.0f} s",
        _clock(state.written.clock),
        f"{sum(state.written.rows.values()):,} rows written ({state.rows_per_second:,.0f}/s)",
        f"lag {median(lags):,.0f} ms" if lags else "no lag measured yet",
        f"refreshes {min(ratios):,.0f} to {max(ratios):,.0f} times cheaper than recomputing" if ratios else "",
    ]
    return " · ".join(part for part in parts if part)


def summary(figures: Sequence[Figures], width: int) -> RenderableType:
    """The figures of the whole run, to stay on the screen."""
    return _figures(figures, width, title="the whole run")


def verdicts(found: Sequence[Verdict]) -> RenderableType:
    """The proof, table by table."""
    grid = _table("does every stream table equal its query?")
    grid.add_column("stream table")
    for column in ("rows", "missing", "extra"):
        grid.add_column(column, justify="right")
    grid.add_column("")
    for each in found:
        verdict = Text("✔ equal", style="bold green") if each.ok else Text("✘ DIFFERENT", style="bold red")
        grid.add_row(each.name, f"{each.rows:,}", f"{each.missing:,}", f"{each.extra:,}", verdict)
    return grid


def _heading(state: State) -> RenderableType:
    written = state.written
    if state.seconds is None:
        time = Text.assemble(_duration(state.elapsed), ("   Ctrl-C ends", "dim"))
    else:
        filled = min(BAR_CELLS, round(BAR_CELLS * state.elapsed / state.seconds))
        time = Text.assemble(
            ("━" * filled, "green"),
            ("━" * (BAR_CELLS - filled), "dim"),
            f" {state.elapsed:.0f} of {state.seconds:.0f} s",
        )
    counts = "  ".join(f"{written.rows[kind]:,} {kind}" for kind in ("INSERT", "UPDATE", "DELETE"))
    story = _apart(Text.assemble("✈ ", ("New York, " + _clock(written.clock), "bold")), time)
    work = _apart(Text(counts), Text(f"{state.rows_per_second:,.0f} rows/s", style="bold"))
    title = "[bold]pg_trickle[/]: stream tables that follow the flights"
    return Panel(Group(story, work), title=title, box=box.ROUNDED)


def _apart(left: Text, right: Text) -> Table:
    """A line with something at either end."""
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, right)
    return grid


def _figures(figures: Sequence[Figures], width: int, title: str | None = None) -> Table:
    wide = width >= WIDE_COLUMNS
    grid = _table(title)
    grid.add_column("stream table", vertical="bottom", no_wrap=True)
    if wide:
        grid.add_column("", style="dim", no_wrap=True)
    grid.add_column("rows", justify="right", vertical="bottom", no_wrap=True)
    if wide:
        grid.add_column("refreshes", justify="right", vertical="bottom", no_wrap=True)
    for column in ("lag\nms", *(["worst\nms"] * wide), "delta\nrows", *(["written\nrows"] * wide), "refresh\nms"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("REFRESH MAT.\nVIEW, ms", justify="right", no_wrap=True)
    grid.add_column("ratio", justify="right", vertical="bottom", no_wrap=True)
    for each in figures:
        cells = [
            Text(each.name, style="bold cyan"),
            Text(each.shows) if wide else None,
            Text(f"{each.rows:,}"),
            Text(f"{each.refreshes:,}") if wide else None,
            _lag(each.lag_ms),
            _lag(each.worst_lag_ms) if wide else None,
            _number(each.rows_in),
            _number(each.rows_out) if wide else None,
            _number(each.refresh_ms),
            _number(each.recompute_ms),
            _ratio(each.ratio),
        ]
        grid.add_row(*(cell for cell in cells if cell is not None))
    return grid


def _latest(late: Sequence[Late]) -> Table:
    """What a SELECT from a stream table returns right now."""
    grid = _table("SELECT … FROM late_departures ORDER BY sched_dep_time DESC")
    for column in ("scheduled", "airline", "flight", "from", "to"):
        grid.add_column(column, no_wrap=True)
    grid.add_column("minutes late", justify="right", no_wrap=True)
    for each in late:
        flight = f"{each.carrier} {each.flight}"
        grid.add_row(_clock(each.scheduled), each.airline, flight, each.origin, each.dest, str(each.minutes))
    return grid


def _table(title: str | None) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="",
        header_style="bold",
    )


def _number(value: float | None, style: str = "") -> Text:
    if value is None:
        return UNKNOWN
    return Text(f"{value:,.0f}" if value >= 10 else f"{value:.1f}", style=style)


def _lag(value: float | None) -> Text:
    if value is None:
        return UNKNOWN
    return _number(value, "green" if value < FAST_MS else "yellow" if value < SLOW_MS else "red")


def _ratio(value: float | None) -> Text:
    if value is None:
        return UNKNOWN
    return Text(f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×", style="bold green" if value >= 1 else "yellow")


def _clock(at: datetime | None) -> str:
    if at is None:
        return "– – –"
    return at.strftime("%a %-d %b %Y %H:%M")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"
