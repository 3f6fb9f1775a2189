/** The console: draws, asks this server and shows its answers. Nothing here that the public API does not offer. */

import "./mariana-autocomplete.js";
import { reduce, samples } from "./digits.js";

const LOST = "the server does not answer";

const $ = (id) => document.getElementById(id);

/** An element with properties, data and children; text only, so the page stays clean under Trusted Types. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** JSON from this server; rejects with the problem's own words. The head of the page tells whether the server answers. */
async function call(path, body, signal) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { ...options, signal }).catch((error) => {
    if (signal?.aborted) throw error; // superseded
    health("lost", LOST);
    throw new Error(LOST);
  });
  if ($("health").dataset.state === "lost") {
    health("wait", "connecting");
    look(); // it is back, perhaps with other models
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const problem = answer.errors?.[0];
  const detail = problem ? `${problem.pointer ?? ""} ${problem.detail}`.trim() : answer.detail;
  throw Object.assign(new Error(detail ?? `${response.status} ${response.statusText}`), { status: response.status });
}

const predict = (name, instance, signal, query = "") =>
  call(`/v1/models/${encodeURIComponent(name)}/predict${query}`, { instances: [instance] }, signal);

const percent = (p) => `${(p * 100).toFixed(1)} %`;
const count = new Intl.NumberFormat();
const bytes = (n) => (n < 1000 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);

/** Shows round trips in `output`: the last one, and the median of up to 100. */
function stopwatch(output) {
  const times = [];
  return (ms) => {
    times.push(ms);
    if (times.length > 100) times.shift();
    const median = [...times].sort((a, b) => a - b)[times.length >> 1];
    output.value = `${ms.toFixed(1)} ms round trip, median ${median.toFixed(1)} ms`;
  };
}

/** One bar a label in `list`; returns the function that sets the probabilities (none: all empty). */
function bars(list, labels) {
  const rows = labels.map((label) => {
    const fill = make("div", { className: "fill" });
    const value = make("span");
    const row = make("li", {}, make("span", { textContent: label }), make("div", { className: "track" }, fill), value);
    return { row, fill, value };
  });
  list.replaceChildren(...rows.map(({ row }) => row));
  return (probabilities) => {
    const best = probabilities ? Math.max(...probabilities) : Infinity;
    rows.forEach(({ row, fill, value }, i) => {
      const p = probabilities?.[i] ?? 0;
      row.classList.toggle("best", p === best);
      fill.style.setProperty("--p", p);
      value.textContent = probabilities ? percent(p) : "";
    });
  };
}

function notice(element, text, command) {
  element.replaceChildren(text, ...(command ? [" ", make("code", { textContent: command })] : []));
  element.hidden = !text;
}

// ---- Digits ---------------------------------------------------------------------------------------------------------

const pad = $("pad");
const strokes = []; // each a list of [x, y] on the unit square of the pad
const showDigits = bars($("digit-bars"), [...Array(10).keys()].map(String));
const drawTime = stopwatch($("draw-latency"));
let pen = null; // the pointer that draws
let frame = 0; // the animation frame that is asked for
let asking = new AbortController();
let said; // timer of the announcement

