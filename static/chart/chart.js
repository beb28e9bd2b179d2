// The chart: which instrument, which bars, as far back as there are any, and the newest quote.
import { CandlestickSeries, ColorType, HistogramSeries, createChart } from "lightweight-charts";
import { Feed, FeedError } from "./feed.js";

const page = document.getElementById("chart");
const part = (id) => document.getElementById(`chart-${id}`);
const texts = page.dataset;
const input = part("symbol");
const found = part("found");
const quote = part("quote");
const buttons = [...page.querySelectorAll("[data-resolution]")];
const place = new URLSearchParams(location.search);

const PAGE = 300; // bars of a request
const NEAR = 50; // bars left of the window, below which older ones are asked for
const JUMPS = 20; // stretches without bars that are jumped over at a time
const TAIL = 3; // every so many quotes the newest bars are asked for
const BEIJING = 8 * 3600; // the axis shows times as if they were UTC

const feed = new Feed(async () => {
  const token = page.querySelector("[name=csrfmiddlewaretoken]").value;
  const answer = await fetch(texts.tickets, { method: "POST", headers: { "X-CSRFToken": token }, signal: AbortSignal.timeout(10_000) });
  if (answer.redirected) location.reload();
  return (await answer.json()).url;
});

const chart = createChart(part("canvas"), { autoSize: true, timeScale: { rightOffset: 4, secondsVisible: false } });
const prices = chart.addSeries(CandlestickSeries, { priceLineVisible: false, lastValueVisible: false });
const volumes = chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false }, 1);
const last = prices.createPriceLine({ price: 0, lineVisible: false, axisLabelVisible: false, lineWidth: 1 });
chart.panes()[0].setStretchFactor(3);
chart.panes()[1].setStretchFactor(1);

// What is shown: replaced as a whole when another instrument or resolution is chosen, so that late answers find that they are late.
let view = null;

const say = (text) => {
  part("said").textContent = text;
  part("said").hidden = !text;
};

const failed = (error) => {
  if (!(error instanceof FeedError)) console.info(error);
  say(error instanceof FeedError ? error.message : texts.lost);
};

const colour = (name) => getComputedStyle(page).getPropertyValue(`--chart-${name}`).trim();

const paint = () => {
  const [up, down, text, grid, line] = ["up", "down", "text", "grid", "line"].map(colour);
  chart.applyOptions({
    layout: { background: { type: ColorType.Solid, color: "transparent" }, textColor: text, panes: { separatorColor: grid } },
    grid: { vertLines: { color: grid }, horzLines: { color: grid } },
    rightPriceScale: { borderColor: grid },
    timeScale: { borderColor: grid },
    localization: { locale: document.documentElement.lang },
  });
  prices.applyOptions({ upColor: up, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down });
  last.applyOptions({ color: line });
  if (view) volumes.setData(view.bars.map(volumeOf));
};

const at = (bar) => (view.intraday ? bar.time + BEIJING : bar.time);
const priceOf = (bar) => ({ time: at(bar), open: bar.open, high: bar.high, low: bar.low, close: bar.close });
const volumeOf = (bar) => ({ time: at(bar), value: bar.volume, color: colour(bar.close < bar.open ? "down" : "up") });

const number = (value) => value.toLocaleString(document.documentElement.lang);
const price = (value) => value.toFixed(view.digits);

const legend = (bar) => {
  const said = bar && ["open", "high", "low", "close"].map((name) => `${texts[name]} ${price(bar[name])}`);
  part("legend").textContent = said ? `${said.join("  ")}  ${texts.volume} ${number(bar.volume)}` : "";
};

