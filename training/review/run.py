"""`python -m training review CONFIG [--port]`: a page on this machine to accept or reject clips by eye.

Every decision is on the disk before the page shows it; `<out>/review/manifest.jsonl` has all samples with `accepted`,
`kept.jsonl` beside it those accepted. It can be left and started again at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
from collections import Counter
from pathlib import Path

from training import config as configs
from training import manifest
from training.errors import UserError
from training.review.decisions import Decisions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of this verb."""
    parser.add_argument("config", type=Path, help="YAML of the run")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; default: any that is free")


def main(options: argparse.Namespace) -> int | None:
    """Serve until it is interrupted. Raises UserError: no samples, or the port is taken."""
    run = configs.load(options.config)
    source = run.review.manifest or run.out / "kept" / "manifest.jsonl"
    samples = manifest.read(source)
    if not samples:
        raise UserError(f"{source} is empty, expected samples; `python -m training filter` makes them")
    if not 0 <= options.port <= 65535:
        raise UserError(f"the port is {options.port}, expected 0 (any) to 65535")
    folder = run.out / "review"
    configs.save(run, folder)
    decisions = Decisions(folder, samples)
    asyncio.run(serve(decisions, folder, options.port, "/".join(source.parts[-3:])))
    counts = Counter(decisions.all().values())
    print(f"{counts[True]} accepted, {counts[False]} rejected, {counts[None]} undecided, in {folder / 'manifest.jsonl'}")
    return 0


async def serve(decisions: Decisions, folder: Path, port: int, title: str) -> None:
    """Serve on the loopback address until SIGINT or SIGTERM. Raises UserError: the port is taken."""
    from aiohttp import web  # not for --help

    from training.review.media import Media
    from training.review.server import Review

    token = secrets.token_urlsafe(24)
    runner = web.AppRunner(Review(decisions, Media(folder / "cache"), token, title).app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(f"port {port} can't be used ({error.strerror or error}); give another --port") from error
        used = runner.addresses[0][1]
        print(f"open http://127.0.0.1:{used}/{token}/ in a browser of this machine; Ctrl-C ends")
        print(f"from elsewhere: ssh -L {used}:127.0.0.1:{used} THIS_MACHINE, then the same address", flush=True)
        await _until_told()
    finally:
        await runner.cleanup()


async def _until_told() -> None:
    """Until a signal; where the loop takes none (Windows), Ctrl-C cancels instead."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM"):
        with contextlib.suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), told.set)
    with contextlib.suppress(asyncio.CancelledError):
        await told.wait()
