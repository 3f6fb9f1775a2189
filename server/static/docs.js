/** Renders /openapi.json: endpoints, parameters, schemas, examples and the curl line of each. */

const METHODS = ["get", "post", "put", "patch", "delete"];
const LONGEST_CURL = 400; // characters of an example body; of several the last that is shorter: records before rows
const DEEPEST = 5; // levels of a schema that are unfolded
const MOST_PROPERTIES = 12; // of one object; the digits have 64 alike

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const api = await (await fetch("/openapi.json")).json();

/** What a $ref points to, or the schema itself. */
function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  const path = schema.$ref.replace(/^#\//, "").split("/");
  return path.reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], api) ?? {};
}

/** A schema in a few words: "array of number", "integer 1..100", "numeric | boolean". */
function typeOf(schema, depth = 0) {
  const s = resolve(schema);
  if (depth > 4) return "…";
  const choice = s.anyOf ?? s.oneOf;
  if (choice) return [...new Set(choice.map((one) => typeOf(one, depth + 1)))].join(" or ");
  if (s.const !== undefined) return JSON.stringify(s.const);
  if (s.enum) return s.enum.length > 8 ? `one of ${s.enum.length} values` : s.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (s.type === "array") {
    const items = s.prefixItems ? `[${s.prefixItems.map((one) => typeOf(one, depth + 1)).join(", ")}]` : `array of ${typeOf(s.items, depth + 1)}`;
    return s.minItems !== undefined && s.minItems === s.maxItems && !s.prefixItems ? `${items} (${s.minItems})` : items;
  }
  const low = s.minimum ?? s.exclusiveMinimum;
  const high = s.maximum ?? s.exclusiveMaximum;
  const range = low !== undefined && high !== undefined && Math.abs(high) < 1e12 ? ` ${low}..${high}` : "";
  return (s.type ?? "any value") + (s.format ? ` (${s.format})` : "") + range;
}

/** The object schemas inside: through arrays and choices. */
function objectsIn(schema, depth = 0) {
  const s = resolve(schema);
  if (depth > 6) return [];
  if (s.properties) return [s];
  const inner = [...(s.anyOf ?? s.oneOf ?? s.allOf ?? []), ...(s.items ? [s.items] : [])];
  return [...new Set(inner.flatMap((one) => objectsIn(one, depth + 1)))];
}

function properties(schema, depth = 0) {
  if (depth >= DEEPEST) return [];
  return objectsIn(schema).map((object) => {
    const all = Object.entries(object.properties);
    const rows = all.slice(0, MOST_PROPERTIES).map(([name, value]) => {
      const about = value.description ?? resolve(value).description;
      const required = object.required?.includes(name) ? make("span", { className: "required", textContent: " required" }) : null;
      const type = make("span", { className: "type", textContent: typeOf(value) });
      return make("li", {}, make("code", { textContent: name }), " ", type, required, about ? `: ${about}` : "", ...properties(value, depth + 1));
    });
    if (all.length > rows.length) rows.push(make("li", { className: "faint", textContent: `and ${all.length - rows.length} more` }));
    return make("ul", { className: "schema" }, ...rows);
  });
}

/** A path that may break after its slashes. */
const pathOf = (text) => text.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);

const block = (text) => make("pre", { tabIndex: 0 }, make("code", { textContent: text }));

/** JSON with short arrays on one line. */
const pretty = (value) =>
  JSON.stringify(value, null, 2).replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inside) => `[${inside.replace(/\s*\n\s*/g, " ")}]`);

function exampleValues(content) {
  const schema = resolve(content.schema);
  if (content.example !== undefined) return [["Example", content.example]];
  if (content.examples) return Object.values(content.examples).map((e) => [e.summary ? `Example: ${e.summary}` : "Example", resolve(e).value]);
  return (schema.examples ?? []).slice(0, 1).map((value) => ["Example", value]);
}

