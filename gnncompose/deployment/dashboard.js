
"use strict";
// Whatever comes from compositions and reasons becomes text, never markup.
const BLUE = "#0072b2", ORANGE = "#d55e00", GREEN = "#009e73", DARK = "#333333";
const EVERY_MS = 2000, PATIENCE_MS = 5000;
// What the charts span, in seconds, and how far apart their ticks are where there is room and where there is little.
const SPANS = [[60, 20, 30], [120, 30, 60], [240, 60, 120], [600, 120, 300]];
const HEIGHT = 210, LEFT = 46, RIGHT = 12, TOP = 40, BOTTOM = 26;
// Without what the address bar may hold: fetch takes no address with a password.
const HERE = location.origin + location.pathname;
const WHEN = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const SHORT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const place = (id) => document.getElementById(id);
let shown = null, reached = null;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const number = (value, unit = "") =>
  value === null || value === undefined ? "–" : `${value >= 1000 ? Math.round(value) : +value.toPrecision(3)}${unit}`;
const share = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const agoText = (ago) => (ago === 0 ? "now" : ago < 60 || ago % 60 ? `−${ago} s` : `−${ago / 60} min`);
const whenText = (at) => WHEN.format(new Date(at));

// --- charts: one line a series over the last ten minutes, with a mark where a version went live or began to be tried

function step(span) {
  const power = 10 ** Math.floor(Math.log10(span / 4));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= 4.001);
}

function axis(values, ends) {
  let [low, high] = ends ?? [0, Math.max(...values, 0)];
  if (ends) low = Math.min(high - 0.05, ...values);
  if (!(high > low)) high = low + 1;
  const size = step(high - low);
  low = Math.floor(low / size + 1e-9) * size;
  high = ends ? high : Math.ceil(high / size - 1e-9) * size;
  const ticks = [];
  for (let tick = low; tick <= high + size / 1e6; tick += size) ticks.push(+tick.toPrecision(10));
  return { low, high, ticks };
}

// Lines over seconds that follow each other, or over all that `joins`; and dots where a second has no neighbour.
function lines(values, joins, x, y) {
  const runs = [];
  let last = -Infinity;
  values.forEach((value, index) => {
    if (value === null) return;
    if (!runs.length || !(joins || last === index - 1)) runs.push([]);
    runs.at(-1).push(`${x(values.length - index).toFixed(1)} ${y(value).toFixed(1)}`);
    last = index;
  });
  const dots = joins ? runs.flat() : runs.filter((run) => run.length === 1).flat();
  const paths = runs.filter((run) => run.length > 1).map((run) => `M${run.join("L")}`);
  return [paths.join(""), dots.map((point) => `M${point}h0`).join("")];
}

function marks(events, span, x, bottom) {
  const found = [];
  let last = Infinity;
  for (const event of events) {
    if (event.seconds_ago > span || !["live", "shadow", "canary"].includes(event.what)) continue;
    const at = x(event.seconds_ago), dash = event.what === "live" ? "none" : "2 3";
    const mark = drawn("g", { class: "mark" });
    mark.append(
      drawn("title", {}, `version ${event.version}: ${event.what}, ${event.detail}`),
      drawn("path", { d: `M${at.toFixed(1)} ${TOP - 6}V${bottom}`, stroke: DARK, "stroke-dasharray": dash }),
    );
    if (last - at > 26) {
      const text = { x: at, y: TOP - 10, "font-size": 11, "text-anchor": "middle", fill: DARK };
      mark.append(drawn("text", text, `v${event.version}`));
      last = at;
    }
    found.push(mark);
  }
  return found;
}

function legend(series) {
  const found = [];
  let x = LEFT;
  for (const one of series) {
    const stroke = { stroke: one.colour, "stroke-width": 2.4, "stroke-dasharray": one.dash };
    found.push(drawn("path", { d: `M${x} 11h20`, ...stroke }));
    found.push(drawn("text", { x: x + 25, y: 15, "font-size": 12, fill: "#111" }, one.name));
    x += 42 + 6.6 * one.name.length;
  }
  return found;
}

