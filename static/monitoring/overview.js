// Keeps the overview page's figures and its chart up to date.
(() => {
  const page = document.getElementById("overview");
  if (!page) return;
  const lost = document.getElementById("overview-lost");
  const clock = document.getElementById("overview-time");
  const rows = document.getElementById("overview-terminals");
  const blank = document.getElementById("overview-terminal");
  const refresh = Number(page.dataset.refresh);

  const show = (element, item, parts) => {
    if (!element) return;
    element.dataset.level = item.level;
    for (const part of parts) {
      const target = element.querySelector(`[data-part="${part}"]`);
      if (target.textContent !== item[part]) target.textContent = item[part];
    }
  };

  // Terminals come and go while the page is open.
  const list = (terminals) => {
    const known = new Map([...rows.children].map((row) => [row.dataset.terminal, row]));
    const wanted = terminals.map((terminal) => {
      const row = known.get(terminal.id) ?? blank.content.firstElementChild.cloneNode(true);
      row.dataset.terminal = terminal.id;
      show(row, terminal, ["name", "state", "reasons", "detail"]);
      return row;
    });
    if (wanted.length !== known.size || wanted.some((row, i) => row !== rows.children[i])) rows.replaceChildren(...wanted);
  };

  const draw = (counts) => {
    const canvas = document.querySelector("#overview-rate canvas");
    const chart = canvas && window.Chart && Chart.getChart(canvas);
    if (!chart) return;
    chart.options.scales.y.min = 0;
    chart.options.scales.y.ticks.precision = 0;
    chart.options.scales.x.ticks.maxRotation = 0;
    chart.options.scales.x.ticks.maxTicksLimit = Math.max(2, Math.floor(canvas.clientWidth / 90));
    const now = Date.now();
    chart.data.labels = counts.map((_, i) => new Date(now - (counts.length - i) * 1000).toLocaleTimeString("en-GB", { timeZone: "Asia/Shanghai" }));
    chart.data.datasets[0].data = counts;
    chart.update("none");
  };

  const update = async () => {
    const answer = await fetch(page.dataset.url, {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(5 * refresh),
    });
    if (answer.redirected) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    const news = await answer.json();
    for (const figure of news.figures) {
      show(page.querySelector(`[data-figure="${figure.id}"]`), figure, ["value", "detail"]);
    }
    list(news.terminals);
    clock.textContent = news.time;
    draw(news.chart);
  };

  const loop = async () => {
    try {
      if (!document.hidden) await update();
      lost.hidden = true;
    } catch {
      lost.textContent = page.dataset.lost;
      lost.hidden = false;
    }
    setTimeout(loop, refresh);
  };
  loop();
})();
