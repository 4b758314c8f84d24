"""Values in a plain form, as they pass between the judge and a student's notebook.

A message is two lengths, a JSON text, and the bytes of the arrays that the text names. No pickle:
whatever arrives is a number, a text, an array, a list, a tuple, a dict, a generator's state, or the
number of a function that the other side keeps. What is none of these arrives as an object that has
only the name of its class.
"""

import builtins
import json
import math
import struct
import time
from numbers import Complex, Integral, Real

import numpy as np
import torch

LONGEST_TEXT = 16 * 2**20  # bytes of the JSON text of a message
LARGEST = 128 * 2**20  # bytes of its arrays together
DEEPEST = 20  # lists within lists
MOST = 300_000  # values in a message
LONGEST = 10_000  # characters of a text
KNOWN = {*dir(builtins), "DataFrame", "LinAlgError", "Module", "Series", "Sequential"}  # classes
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    )
}


class Closed(Exception):
    """The other side has ended."""


class Channel:
    """One end of a socket, until a moment on the monotonic clock."""

    def __init__(self, sock, until=None):
        self.sock, self.until = sock, until

    def send(self, message, arrays=()):
        """Send one message; raise Closed where nobody is there."""
        text, size = json.dumps(message).encode("ascii"), sum(map(len, arrays))
        if len(text) > LONGEST_TEXT or size > LARGEST:
            raise ValueError(f"wanted at most {LARGEST // 2**20} MiB of numbers")
        try:
            for part in (struct.pack(">QQ", len(text), size), text, *arrays):
                self._wait()
                self.sock.sendall(part)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed from error

    def receive(self):
        """Return the next message; raise Closed at the end, TimeoutError when it comes too late."""
        return self.receive_with_arrays()[0]

    def receive_with_arrays(self):
        """Return the next message and the bytes that it names."""
        text, size = struct.unpack(">QQ", self._bytes(16))
        if text > LONGEST_TEXT or size > LARGEST:
            raise ValueError("a message is too long")
        return json.loads(bytes(self._bytes(text))), self._bytes(size)

    def _bytes(self, size):
        found = bytearray()
        while len(found) < size:
            self._wait()
            try:
                part = self.sock.recv(min(size - len(found), 2**20))
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            found += part
        return found

    def _wait(self):
        if self.until is not None:
            if (left := self.until - time.monotonic()) <= 0:
                raise TimeoutError
            self.sock.settimeout(left)


class Functions(dict):
    """The functions of one side that the other may call, by their number."""

    def said(self, function):
        """Return a function as a message says it: as mine, or as one that is yours."""
        if isinstance(function, Remote):
            return {"yours": function.number}
        self[len(self)] = function
        return {"function": len(self) - 1}


class Remote:
    """A function of the other side: calling it sends copies, and brings back what it changed."""

    def __init__(self, name, number, ask):
        self.__name__, self.number, self._ask = name, number, ask

    def __call__(self, *arguments, **named):
        return self._ask(self, arguments, named)


class Sent:
    """A value as a message says it: ``said`` for its text, ``arrays`` for its bytes."""

    def __init__(self, value, functions):
        self.functions, self.arrays, self.size = functions, [], 0
        self.said = self.plain(value)

    def plain(self, value, depth=0):
        """Return a value as JSON can say it."""
        if depth > DEEPEST:
            raise ValueError("lists within lists without end")

        def inside(values):
            return [self.plain(each, depth + 1) for each in values]

        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return {"text": str(value)[:LONGEST]}
        if value is ...:
            return {"dots": None}
        if isinstance(value, torch.Tensor):
            return {"tensor": self.tensor(value)}
        if isinstance(value, np.ndarray | np.generic):
            kind = "scalar" if isinstance(value, np.generic) else "array"
            return {kind: self.array(np.asarray(value))}
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            return float(value)
        if isinstance(value, Complex):
            return {"complex": [complex(value).real, complex(value).imag]}
        if isinstance(value, torch.nn.ParameterList):  # which is callable, too
            value = list(value)
        if isinstance(value, list | tuple):
            return {"list" if isinstance(value, list) else "tuple": inside(value)}
        if isinstance(value, dict):
            return {"dict": [inside(item) for item in value.items()]}
        if isinstance(value, torch.Generator):
            return {"generator": self.tensor(value.get_state())}
        if callable(value):
            return self.functions.said(value)
        return {"object": type(value).__name__}

    def tensor(self, value):
        """Keep the bytes of a tensor; return its dtype, its shape and where they are."""
        value = value.detach().resolve_conj().resolve_neg().cpu()
        if value.layout != torch.strided:
            value = value.to_dense()
        name = str(value.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"a tensor of {name} cannot be sent")
        raw = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
        return [name, list(value.shape), *self.kept(raw.numpy())]

    def array(self, value):
        """Keep the bytes of an array."""
        if value.dtype.kind not in "biufc":
            raise ValueError(f"an array of {value.dtype} cannot be sent")
        return [value.dtype.str, list(value.shape), *self.kept(value)]

    def kept(self, array):
        """Keep the bytes of an array; return where they begin and how many they are."""
        if self.size + array.nbytes > LARGEST:
            raise ValueError(f"wanted at most {LARGEST // 2**20} MiB of numbers")
        self.arrays.append(array.tobytes())
        self.size += array.nbytes
        return self.size - array.nbytes, array.nbytes


