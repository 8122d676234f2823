"""Addresses of streams, as they are given and as they are shown."""

import re

PIPE = '-'


def is_address(text: str) -> bool:
    """True for rtsp://..., http://... and the like, and for the pipe."""
    return text == PIPE or bool(re.match(r'[a-z][a-z0-9+.-]*://', text, re.IGNORECASE))


def shown_address(address: str) -> str:
    """The address without user name and password, for what is said and written."""
    return re.sub(r'//[^/@]*@', '//', address)
