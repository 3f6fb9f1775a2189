/** One suggestion, as `GET /v1/indexes/{name}/complete` answers it. */
export interface Completion<Payload = unknown> {
  text: string;
  score: number;
  /** How many typing errors were forgiven; 0 for an exact prefix. */
  edits: number;
  /** Half-open ranges [start, end) of `text` that matched, in Unicode code points. */
  highlights: [start: number, end: number][];
  payload: Payload | null;
  /** Of the document that the text is a name of; not there where it has none. */
  id?: string;
}

export type MarianaState = "idle" | "loading" | "list" | "empty" | "error";

export interface MarianaMessages {
  loading: string;
  empty: string;
  error: string;
  /** Of what the server says is wrong with the question, e.g. that it is too long. */
  refused(reason: string): string;
  count(n: number): string;
}

export interface MarianaAutocompleteEventMap {
  /** A suggestion was chosen. `preventDefault()` keeps the text of the input as it is. */
  "mariana-select": CustomEvent<Completion>;
  /** Suggestions could not be loaded, after all tries. `detail` is the last error; of an answer with its status, and the
   * reason where the question was refused. */
  "mariana-error": CustomEvent<Error & { status?: number; reason?: string }>;
}

export class MarianaAutocomplete extends HTMLElement {
  /** Attribute `src`: the complete URL of the index, e.g. `/v1/indexes/cities/complete`; its own query is kept. */
  src: string;
  /** Attribute `limit`: how many suggestions at most. Default 10. */
  get limit(): number;
  set limit(value: number);
  /** Attribute `min-length`: code points to type before the first question. Default 1. */
  get minLength(): number;
  set minLength(value: number);
  /** Attribute `debounce`: milliseconds of quiet before a question. Default 0. */
  get debounce(): number;
  set debounce(value: number);
  /** Attribute `learn`: where to tell what was chosen; empty: to the index of `src`. Without it, nowhere. */
  get learn(): string | null;
  set learn(value: string);
  /** What the element says; replace entries to translate it. */
  messages: MarianaMessages;
  /** Called with each completion and its option element, which already holds the highlighted text. */
  renderOption: ((completion: Completion, option: HTMLElement) => void) | null;
  /** The page's input that this element serves. */
  readonly input: HTMLInputElement | null;
  /** Is the list of suggestions shown? */
  readonly open: boolean;
  /** Closes the list and gives up what is under way. */
  close(): void;

  addEventListener<K extends keyof MarianaAutocompleteEventMap>(
    type: K,
    listener: (this: MarianaAutocomplete, event: MarianaAutocompleteEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener<K extends keyof HTMLElementEventMap>(
    type: K,
    listener: (this: MarianaAutocomplete, event: HTMLElementEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "mariana-autocomplete": MarianaAutocomplete;
  }
}
