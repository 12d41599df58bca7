// KeyPanel: which providers have a key, from where; and a field for one, whose text leaves in a message and stays nowhere.
const TESTED = { testing: "Testing…", works: "✓ works", failed: "✗ failed" };

const view = ({ state, local, send, redraw, id }) => {
  const words = (local.search || "").toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (one) => words.every((word) => `${one.provider} ${one.key_env}`.toLowerCase().includes(word));
  const providers = (state.providers || []).filter(matches);
  const keep = (state.places || []).find((place) => place.name === (local.keep || "memory"));
  const hand_in = (event) => {
    event.preventDefault();
    const input = event.target.querySelector("input[type=password]");
    if (!input.value) return;
    send("set_key", { provider: local.provider || state.chosen, key: input.value, keep: local.keep || "memory" });
    input.value = "";
    // Where a key is kept is chosen for each anew.
    local.keep = "memory";
    redraw();
  };
  return h("div", { class: "llmkit-keys" },
    h("h3", { key: "title" }, "API keys"),
    h("form", { class: "llmkit-row", key: "form", onsubmit: hand_in, autocomplete: "off" },
      field(`${id}-provider`, "Provider", h("select", {
        value: local.provider || state.chosen,
        onchange: (event) => { local.provider = event.target.value; redraw(); },
      }, (state.providers || []).filter((one) => one.key_env || !one.key_needed).map((one) => h("option", { value: one.provider, key: one.provider }, one.provider)))),
      field(`${id}-key`, "Key", h("input", { type: "password", autocomplete: "new-password", spellcheck: "false", size: "32" })),
      field(`${id}-keep`, "Keep it", h("select", { value: local.keep || "memory", onchange: (event) => { local.keep = event.target.value; redraw(); } },
        (state.places || []).map((place) => h("option", { value: place.name, key: place.name }, place.label)))),
      h("button", { type: "submit", class: "main", key: "set" }, "Set key")),
    (state.providers || []).some((one) => one.key_found) ? null : h("p", { class: "faint", key: "keyless" }, "No key was found yet. Choose a provider, enter its key and press Set key; or set the variable that stands beside it before the kernel starts."),
    keep && keep.note ? h("p", { class: "faint", key: "note" }, keep.note) : null,
    h("div", { class: "llmkit-row", key: "search" },
      field(`${id}-search`, "Search", h("input", { type: "search", spellcheck: "false", oninput: (event) => { local.search = event.target.value; redraw(); } }))),
    h("div", { class: "llmkit-scroll", key: "table", tabindex: "0", role: "region", "aria-label": "Providers" },
      h("table", { "aria-label": "Providers and their keys" },
        h("thead", {}, h("tr", {}, ["Provider", "Key found in", "Looked for in", "Test"].map((name) => h("th", { scope: "col", key: name }, name)))),
        h("tbody", {}, providers.map((one) => h("tr", { key: one.provider },
          h("td", { key: "provider" }, one.provider),
          h("td", { key: "from", class: one.key_found ? "good text" : "faint" }, one.key_found ? `✓ ${one.key_from}` : one.key_needed ? "–" : "none needed"),
          h("td", { key: "env", class: "faint text" }, one.key_env),
          h("td", { key: "test" },
            one.key_found ? h("button", { key: "test", onclick: () => send("test", { provider: one.provider }), disabled: one.test === "testing", "aria-label": `Test the key of ${one.provider}` }, one.test === "testing" ? TESTED.testing : "Test") : null,
            one.test && one.test !== "testing" ? h("span", { key: "tested", class: one.test === "works" ? "good tested" : "bad tested", title: one.why }, TESTED[one.test]) : null))),
        providers.length ? null : h("tr", { key: "none" }, h("td", { colspan: "4", class: "faint" }, "No provider is called so.")))))
  );
};

export default panel(view);
