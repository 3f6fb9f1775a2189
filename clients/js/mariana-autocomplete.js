/**
 * <mariana-autocomplete>: suggestions for the page's own <input>, from a Mariana index.
 *
 *   <mariana-autocomplete src="/v1/indexes/cities/complete" limit="8">
 *     <label for="city">City</label>
 *     <input id="city" name="city" dir="auto">
 *   </mariana-autocomplete>
 *
 * Label, input and list live in one tree (no shadow root): labels, forms, autofill and screen readers work as ever,
 * and without JavaScript a plain input remains. Behaviour: WAI-ARIA APG combobox, list autocomplete
 * with manual selection. Attributes, events and custom properties: see README.md. No dependency, no build step.
 */

const TRIES = 3;
const TIMEOUT = 5_000; // ms for one try; a request that hangs counts as a failed try
const LONGEST_WAIT = 10_000; // ms; a server that asks us to wait longer is shown as an error at once
const LOADING_AFTER = 200; // ms; below, a flash of "Loading" would only disturb
const ANNOUNCE_AFTER = 500; // ms; lets a screen reader finish echoing the key first
const CACHED = 64; // answers, forgotten when the input loses the focus

// Android's keyboards hold even Latin words in a composition: there only scripts that need an input method wait.
const ANDROID = /Android/.test(globalThis.navigator?.userAgent ?? "");
const INPUT_METHOD = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{sc=Bopomofo}]/u;

// :where() keeps the weight at zero: any rule of the page wins. System colours follow the page's color-scheme.
const CSS = `
:where(mariana-autocomplete) { display: block; position: relative }
:where(.mariana-panel) {
  position: absolute; z-index: 10; inset: 100% 0 auto; margin-block-start: 4px; overflow: hidden auto;
  max-block-size: var(--mariana-max-height, 24rem); color: var(--mariana-color, CanvasText);
  background: var(--mariana-background, Canvas); border-radius: var(--mariana-radius, 8px);
  border: 1px solid var(--mariana-border, color-mix(in srgb, CanvasText 25%, Canvas));
  box-shadow: var(--mariana-shadow, 0 8px 24px rgb(0 0 0 / .16)); text-align: start;
}
:where(.mariana-panel[hidden], .mariana-message:empty) { display: none }
:where(.mariana-option, .mariana-message) { padding: var(--mariana-padding, .5rem .75rem) }
:where(.mariana-option) { cursor: pointer; overflow-wrap: anywhere }
:where(.mariana-option:hover) { background: var(--mariana-hover, color-mix(in srgb, CanvasText 6%, Canvas)) }
:where(.mariana-option[aria-selected=true]) {
  color: var(--mariana-active-color, inherit);
  background: var(--mariana-active, color-mix(in srgb, CanvasText 14%, Canvas));
}
:where(.mariana-option mark) { color: inherit; background: none; font-weight: var(--mariana-mark-weight, 700) }
:where(.mariana-message) { color: var(--mariana-muted, color-mix(in srgb, CanvasText 70%, Canvas)) }
:where(mariana-autocomplete[data-state=error] .mariana-message) { color: var(--mariana-error, inherit) }
:where(.mariana-list) { transition: opacity .1s }
:where(.mariana-list[aria-busy=true]) { opacity: .6 }
:where(.mariana-status) { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
@media (pointer: coarse) { :where(.mariana-option) { min-block-size: 44px; box-sizing: border-box } }
@media (prefers-reduced-motion: reduce) { :where(.mariana-list) { transition: none } }
@media (forced-colors: active) {
  :where(.mariana-option[aria-selected=true]) { forced-color-adjust: none; color: HighlightText; background: Highlight }
}`;

let sheet; // one for all elements and all roots
let count = 0; // makes ids unique

/** @param {number} ms @param {AbortSignal} signal */
const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** Milliseconds that the answer's Retry-After (seconds or a date) asks for; 0 without one. */
function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  if (!value) return 0;
  const ms = /^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now();
  return Math.max(0, ms || 0);
}

/** Why a question was refused, in the server's words (RFC 9457); empty when it has none. */
async function reason(response) {
  const problem = await response.json().catch(() => null);
  return typeof problem?.detail === "string" ? problem.detail : "";
}