// Older bars, until the window is full or there are none.
const fill = async () => {
  const mine = view;
  if (!mine || mine.loading || mine.complete) return;
  mine.loading = true;
  try {
    for (let jump = 0; jump < JUMPS && !mine.complete; jump += 1) {
      const { bars, next } = await feed.bars(mine.symbol, mine.resolution, 0, mine.before, PAGE);
      if (mine !== view) return;
      if (bars.length) {
        mine.bars = [...bars, ...mine.bars];
        mine.before = bars[0].time;
        prices.setData(mine.bars.map(priceOf));
        volumes.setData(mine.bars.map(volumeOf));
        if (mine.bars.length === bars.length) legend(bars.at(-1));
        const range = chart.timeScale().getVisibleLogicalRange();
        if (!range || range.from >= NEAR) break;
      } else if (next === undefined) {
        mine.complete = true;
      } else {
        mine.before = next + 1;
      }
    }
    if (mine.complete && !mine.bars.length) say(texts.empty);
  } catch (error) {
    if (mine === view) failed(error);
  } finally {
    mine.loading = false;
    if (mine === view) page.dataset.state = mine.complete ? "complete" : "ready";
  }
};

const tail = async () => {
  const mine = view;
  const newest = mine.bars.at(-1);
  if (!newest) return;
  const { bars } = await feed.bars(mine.symbol, mine.resolution, newest.time, (await feed.time()) + 1);
  if (mine !== view || !bars.length) return;
  mine.bars.splice(mine.bars.findIndex((bar) => bar.time >= bars[0].time), mine.bars.length, ...bars);
  for (const bar of bars) {
    prices.update(priceOf(bar));
    volumes.update(volumeOf(bar));
  }
};

const showQuote = (answer) => {
  const put = (name, text) => {
    quote.querySelector(`[data-part="${name}"]`).textContent = text;
  };
  const { lp, ch, chp, bid, ask, open_price, high_price, low_price, volume } = answer.v;
  quote.dataset.level = ch > 0 ? "up" : ch < 0 ? "down" : "";
  put("lp", lp === undefined ? "–" : price(lp));
  put("change", ch === undefined ? "" : `${ch > 0 ? "+" : ""}${price(ch)} (${ch > 0 ? "+" : ""}${chp.toFixed(2)} %)`);
  const more = [
    [texts.open, open_price, price],
    [texts.high, high_price, price],
    [texts.low, low_price, price],
    [texts.volume, volume, number],
    [texts.bid, bid, price],
    [texts.ask, ask, price],
  ];
  put("more", more.filter(([, value]) => value !== undefined).map(([name, value, write]) => `${name} ${write(value)}`).join("  "));
  last.applyOptions({ price: lp ?? 0, lineVisible: lp !== undefined, axisLabelVisible: lp !== undefined });
};

const live = async () => {
  const mine = view;
  mine.round = (mine.round ?? 0) + 1;
  const news = await feed.quote(mine.symbol);
  if (mine !== view) return;
  showQuote(news);
  if (mine.round % TAIL === 0 && !mine.loading) await tail();
};

const loop = async () => {
  try {
    if (view && !document.hidden) {
      await live();
      if (part("said").textContent === texts.lost) say("");
    }
  } catch (error) {
    failed(error);
  }
  setTimeout(loop, Number(texts.refresh));
};

const show = async (symbol, resolution) => {
  say("");
  page.dataset.state = "loading";
  let info;
  try {
    info = await feed.symbol(symbol);
  } catch (error) {
    page.dataset.state = "ready";
    return ["unknown_symbol", "invalid_symbol"].includes(error.name) ? say(`${symbol}: ${texts.unknown}`) : failed(error);
  }
  const offered = info.supported_resolutions;
  const chosen = offered.includes(resolution) ? resolution : offered.at(-1);
  const digits = Math.round(Math.log10(info.pricescale));
  view = { symbol: info.ticker, resolution: chosen, intraday: /^\d+$/.test(chosen), digits, bars: [], before: (await feed.time()) + 1, complete: false };
  for (const button of buttons) {
    button.disabled = !offered.includes(button.dataset.resolution);
    button.setAttribute("aria-pressed", String(button.dataset.resolution === chosen));
  }
  quote.querySelector('[data-part="name"]').textContent = `${info.description}  ${info.ticker}  ${info.exchange}`;
  input.value = info.ticker;
  history.replaceState(null, "", `?${new URLSearchParams({ symbol: info.ticker, resolution: chosen })}`);
  prices.setData([]);
  volumes.setData([]);
  legend(null);
  prices.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: info.minmov / info.pricescale } });
  chart.applyOptions({ timeScale: { timeVisible: view.intraday } });
  chart.timeScale().resetTimeScale();
  showQuote({ v: {} });
  live().catch(failed);
  await fill();
};

