// Keeps the page of terminals up to date, and sends each knob as it is turned.
(() => {
  const page = document.getElementById("terminals");
  if (!page) return;
  const texts = page.dataset;
  const refresh = Number(texts.refresh);
  const lost = document.getElementById("terminals-lost");
  const clock = document.getElementById("terminals-time");
  const token = page.querySelector("[name=csrfmiddlewaretoken]").value;
  const KEPT = 150; // points of a plot: five minutes
  const plots = new Map();
  const shown = new Map();

  const part = (element, name) => element.querySelector(`:scope > [data-part="${name}"], :scope > :is(header, figure) [data-part="${name}"]`);
  const owner = (element) => element.closest("[data-terminal], [data-pool]");
  const fieldOf = (control) => control.name.slice(control.name.lastIndexOf("-") + 1);
  const controls = (element) => [...element.querySelectorAll("input, select")].filter((control) => owner(control) === element && control.name);

  const valueOf = (control) => {
    if (control.type === "checkbox") return control.checked;
    if (control.type !== "number") return control.value;
    return control.value === "" ? null : Number(control.value);
  };
  const stand = (control, value) => {
    if (control.type === "checkbox") control.checked = value;
    else control.value = value ?? "";
  };

  const say = (element, text, level = "") => {
    const target = part(element, "said");
    target.textContent = text;
    target.dataset.level = level;
  };

  const show = (element, news) => {
    if (shown.get(element)?.html !== news.html) part(element, "live").innerHTML = news.html;
    shown.set(element, news);
    for (const control of controls(element)) {
      // What somebody is at, or what is on its way, is not taken from under their hands.
      if (control !== document.activeElement && !("sending" in control.dataset)) stand(control, news.knobs[fieldOf(control)]);
    }
  };

  const plot = (element, p99) => {
    const points = plots.get(element) ?? [];
    points.push(p99);
    if (points.length > KEPT) points.shift();
    plots.set(element, points);
    const known = points.filter((value) => value !== null);
    const most = Math.max(...known, 0.001);
    const line = points.map((value, i) => (value === null ? "" : `${(300 * (KEPT - points.length + i)) / (KEPT - 1)},${38 - (36 * value) / most}`));
    element.querySelector("polyline").setAttribute("points", line.join(" "));
    part(element, "most").textContent = known.length ? `≤ ${most < 1 ? `${Math.round(most * 1000)} ms` : `${most.toFixed(1)} s`}` : "";
  };

  const update = async (plotted = false) => {
    const answer = await fetch(texts.url, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5 * refresh) });
    if (answer.redirected) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    const news = await answer.json();
    if (news.shape !== texts.shape) return location.reload();
    for (const [name, pool] of Object.entries(news.pools)) show(page.querySelector(`[data-pool="${name}"]`), pool);
    for (const [name, terminal] of Object.entries(news.terminals)) {
      const element = page.querySelector(`[data-terminal="${name}"]`);
      show(element, terminal);
      element.dataset.drained = terminal.drained;
      element.querySelector("[data-do=drain]").textContent = terminal.drained ? texts.resume : texts.drain;
      if (plotted) plot(element, terminal.p99);
    }
    clock.textContent = news.time;
  };

  // Whether it was done; what came of it is said beside it.
  const send = async (element, url, body) => {
    let done = false;
    try {
      const answer = await fetch(url, {
        method: "POST",
        headers: { Accept: "application/json", "Content-Type": "application/json", "X-CSRFToken": token },
        body: JSON.stringify(body),
      });
      if (answer.redirected) return location.reload();
      const told = await answer.json();
      done = answer.ok;
      say(element, told.detail, done ? "" : "bad");
    } catch {
      say(element, texts.failed, "bad");
    }
    await update().catch(() => {});
    return done;
  };

  page.addEventListener("change", async ({ target: control }) => {
    if (!control.name) return;
    const element = owner(control);
    control.dataset.sending = "";
    const done = await send(element, element.dataset.url, { [fieldOf(control)]: valueOf(control) });
    delete control.dataset.sending;
    if (!done && shown.has(element)) stand(control, shown.get(element).knobs[fieldOf(control)]);
  });

  page.addEventListener("click", async ({ target }) => {
    const button = target.closest("[data-do]");
    if (!button || button.ariaBusy === "true") return;
    const element = owner(button);
    button.ariaBusy = "true";
    if (button.dataset.do === "drain") {
      await send(element, element.dataset.url, { drained: element.dataset.drained !== "true" });
    } else {
      say(element, texts.asking);
      await send(element, `${element.dataset.url}/probe`, {});
    }
    button.ariaBusy = "false";
  });

  const loop = async () => {
    try {
      if (!document.hidden) await update(true);
      lost.hidden = true;
    } catch {
      lost.textContent = texts.lost;
      lost.hidden = false;
    }
    setTimeout(loop, refresh);
  };
  loop();
})();
