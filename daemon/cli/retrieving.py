"""Commands that hand out a frame with its calibrations, and the set of frames (SOF) for esorex."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.errors import ExitCode, RefusedError, UsageError, answering, print_error
from daemon.cli.options import AsJson, SettingsFile
from tasks.associations import Mode
from tasks.retrieval import Names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from daemon.cli.records import Record
    from tasks.associations import AssociatedFile, Tree
    from tasks.retrieval import Delivered
    from tasks.site import Site

_MODES = {mode.lower(): mode for mode in Mode}
_Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="raw2master|raw2raw",
        help="Master calibrations for the last recipe, or the raw frames of all calibrations with theirs.",
    ),
]
_Recipe = Annotated[
    str, typer.Option("--recipe", metavar="RECIPE", help="Only what this recipe of ESO's takes, muse_scibasic.")
]
_Frames = Annotated[list[str], typer.Argument(metavar="FRAME...", help="F12, a DP id, a workstation name or a file.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Do nothing if anything that is needed is missing.")]


@answering
def sof(
    frame: _Frames,
    *,
    mode: _Mode = "raw2master",
    recipe: _Recipe = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there instead of the standard output.")
    ] = None,
    strict: _Strict = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Write the set of frames (SOF) of a frame, or of a calibration's group, for esorex; files stay in the archive.

    Code 1 if anything that is needed is missing.
    """
    from archive.delivery import write_whole
    from daemon.cli.opening import open_site
    from daemon.cli.output import print_json

    asked = _asked(mode, recipe)
    with open_site(settings_file) as site:
        trees = _trees(site, frame, asked)
    _complain(trees, strict=strict)
    chosen = {file.dp_id: file for tree in trees for file in _chosen(tree, recipe)}
    text = _text([(file.path, file.category) for file in chosen.values()])
    if out is not None:
        write_whole(text, out)
    if as_json:
        print_json({"frames": [_tree_record(tree) for tree in trees], "sof": text.splitlines()})
    elif out is None:
        sys.stdout.write(text)
    raise typer.Exit(_code(trees))


@answering
def retrieve(
    frame: _Frames,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files; made if it is not there.")],
    mode: _Mode = "raw2master",
    names: Annotated[
        Names, typer.Option("--names", help="Technical names, or those of the workstation and of the products.")
    ] = Names.ARCFILE,
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Make symbolic links into the archive, or copies.")
    ] = False,
    recipe: _Recipe = "",
    strict: _Strict = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Put a frame and its calibrations into a folder, with a set of frames (SOF) that esorex takes as it is.

    What is there already is not copied again. Code 1 if anything that is needed is missing; what there is is retrieved.
    """
    from archive.delivery import Delivery, write_whole
    from daemon.cli.opening import open_site
    from daemon.cli.output import print_json, print_table
    from tasks.retrieval import Unfit, check_folder, deliver_files, files_of
    from tasks.sof import check_path

    asked = _asked(mode, recipe)
    with open_site(settings_file) as site:
        trees = _trees(site, frame, asked)
        archive = site.settings.archive
    _complain(trees, strict=strict)
    files = files_of(trees)
    try:
        check_path(out)
        check_folder(out, (archive.root, archive.incoming), files, link=link)
        delivered = list(deliver_files(files, out, names, link=link))
    except (ValueError, Unfit, FileExistsError) as error:
        raise RefusedError(str(error)) from error
    for one in delivered:
        if one.reason:
            print_error(one.reason)
    here = {one.file.dp_id: one for one in delivered if one.delivery is not Delivery.MISSING}
    records = []
    for tree in trees:
        path = out.absolute() / f"{tree.top.files[0].dp_id}.sof"
        write_whole(
            _text([(here[one.dp_id].path, one.category) for one in _chosen(tree, recipe) if one.dp_id in here]), path
        )
        records.append(_tree_record(tree) | {"sof": str(path)})
    if as_json:
        print_json({"frames": records, "files": [_delivered_record(one) for one in delivered]})
    else:
        print_table(*_page(delivered), *[f"{record['frame']}: {record['sof']}" for record in records])
    raise typer.Exit(ExitCode.NOT_IN_ORDER if len(here) < len(delivered) else _code(trees))


def _asked(mode: str, recipe: str) -> Mode:
    from tasks.sof import tags_of

    if mode.lower() not in _MODES:
        raise UsageError(f"--mode {mode!r} cannot be; there are {', '.join(_MODES)}.")
    if recipe:
        try:
            tags_of(recipe)
        except LookupError as error:
            raise UsageError(str(error)) from error
    return _MODES[mode.lower()]


def _trees(site: "Site", words: "Sequence[str]", mode: Mode) -> "list[Tree]":
    """Return the tree of each frame that is named."""
    from archive.models import Frame
    from daemon.cli.identifiers import find, label, split
    from tasks.associating import associate, retrieval_policy

    policy = retrieval_policy(site.settings)
    trees = []
    with site.registry.read() as session:
        for text in split(words):
            row = find(session, text)
            if not isinstance(row, Frame):
                raise UsageError(f"{text} ({label(row)}) is no frame; calibrations belong to raw frames.")
            trees.append(associate(session, row, mode, policy))
    return trees


def _chosen(tree: "Tree", recipe: str) -> "list[AssociatedFile]":
    from tasks.sof import tags_of

    tags = tags_of(recipe) if recipe else None
    return [file for file in tree.files() if tags is None or file.category in tags]


def _text(files: "Sequence[tuple[Path, str]]") -> str:
    from tasks.sof import sof_text

    try:
        return sof_text(files)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _complain(trees: "Sequence[Tree]", *, strict: bool) -> None:
    """Print what there is to say of the trees to the standard error, where it is not in the way of a SOF."""
    for tree in trees:
        for message in tree.messages():
            print_error(f"{tree.top.files[0].dp_id}: {message}")
    if strict and (missing := [tree.top.files[0].dp_id for tree in trees if not tree.top.complete]):
        raise RefusedError(
            f"what {', '.join(missing)} needs is not all there; without --strict the rest is handed out."
        )


def _code(trees: "Sequence[Tree]") -> ExitCode:
    return ExitCode.DONE if all(tree.top.complete for tree in trees) else ExitCode.NOT_IN_ORDER


def _tree_record(tree: "Tree") -> "Record":
    return {
        "frame": tree.top.files[0].dp_id,
        "asked": tree.asked,
        "mode": tree.mode,
        "complete": tree.top.complete,
        "certified": tree.top.certified,
        "messages": list(tree.messages()),
    }


def _delivered_record(one: "Delivered") -> "Record":
    return {
        "id": one.file.row,
        "dp_id": one.file.dp_id,
        "tag": one.file.category,
        "path": str(one.path.absolute()),
        "size": one.file.size,
        "delivery": one.delivery,
        "reason": one.reason,
    }


def _page(delivered: "Sequence[Delivered]") -> "tuple[Table, str]":
    """Return the files, and how they came there."""
    from daemon.cli.output import size_text, table

    rows = [(one.path.name, one.file.category, size_text(one.file.size)) for one in delivered]
    counts = Counter(str(one.delivery) for one in delivered)
    return (
        table("", ("file", "tag", "size"), rows, right=("size",), unbroken=("file", "tag", "size")),
        f"{', '.join(f'{number} {delivery}' for delivery, number in counts.items())}.",
    )
