// TradingView's UDF over fetch: all that the chart knows comes from here.
export class FeedError extends Error {
  constructor(answer) {
    super(answer.errmsg);
    this.name = answer.name ?? "error";
  }
}

export class Feed {
  #address = null;
  #renew;

  // renew: gives the data feed's address with a fresh ticket in it.
  constructor(renew) {
    this.#renew = renew;
  }

  config() {
    return this.#ask("config");
  }

  time() {
    return this.#ask("time");
  }

  symbol(symbol) {
    return this.#ask("symbols", { symbol });
  }

  search(query, limit) {
    return this.#ask("search", { query, type: "", exchange: "", limit });
  }

  async quote(symbol) {
    return (await this.#ask("quotes", { symbols: symbol })).d[0];
  }

  // The last `count` bars before `to`, or, without a count, those from `from` on: {bars, next}. Where there are none, next is where
  // to go on with, and undefined where nothing comes before.
  async bars(symbol, resolution, from, to, count) {
    const wanted = { symbol, resolution, from, to };
    const answer = await this.#ask("history", count === undefined ? wanted : { ...wanted, countback: count });
    if (answer.s === "no_data") return { bars: [], next: answer.nextTime };
    const bars = answer.t.map((time, i) => ({
      time,
      open: answer.o[i],
      high: answer.h[i],
      low: answer.l[i],
      close: answer.c[i],
      volume: answer.v[i],
    }));
    return { bars };
  }

  async #ask(name, parameters = {}) {
    for (let again = false; ; again = true) {
      this.#address ??= await this.#renew();
      const response = await fetch(`${this.#address}/${name}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(60_000) });
      const answer = await response.json();
      if (answer?.s !== "error") return answer;
      if (answer.name !== "ticket_invalid" || again) throw new FeedError(answer);
      this.#address = null;
    }
  }
}
