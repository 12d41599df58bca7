// ModelPicker: a page of the models for an operation, the picked one with its parameters, and a server of one's own.
const WORDS = { json_schema: "JSON schema", pdf_input: "PDF", audio_input: "audio", prompt_cache: "prompt cache" };
const tokens = (number) => (number === null ? "" : number >= 1e6 ? `${+(number / 1e6).toFixed(2)} M` : number >= 1000 ? `${Math.round(number / 1000)} k` : String(number));
const price = (each) => (each === null ? "" : `$${each >= 0.1 || each === 0 ? each.toFixed(2) : each.toPrecision(2)}`);

const later = (local, work) => {
  clearTimeout(local.timer);
  local.timer = setTimeout(work, 150);
};

const row = (one, state, send) => h("tr", { key: one.model, class: one.ready ? (one.model === state.model ? "picked" : "") : one.model === state.model ? "picked waits" : "waits" },
  h("td", { class: "star" }, h("button", {
    class: "quiet", "aria-pressed": String(one.favourite), "aria-label": `${one.model} is a favourite`, title: "Favourite",
    onclick: () => send("favour", { model: one.model }),
  }, one.favourite ? "★" : "☆")),
  h("td", {}, h("button", { class: "quiet name", "aria-pressed": String(one.model === state.model), onclick: () => send("choose", { model: one.model }) }, one.model)),
  h("td", { class: "number" }, tokens(one.window)),
  ...(one.price_other
    ? [h("td", { class: "number", colspan: "2" }, one.price_other)]
    : [h("td", { class: "number" }, price(one.price_in)), h("td", { class: "number" }, price(one.price_out))]),
  h("td", { class: "faint" }, [...one.capabilities.map((name) => WORDS[name] || name), ...(one.dimensions ? [`${one.dimensions} numbers`] : []), ...(one.ends ? [`ends ${one.ends}`] : [])].join(", ")),
  h("td", { class: one.ready ? "good" : "faint" }, one.ready ? "✓ ready" : one.needs));

const listing = (state, send) => [
  h("div", { class: "llmkit-scroll", key: "table" },
    h("table", { "aria-label": "Models" },
      h("thead", {}, h("tr", {},
        h("th", { scope: "col", key: "star", "aria-label": "Favourite" }), h("th", { scope: "col", key: "model" }, "Model"), h("th", { scope: "col", key: "window", class: "number" }, "Window"),
        h("th", { scope: "col", key: "in", class: "number", title: "US dollars per million tokens that are read" }, "$/M in"), h("th", { scope: "col", key: "out", class: "number", title: "US dollars per million tokens that are written" }, "$/M out"),
        h("th", { scope: "col", key: "can" }, "Can do"), h("th", { scope: "col", key: "key" }, "Key"))),
      h("tbody", {}, state.rows.map((one) => row(one, state, send)),
        state.rows.length ? null : h("tr", { key: "none" }, h("td", { colspan: "7", class: "faint" }, state.ready_only ? "None of those that are ready is called so." : "No model is called so. Its name can be typed below all the same."))))),
  h("div", { class: "llmkit-row pager", key: "pager" },
    h("button", { key: "back", disabled: state.page === 0, onclick: () => send("look", { page: state.page - 1 }) }, "‹ Back"),
    h("span", { key: "where", class: "faint" }, `Page ${state.page + 1} of ${state.pages}`),
    h("button", { key: "on", disabled: state.page + 1 >= state.pages, onclick: () => send("look", { page: state.page + 1 }) }, "Next ›")),
];

const picked = (state, send, id) => {
  const choose = (event) => {
    event.preventDefault();
    const name = event.target.querySelector("input").value;
    if (name.trim()) send("choose", { model: name });
  };
  return h("div", { class: "picked-box", key: "picked" },
    h("form", { class: "llmkit-row", key: "form", onsubmit: choose, autocomplete: "off" },
      field(`${id}-model`, "Model (any name can be typed)", h("input", { type: "text", value: state.model, spellcheck: "false", size: "36", placeholder: "provider/model" })),
      h("button", { type: "submit", key: "pick" }, "Pick"),
      (state.parameters || []).map((one) => field(`${id}-${state.model}-${one.name}`, one.name.replaceAll("_", " "), h("input", {
        type: "text", inputmode: one.number ? "decimal" : "text", size: one.number ? "6" : "14", spellcheck: "false", placeholder: "default",
        value: one.value === null ? "" : String(one.value),
        onchange: (event) => send("set_parameter", { name: one.name, value: event.target.value }),
      }))),
      state.usable ? h("button", { type: "button", class: "main", key: "use", disabled: !state.model, onclick: () => send("use") }, "Use") : null),
    state.needs ? h("p", { class: "bad", key: "needs" }, /^[A-Z0-9_]+$/.test(state.needs) ? `Its key is missing: enter it in KeyPanel(), or set ${state.needs}.` : `Nothing answers there yet: ${state.needs}.`) : null,
    state.used ? h("p", { class: "good", key: "used" }, `In use: ${state.used}`) : null,
    state.model ? h("pre", { class: "llmkit-code", key: "code", "aria-label": "The same as code" }, state.code) : null);
};

const own = (state, send, id) => {
  const probe = (event) => {
    event.preventDefault();
    const [url, name, key] = ["url", "name", "key"].map((which) => event.target.querySelector(`[data-is=${which}]`));
    if (!url.value.trim()) return;
    send("probe", { base_url: url.value, name: name.value, key: key.value });
    key.value = "";
  };
  return h("details", { key: "own" }, h("summary", {}, "A server of your own"),
    h("form", { class: "llmkit-row", onsubmit: probe, autocomplete: "off" },
      field(`${id}-url`, "Base URL", h("input", { type: "text", "data-is": "url", size: "34", spellcheck: "false", placeholder: "http://127.0.0.1:8000/v1" })),
      field(`${id}-name`, "Name (optional)", h("input", { type: "text", "data-is": "name", size: "14", spellcheck: "false", placeholder: "lab" })),
      field(`${id}-key`, "Key (where it wants one)", h("input", { type: "password", "data-is": "key", autocomplete: "new-password", spellcheck: "false", size: "20" })),
      h("button", { type: "submit", key: "probe", disabled: state.probing }, state.probing ? "Asking…" : "Ask for its models")));
};

const view = ({ state, local, send, id }) => h("div", { class: "llmkit-picker" },
  h("h3", { key: "title" }, "Models"),
  h("div", { class: "llmkit-row", key: "find" },
    field(`${id}-for`, "For", h("select", { value: state.operation, onchange: (event) => send("look", { operation: event.target.value }) },
      (state.operations || []).map((one) => h("option", { value: one.name, key: one.name }, one.label)))),
    field(`${id}-search`, "Search", h("input", {
      type: "search", value: state.search, size: "28", spellcheck: "false", placeholder: "a name, or what it can do",
      oninput: (event) => { const search = event.target.value; later(local, () => send("look", { search })); },
    })),
    h("label", { key: "only", class: "check" }, h("input", {
      type: "checkbox", checked: state.ready_only, onchange: (event) => send("look", { ready_only: event.target.checked }),
    }), " only those that are ready"),
    h("span", { key: "count", class: "faint count", role: "status" }, `${count(state.total)} models, ${count(state.ready)} ready`)),
  state.no_key ? h("p", { key: "keyless", class: "faint" }, "No key was found yet. KeyPanel() takes one; what is ready without a key stands first.") : null,
  state.rows ? listing(state, send) : null,
  picked(state, send, id),
  own(state, send, id));

export default panel(view);
