"""Senders of streams on loopback, for tests: HTTP, and RTSP with its pictures interleaved."""

import http.server
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

import numpy as np

from tests.helpers import write_video

PACKET = 188  # bytes of MPEG-TS


def transport_stream(path, n_frames, height=48, width=64, fps=25, seed=1):
    """A video as MPEG-TS, which can be read from any place and be joined to others: its bytes."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 255, (n_frames, height // 8, width // 8, 3)).repeat(8, axis=1)
    frames = frames.repeat(8, axis=2).astype(np.uint8)
    return write_video(path, frames, fps=fps, codec='mpeg2video').read_bytes()


class WebServer(http.server.ThreadingHTTPServer):
    """On a free port; says nothing of readers that leave in the middle of a file."""

    def __init__(self, handler):
        super().__init__(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self.server_port}'

    def handle_error(self, request, client_address):
        if not issubclass(sys.exc_info()[0], ConnectionError):
            super().handle_error(request, client_address)


class Sender:
    """A server on loopback that gives each connection, one after the other, the next of `shows`.

        with Sender([(data, 2.0)]) as sender:   # the bytes, spread over 2 seconds
            open(sender.address)

    After the last one connections are refused.
    """

    SCHEME = 'http'

    def __init__(self, shows):
        self._shows, self.errors = list(shows), []
        self._socket = socket.create_server(('127.0.0.1', 0))
        self.port = self._socket.getsockname()[1]
        self.address = f'{self.SCHEME}://127.0.0.1:{self.port}/live'
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with suppress(OSError):  # it is closed after the last show
            self._socket.shutdown(socket.SHUT_RDWR)  # ends the wait for one more connection
        self._socket.close()
        self._thread.join(timeout=10)
        assert not self.errors

    def _serve(self):
        for data, seconds in self._shows:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed: the test is over
                return
            with connection:
                try:
                    self._show(connection, data, seconds)
                except OSError:
                    pass  # the reader has left
                except Exception as error:
                    self.errors.append(error)
        self._socket.close()

    def _show(self, connection, data, seconds):
        read_request(connection)
        connection.sendall(b'HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n')
        for part in parts(data, seconds):
            connection.sendall(part)


def read_request(connection):
    """The lines of a request of HTTP or RTSP."""
    request = b''
    while not request.endswith(b'\r\n\r\n'):
        more = connection.recv(4096)
        if not more:
            raise OSError('the reader has left')
        request += more
    return request.decode().splitlines()


def parts(data, seconds, size=7 * PACKET):
    """The data in parts, the last of which is given after so many seconds."""
    begin, n = time.monotonic(), max(1, len(data) // size)
    for number, place in enumerate(range(0, len(data), size), 1):
        time.sleep(max(0, begin + seconds * number / n - time.monotonic()))
        yield data[place:place + size]


class RtspSender(Sender):
    """The same by RTSP (RFC 2326), with MPEG-TS in RTP (RFC 2250) in the same connection."""

    SCHEME = 'rtsp'
    SDP = ('v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=live\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n'
           'm=video 0 RTP/AVP 33\r\na=control:track\r\n')

    def _show(self, connection, data, seconds):
        while True:
            lines = read_request(connection)
            method = lines[0].split()[0]
            sequence = next(line for line in lines if line.lower().startswith('cseq'))
            head, body = ['RTSP/1.0 200 OK', sequence, 'Session: 1'], ''
            if method == 'OPTIONS':
                head.append('Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN')
            elif method == 'DESCRIBE':
                body = self.SDP
                head += ['Content-Type: application/sdp', f'Content-Length: {len(body)}']
            elif method == 'SETUP':
                assert any('TCP' in line for line in lines if line.startswith('Transport'))
                head.append('Transport: RTP/AVP/TCP;unicast;interleaved=0-1')
            connection.sendall(('\r\n'.join(head) + '\r\n\r\n' + body).encode())
            if method == 'PLAY':
                break
        for number, part in enumerate(parts(data, seconds)):
            stamp = int(number * 90_000 * seconds / max(1, len(data) // (7 * PACKET)))
            packet = struct.pack('!BBHII', 0x80, 33, number & 0xffff, stamp, 1) + part
            connection.sendall(b'$\0' + struct.pack('!H', len(packet)) + packet)
