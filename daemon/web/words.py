"""What clients said, fit to be said back to them."""

LONGEST_QUOTE = 80  # characters; enough for every identifier there is


def quoted(text: str) -> str:
    r"""Return a text of a client within quotation marks, on one line, not too long, without control characters.

    >>> quoted("../etc\r\nX: y")
    "'../etc\\r\\nX: y'"
    """
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}...")
