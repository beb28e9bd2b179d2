"""Bars of a live day, built from its quotes: the forming one and the closed ones of every period.

A quote accumulates over its day, so a minute is the difference of two quotes. The rules, all of them:

* **1m** bars are folded from quotes; 5m, 15m, 30m and 1h bars are merged from closed 1m bars, and the forming one of them is
  what has been merged plus the forming minute. They agree with each other by construction.
* **1d** is the quote's own open, high, low, price, volume and amount, which are the exchange's.
* **Which minute.** A snapshot of 09:31:00.000 shows what traded up to then and belongs to the bar stamped 09:31; one of
  09:31:00.001 to that of 09:32. At the beginning of a session it is the other way round: 09:30:00.000 and 13:00:00.000 belong
  to 09:31 and 13:01, because nothing of the auction or the morning can be new then (seven of thirty recorded Shanghai
  instruments show their first continuous trades in the snapshot of 09:30:00). Around the clock a minute is half-open, from
  00:00.000 to 00:59.999, as Binance's own bars are. What traded between two snapshots belongs to the later one's minute.
* **Opening auction**: everything before 09:30:00 is the bar stamped 09:30 (recorded volumes appear from 09:25:00 to 09:25:03)
  and is in the first bar of the longer periods. Quotes before the auction's call belong to no bar.
* **Lunch and close**: snapshots after 11:30 belong to 11:30 until 13:00; those up to five minutes after 15:00 (the closing
  auction is published until 15:00:03) belong to 15:00. Later volume is that of the fixed-price session, in 1d alone.
* **Closing**: a quote of a later minute closes a bar; so does the market's clock, four seconds after the bar's end, thirty
  seconds after the end of a session.
* **A minute without a trade has no bar.** A quote shows trading where its volume differs from the last one's, or its price
  does once continuous trading has begun. What was missed (a halt, lost quotes) lands in the next quote's minute.
* **A late quote** is one from before the last; it is refused and counted. Three in a row, each newer than the one before,
  are a clock that was set back, as in ``marketdata.ingest``: the forming minute is given up and the third one counts. A quote
  whose minute the clock has closed already is counted as late too: its volume lands in the next bar, its prices in 1d alone.
* **Volume that goes down** within a day is a correction: no minute is negative, and the minutes that follow make up for it,
  so that the day's sum is right as soon as it can be.
* **A late start**: the first quote of a day that shows volume after the day's first bar is where counting begins; no bar
  that began before it is given (1d is). Where the volume is still nil, or the bar is the day's first, nothing was missed.
* **High and low** of a minute include the day's new high or low, also where it lay between two snapshots. Its open is
  the first snapshot's price; the day's open in the minute of the day's first trade.
* **A new day** begins with its first quote; whatever was open is closed before. On days on which the market is known to be
  closed there are no bars; on days beyond the calendar a quote is proof enough of trading.
* **Markets whose hours are not known** have no bars; their quotes are counted. Where quotes have no volume (crypto recordings)
  bars have none, and without the day's own numbers there is no 1d.

Every bar is ``provisional`` until ``settle`` has brought the terminal's own.
"""

from marketdata.builder.build import BarBuilder
from marketdata.builder.rows import HELD, PERIODS, LiveBar

__all__ = ["HELD", "PERIODS", "BarBuilder", "LiveBar"]
