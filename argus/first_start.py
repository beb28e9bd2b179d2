"""What the very first start makes, and shows once: the database, an administrator and a demo key."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.core.management import call_command

from argus import launch
from argus.access import services

ADMINISTRATOR = "admin"


class Made(NamedTuple):
    """What was made now; None for what was there already."""

    password: str | None
    key: str | None


def migrate() -> None:
    """Bring the database to what this version expects."""
    call_command("migrate", verbosity=0, interactive=False)


def make() -> Made:
    """The first administrator if there is no user who could be one, and the demo key if there has never been one."""
    password = None
    users = get_user_model().objects
    if not users.filter(is_superuser=True).exists():
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMINISTRATOR, password=password)
    secret = services.demo_key()
    return Made(password, secret.text if secret else None)


def announcement(made: Made, base: str) -> str:
    """What is shown of it, in both languages; empty if nothing was made. ``base`` is the service's URL."""
    lines = []
    stream = base.replace("http", "ws", 1) + "/ws/market_data"
    if made.password:
        lines += [
            "  管理员 / administrator      (只显示这一次 / shown only this once)",
            f"    {base}/admin/",
            f"    用户名 / user:     {ADMINISTRATOR}",
            f"    密码   / password: {made.password}",
            "",
        ]
    if made.key:
        lines += [
            "  演示密钥 / demo key         (只显示这一次 / shown only this once)",
            f"    {made.key}",
            "",
            "  试一试 / try it",
            f'    curl -H "X-API-Key: {made.key}" "{base}/api/v1/market_data/latest?symbols=000001.SZ"',
            "",
            f'    {launch.PYTHON.relative_to(launch.ROOT)} -c "',
            "    import json, websockets.sync.client as ws",
            f"    c = ws.connect('{stream}', additional_headers={{'X-API-Key': '{made.key}'}})",
            "    c.send(json.dumps({'action': 'subscribe', 'id': '1', 'symbols': ['000001.SZ']}))",
            "    while True: print(c.recv())",
            '    "',
            "",
        ]
    rule = "-" * 78
    return "\n".join([rule, *lines[:-1], rule]) if lines else ""