/** GET the completions at `url`: at most TRIES times, with full jitter between; rejects when all have failed. */
async function load(url, signal) {
  for (let left = TRIES - 1; ; left--) {
    let wait = 0;
    let error;
    try {
      const response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]) });
      if (response.ok) return (await response.json()).completions;
      const { status } = response;
      const refused = status < 500 && status !== 408 && status !== 429; // asking once more would not help
      error = Object.assign(new Error(`${url} answered ${status}`), { status, reason: refused ? await reason(response) : "" });
      wait = retryAfter(response);
      if (refused) left = 0;
    } catch (failure) {
      signal.throwIfAborted(); // superseded: not a failure
      error = failure;
    }
    if (!left || wait > LONGEST_WAIT) throw error;
    await pause(wait + Math.random() * 1000 / left, signal); // up to 0.5 s, then up to 1 s
  }
}

/** `text` as DOM nodes with a <mark> around each [start, end) of `ranges`, counted in code points. */
function highlighted(text, ranges) {
  const points = Array.from(text); // not UTF-16 units: an emoji is one
  const nodes = document.createDocumentFragment();
  let at = 0;
  for (const [start, end] of ranges) {
    const mark = document.createElement("mark");
    mark.textContent = points.slice(start, end).join("");
    nodes.append(points.slice(at, start).join(""), mark);
    at = end;
  }
  nodes.append(points.slice(at).join(""));
  return nodes;
}

