"""What a request costs on our side: drawing, encoding, sending and parsing, against a server that answers at once.

    python benchmarks/endpoint.py [--images 60] [--masks 6] [--concurrency 64]

Images are 640 x 480 with a texture. The server is a process of its own that reads each request to its end and answers a fixed
completion; its CPU time is not ours, but it shares the machine's cores. Printed: requests/s, CPU milliseconds of ours per request,
and what drawing and encoding, and parsing alone cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import time

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


def serve(port: int) -> None:
    """A server of the least: it reads a request to its end and answers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (
                        int(row.split(b":")[1])
                        for row in head.split(b"\r\n")
                        if row.lower().startswith(b"content-length")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                if head.startswith(b"GET"):
                    said = {"data": [{"id": "instant"}]}
                else:
                    usage = {"prompt_tokens": 5 + body.count(b"image_url"), "completion_tokens": 100}
                    said = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}], "usage": usage}
                data = json.dumps(said).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(data), data)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", port, limit=1 << 20)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--masks", type=int, default=6)
    parser.add_argument("--concurrency", type=int, default=64)
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
    started, used = time.perf_counter(), cpu()
    rows = sum(len(answer) for answer in captioner.caption_part(iter(images), PartAtWork()) if isinstance(answer, list))
    seconds, used = time.perf_counter() - started, cpu() - used
    assert rows == count * settings.candidates
    print(
        f"{count} requests of {given.masks} masks a picture, {given.concurrency} in flight: {count / seconds:.0f} requests/s"
    )
    print(f"our CPU: {1000 * used / count:.1f} ms a request ({used / seconds:.2f} cores)")
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
