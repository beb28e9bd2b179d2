#!/usr/bin/env python3
"""Print live quotes: ``python examples/stream.py --key KEY 600000.SH sector:沪深300``. Needs the package ``websockets``."""

from __future__ import annotations

import argparse
import json
import sys

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbols", nargs="+", help="600000.SH, sh600000, sector:沪深300, market:SZ, * ...")
    parser.add_argument("--key", required=True, help="an API key")
    parser.add_argument("--url", default="ws://127.0.0.1:8001/ws/market_data", help="default %(default)s")
    parser.add_argument("--frames", type=int, default=0, help="stop after so many data frames (default: never)")
    options = parser.parse_args()
    try:
        return stream(options)
    except (OSError, WebSocketException) as error:
        print(f"{options.url}: {error}", file=sys.stderr)
        return 1


def stream(options: argparse.Namespace) -> int:
    """Subscribe and print until told to stop."""
    frames = 0
    with connect(options.url, additional_headers={"Authorization": f"Bearer {options.key}"}, max_size=None) as client:
        client.send(json.dumps({"action": "subscribe", "id": "1", "symbols": options.symbols}))
        for text in client:
            message = json.loads(text)
            if message["type"] == "error":
                print(f"error {message['code']}: {message['message']}", file=sys.stderr)
                return 1
            for rejected in message.get("rejected", ()):
                print(f"rejected {rejected['symbol']}: {rejected['reason']}", file=sys.stderr)
            for quote in message.get("data", ()):
                price = "-" if quote["price"] is None else f"{quote['price']:.2f}"
                print(f"{quote['symbol']:<12}{price:>10}  volume {quote['volume']}  seq {quote['seq']}  ({quote['source']})")
            frames += message["type"] == "data"
            if options.frames and frames >= options.frames:
                return 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