function div(className, attributes) {
  const element = document.createElement("div");
  element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export class MarianaAutocomplete extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ["src", "limit"];

  /** What the element says; replace entries to translate it. */
  messages = {
    loading: "Loading suggestions…",
    empty: "No suggestions",
    error: "Suggestions cannot be loaded just now",
    refused: (reason) => reason, // what the server says is wrong with the question; where it says nothing: `error`
    count: (n) => (n === 1 ? "1 suggestion" : `${n} suggestions`),
  };

  /** Called with each completion and its option element, which already holds the highlighted text: add to it at will. */
  renderOption = null;

  #input = null;
  #panel;
  #list;
  #message;
  #status;
  #setup; // AbortController: the listeners of this stay in the document
  #request; // AbortController: what is under way
  #sequence = 0; // of the latest question; answers to older ones are dropped
  #asked = null; // the URL last asked, until it fails
  #rows = []; // completions in the list
  #active = -1; // the row that aria-activedescendant names; -1: the text
  #cache = new Map(); // URL -> completions, least recently used first
  #debounced;
  #announced;
  #written = null; // the text as we wrote it: nothing to ask

  get src() { return this.getAttribute("src") ?? ""; }
  set src(value) { this.setAttribute("src", value); }
  get limit() { return this.#number("limit", 10); }
  set limit(value) { this.setAttribute("limit", value); }
  get minLength() { return this.#number("min-length", 1); }
  set minLength(value) { this.setAttribute("min-length", value); }
  get debounce() { return this.#number("debounce", 0); }
  set debounce(value) { this.setAttribute("debounce", value); }
  get learn() { return this.getAttribute("learn"); }
  set learn(value) { this.setAttribute("learn", value); }

  /** The page's input that this element serves. */
  get input() { return this.#input; }

  /** Is the list of suggestions shown? */
  get open() { return this.#input?.getAttribute("aria-expanded") === "true"; }

  #number(name, fallback) {
    const value = Number.parseInt(this.getAttribute(name), 10);
    return value >= 0 ? value : fallback;
  }

  connectedCallback() {
    if (!AbortSignal.any) return; // a browser from before 2024 keeps the plain input
    this.#setup = new AbortController();
    const input = this.querySelector("input");
    if (input) return this.#attach(input);
    const observer = new MutationObserver(() => {
      const late = this.querySelector("input");
      if (late) observer.disconnect(), this.#attach(late);
    });
    observer.observe(this, { childList: true, subtree: true });
    this.#setup.signal.addEventListener("abort", () => observer.disconnect());
  }

  attributeChangedCallback() {
    this.close(); // the rows are of another question
  }

  disconnectedCallback() {
    this.close();
    for (const name of ["role", "aria-autocomplete", "aria-expanded", "aria-controls"]) this.#input?.removeAttribute(name);
    clearTimeout(this.#announced);
    this.#setup?.abort();
    this.#panel?.remove();
    this.#status?.remove();
    this.#panel = this.#input = null;
  }

  #attach(input) {
    const root = this.getRootNode();
    if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(CSS);
    if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets.push(sheet);

    this.#input = input;
    const id = `mariana-${++count}`;
    const label = input.labels?.[0];
    if (label) label.id ||= `${id}-label`;
    this.#list = div("mariana-list", { role: "listbox", id: `${id}-list` });
    if (label) this.#list.setAttribute("aria-labelledby", label.id);
    else this.#list.setAttribute("aria-label", input.getAttribute("aria-label") ?? "Suggestions");
    this.#message = div("mariana-message", {});
    this.#panel = div("mariana-panel", { hidden: "" });
    this.#panel.append(this.#list, this.#message);
    this.#status = div("mariana-status", { role: "status", "aria-live": "polite" });
    this.append(this.#panel, this.#status);

    const aria = { role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.#list.id };
    for (const [name, value] of Object.entries(aria)) input.setAttribute(name, value);
    if (!input.hasAttribute("autocomplete")) input.setAttribute("autocomplete", "off");

    const signal = this.#setup.signal;
    const on = (target, type, listener) => target.addEventListener(type, listener, { signal });
    on(input, "input", (event) => this.#typed(event));
    on(input, "compositionend", (event) => this.#typed(event));
    on(input, "keydown", (event) => this.#key(event));
    on(this, "focusout", (event) => {
      if (event.relatedTarget !== input) this.close(), this.#cache.clear();
    });
    on(this.#panel, "pointerdown", (event) => event.pointerType === "mouse" && event.preventDefault());
    on(this.#panel, "mousedown", (event) => event.preventDefault()); // the focus stays in the input
    on(this.#list, "click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#accept([...this.#list.children].indexOf(option));
    });
  }

  /** Closes the list and gives up what is under way. */
  close() {
    this.#stop();
    this.#asked = null;
    if (this.#panel) this.#show("idle", []);
  }

  #stop() {
    clearTimeout(this.#debounced);
    this.#request?.abort();
    this.#sequence++;
  }

  #url(query) {
    const url = new URL(this.src, document.baseURI);
    url.searchParams.set("q", query);
    url.searchParams.set("limit", this.limit);
    return url.href;
  }

  #typed(event) {
    if (event.isComposing && !(ANDROID && !INPUT_METHOD.test(event.data ?? ""))) return;
    if (this.#input.value === this.#written) return;
    this.#written = null;
    this.#ask();
  }

  /** Asks for what the input holds. `first`: make the first row active as soon as it is there. */
  #ask(first = false) {
    const query = this.#input.value;
    if (Array.from(query.trim()).length < Math.max(1, this.minLength)) return this.close();
    const url = this.#url(query);
    if (url === this.#asked) return; // Safari: compositionend, then input once more
    this.#stop();
    this.#asked = url;
    this.#activate(-1);
    const known = this.#cache.get(url);
    if (known) return this.#answer(url, known, first);
    if (this.debounce) this.#debounced = setTimeout(() => this.#fetch(url, first), this.debounce);
    else this.#fetch(url, first);
  }

  async #fetch(url, first) {
    const sequence = this.#sequence;
    this.#request = new AbortController();
    const loading = setTimeout(() => this.#show("loading", this.#rows), LOADING_AFTER);
    this.#request.signal.addEventListener("abort", () => clearTimeout(loading));
    try {
      const rows = await load(url, this.#request.signal);
      if (sequence === this.#sequence) this.#answer(url, rows, first);
    } catch (error) {
      if (sequence !== this.#sequence) return;
      this.#asked = null; // the same text may be asked again
      this.#show("error", [], error.reason && this.messages.refused(error.reason));
      this.dispatchEvent(new CustomEvent("mariana-error", { bubbles: true, detail: error }));
    } finally {
      clearTimeout(loading);
    }
  }

  #answer(url, rows, first) {
    this.#cache.delete(url);
    this.#cache.set(url, rows);
    if (this.#cache.size > CACHED) this.#cache.delete(this.#cache.keys().next().value);
    const { text } = this.#rows[this.#active] ?? {}; // chosen while this was under way
    this.#show(rows.length ? "list" : "empty", rows);
    this.#activate(first && rows.length ? 0 : rows.findIndex((row) => row.text === text));
  }

  /** The one place that shows a state: idle, loading (old rows may stay), list, empty or error. */
  #show(state, rows, said = "") {
    this.dataset.state = state;
    if (rows !== this.#rows) {
      this.#activate(-1);
      this.#rows = rows;
      this.#list.replaceChildren(...rows.map((row, i) => this.#option(row, i)));
      this.#panel.scrollTop = 0;
    }
    const message = said || (this.messages[state] ?? "");
    const text = rows.length ? "" : message;
    this.#list.toggleAttribute("hidden", !rows.length);
    this.#list.setAttribute("aria-busy", state === "loading");
    this.#message.textContent = text;
    this.#panel.toggleAttribute("hidden", state === "idle");
    this.#input.setAttribute("aria-expanded", rows.length > 0);
    this.#announce(state === "list" ? this.messages.count(rows.length) : message);
  }

  #announce(text) {
    clearTimeout(this.#announced);
    this.#announced = setTimeout(() => (this.#status.textContent = text), text ? ANNOUNCE_AFTER : 0);
  }

  #option(row, i) {
    const option = div("mariana-option", { role: "option", id: `${this.#list.id}-${i}`, "aria-selected": "false", dir: "auto" });
    option.append(highlighted(row.text, row.highlights));
    this.renderOption?.(row, option);
    return option;
  }

  #activate(i) {
    this.#list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = i;
    const option = this.#list.children[i];
    if (!option) return this.#input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.#input.setAttribute("aria-activedescendant", option.id);
  }

  /** Puts row `i` into the input, unless a listener of mariana-select prevents it. */
  #accept(i) {
    const completion = this.#rows[i];
    if (this.learn !== null) this.#tell({ query: this.#input.value, text: completion.text });
    this.close();
    const chosen = new CustomEvent("mariana-select", { bubbles: true, cancelable: true, detail: completion });
    if (this.dispatchEvent(chosen)) this.#write(completion.text);
  }

  /** Tells the server what was chosen; nobody waits for it, and the page may be left meanwhile. */
  #tell(choice) {
    const url = this.learn || this.src.replace(/\/complete(\?.*)?$/, "/selections");
    const headers = { "Content-Type": "application/json" };
    fetch(url, { method: "POST", headers, body: JSON.stringify(choice), keepalive: true }).catch(() => {});
  }

  /** Sets the text as a person would: frameworks that listen to `input` and `change` see it. */
  #write(text) {
    this.#written = text;
    this.#input.value = text;
    this.#input.dispatchEvent(new InputEvent("input", { bubbles: true, inputType: "insertReplacementText", data: text }));
    this.#input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #key(event) {
    // 229: Safari ends a composition with a key that is no longer isComposing; it belongs to the input method.
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const { key, altKey } = event;
    const { open } = this;
    if (key === "ArrowDown" || key === "ArrowUp") {
      event.preventDefault(); // else the caret jumps to an end of the text
      if (altKey) key === "ArrowDown" ? open || this.#ask() : this.close();
      else if (!open) key === "ArrowDown" && this.#ask(true);
      else {
        const stops = this.#rows.length + 1; // the rows and the text
        const step = key === "ArrowDown" ? 1 : -1;
        this.#activate(((this.#active + 1 + step + stops) % stops) - 1);
      }
    } else if (altKey) {
      return;
    } else if (key === "Enter") {
      if (open && this.#active >= 0) event.preventDefault(), this.#accept(this.#active);
      else this.close(); // and the form is submitted
    } else if (key === "Escape") {
      if (!this.#panel.hidden) event.preventDefault(), this.close();
      else if (this.#input.value) event.preventDefault(), this.close(), this.#write("");
    } else if (key === "Tab") {
      this.close();
    } else if (["Home", "End", "ArrowLeft", "ArrowRight"].includes(key)) {
      this.#activate(-1); // these keys move in the text
    }
  }
}

globalThis.customElements?.get("mariana-autocomplete") ??
  globalThis.customElements?.define("mariana-autocomplete", MarianaAutocomplete);
