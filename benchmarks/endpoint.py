"""What a request costs on our side: drawing, encoding, sending and parsing, against a server that answers at once.

    python benchmarks/endpoint.py [--images 60] [--masks 6] [--concurrency 64] [--rounds 1]

Images are 640 x 480 with a texture. The server is a process of its own that reads each request to its end and answers a fixed
completion; its CPU time is not ours, but it shares the machine's cores. Printed: requests/s, CPU milliseconds per request, ours and
the server's, and what drawing and encoding, and parsing alone cost. Of `--rounds` each is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import time
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

from pseudoris_cli.backends import vlm
from pseudoris_cli.method.protocols import PartAtWork
from pseudoris_cli.prompting import selecting
from pseudoris_cli.prompting.views import Scene
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics

ANSWER = json.dumps(
    {"expressions": [{"text": f"the red ball number-free {n}", "kind": "attribute"} for n in "abcdefgh"]}
)


class Instant(asyncio.BufferedProtocol):
    """One connection of a server of the least: it counts the bytes of a request, looks at none of its body, and answers."""

    SPACE = bytearray(1 << 20)  # what comes of any connection lands here and is forgotten

    def __init__(self) -> None:
        self._head, self._left, self._asked = b"", 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.SPACE

    def buffer_updated(self, count: int) -> None:
        if self._left:
            self._left -= count
        else:
            self._head += bytes(self.SPACE[:count])
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            rows = head.lower().split(b"\r\n")
            length = next((int(row[15:]) for row in rows if row.startswith(b"content-length:")), 0)
            self._head, self._left, self._asked, self._length = b"", length - len(body), head.split()[1], length
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        if self._asked.endswith(b"/cpu"):
            said: Any = time.process_time()
        elif self._asked.endswith(b"/models"):
            said = {"data": [{"id": "instant"}]}
        else:
            usage = {"prompt_tokens": 5 + self._length // 100, "completion_tokens": 100}
            said = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}], "usage": usage}
        data = json.dumps(said).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
        )


def serve(port: int) -> None:
    """Answer at once, for ever."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


def make_images(count: int, masks: int) -> list[MaskedImage]:
    """Textured pictures with ellipses."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640]
    found = []
    for number in range(count):
        small = rng.integers(0, 256, (60, 80, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)).copy()
        records = []
        for place in range(masks):
            x, y, rx, ry = rng.uniform(60, 580), rng.uniform(60, 420), rng.uniform(12, 120), rng.uniform(12, 90)
            mask = ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1
            pixels[mask] = pixels[mask] // 2 + rng.integers(0, 128, 3, np.uint8)
            rle = encode_rle(mask)
            records.append(Mask(place, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9))
        found.append(MaskedImage(f"{number}.png", pixels, tuple(records)))
    return found


def cpu() -> float:
    """CPU seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def servers_cpu(port: int) -> float:
    """CPU seconds of the server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/cpu") as answer:
        return float(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--masks", type=int, default=6)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    server.start()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    images = make_images(given.images, given.masks)
    settings = vlm.Settings(endpoint=f"http://127.0.0.1:{port}/v1", concurrency=given.concurrency, schema="off")
    captioner = vlm.load(settings, Numerics(), "elsewhere")
    captioner.caption(images[:2])
    count = given.images * given.masks
    print(f"{count} requests of {given.masks} masks a picture, {given.concurrency} in flight")
    for _ in range(given.rounds):
        started, used, theirs = time.perf_counter(), cpu(), servers_cpu(port)
        answers = captioner.caption_part(iter(images), PartAtWork())
        rows = sum(len(answer) for answer in answers if isinstance(answer, list))
        seconds, used, theirs = time.perf_counter() - started, cpu() - used, servers_cpu(port) - theirs
        assert rows == count * settings.candidates
        print(
            f"{count / seconds:.0f} requests/s; CPU of ours {1000 * used / count:.1f} ms a request ({used / seconds:.2f} cores), "
            f"of the server {1000 * theirs / count:.2f} ms"
        )
    used, scenes = time.process_time(), [Scene(image, "marks+crop", 1024, 20) for image in images]
    sizes = [
        sum(len(picture.data) for picture in scene.show(place).pictures)
        for scene in scenes
        for place in range(given.masks)
    ]
    print(
        f"  drawing and encoding: {1000 * (time.process_time() - used) / count:.1f} ms, {np.mean(sizes) / 1000:.0f} kB"
    )
    used = time.process_time()
    for _ in range(count):
        selecting.usable(ANSWER, "free", given.masks)
    print(f"  parsing and rules: {1000 * (time.process_time() - used) / count:.2f} ms")
    server.terminate()


if __name__ == "__main__":
    main()
