"""What people see: records and reports as tables of 80 to 120 columns."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from archive.states import Score
from daemon.cli.output import cell, channels_text, duration_text, size_text, table
from daemon.report import Fate, NightReport, ProductLine
from tasks.engines import engine_of
from tasks.settings import Engine

if TYPE_CHECKING:
    from daemon.demo import Demonstration

Record = dict[str, Any]
_FATE_STYLE = {Fate.PROCESSED: "green", Fate.FAILED: "bold red", Fate.UNEXPLAINED: "bold red", Fate.QUARANTINED: "red"}


def status_page(record: Record) -> list[RenderableType]:
    """Return how things stand."""
    counts = [
        (what, ", ".join(f"{number} {state}" for state, number in record[what].items()))
        for what in ("arrivals", "groups", "steps", "parts")
    ]
    watcher = record["watcher"]
    lines = [
        ("archive", f"{record['archive']}, {size_text(record['free_bytes'])} free"),
        ("incoming", record["incoming"]),
        ("registry", record["registry"]),
        ("broker", record["broker"]),
        ("watcher", _watcher_text(watcher)),
        *counts,
    ]
    if record["statics"]:
        lines.append(("statics", ", ".join(f"{number} {standing}" for standing, number in record["statics"].items())))
    if record["pairs"]:
        lines.append(("pairs", f"{', '.join(record['pairs'])} wait for `musecal release`"))
    if record["unsent"]:
        lines.append(("messages", f"{record['unsent']} to be sent"))
    if last := record["last_product"]:
        lines.append(("last product", f"{last['name']}, {last['created']:%Y-%m-%d %H:%M:%S}"))
    page: list[RenderableType] = [_pairs(lines)]
    if record["work"]:
        rows = [
            (
                part["worker"],
                part["step"],
                part["name"],
                part["channel"],
                part["since"],
                "lost" if part["lease_lost"] else "held",
            )
            for part in record["work"]
        ]
        page += [
            "",
            table("Being worked on", ("worker", "step", "name", "channel", "since", "lease"), rows, right=("channel",)),
        ]
    if record["failed"]:
        failed = [
            (step["id"], step["name"], step["night"], step["error_kind"], step["error"]) for step in record["failed"]
        ]
        page += ["", table("Failed last", ("step", "name", "night", "kind", "error"), failed)]
    return page


def _watcher_text(watcher: Record | None) -> str:
    if not watcher:
        return "never ran on this archive"
    if watcher["silent"]:
        return f"silent for {duration_text(watcher['age_seconds'])}; start it with `musecal run` or its service"
    troubles = {**watcher["troubles"], **watcher["postponed"]}
    trouble = "".join(f"; {what}: {why}" for what, why in troubles.items())
    return (
        f"{watcher['mode']}, process {watcher['pid']}, {watcher['waiting']} waiting, {watcher['stalled']} stalled, "
        f"{watcher['taken']} taken{trouble}"
    )


_NEXT = {"waiting": "The planner looks at it next.", "queued": "It waits for a worker."}


def queue_page(records: Sequence[Record]) -> list[RenderableType]:
    """Return steps, with what each waits for or works at."""
    if not records:
        return ["No step is unfinished."]
    rows = [
        (
            record["id"],
            record["name"],
            record["night"],
            record["state"],
            f"{record['channels_done']}/{record['channels']}" if record["channels"] else "",
            record["started"] or record["queued"] or record["created"],
            record["error"] or record["missing"] or record["stale"] or record["warnings"] or _NEXT.get(record["state"]),
        )
        for record in records
    ]
    columns = ("step", "name", "night", "state", "channels", "since", "remark")
    return [table("", columns, rows, right=("channels",))]


def products_page(records: Sequence[Record]) -> list[RenderableType]:
    """Return a list of products."""
    if not records:
        return ["There is no such product."]
    rows = [
        (
            record["id"],
            record["name"],
            category_text(record),
            record["certification"],
            record["score"],
        )
        for record in records
    ]
    columns = ("id", "name", "category", "certified", "score")
    return [table("", columns, rows, unbroken=("id", "category", "certified", "score"))]


def scores_page(records: Sequence[Record], *, every: bool, dry_run: bool) -> list[RenderableType]:
    """Return what products were found to be worth: what is not green, or every value that was scored."""
    page: list[RenderableType] = []
    for record in records:
        told = [mark for mark in record["marks"] if every or mark["score"] != Score.GREEN]
        change = f", {record['was'] or 'not scored'} before" if record["was"] != record["score"] else ""
        title = Text.assemble(
            f"{record['id']} ", (record["name"], "bold"), f" {'would be' if dry_run else 'is'} ",
            cell(record["score"] or "not scored"), change, "" if dry_run else f", {record['certification']}",
            f"; thresholds {record['thresholds']}" if record["thresholds"] else "; no threshold is for it",
        )  # fmt: skip
        page.append(title)
        if told:
            rows = [(mark["channel"] or "all", mark["name"], mark["score"], mark["remark"]) for mark in told]
            page.append(table("", ("channel", "parameter", "score", "remark"), rows, right=("channel",)))
        elif record["score_reason"]:
            page.append(Text(record["score_reason"]))
    return page


def category_text(record: Record) -> str:
    """Return the category of a product, of a response with its version."""
    return f"{record['catg']} v{record['response']}" if record["response"] else str(record["catg"])


def taken_page(records: Sequence[Record]) -> RenderableType:
    """Return what became of files that were given by hand."""
    rows = [
        (Path(record["file"]).name, record["state"], record["frame"] or record["product"], record["reason"])
        for record in records
    ]
    return table("", ("file", "state", "id", "reason"), rows, unbroken=("file",))


def statics_page(records: Sequence[Record]) -> list[RenderableType]:
    """Return the static calibrations, each with the time for which it is valid."""
    if not records:
        return ["There is no such static calibration."]
    rows = [
        (
            record["id"],
            record["name"],
            f"{record['valid_from']:%Y-%m-%d}",
            f"{record['valid_until']:%Y-%m-%d}" if record["valid_until"] else "",
            record["standing"] + (f", v{record['response']}" if record["response"] else ""),
            [*([record["step"]] if record["step"] else []), *record["pair"]],
        )
        for record in records
    ]
    columns = ("id", "name", "from", "until", "standing", "pair")
    return [table("", columns, rows, unbroken=("id", "from", "until", "standing", "pair"))]


_TITLE = {"F": "Frame", "G": "Group", "S": "Step", "P": "Product", "A": "Arrival"}
_NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "frames": ("id", "dp_id", "tag", "exptime", "lamps", "version"),
    "arrivals": ("id", "first_seen", "state", "path", "reason"),
    "steps": ("id", "name", "sequence", "state", "started", "ended", "cpu_seconds"),
    "parts": ("channel", "state", "attempt", "worker", "started", "cpu_seconds", "memory", "error"),
    "uses": ("tag", "name", "response", "level", "days", "certification", "differences"),
    "products": ("id", "name", "certification", "score", "size"),
    "channel_scores": ("channel", "score", "green", "yellow", "red"),
    "measurements": ("channel", "name", "value", "score", "remark"),
    "history": ("at", "what", "why", "data"),
}
_NAMES = ("name", "dp id", "recipe")
_NUMBERS = (
    "exptime",
    "version",
    "sequence",
    "cpu_seconds",
    "memory",
    "channel",
    "attempt",
    "level",
    "days",
    "size",
    "value",
)


def details_page(record: Record) -> list[RenderableType]:
    """Return a row with its neighbours and its history."""
    fields = [
        (name.replace("_", " "), _value(name, value))
        for name, value in record.items()
        if name not in _NEIGHBOURS
        and not isinstance(value, dict | None)
        and value not in ("", [])
        and value is not False
    ]
    fields += [
        (name, cell(value)) for name, value in record.items() if isinstance(value, dict) and value and "id" not in value
    ]
    page: list[RenderableType] = [Text(f"{_TITLE[record['id'][0]]} {record['id']}", style="bold"), _pairs(fields)]
    for name, columns in _NEIGHBOURS.items():
        rows = record.get(name) or []
        told = [column for column in columns if any(row[column] not in ("", None, [], {}) for row in rows)]
        if told:
            cells = [[_value(column, row[column]) for column in told] for row in rows]
            titles = [column.replace("_", " ") for column in told]
            page += ["", table(name.replace("_", " ").capitalize(), titles, cells, right=_NUMBERS, unbroken=_NAMES)]
    return page


def _value(name: str, value: object) -> object:
    match name, value:
        case (("size" | "memory"), int()):
            return size_text(value)
        case "channels", list():
            return channels_text(value)
        case "worker", str():
            return ":".join(value.split(":")[:2])  # host and process; the rest tells processes of one number apart
        case "value", float():
            return f"{value:.6g}"
        case "days", float():
            return f"{value:+.2f}"
        case _:
            return value


def _pairs(lines: Iterable[tuple[str, object]]) -> RenderableType:
    made = table("", ("", ""), lines)
    made.show_header = False
    made.columns[0].style = "dim"
    made.columns[0].no_wrap = True
    return made


_VERDICT_STYLE = {"PASS": "bold green", "WARN": "bold yellow", "FAIL": "bold red"}
_STANDING_STYLE = {"OK": "green", "PENDING": "cyan", "NOK": "yellow", "MISSING": "bold red"}


def completeness_page(record: Record) -> list[RenderableType]:
    """Return how the calibrations of nights stand, a column a night; then why nights do not pass, and what to take."""
    nights = record["nights"]
    standings = {
        (item["tag"], cell(list(item["setting"].values())).plain, f"{night['night']}"): item
        for night in nights
        for item in night["calibrations"]
    }
    rows = [
        (*kind, *(_standing_text(standings.get((*kind, f"{night['night']}")), short=True) for night in nights))
        for kind in dict.fromkeys(key[:2] for key in standings)
    ]
    verdicts = [Text(night["verdict"], _VERDICT_STYLE[night["verdict"]]) for night in nights]
    columns = ("type", "setting", *(f"{night['night']:%m-%d}" for night in nights))
    page: list[RenderableType] = [
        table("", columns, [*rows, (Text("verdict", "bold"), Text(""), *verdicts)], unbroken=columns),
        "",
    ]
    for night in nights:
        page += _verdict_lines(night)
    return [*page, *_take_lines(record)]


def _verdict_lines(night: Record) -> list[RenderableType]:
    """Return the verdict on a night and why it does not pass."""
    verdict, over = night["verdict"], "" if night["over"] else ", not over yet"
    head = Text.assemble((f"Night {night['night']}{over}: ", "bold"), (verdict, _VERDICT_STYLE[verdict]))
    return [
        head,
        *(
            Text.assemble("  ", (reason["verdict"], _VERDICT_STYLE[reason["verdict"]]), f" {reason['sentence']}")
            for reason in night["reasons"]
        ),
    ]


def _take_lines(record: Record) -> list[RenderableType]:
    remedies = {item["remedy"]: None for night in record["nights"] for item in night["calibrations"] if item["remedy"]}
    lines = [take["sentence"] for take in record["take"]] + [f"Without new frames: {remedy}." for remedy in remedies]
    return ["", Text("What to do next", "bold"), *(Text(f"  {line}") for line in lines)] if lines else []


def _standing_text(item: Record | None, *, short: bool = False) -> Text:
    """Return how a calibration stands in one cell; in brackets what was taken without being in the plan.

    Parameters
    ----------
    short : bool
        In four letters, as calChecker has it, so that a week finds room in a line.
    """
    if item is None:
        return Text("")
    standing = str(item["standing"])[:4] if short else item["standing"]
    text = standing if item["wanted"] else f"({standing})"
    return Text(text, _STANDING_STYLE[item["standing"]] if item["score"] != "yellow" else "yellow")


def night_page(report: NightReport, record: Record) -> list[RenderableType]:
    """Return the night report; ``record`` is that of the examination of the night."""
    [night] = record["nights"]
    plan = [
        (
            item["tag"], list(item["setting"].values()), _standing_text(item), f"{item['found']} of {item['number']}",
            item["reason"],
        )
        for item in night["calibrations"]
    ]  # fmt: skip
    ledger = [(_fate_text(fate), number) for fate, number in sorted(report.fates.items(), key=lambda item: -item[1])]
    page: list[RenderableType] = [
        *_verdict_lines(night),
        "",
        table("Calibration plan", ("type", "setting", "", "frames", "why"), plan, unbroken=("frames",)),
        *_take_lines(record),
        "",
        table(
            "Files received, and what became of them",
            ("id", "file", "type", "fate"),
            [(entry.arrival, entry.file, entry.tag, _fate_text(entry.fate, entry.reason)) for entry in report.entries],
            unbroken=("file",),
        ),
        "",
        table(
            "Steps",
            ("step", "state", "score", "frames", "channels", "CPU", "start", "wall", "in all"),
            [
                (
                    f"{step.step} {step.name}{_engine(step.version)}",
                    *(step.state, step.score, step.frames, step.channels or None),
                    *map(_seconds, (step.cpu or None, step.reaction, step.wall, step.arrival_to_product)),
                )
                for step in report.steps
            ],
            right=("frames", "channels", "CPU", "start", "wall", "in all"),
        ),
        Text("start: from the last frame complete to the first part begun; in all: from the last frame seen", "dim"),
        *(Text(f"{step.step} {step.name}: {step.remark}") for step in report.steps if step.remark),
    ]  # fmt: skip
    if report.statics:
        rows = [
            (line.product, line.name, f"v{line.response}" if line.response else "", line.steps)
            for line in report.statics
        ]
        page += ["", table("Static calibrations taken", ("id", "name", "version", "by"), rows, unbroken=("id", "name"))]
    for line in report.products:
        page += ["", *_product_lines(line)]
    page += ["", Text.assemble("Score of the night: ", cell(report.score))]
    page += ["", table("Ledger", ("fate", "files"), [*ledger, ("received", len(report.entries))], right=("files",)), ""]
    return [*page, balance_text(report)]


def _engine(version: str) -> str:
    """Return the engine of a step to be told behind its name, '' for our own recipes."""
    return f" ({version})" if engine_of(version) is Engine.ESOREX else ""


def demonstration_page(given: "Demonstration", record: Record, folder: Path) -> list[RenderableType]:
    """Return the night report of a demonstration, and how it ended; ``record`` is as for ``night_page``."""
    faults = [f"{file} was delivered, and the ledger does not hold it." for file in given.lost]
    faults += [f"{step.step} {step.name} is {step.state}: {step.remark or '-'}" for step in given.report.unfinished]
    faults += [finding.sentence for finding in given.findings]
    faults += given.troubles
    cpu = sum(step.cpu for step in given.report.steps)
    return [
        *night_page(given.report, record),
        *(Text(fault, style="bold red") for fault in faults),
        f"{duration_text(given.seconds)} from start to end; {duration_text(cpu)} of CPU for the reduction.",
        f"Look around with: musecal status --settings {folder}/settings.toml (night, show, why, products, verify)",
    ]


def balance_text(report: NightReport) -> Text:
    """Return whether the ledger balances, in one sentence."""
    if report.balanced:
        return Text(
            f"The ledger balances: {len(report.entries)} received, each processed or explained.", style="bold green"
        )
    return Text(f"The ledger does not balance: nothing explains {', '.join(report.unexplained)}.", style="bold red")


def _product_lines(line: ProductLine) -> list[RenderableType]:
    title = Text.assemble(
        (line.name, "bold"),
        f"  {line.product} of {line.step}, {line.catg}, ",
        cell(line.certification),
        ", score ",
        cell(line.score),
        f" ({line.score_reason})" if line.score_reason else "",
        f", channels {channels_text(line.channels)}, {size_text(line.size)}",
    )
    rows = [
        (item.name, f"{item.median:.6g}", f"{item.least:.6g}", f"{item.most:.6g}", item.values) for item in line.inputs
    ]
    columns = ("QC parameter", "median", "least", "greatest", "values")
    page: list[RenderableType] = [title, table("", columns, rows, right=columns[1:])]
    if line.further_values:
        page.append(
            Text(
                f"and {line.further_values} values of single inputs and slices: musecal show {line.product}",
                style="dim",
            )
        )
    return page


_COMPARED = ("median", "typical", "largest", "median/σ", "typical/σ", "largest/σ", "> 3 σ")
_FURTHER = 12  # QC1 parameters that are told of a product; all are in the JSON


def comparison_page(record: Record) -> list[RenderableType]:
    """Return how far two makes of a step differ, product by product."""
    costs = [
        (engine, record["versions"][engine], duration_text(cost["seconds"]), size_text(cost["memory"]))
        for engine, cost in record["costs"].items()
    ]
    page: list[RenderableType] = [
        Text(f"{record['step']}, in the archive by {record['archived']}", style="bold"),
        "",
        table("", ("engine", "version", "CPU", "memory"), costs, right=("CPU", "memory")),
    ]
    for catg, product in record["products"].items():
        page += ["", *_compared(catg, product)]
    return page + [Text(f"Warning: {text}", style="yellow") for text in record["warnings"]]


def _compared(catg: str, product: Record) -> list[RenderableType]:
    """Return one product: what is measured in sigma, then flags and variances, then QC1 parameters that differ."""
    found = product["differences"]
    if not found:
        return [f"{catg}: the other engine made none."]
    coefficients = [item for item in found if item["kind"] == "column" and not item["sigma"] and not item["remark"]]
    curves = any(item["kind"] == "curve" for item in found)
    numbers = [
        item
        for item in found
        if item["kind"] != "QC parameter" and not item["remark"] and not (curves and item in coefficients)
    ]
    rows = [
        (
            item["channel"] or "all", item["what"],
            *(_figure(item[name]) for name in ("median", "typical", "largest")), _short(item["unit"]),
            *(_figure(item[name]) for name in ("median_sigma", "typical_sigma", "largest_sigma")),
            "" if item["beyond"] is None else f"{item['beyond']:.2%}",
        )
        for item in numbers
    ]  # fmt: skip
    columns = ("channel", "what", *_COMPARED[:3], "unit", *_COMPARED[3:])
    page: list[RenderableType] = [table(f"{catg}: ESO's less ours", columns, rows, right=("channel", *_COMPARED))]
    sigmas = dict.fromkeys(item["sigma"] for item in numbers if item["sigma"])
    page += [Text(f"σ: {', '.join(sigmas)}; typical: half of the range of the middle 68 %", style="dim")] * bool(sigmas)
    page += [
        Text(f"Channel {item['channel'] or 'all'}, {item['what']}: {item['remark']}.")
        for item in found
        if item["remark"] and item["kind"] != "QC parameter"
    ]
    if curves and coefficients:
        page.append(Text(f"{len(coefficients)} columns of coefficients are in the JSON.", style="dim"))
    page += _parameters([item for item in found if item["kind"] == "QC parameter"])
    if product["picture"]:
        page.append(Text(f"Picture: {product['picture']}"))
    return page


def _parameters(items: Sequence[Record]) -> list[RenderableType]:
    """Return the QC1 parameters that differ most."""
    if not items:
        return []
    far = [item for item in items if (item["largest_sigma"] or 0) > 1]
    alone = [item for item in items if item["remark"].startswith("only")]
    told = (
        f"QC parameters: {len(items)} compared, {len(far)} differ by more than 1 %, {len(alone)} only one of them has"
    )
    rows = [
        (item["channel"] or "all", item["what"], f"{item['median_sigma']:+.1f} %", item["remark"])
        for item in sorted(far, key=lambda item: -item["largest_sigma"])[:_FURTHER]
    ]
    return [
        Text(told),
        *([table("", ("channel", "parameter", "differs", ""), rows, right=("channel", "differs"))] * bool(rows)),
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _short(unit: str) -> str:
    """Return a unit, without that of magnitudes that fills a line."""
    return "mag" if unit.startswith("2.5*log10") else unit


def _fate_text(fate: Fate, reason: str = "") -> Text:
    return Text.assemble((fate, _FATE_STYLE.get(fate, "yellow")), f": {reason}" if reason else "")


def _seconds(value: float | None) -> str:
    return "" if value is None else duration_text(value)


def cascade_page(record: Record) -> list[RenderableType]:
    """Return the cascade table: rules, then steps with their needs."""
    rules = [(rule["tag"], rule["conditions"], rule["step"]) for rule in record["rules"]]
    steps = [
        (
            step["name"],
            step["raw"],
            step["recipe"] + ("" if step["has_recipe"] else " (not yet)"),
            f"{step['minimum']} ({step['usual']})",
            step["makes"],
        )
        for step in record["steps"]
    ]
    needs = [
        (step["name"] if number == 0 else Text(""), *row)
        for step in record["steps"]
        for number, row in enumerate([*map(_need, step["needs"]), *map(_companion, step["companions"]), *_pair(step)])
    ]
    return [
        table("What a frame is", ("type", "recognised by", "goes into"), rules),
        "",
        table("What is made of it", ("step", "from", "recipe", "least (usual)", "makes"), steps),
        "",
        table("With what", ("step", "needs", "equal", "days, level 0 / 1 / 2 / 3"), needs),
    ]


def _need(need: Record) -> tuple[object, ...]:
    reach = ("any time" if days is None else f"{days:g}" for days in need["days_by_level"].values())
    remarks = ["optional"] if need["optional"] else []
    remarks += ["that of the pair"] if need["of_pair"] else []
    remarks += [f"v{need['response']}"] if need["response"] else []
    remarks += [f"before {need['until']:%Y-%m-%d}"] if need["until"] else []
    return need["catg"] + (f" ({', '.join(remarks)})" if remarks else ""), need["match"], " / ".join(reach)


def _pair(step: Record) -> list[tuple[object, ...]]:
    pair = step["pair"]
    return [(f"{pair['tag']} group (the other half of its pair)", "", f"{pair['days']:g}")] if pair else []


def _companion(companion: Record) -> tuple[object, ...]:
    return (
        f"{companion['tag']} frame (optional)",
        companion["match"],
        f"{companion['hours']:g} hours, {companion['kelvin']:g} K",
    )