function drawPad() {
  const side = Math.round(pad.clientWidth * devicePixelRatio);
  if (pad.width !== side) pad.width = pad.height = side;
  const context = pad.getContext("2d");
  context.clearRect(0, 0, side, side);
  Object.assign(context, { strokeStyle: getComputedStyle(pad).color, lineWidth: side * 0.062, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
    for (const [x, y] of stroke) context.lineTo(x * side, y * side);
    context.stroke();
  }
  $("pad-hint").hidden = strokes.length > 0;
}

/** Draws the counts of ink; `heat`, where there is one, tells a cell's share, -1..1. */
function drawReduced(counts, heat) {
  const canvas = $("reduced");
  const context = canvas.getContext("2d");
  const cell = canvas.width / 8;
  context.clearRect(0, 0, canvas.width, canvas.width);
  const style = getComputedStyle(canvas);
  counts.forEach((ink, i) => {
    const box = [(i % 8) * cell + 1, Math.floor(i / 8) * cell + 1, cell - 2, cell - 2];
    context.fillStyle = style.color;
    context.globalAlpha = heat ? (ink / 16) * 0.35 : ink / 16;
    context.fillRect(...box);
    if (!heat) return;
    const share = heat(i);
    context.fillStyle = share < 0 ? style.textDecorationColor : style.color; // where CSS keeps two colours, resolved
    context.globalAlpha = Math.abs(share);
    context.fillRect(...box);
  });
}

/** Colours the reduced drawing by what each cell has to do with the digit that was read: for it, or against it. */
async function heat() {
  const counts = reduce(strokes);
  const { signal } = asking;
  const answer = await predict("digits", counts, signal, "?explain=true").catch(() => null); // the drawing stays as it is
  if (!answer || signal.aborted) return;
  const shares = Object.values(answer.predictions[0].explanation.shares);
  const most = Math.max(...shares.map(Math.abs), 1e-9);
  drawReduced(counts, (i) => shares[i] / most);
}

/** Shows the drawing and asks for its digit, at most once a frame; what was under way is given up. */
function refresh() {
  $("digit-bars").ariaBusy = true;
  frame ||= requestAnimationFrame(async () => {
    frame = 0;
    drawPad();
    const counts = reduce(strokes);
    drawReduced(counts);
    asking.abort();
    if (!strokes.length) return showDigit(null);
    asking = new AbortController();
    const { signal } = asking;
    const start = performance.now();
    try {
      const { predictions } = await predict("digits", counts, signal);
      drawTime(performance.now() - start);
      notice($("draw-notice"), "");
      showDigit(predictions[0]);
    } catch (error) {
      if (signal.aborted) return;
      showDigit(null);
      if (error.status === 404) notice($("draw-notice"), "No model named digits is loaded. This trains one:", "mariana demo");
      else notice($("draw-notice"), `No prediction just now: ${error.message}`);
    }
  });
}

function showDigit(prediction) {
  $("digit-bars").ariaBusy = false;
  $("digit").textContent = prediction?.label ?? "?";
  $("digit").classList.toggle("empty", !prediction);
  $("sure").textContent = prediction ? `${percent(prediction.probability)} sure` : strokes.length ? "" : "nothing drawn";
  showDigits(prediction?.probabilities);
  clearTimeout(said);
  said = setTimeout(() => {
    if (prediction) heat();
    $("draw-status").textContent = prediction ? `It reads ${prediction.label}, ${percent(prediction.probability)} sure` : "";
  }, 600);
}

function point(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (pen !== null || event.button) return;
  pen = event.pointerId;
  pad.setPointerCapture(pen);
  strokes.push([point(event)]);
  refresh();
});
pad.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen) return;
  const passed = event.getCoalescedEvents?.() ?? []; // browsers offer it to secure origins only
  strokes.at(-1).push(...(passed.length ? passed : [event]).map(point));
  refresh();
});
for (const type of ["pointerup", "pointercancel"]) pad.addEventListener(type, (event) => event.pointerId === pen && (pen = null));

function draw(lines) {
  strokes.splice(0, Infinity, ...lines);
  pen = null;
  refresh();
}

$("clear").addEventListener("click", () => draw([]));
samples.forEach((lines, digit) => {
  const button = make("button", { type: "button", className: "quiet", textContent: digit, ariaLabel: `Draw a ${digit}` });
  button.addEventListener("click", () => draw(lines));
  document.querySelector(".samples").append(button);
});
new ResizeObserver(refresh).observe(pad);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);

// ---- Cities ---------------------------------------------------------------------------------------------------------

const cities = $("cities");
const countries = new Intl.DisplayNames(undefined, { type: "region", fallback: "code" });
const MAP = { top: 75, height: 132 }; // degrees of latitude that world.svg shows; all of longitude

function countryName(code) {
  try {
    return countries.of(code);
  } catch {
    return code; // not a region code: show what the index keeps
  }
}

cities.renderOption = ({ score, payload }, option) => {
  const text = make("span", {}, ...option.childNodes);
  const hint = make("span", { className: "hint", textContent: [payload?.country, count.format(score)].filter(Boolean).join(" · ") });
  option.append(text, hint);
};

cities.addEventListener("mariana-select", ({ detail: { text, score, payload } }) => {
  const { country, lat, lon, ...rest } = payload ?? {};
  const facts = [["Population", count.format(score)]];
  if (country) facts.unshift(["Country", countryName(country)]);
  const known = Number.isFinite(lat) && Number.isFinite(lon);
  if (known) facts.push(["Position", `${Math.abs(lat).toFixed(2)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(2)}° ${lon < 0 ? "W" : "E"}`]);
  if (rest.city) facts.unshift(["Known as", rest.city]);
  const list = make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  $("place").replaceChildren(make("h3", { textContent: text }), list);
  $("pin").hidden = !known;
  if (known) {
    $("pin").style.setProperty("--x", (lon + 180) / 360);
    $("pin").style.setProperty("--y", (MAP.top - lat) / MAP.height);
    $("map").ariaLabel = `World map, ${text} marked`;
  }
});