function command(method, path, parameters, body) {
  const query = parameters.filter((p) => p.in === "query" && (p.required || exampleOf(p) !== undefined));
  const filled = path.replace(/\{(\w+)\}/g, (whole, name) => exampleOf(parameters.find((p) => p.name === name)) ?? whole);
  const search = query.map((p) => `${p.name}=${encodeURIComponent(exampleOf(p) ?? "…")}`).join("&");
  const lines = [`curl -s '${location.origin}${filled}${search && `?${search}`}'`];
  if (method !== "get") lines[0] = lines[0].replace("curl -s", body ? "curl -s" : `curl -s -X ${method.toUpperCase()}`);
  if (body) lines.push(`-H 'Content-Type: application/json'`, `-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);
  const text = lines.join(" \\\n  ");
  const button = make("button", { type: "button", className: "quiet", textContent: "Copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return make("div", { className: "command" }, block(text), navigator.clipboard ? button : null);
}

function exampleOf(parameter) {
  if (!parameter) return undefined;
  const schema = resolve(parameter.schema);
  return parameter.example ?? Object.values(parameter.examples ?? {})[0]?.value ?? schema.examples?.[0];
}

function table(head, rows) {
  const cells = (tag, row) => make("tr", {}, ...row.map((cell) => make(tag, tag === "th" ? { scope: "col" } : {}, cell)));
  return make("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: head.join(", ") },
    make("table", {}, make("thead", {}, cells("th", head)), make("tbody", {}, ...rows.map((row) => cells("td", row)))));
}

function operation(path, method, op, shared) {
  const parameters = [...shared, ...(op.parameters ?? [])].map(resolve);
  const bodies = Object.entries(resolve(op.requestBody).content ?? {});
  const json = bodies.find(([type]) => type === "application/json")?.[1];
  const examples = json ? exampleValues(json) : [];
  const title = make("header", {},
    make("span", { className: `method${method === "get" ? "" : " write"}`, textContent: method.toUpperCase() }), make("h3", {}, ...pathOf(path)));
  const parts = [title, make("p", { textContent: op.description ?? op.summary ?? "" })];
  if (parameters.length) {
    parts.push(make("h4", { textContent: "Parameters" }), table(["Name", "In", "Type", "Meaning"], parameters.map((p) => {
      const fallback = resolve(p.schema).default;
      const about = [p.description ?? resolve(p.schema).description, fallback !== undefined && fallback !== null ? `default ${fallback}` : ""].filter(Boolean).join("; ");
      return [p.name, p.required ? `${p.in}, required` : p.in, make("span", { className: "type", textContent: typeOf(p.schema) }), about];
    })));
  }
  if (bodies.length) {
    parts.push(make("h4", { textContent: `Body: ${bodies.map(([type]) => type).join(", ")}` }));
    const binary = bodies.filter(([type]) => type !== "application/json").map(([type, { schema }]) => [type, resolve(schema).description]);
    parts.push(...binary.filter(([, about]) => about).map(([type, about]) => make("p", { className: "faint", textContent: `${type}: ${about}` })));
    const forms = json ? properties(json.schema) : [];
    parts.push(...forms.flatMap((form, i) => (i ? [make("p", { className: "faint", textContent: "or" }), form] : [form])));
    for (const [name, value] of examples) parts.push(make("details", {}, make("summary", { textContent: name }), block(pretty(value))));
  }
  const bodiesByName = examples.map(([, value]) => value);
  const shown = bodiesByName.findLast((value) => JSON.stringify(value).length < LONGEST_CURL) ?? bodiesByName[0];
  parts.push(make("h4", { textContent: "Try" }), command(method, path, parameters, shown));
  parts.push(make("h4", { textContent: "Answers" }), table(["Status", "Meaning"], Object.entries(op.responses ?? {}).map(([status, response]) => {
    const { description, content = {} } = resolve(response);
    const inner = Object.values(content)[0]?.schema;
    const meaning = make("div", {}, description ?? "", " ", make("span", { className: "type", textContent: Object.keys(content).join(", ") }));
    if (status.startsWith("2") && inner) meaning.append(make("details", {}, make("summary", { textContent: "Members" }), ...properties(inner)));
    return [status, meaning];
  })));
  return make("article", { className: "card operation", id: `${method}-${path}` }, ...parts);
}

document.title = `API · ${api.info.title}`;
document.getElementById("lead").textContent = [api.info.description ?? api.info.title, `Version ${api.info.version}.`].join(" ");
const groups = new Map();
for (const [path, item] of Object.entries(api.paths)) {
  for (const method of METHODS.filter((name) => item[name])) {
    const op = item[method];
    const group = op.tags?.[0] ?? "server";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push([path, method, op, item.parameters ?? []]);
  }
}
for (const [group, operations] of groups) {
  const links = operations.map(([path, method]) => make("a", { href: `#${method}-${path}` }, `${method.toUpperCase()} `, ...pathOf(path)));
  document.getElementById("contents").append(make("h2", { textContent: group }), ...links);
  const articles = operations.map((each) => operation(...each));
  document.getElementById("operations").append(make("section", { className: "group" }, make("h2", { textContent: group }), ...articles));
}
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
