// KeyPanel: which providers have a key, from where; and a field for one, whose text leaves in a message and stays nowhere.
const view = ({ state, local, send, redraw, id }) => {
  const providers = (state.providers || []).filter((one) => !local.search || one.provider.includes(local.search.toLowerCase()));
  const hand_in = (event) => {
    event.preventDefault();
    const input = event.target.querySelector("input[type=password]");
    if (!input.value) return;
    send("set_key", { provider: local.provider || state.chosen, key: input.value, keep: local.keep || "memory" });
    input.value = "";
  };
  return h("div", { class: "llmkit-keys" },
    h("h3", { key: "title" }, "API keys"),
    h("form", { class: "llmkit-row", key: "form", onsubmit: hand_in, autocomplete: "off" },
      field(`${id}-provider`, "Provider", h("select", {
        value: local.provider || state.chosen,
        onchange: (event) => { local.provider = event.target.value; redraw(); },
      }, (state.providers || []).filter((one) => one.key_env).map((one) => h("option", { value: one.provider, key: one.provider }, one.provider)))),
      field(`${id}-key`, "Key", h("input", { type: "password", autocomplete: "new-password", spellcheck: "false", size: "32" })),
      field(`${id}-keep`, "Keep it", h("select", { value: local.keep || "memory", onchange: (event) => { local.keep = event.target.value; redraw(); } },
        (state.places || []).map((place) => h("option", { value: place.name, key: place.name }, place.label)))),
      h("button", { type: "submit", class: "main", key: "set" }, "Set key")),
    h("div", { class: "llmkit-row", key: "search" },
      field(`${id}-search`, "Search", h("input", { type: "search", oninput: (event) => { local.search = event.target.value; redraw(); } }))),
    h("div", { class: "llmkit-scroll", key: "table" },
      h("table", { "aria-label": "Providers and their keys" },
        h("thead", {}, h("tr", {}, ["Provider", "Key", "Variables", ""].map((name) => h("th", { scope: "col", key: name || "do" }, name)))),
        h("tbody", {}, providers.map((one) => h("tr", { key: one.provider },
          h("td", {}, one.provider),
          h("td", { class: one.key_found ? "good" : "faint" }, one.key_found ? `✓ ${one.key_from}` : one.key_needed ? "none" : "none needed"),
          h("td", { class: "faint" }, one.key_env),
          h("td", {}, one.key_found
            ? h("button", { onclick: () => send("test", { provider: one.provider }), disabled: one.testing, "aria-label": `Test the key of ${one.provider}` },
              one.testing ? "testing…" : one.tested || "Test")
            : null)))))));
};

export default panel(view);