function chart(id, label, series, ends = null) {
  const target = place(id), values = series.flatMap((one) => one.values.filter((value) => value !== null));
  if (!values.length) {
    target.replaceChildren(element("p", { class: "quiet" }, "Nothing yet."));
    return;
  }
  const width = Math.max(target.clientWidth, 260), bottom = HEIGHT - BOTTOM;
  const scale = axis(values, ends);
  const [span, wide, narrow] = SPANS.find(([seconds]) => seconds >= shown.figures.seconds) ?? SPANS.at(-1);
  const x = (ago) => LEFT + (1 - ago / span) * (width - LEFT - RIGHT);
  const y = (value) => bottom - ((value - scale.low) / (scale.high - scale.low)) * (bottom - TOP);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img" });
  svg.append(drawn("title", {}, label));
  for (const tick of scale.ticks) {
    svg.append(drawn("path", { d: `M${LEFT} ${y(tick).toFixed(1)}H${width - RIGHT}`, stroke: "#e6e6e6" }));
    const text = { x: LEFT - 7, y: y(tick) + 4, "font-size": 11.5, "text-anchor": "end", fill: "#444" };
    svg.append(drawn("text", text, String(tick)));
  }
  for (let ago = span; ago >= 0; ago -= width < 400 ? narrow : wide) {
    const text = { x: x(ago), y: HEIGHT - 8, "font-size": 11.5, fill: "#444" };
    const anchor = ago === 0 ? "end" : ago === span ? "start" : "middle";
    svg.append(drawn("text", { ...text, "text-anchor": anchor }, agoText(ago)));
  }
  svg.append(...marks(shown.events, span, x, bottom));
  for (const one of series) {
    const [path, dots] = lines(one.values, one.joins, x, y);
    const form = { stroke: one.colour, fill: "none", "stroke-linejoin": "round" };
    svg.append(
      drawn("path", { d: path, ...form, "stroke-width": 1.8, "stroke-dasharray": one.dash, class: "line" }),
      drawn("path", { d: dots, ...form, "stroke-width": 4, "stroke-linecap": "round", class: "dots" }),
    );
  }
  svg.append(...legend(series));
  target.replaceChildren(svg);
}

// --- what is shown

function tile(name, value, detail) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value), element("span", { class: "quiet" }, detail));
}

function showTiles({ latest }, waiting) {
  const over = `over the last ${latest.seconds} s`;
  const accuracy = latest.accuracy === null ? ["Confidence", latest.confidence] : ["Accuracy", latest.accuracy];
  const detail = latest.accuracy === null ? "no labels have come" : `${latest.labelled} labels, ${over}`;
  place("tiles").replaceChildren(
    tile("Latency, p50", number(latest.latency_ms_p50, " ms"), over),
    tile("Latency, p95", number(latest.latency_ms_p95, " ms"), over),
    tile("Requests a second", number(latest.requests_per_s), `${number(latest.rows_per_s)} rows a second`),
    tile("Failed", number(latest.failed), `${latest.turned_away} turned away, ${latest.mistaken} with mistakes`),
    tile(accuracy[0], share(accuracy[1]), detail),
    tile("Waiting", number(waiting.rows, " rows"), `${waiting.batches} batches are being answered`),
  );
}

function showCharts(figures) {
  chart("latency", "Latency in milliseconds", [
    { name: "p50, ms", values: figures.latency_ms_p50, colour: BLUE, dash: "none" },
    { name: "p95, ms", values: figures.latency_ms_p95, colour: ORANGE, dash: "6 4" },
  ]);
  const lost = figures.requests.map((_, s) => figures.failed[s] + figures.turned_away[s] + figures.mistaken[s]);
  chart("throughput", "Requests a second", [
    { name: "requests / s", values: figures.requests, colour: BLUE, dash: "none" },
    { name: "without an answer", values: lost.map((count) => count || null), colour: ORANGE, dash: "6 4" },
  ]);
  chart("accuracy", "Confidence and accuracy", [
    { name: "confidence", values: figures.confidence, colour: BLUE, dash: "none" },
    { name: "accuracy by labels", values: figures.accuracy, colour: GREEN, dash: "6 4", joins: true },
  ], [0, 1]);
}

function stateCell(state) {
  const bad = ["refused", "aborted", "rolled back", "rolled_back", "changed"].includes(state);
  const good = ["live", "as expected"].includes(state);
  const words = element("span", { class: `state ${bad ? "bad" : good ? "good" : ""}` }, state.replace("_", " "));
  return element("td", { class: "text" }, words);
}

