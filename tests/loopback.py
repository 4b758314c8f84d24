"""A server on this machine that answers well or badly; nothing else is ever asked."""

import hashlib
import http.server
import re
import socket
import struct
import threading
from contextlib import contextmanager

from lop_utils import downloads


def md5(body):
    return hashlib.md5(body).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, mode = self.server, self.server.mode
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        body = server.files.get(self.path.rpartition("/")[2])
        if mode in ("404", "500") or body is None:
            return self.send_error(500 if mode == "500" else 404)
        if mode == "page":  # a network that answers for everyone, until one has logged in
            body, asked = b"<html>Please log in</html>", None
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked else 0
        if mode == "ranges unknown" or start == 0:
            start = 0
            self.send_response(200)
        elif start >= len(body):
            return self.send_error(416)
        else:
            self.send_response(206)
            first = 0 if mode == "another range" else start
            if mode != "range unsaid":
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if mode == "encoding said":  # as some do for a file that is an archive as it lies there
            self.send_header("Content-Encoding", "gzip")
        body = body[start:]
        if mode != "cut, length unsaid":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if mode in ("truncated", "cut, length unsaid", "reset", "stalled"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.wfile.flush()
        server.sent.append(len(body))
        if mode == "reset":  # closed with a reset instead of an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if mode == "stalled":
            server.stop_waiting.wait(10)
        return None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request, client_address):
        pass  # the handler closed its own connection

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


@contextmanager
def serving(monkeypatch):
    """Serve ``files`` in a ``mode``; note what is asked and how many bytes each answer had."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LOP_DATA_DIR", raising=False)
    monkeypatch.setattr(downloads, "_TIMEOUT", (5.0, 0.3))
    with Server(("127.0.0.1", 0), Handler) as server:
        server.mode, server.files, server.requests, server.sent = "good", {}, [], []
        server.stop_waiting = threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.stop_waiting.set()
            server.shutdown()
            thread.join()


@contextmanager
def refusing():
    """Give the address of a port that is bound, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"
