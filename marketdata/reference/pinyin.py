"""How instruments' names are spelt in pinyin, whole and by initials: what people type to find them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from pypinyin import Style, lazy_pinyin

LONGEST = 200
LONGEST_INITIALS = 50
"""Characters that the database keeps."""


@lru_cache(maxsize=16384)
def spell(name: str) -> tuple[str, str]:
    """A name's pinyin without tones and its initials, in lower case: letters and digits alone, so ``*ST`` is ``st``.

    A character of several readings has the one of the word that it stands in, as far as the library's dictionary knows
    the word: 银行 is ``yinhang``, 长江 ``changjiang``. Letters and digits of a name stand in both whole.
    ``ü`` is ``v``, as people type it.

    >>> spell("平安银行"), spell("*ST 万 科Ａ")
    (('pinganyinhang', 'payh'), ('stwankea', 'stwka'))
    """
    plain = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name)))
    whole = "".join(lazy_pinyin(plain)).lower()
    initials = "".join(lazy_pinyin(plain, style=Style.FIRST_LETTER)).lower()
    return whole[:LONGEST], initials[:LONGEST_INITIALS]
