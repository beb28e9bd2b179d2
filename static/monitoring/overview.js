// Keeps the overview page's figures and its chart up to date.
(() => {
  const page = document.getElementById("overview");
  if (!page) return;
  const lost = document.getElementById("overview-lost");
  const refresh = Number(page.dataset.refresh);
  let last = null;

  const show = (element, item, parts) => {
    if (!element) return;
    element.dataset.level = item.level;
    for (const part of parts) {
      const target = element.querySelector(`[data-part="${part}"]`);
      if (target.textContent !== item[part]) target.textContent = item[part];
    }
  };

  // A counter of one process over this page's own clock; another process, or a restart, begins anew.
  const rate = (news) => {
    const now = performance.now();
    const before = last;
    last = { process: news.process, quotes: news.quotes, at: now };
    if (!before || before.process !== news.process || news.quotes < before.quotes) return null;
    return Math.round(((news.quotes - before.quotes) / (now - before.at)) * 1000);
  };

  const draw = (value) => {
    const canvas = document.querySelector("#overview-rate canvas");
    const chart = canvas && window.Chart && Chart.getChart(canvas);
    if (!chart) return;
    chart.options.scales.y.min = 0;
    chart.options.scales.x.ticks.maxRotation = 0;
    chart.data.labels.push(new Date().toLocaleTimeString());
    chart.data.labels.shift();
    chart.data.datasets[0].data.push(value);
    chart.data.datasets[0].data.shift();
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
    const value = rate(news);
    for (const figure of news.figures) {
      if (figure.id === "rate" && value !== null) figure.value = value.toLocaleString();
      show(page.querySelector(`[data-figure="${figure.id}"]`), figure, ["value", "detail"]);
    }
    for (const terminal of news.terminals) {
      show(page.querySelector(`[data-terminal="${terminal.id}"]`), terminal, ["state", "detail"]);
    }
    draw(value);
  };

  const loop = async () => {
    try {
      if (!document.hidden) await update();
      lost.hidden = true;
    } catch {
      last = null;
      lost.textContent = page.dataset.lost;
      lost.hidden = false;
    }
    setTimeout(loop, refresh);
  };
  loop();
})();