cities.addEventListener("mariana-error", look); // tells whether it is the server

const cityTime = stopwatch($("city-latency"));
new PerformanceObserver((list) => {
  for (const { name, duration, responseEnd, transferSize } of list.getEntries()) {
    const asked = new URL(name).pathname === "/v1/indexes/cities/complete" && transferSize > 0; // 0: the browser's own memory
    if (asked && responseEnd) cityTime(duration);
  }
}).observe({ type: "resource" });

// ---- Try a model ----------------------------------------------------------------------------------------------------

const MOST_FIELDS = 40; // a form with more is no help
const tryTime = stopwatch($("try-latency"));
let formModels = [];
let trying = new AbortController();
let api = {}; // the OpenAPI document: it holds an example record of each model

function exampleOf(name) {
  const body = api.paths?.[`/v1/models/${name}/predict`]?.post.requestBody?.content["application/json"];
  return body?.examples?.records?.value.instances[0] ?? {};
}

function field(feature, value) {
  const id = `feature-${feature.name}`;
  let input;
  if (feature.kind === "categorical") {
    input = make("select", { id }, ...(feature.categories ?? []).map((value) => make("option", { value, textContent: value })));
  } else if (feature.kind === "boolean") {
    input = make("input", { id, type: "checkbox" });
  } else if (feature.kind === "date") {
    input = make("input", { id, placeholder: "2024-03-05T14:30:00", required: feature.required });
  } else {
    input = make("input", { id, type: "number", step: "any", required: feature.required });
  }
  if (feature.kind === "boolean") input.checked = value === true;
  else if (value !== undefined) input.value = typeof value === "number" ? Number(value.toPrecision(6)) : value; // as float32 keeps it
  input.dataset.feature = feature.name;
  input.dataset.kind = feature.kind;
  return make("p", { className: "field" }, make("label", { htmlFor: id, textContent: feature.name.replaceAll("_", " ") }), input);
}

function record() {
  const values = {};
  for (const input of $("try-fields").querySelectorAll("[data-feature]")) {
    const { feature, kind } = input.dataset;
    if (kind === "boolean") values[feature] = input.checked;
    else if (kind === "categorical" || (kind === "date" && input.value !== "")) values[feature] = input.value;
    else if (input.value !== "") values[feature] = input.valueAsNumber;
  }
  return values;
}

function showForm() {
  const model = formModels[$("try-model").selectedIndex];
  const example = exampleOf(model.name);
  $("try-fields").replaceChildren(...model.features.map((feature) => field(feature, example[feature.name])));
  ask();
}

const MOST_SHARES = 8; // the longest bars; the rest is hardly to be seen

/** One bar a feature, the longest first: to the right what speaks for the answer, to the left what speaks against it. */
function showWhy({ explanation }, { of, baseline }) {
  const told = [explanation].flat()[0];
  const shares = Object.entries(told.shares).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)).slice(0, MOST_SHARES);
  const most = Math.max(...shares.map(([, share]) => Math.abs(share)), 1e-9);
  const rows = shares.map(([name, share]) => {
    const fill = make("div", { className: share < 0 ? "fill against" : "fill" });
    fill.style.setProperty("--p", Math.abs(share) / most);
    const value = make("span", { textContent: (share > 0 ? "+" : "") + Number(share.toPrecision(3)) });
    const usual = baseline[name] === undefined || baseline[name] === null ? "" : `, counted from ${baseline[name]}`;
    return make("li", { title: `${name}${usual}` }, make("span", { textContent: name.replaceAll("_", " ") }), make("div", { className: "track" }, fill), value);
  });
  $("why-bars").replaceChildren(...rows);
  const what = of === "log_odds" ? `the log-odds of ${told.output}` : "the value";
  $("why-about").textContent = `By how much each feature moves ${what}, ${told.value.toPrecision(4)}, away from what it is for a usual row, ${told.baseline_value.toPrecision(4)}.`;
  $("try-why").hidden = false;
}

