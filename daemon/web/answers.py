"""What is answered for an identifier: the tree of the frame, or a tree of nothing that says why."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from archive.holdings import archive_name, find_holding
from archive.models import Frame, Product
from archive.states import Certification
from daemon.web.words import quoted
from tasks.associating import associate
from tasks.associations import AssociatedFile, Association, Mode, Tree
from tasks.snapshot import Policy


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one identifier.

    Parameters
    ----------
    asked : str
        As the client gave it.
    dp_id : str
        As it is in the registry; '' where nothing goes by it.
    tree : Tree
    """

    asked: str
    dp_id: str
    tree: Tree

    @property
    def known(self) -> bool:
        """Whether something in the archive goes by the identifier."""
        return bool(self.dp_id)


def answer(session: Session, asked: str, mode: Mode, policy: Policy) -> Answer:
    """Return the answer for one identifier; none is an error."""
    row = find_holding(session, asked)
    if row is None:
        return Answer(asked=asked, dp_id="", tree=_nothing(mode, f"Nothing in the archive goes by {quoted(asked)}."))
    if isinstance(row, Frame):
        return Answer(asked=asked, dp_id=row.dp_id, tree=associate(session, row, mode, policy))
    said = f"No association could be established: {row.name} is no raw frame; `musecal why P{row.id}` tells its own."
    return Answer(asked=asked, dp_id=row.dp_id, tree=_nothing(mode, said, row))


def answer_record(one: Answer, url_of: Callable[[str], str]) -> dict[str, Any]:
    """Return an answer with everything that is known of its associations.

    Parameters
    ----------
    one : Answer
    url_of : callable
        Where a file is handed out, by its identifier.
    """
    return {
        "asked": one.asked,
        "dp_id": one.dp_id or None,
        "requested_mode": one.tree.asked,
        "mode": one.tree.mode,
        "association": _record(one.tree.top, url_of),
    }


def _record(association: Association, url_of: Callable[[str], str]) -> dict[str, Any]:
    return {
        "category": association.category,
        "certified": association.certified,
        "complete": association.complete,
        "match": association.match,
        "level": association.level,
        "days": association.days,
        "differences": {
            key: {"wanted": wanted, "found": found} for key, (wanted, found) in association.differences.items()
        },
        "messages": association.messages,
        "files": [
            {
                "category": file.category,
                "dp_id": file.dp_id,
                "arcfile": file.arcfile,
                "origfile": file.origfile or None,
                "size": file.size,
                "row": file.row,
                "access_url": url_of(file.dp_id),
            }
            for file in association.files
        ],
        "associated": [_record(one, url_of) for one in association.associated],
    }


def _nothing(mode: Mode, said: str, product: Product | None = None) -> Tree:
    top = Association(
        category=product.catg if product else "",
        files=(_file(product),) if product else (),
        certified=product is not None and product.certification is Certification.CERTIFIED,
        complete=False,
        messages=(said,),
    )
    return Tree(asked=mode, mode=mode, top=top)


def _file(product: Product) -> AssociatedFile:
    return AssociatedFile(
        category=product.catg,
        dp_id=product.dp_id,
        arcfile=archive_name(product),
        origfile=product.name,
        path=Path(product.path),
        size=product.size,
        row=f"P{product.id}",
    )
