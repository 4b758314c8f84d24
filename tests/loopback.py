"""A server on this machine that answers well or badly; nothing else is ever asked."""

import hashlib
import http.server
import socket
import threading
from contextlib import contextmanager

from lop_utils import _files


def md5(body):
    return hashlib.md5(body).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        mode, body = server.mode, server.files.get(self.path.rpartition("/")[2])
        if mode == "once 404":
            server.mode = "good"
        if "404" in mode or body is None:
            return self.send_error(404)
        if mode == "drip in the head":
            return self.drip(b"HTTP/1.0 200 OK\r\nX: ")
        if mode == "page":  # a network that answers for everyone, until one has logged in
            body = b"<html>Please log in</html>"
        self.send_response(200)
        if mode not in ("cut, length unsaid", "endless"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if mode == "drip":
            return self.drip(body)
        if mode in ("truncated", "cut, length unsaid", "stalled"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.wfile.flush()
        for _ in range(200 if mode == "endless" else 0):  # or until the other side has enough
            self.wfile.write(body)
        if mode == "stalled":
            server.stop_waiting.wait(10)
        return None

    def drip(self, start):
        """Send a byte now and then, so that no wait for the next one is long."""
        self.wfile.write(start[:100])
        for _ in range(200):
            if self.server.stop_waiting.wait(0.05):
                break
            self.wfile.write(b"x")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request, client_address):
        pass  # the other side closed the connection

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


@contextmanager
def serving(monkeypatch):
    """Serve ``files`` in a ``mode``, and note what is asked; a failure is not tried again."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LOP_DATA_DIR", raising=False)
    monkeypatch.setattr(_files, "_TIMEOUT", (5.0, 0.3))
    monkeypatch.setattr(_files, "_RETRIES", 0)
    monkeypatch.setattr(_files, "_WINDOW", 1.0)
    monkeypatch.setattr(_files, "_MOST", 1 << 20)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.mode, server.files, server.requests = "good", {}, []
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