// Search: what is typed is looked for; the arrow keys and Enter, or a click, choose.
let typed = 0;
const options = () => [...found.children];
const selected = () => options().find((option) => option.getAttribute("aria-selected") === "true");

const close = () => {
  typed += 1;
  found.hidden = true;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
};

const select = (option) => {
  for (const other of options()) other.setAttribute("aria-selected", String(other === option));
  option.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", option.id);
};

const offer = (instruments) => {
  found.replaceChildren(
    ...instruments.map((instrument, i) => {
      const option = document.createElement("li");
      option.id = `chart-found-${i}`;
      option.role = "option";
      option.dataset.symbol = instrument.ticker;
      option.setAttribute("aria-selected", "false");
      for (const [tag, text] of [["b", instrument.ticker], ["span", instrument.description], ["small", instrument.exchange]]) {
        const piece = document.createElement(tag);
        piece.textContent = text;
        option.append(piece);
      }
      return option;
    }),
  );
  found.hidden = !instruments.length;
  input.setAttribute("aria-expanded", String(!found.hidden));
};

const look = async () => {
  typed += 1;
  // What was chosen before is not what is typed now.
  for (const option of options()) option.setAttribute("aria-selected", "false");
  const mine = typed;
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (mine !== typed || !input.value.trim()) return mine === typed && close();
  try {
    const instruments = await feed.search(input.value.trim(), 20);
    if (mine === typed) offer(instruments);
  } catch (error) {
    failed(error);
  }
};

const choose = (symbol) => {
  close();
  if (symbol) show(symbol, view?.resolution ?? "1D").catch(failed);
};

input.addEventListener("input", look);
input.addEventListener("focus", () => input.select());
input.addEventListener("blur", close);
input.addEventListener("keydown", (event) => {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") close();
  if (!move || found.hidden) return;
  event.preventDefault();
  const all = options();
  const here = all.indexOf(selected());
  select(all[here < 0 ? (move > 0 ? 0 : all.length - 1) : (here + move + all.length) % all.length]);
});
// Before the input loses the focus, which closes the list.
found.addEventListener("mousedown", (event) => {
  event.preventDefault();
  choose(event.target.closest("li")?.dataset.symbol);
});
part("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value.trim();
  const chosen = selected()?.dataset.symbol;
  close();
  try {
    choose(chosen ?? (text && (await feed.search(text, 1))[0]?.ticker) ?? text);
  } catch (error) {
    failed(error);
  }
});
for (const button of buttons) {
  button.addEventListener("click", () => view && show(view.symbol, button.dataset.resolution).catch(failed));
}

chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
  if (range && range.from < NEAR && view?.bars.length) fill();
});
chart.subscribeCrosshairMove((cross) => {
  if (!view) return;
  legend(view.bars[cross.logical ?? view.bars.length - 1] ?? view.bars.at(-1) ?? null);
});
new MutationObserver(paint).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });

// For whoever looks at the page from outside.
page.chart = chart;
page.series = { prices, volumes };

paint();
try {
  const first = place.get("symbol") ?? (await feed.search("", 1))[0]?.ticker;
  if (first) await show(first, place.get("resolution") ?? "1D");
  else say(texts.empty);
} catch (error) {
  failed(error);
}
loop();