async function ask() {
  const { name } = formModels[$("try-model").selectedIndex];
  const instance = record();
  const body = JSON.stringify({ instances: [instance] }).replaceAll("'", "'\\''");
  $("try-curl").textContent = `curl -s ${location.origin}/v1/models/${name}/predict \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
  trying.abort();
  trying = new AbortController();
  const { signal } = trying;
  const start = performance.now();
  try {
    const { labels, predictions, explain } = await predict(name, instance, signal, "?explain=true");
    tryTime(performance.now() - start);
    notice($("try-notice"), "");
    if (explain) showWhy(predictions[0], explain);
    const [prediction] = predictions;
    if (prediction.probabilities) bars($("try-bars"), labels)(prediction.probabilities);
    else $("try-bars").replaceChildren(make("li", { className: "value", textContent: [prediction.value].flat().map((v) => v.toPrecision(5)).join(", ") }));
  } catch (error) {
    if (signal.aborted) return;
    $("try-bars").replaceChildren();
    $("try-why").hidden = true;
    notice($("try-notice"), error.message);
  }
}

$("try-model").addEventListener("change", showForm);
$("try-fields").addEventListener("input", ask);
$("try-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});

// ---- What is loaded -------------------------------------------------------------------------------------------------

const row = (...cells) => make("tr", {}, ...cells.map((textContent) => make("td", { textContent })));

function table(body, rows, empty, command) {
  const nothing = make("td", { className: "empty-row", colSpan: 6 }, `${empty} `, make("code", { textContent: command }));
  body.replaceChildren(...(rows.length ? rows : [make("tr", {}, nothing)]));
}

/** The first metric of the best split to judge by: { test: { accuracy: 0.98 } } -> "98.0 % accuracy". */
function measured(metrics) {
  const split = ["test", "validation", "train"].find((name) => Object.keys(metrics?.[name] ?? {}).length);
  if (!split) return "";
  const all = metrics[split];
  const name = Object.keys(all).find((key) => /accuracy|r2/.test(key)) ?? Object.keys(all)[0];
  const words = `${name.replaceAll("_", " ")} (${split})`;
  return /accuracy/.test(name) ? `${percent(all[name])} ${words}` : `${all[name].toPrecision(3)} ${words}`;
}

const broken = (name, reason) => make("tr", {}, make("td", { textContent: name }), make("td", { className: "empty-row", colSpan: 5, textContent: reason }));

function modelRow(model) {
  if (!model.task) return broken(model.name, model.model_version_status?.[0]?.status.error_message ?? "could not be loaded");
  const shape = [model.features.length, ...(model.layers ?? [])].join(" → ");
  return row(model.name, model.version, model.task, shape, measured(model.metrics), `${model.precision}, ${model.isa}, ${bytes(model.nbytes)}`);
}

function indexRow({ name, entries, nbytes, error }) {
  if (entries === null) return broken(name, error ?? "could not be opened");
  return row(name, count.format(entries), bytes(nbytes), `${(nbytes / (entries || 1)).toFixed(1)} B`);
}

function health(state, text) {
  $("health").dataset.state = state;
  $("health-text").textContent = text;
}

async function look() {
  try {
    const [{ models }, { indexes }] = await Promise.all([call("/v1/models"), call("/v1/indexes")]);
    const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
    const serving = models.filter(({ task }) => task);
    const opened = indexes.filter(({ entries }) => entries !== null);
    health("ready", `ready: ${plural(serving.length, "model", "models")}, ${plural(opened.length, "index", "indexes")}`);
    table($("models"), models.map(modelRow), "No model is loaded. Train one:", "mariana train iris --target species");
    table($("indexes"), indexes.map(indexRow), "No index is loaded. Build one:", "mariana index terms.txt --name terms");
    if (!serving.some(({ name }) => name === "digits")) notice($("draw-notice"), "No model named digits is loaded. This trains one:", "mariana demo");
    const found = opened.some(({ name }) => name === "cities");
    if (found) notice($("city-notice"), "");
    else notice($("city-notice"), "No index named cities is loaded. This builds one:", "mariana demo");
    $("city").disabled = !found;
    formModels = serving.filter(({ features }) => features.length <= MOST_FIELDS);
    $("try").hidden = !formModels.length;
    if (formModels.length) {
      api = await call("/openapi.json").catch(() => ({}));
      $("try-model").replaceChildren(...formModels.map(({ name }) => make("option", { textContent: name })));
      showForm();
    }
  } catch (error) {
    health("lost", error.message);
  }
}

showDigit(null);
look();