class Received:
    """What a message says, as values."""

    def __init__(self, arrays, functions, ask):
        self.arrays, self.functions, self.ask = arrays, functions, ask
        self.count = self.size = 0

    def value(self, said, name="function"):
        """Return a value; its functions are called ``name``."""
        self.count += 1
        if self.count > MOST:
            raise ValueError(f"wanted at most {MOST} values")
        if not isinstance(said, dict):
            return said
        ((kind, content),) = said.items()
        if kind == "text":
            return str(content)
        if kind == "dots":
            return ...
        if kind == "tensor":
            return self.tensor(*content)
        if kind in ("array", "scalar"):
            array = self.array(*content)
            return array if kind == "array" else array[()]
        if kind == "complex":
            return complex(*content)
        if kind in ("list", "tuple"):
            found = [self.value(each, name) for each in content]
            return found if kind == "list" else tuple(found)
        if kind == "dict":
            return {self.value(k, name): self.value(v, name) for k, v in content}
        if kind == "generator":
            generator = torch.Generator()
            generator.set_state(self.tensor(*content))
            return generator
        if kind == "function":
            return Remote(name, int(content), self.ask)
        if kind == "yours":
            return self.functions[int(content)]
        if kind == "object":  # whose name may say anything, also what nobody is to read
            return type(content if content in KNOWN else "object", (), {})()
        raise ValueError(f"a value of an unknown kind, {kind!r}")

    def bytes(self, shape, width, start, size):
        """Return the bytes of an array of a shape, each of them once."""
        self.size += size
        found = memoryview(self.arrays)[start : start + size]
        if start < 0 or not len(found) == size == math.prod(shape) * width or self.size > LARGEST:
            raise ValueError("an array whose shape does not fit its bytes")
        return bytearray(found)

    def tensor(self, name, shape, start, size):
        """Return a tensor."""
        dtype = DTYPES[name]
        found = self.bytes(shape, torch.empty(0, dtype=dtype).element_size(), start, size)
        if size == 0:
            return torch.zeros(shape, dtype=dtype)
        return torch.frombuffer(found, dtype=dtype).reshape(shape)

    def array(self, name, shape, start, size):
        """Return an array of numpy."""
        dtype = np.dtype(str(name))
        if dtype.kind not in "biufc":
            raise ValueError(f"an array of {dtype} is not taken")
        return np.frombuffer(self.bytes(shape, dtype.itemsize, start, size), dtype).reshape(shape)


def put_back(old, new):
    """Make an argument what the other side has made of it in place; return it."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        if old.dtype == new.dtype:
            old.data = new
            return old
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if old.shape == new.shape and old.dtype == new.dtype:
            old[...] = new
            return old
    elif isinstance(old, list) and isinstance(new, list):
        kept = [put_back(a, b) for a, b in zip(old, new, strict=False)]
        old[:] = kept + new[len(kept) :]
        return old
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return tuple(put_back(a, b) for a, b in zip(old, new, strict=True))
    elif isinstance(old, dict) and isinstance(new, dict):
        both = {key: put_back(old[key], new[key]) if key in old else new[key] for key in new}
        old.clear()
        old.update(both)
        return old
    elif isinstance(old, torch.Generator) and isinstance(new, torch.Generator):
        old.set_state(new.get_state())
        return old
    elif type(old) is type(new) and (old == new or old != old):
        return old
    return new
