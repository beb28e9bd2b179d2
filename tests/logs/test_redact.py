"""No key, password, header, address or name of a person passes the redaction, in whatever shape it comes."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus import redact
from argus.access import keys

KEY = "argus_ab12cd34_" + "Zx9-_" * 8 + "Q7w"

SECRET_TEXTS = [
    f"key {KEY} refused",
    f"GET /api/v1/market_data/latest?symbols=000001.SZ&key={KEY}",
    f"b'{KEY}'",
    "Authorization: Bearer hunter2-hunter2",
    "authorization=Basic hunter2hunter2",
    "sent Bearer hunter2.hunter2 to it",
    "{'authorization': 'Bearer hunter2'}",
    "(b'authorization', b'Bearer hunter2')",
    "[(b'x-api-key', b'hunter2'), (b'host', b'x')]",
    "X-API-Key: hunter2",
    '{"action":"auth","id":"0","key":"hunter2"}',
    r"{\"action\":\"auth\",\"key\":\"hunter2\"}",
    '{"action":"resume","id":0,"session":"hunter2","streams":{}}',
    "{'action': 'resume', 'session': 'hunter2'}",
    "/ws?session=hunter2",
    "Cookie: sessionid=hunter2; csrftoken=hunter2",
    "Set-Cookie: sessionid=hunter2; HttpOnly",
    "password=hunter2",
    "POST /admin/login/?next=/admin/&username=x&password=hunter2",
    "password: hunter2",
    "{'password': 'hunter2', 'password2': 'hunter2'}",
    "redis://:hunter2@redis.internal:6379/0",
    "postgres://argus:hunter2@db/argus",
    "could not connect to postgres://argus:hun@ter:hunter2@db/argus",
    "/ws?ticket=hunter2&x=1",
    "/ws?token%3Dhunter2",
    "client_secret=hunter2",
    "?key=hunter2",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_a_secret_does_not_pass_in_any_shape(text: str) -> None:
    cleaned = redact.text(text)
    assert "hunter2" not in cleaned
    assert KEY not in cleaned and KEY[-20:] not in cleaned
    assert redact.REDACTED in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:52222 - 'WebSocket /ws' [accepted]",
        "connection from 203.0.113.7 lost",
        "client ('203.0.113.7', 4711)",
        "<WebSocketProtocol client=['203.0.113.7', 4711] path=b'/ws'>",
        "peer [2001:db8::7]:443",
        "2001:db8:0:0:0:0:0:7 - GET /",
        "from fe80::1%eth0 came",
        "x-forwarded-for: 203.0.113.7, 198.51.100.2",
        "::1 - GET /",
        "::ffff:203.0.113.7",
    ],
)
def test_no_address_passes(text: str) -> None:
    cleaned = redact.text(text)
    for piece in ("203.0.113.7", "198.51.100.2", "127.0.0.1", "db8", "fe80", "::1"):
        assert piece not in cleaned
    assert redact.ADDRESS in cleaned


def test_no_mail_address_passes() -> None:
    assert redact.text("key made for li.lei+quant@example.com.cn") == f"key made for {redact.EMAIL}"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T09:30:00.123456Z",
        "from 09:30:00 to 11:30:00",
        "symbols 000001.SZ, 600000.SH and IF2512.IF",
        "marketdata.tasks.poll_quotes[4d2f7c52-1f26-4be0-a6f0-94e1c7ac7c1d] succeeded in 0.031s",
        "xtquant 250807.1.2 on Python 3.11.7",
        "listening on 0.0.0.0:8001",
        'File "/srv/argus/streaming/hub.py", line 12, in receive',
        "KeyError: 'lastPrice'",
        "routing_key terminal.main",
        "key_id 17 revoked",
        "a token bucket of 600 requests",
        "the morning session: 09:30:00 to 11:30:00",
        "sessions=12 were not written",
        "std::vector",
        "沪深300 的 300 只成分股",
    ],
)
def test_what_is_neither_secret_nor_personal_stays_as_it_is(text: str) -> None:
    assert redact.text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("password", "new_password1", "api_key", "x-api-key", "HTTP_X_API_KEY", "authorization", "HTTP_AUTHORIZATION", "cookie"),
        *("key", "session", "digest", "secret_key", "ticket", "token", "access_token", "sessionid"),
        *("ip", "client", "client_ip", "client_addr", "remote_addr", "address", "peer", "x_forwarded_for", "user_agent"),
        *("username", "email", "phone"),
    ],
)
@pytest.mark.parametrize("value", ["hunter2", b"hunter2", ["hunter2"], ("hunter2", 1), {"x": "hunter2"}])
def test_a_field_with_a_telling_name_loses_its_value(name: str, value: object) -> None:
    assert redact.field(name, value) == redact.REDACTED
    assert "hunter2" not in json.dumps(redact.clean({"outer": [{name: value}]}))


@pytest.mark.parametrize(
    "name", ["routing_key", "key_id", "key_prefix", "terminal", "symbols", "connection_id", "request_id", "task_id"]
)
def test_a_field_that_names_neither_keeps_its_value(name: str) -> None:
    assert redact.field(name, "main") == "main"


def test_our_own_side_s_addresses_pass_under_their_own_names_only() -> None:
    assert redact.field("terminal_address", "192.168.1.20:58610") == "192.168.1.20:58610"
    assert redact.field("listen", "10.0.0.5:8001") == "10.0.0.5:8001"
    assert redact.field("detail", "192.168.1.20:58610") == redact.ADDRESS
    assert redact.field("terminal_address", f"x?key={KEY}") == f"x?key={redact.REDACTED}"


def test_a_header_list_loses_the_values_of_its_secrets() -> None:
    headers = [(b"authorization", b"Bearer hunter2"), (b"host", b"argus"), [b"cookie", b"hunter2"]]
    cleaned = redact.clean(headers)
    assert cleaned == [["authorization", redact.REDACTED], ["host", redact.REDACTED], ["cookie", redact.REDACTED]]


def test_an_object_is_shown_by_its_text_and_that_is_cleaned_too() -> None:
    class Holder:
        def __repr__(self) -> str:
            return f"Holder(key={KEY!r})"

    assert KEY not in str(redact.clean({"holder": Holder()}))


def test_the_process_own_secrets_are_known_by_value() -> None:
    redact.never_log(["correct horse battery"])
    assert redact.text("oh: correct horse battery!") == f"oh: {redact.REDACTED}!"


def test_a_hostile_message_does_not_make_a_hostile_line() -> None:
    deep: object = "x"
    for _ in range(50):
        deep = [deep]
    cleaned = json.dumps(redact.clean({"deep": deep, "long": "y" * 10_000_000, "wide": list(range(100_000))}))
    assert len(cleaned) < 3 * redact.MAX_TEXT


@given(
    before=st.text(alphabet=st.characters(exclude_characters=string.ascii_letters + string.digits + "_-"), max_size=30),
    after=st.text(max_size=30),
)
def test_a_key_passes_nowhere_in_any_text(before: str, after: str) -> None:
    key = keys.new().text
    assert key not in redact.text(before + key + after)
    assert key not in json.dumps(redact.clean({before: [{"x": (after, before + key)}], after + key: 1}))
