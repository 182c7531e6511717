"""What clients said, fit to be said back to them."""

import re

LONGEST_QUOTE = 80  # characters; enough for every identifier there is
_ILLEGIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def quoted(text: str) -> str:
    r"""Return a text of a client within quotation marks, on one line, not too long, without control characters.

    >>> quoted("../etc\r\nX: y")
    "'../etc\\r\\nX: y'"
    """
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}...")


def legible(text: str) -> str:
    """Return a text with a mark in place of each character that XML cannot hold."""
    return _ILLEGIBLE.sub("\ufffd", text)