function row(version, state, at, reason, detail = "") {
  const link = element("a", { href: `${HERE}drawing.svg?version=${version}`, title: "its drawing" }, String(version));
  const said = element("td", { class: "text said" }, reason);
  if (detail) said.append(element("div", { class: "quiet" }, detail));
  const cells = [element("td", {}, link), stateCell(state), element("td", { class: "text" }, whenText(at)), said];
  return element("tr", state === "live" ? { class: "live" } : {}, ...cells);
}

function showDeployments({ deployments, events }) {
  place("deployments").replaceChildren(
    ...deployments.map((one) => row(one.version, one.state, one.at, one.reason, one.detail)),
  );
  const rows = events.map((event) => row(event.version, event.what, event.at, event.detail));
  rows.forEach((made) => made.removeAttribute("class"));
  place("events").replaceChildren(...rows);
}

function showLive({ status: { live }, deployments }) {
  const before = deployments.find((one) => one.state === "stands ready");
  const ready = before ? `, version ${before.version} stands ready` : "";
  place("live").textContent = live ? `version ${live.version} is live${ready}` : "no version is live";
  place("composition").textContent = live ? live.composition : "";
  const image = place("drawing"), version = live ? String(live.version) : "";
  if (image.dataset.version === version) return;
  image.dataset.version = version;
  image.alt = live ? `Drawing of ${live.composition}` : "";
  if (live) image.src = `${HERE}drawing.svg?version=${version}`;
}

function tableOf(heads, rows) {
  const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind }, text)));
  return element("div", { class: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function showTried(tried) {
  if (!tried) return place("tried").replaceChildren(element("p", { class: "quiet" }, "Nothing."));
  const what = `Version ${tried.version} as a ${tried.how} on ${share(tried.share)} of the requests: `;
  const compared = `${tried.mirrored} requests compared, ${share(tried.agreement)} of ${tried.rows} rows agree, ` +
    `largest difference ${number(tried.largest_difference)}, ${tried.failed} failed, ${tried.skipped} left out.`;
  place("tried").replaceChildren(
    element("p", {}, what, element("code", {}, tried.composition)),
    element("p", { class: "quiet" }, tried.how === "shadow" ? compared : "Its answers are given to clients."),
  );
}

function showDrift(drift) {
  if (!drift) return place("drift").replaceChildren(element("p", { class: "quiet" }, "Not watched."));
  const rows = drift.toSorted((one, other) => other.alarmed - one.alarmed).map((signal) => {
    const state = stateCell(signal.alarmed ? "changed" : "as expected");
    if (signal.since) state.append(element("div", { class: "quiet" }, `since ${sinceText(signal.since)}`));
    const value = typeof signal.value === "number" ? number(signal.value) : String(signal.value ?? "–");
    return element("tr", {}, element("td", { class: "text said" }, String(signal.signal)), element("td", {}, value), state);
  });
  place("drift").replaceChildren(tableOf([["signal", "text"], ["value", ""], ["state", "text"]], rows));
}

function sinceText(since) {
  return Number.isNaN(Date.parse(since)) ? String(since) : SHORT.format(new Date(since));
}

function show() {
  showLive(shown);
  showTiles(shown.figures, shown.waiting);
  showCharts(shown.figures);
  showDrift(shown.drift);
  showTried(shown.status.tried);
  showDeployments(shown);
}

// --- asking

function complain(text) {
  const since = reached ? `; what is shown is of ${CLOCK.format(reached)}` : "";
  place("trouble").textContent = `${text}${since}.`;
  place("trouble").hidden = false;
  document.body.classList.add("stale");
}

async function asked() {
  let response;
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    response = await fetch(`${HERE}figures`, options);
  } catch {
    return complain("The server cannot be reached");
  }
  if (!response.ok) return complain(`The server answers ${response.status}`);
  shown = await response.json();
  reached = new Date();
  place("trouble").hidden = true;
  document.body.classList.remove("stale");
  show();
}

async function poll() {
  try {
    await asked();
  } finally {
    setTimeout(poll, EVERY_MS);
  }
}

addEventListener("resize", () => shown && showCharts(shown.figures));
poll();
