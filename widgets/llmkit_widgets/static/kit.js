// What all panels share: a view is a function from the panel's state to a tree of plain objects, and patch() makes the page agree with it.
// Text reaches the page as text nodes only; there is no innerHTML anywhere, so that nothing a model wrote can become markup.

/** A node of the tree: h("button", {class: "quiet", onclick: stop}, "Stop"). What is null, undefined or false among children is left out. */
const h = (tag, props, ...children) => ({
  tag,
  props: props || {},
  children: children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== true),
});

const SVG = new Set(["svg", "path", "line", "rect", "circle", "text", "g", "polyline"]);
//: Attributes that could load or run something are set by nobody.
const FORBIDDEN = /^(?:src|srcdoc|srcset|href|action|formaction|style|innerhtml|outerhtml|xlink:href)$/i;

function make(node, old) {
  if (typeof node !== "object") return document.createTextNode(String(node));
  const element = SVG.has(node.tag) ? document.createElementNS("http://www.w3.org/2000/svg", node.tag) : document.createElement(node.tag);
  element.__handlers = {};
  element.__props = {};
  return element;
}

function fits(element, node) {
  if (typeof node !== "object") return element.nodeType === Node.TEXT_NODE;
  return element.nodeType === Node.ELEMENT_NODE && element.tagName.toLowerCase() === node.tag.toLowerCase() && element.__key === node.props.key;
}

function dress(element, props) {
  const before = element.__props;
  for (const name of Object.keys(before)) if (!(name in props)) undress(element, name);
  for (const [name, value] of Object.entries(props)) {
    if (name === "key" || name === "once") continue;
    if (name.startsWith("on")) {
      const event = name.slice(2);
      if (!(event in element.__handlers)) element.addEventListener(event, (e) => element.__handlers[event]?.(e));
      element.__handlers[event] = value;
    } else if (name === "value" || name === "checked") {
      // What a person is typing is theirs: only a change that comes from the panel is written into a field.
      if (before[name] !== value) element[name] = value;
    } else if (before[name] !== value) {
      if (FORBIDDEN.test(name)) throw new Error(`no panel sets ${name}`);
      if (value === false || value === null || value === undefined) element.removeAttribute(name);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.__props = props;
}

function undress(element, name) {
  if (name.startsWith("on")) element.__handlers[name.slice(2)] = null;
  else if (name !== "key" && name !== "value" && name !== "checked") element.removeAttribute(name);
}

/** Make the children of an element agree with these nodes. Elements are kept where they fit, so that focus and scroll positions stay. */
function patch(parent, nodes) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.__key !== undefined) keyed.set(child.__key, child);
  let at = parent.firstChild;
  for (const node of nodes.flat(Infinity)) {
    if (node === null || node === undefined || node === false || node === true) continue;
    const key = typeof node === "object" ? node.props.key : undefined;
    let element = key !== undefined ? keyed.get(key) : at;
    if (!element || !fits(element, node)) {
      element = make(node);
      element.__key = key;
      parent.insertBefore(element, at);
    } else if (element === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(element, at);
    }
    if (typeof node !== "object") {
      if (element.data !== String(node)) element.data = String(node);
    } else {
      dress(element, node.props);
      patch(element, node.children);
      // A select learns its value once its options are there.
      if (node.tag === "select" && node.props.value !== undefined && element.value !== node.props.value && element.__chosen !== node.props.value) {
        element.value = node.props.value;
      }
      if (node.tag === "select") element.__chosen = node.props.value;
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const CONTROLS = "button, input, select, textarea, summary, [tabindex]";

/** Change the page and leave the focus in the panel: lost with the control that had it, the keys that follow would be the notebook's. */
function keeping_focus(root, change) {
  const held = root.getRootNode().activeElement;
  const before = held && root.contains(held) ? [...root.querySelectorAll(CONTROLS)] : [];
  change();
  if (!before.length || (root.contains(held) && !held.disabled)) return;
  const at = before.indexOf(held);
  const there = (one) => root.contains(one) && !one.disabled;
  const next = before.slice(at + 1).find(there), last = before.slice(0, Math.max(at, 0)).reverse().find(there);
  // What is gone hands on to what follows; what is merely switched off to what comes before, where one Enter too many does least.
  (root.contains(held) ? last || next : next || last)?.focus();
}

/** What anywidget calls: a panel from view({state, local, send, redraw, id}) -> nodes. `local` is the page's own (what is typed, what is open). */
function panel(view, { onpatch } = {}) {
  return {
    render({ model, el }) {
      const root = document.createElement("div");
      root.className = "llmkit-panel";
      root.setAttribute("role", "group");
      el.append(root);
      // Each kind of panel is a module of its own, which knows nothing of the others' ids: a label must not lead into another panel.
      const id = `llmkit-${Math.random().toString(36).slice(2)}`;
      const local = {};
      const send = (what, args = {}) => model.send({ do: what, args });
      let queued = false;
      const draw = () => {
        queued = false;
        const state = model.get("state") || {};
        keeping_focus(root, () => patch(root, [view({ state, local, send, redraw, id }), trouble(state)]));
      };
      const redraw = () => {
        if (!queued) {
          queued = true;
          requestAnimationFrame(draw);
        }
      };
      const changed = () => {
        if (onpatch) onpatch(model.get("news") || {}, local, { state: model.get("state") || {}, send });
        redraw();
      };
      model.on("change:state", redraw);
      model.on("change:news", changed);
      // The notebook's command mode listens on the document: with focus on a list, "x" would cut the cell. Escape still leads there.
      root.addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") event.stopPropagation();
      });
      draw();
      send("shown");
      return () => {
        model.off("change:state", redraw);
        model.off("change:news", changed);
        try {
          send("hidden");
        } catch {
          // There is no kernel any more to be told.
        }
      };
    },
  };
}

/** The place of a panel's errors and of its last word; readers of screens are told. */
function trouble(state) {
  return h("div", { class: "llmkit-said", key: "said", role: "status", "aria-live": "polite" },
    state.error ? h("p", { class: "llmkit-error", key: "error" }, state.error) : null,
    state.note ? h("p", { class: "llmkit-note", key: "note" }, state.note) : null);
}

/** A labelled field. */
function field(id, label, input) {
  input.props.id = id;
  return h("div", { class: "llmkit-field", key: id }, h("label", { for: id }, label), input);
}

/** Seconds in words that fit into a cell. */
const lasting = (seconds) => (seconds === null || seconds === undefined ? ""
  : seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 100 ? `${Math.round(seconds)} s`
    : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

const dollars = (cost) => (cost === null || cost === undefined ? "?" : cost === 0 ? "$0" : cost < 0.01 ? `$${cost.toPrecision(2)}` : `$${cost.toFixed(2)}`);
const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const count = (number) => (number === null || number === undefined ? "" : Number(number).toLocaleString("en"));
