"""Threads that ask beside the caller's own: they are never what a request fails for, and nothing is lost with one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from marketdata.terminals import hands
from marketdata.terminals.hands import Hands


def test_where_no_thread_can_be_made_the_caller_does_it_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Hands(1)
    done = threading.Event()
    with monkeypatch.context() as patch:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        assert not mine.take(done.set)
    assert mine.take(done.set), "the one that could not be made is not counted"
    assert done.wait(30)


def test_what_ends_a_work_ends_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Hands(1)

    def leave() -> None:
        raise SystemExit

    assert mine.take(leave)
    done = threading.Event()
    for _ in range(1000):
        if mine.take(done.set):
            break
        done.wait(0.01)
    assert done.wait(30)


def test_whatever_one_of_several_works_ends_with_is_raised_when_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "spare", Hands(4))
    ended: list[Any] = []

    def leave() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        hands.side_by_side([lambda: ended.append(1), leave, lambda: ended.append(3)])
    assert sorted(ended) == [1, 3]
