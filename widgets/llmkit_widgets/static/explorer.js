// ExtractExplorer: a grid of fields, the rows that they are tried on, and what all of them would cost.
const BEGINNINGS = {
  sentence: { label: "one sentence", hint: "what the table is for, e.g. which products break, and how", button: "Propose fields" },
  schema: { label: "a JSON schema", hint: '{"type": "object", "properties": {…}}', button: "Read it" },
  example: { label: "an example row", hint: '{"city": "Lyon", "people": 2}', button: "Read it" },
};
const SIGNS = { done: ["✓", "good", "answered"], stored: ["✓", "faint", "known already"], failed: ["✗", "bad", "failed"], running: ["…", "faint", "waiting"], nothing: ["–", "faint", "no answer"] };
const COLOURS = 7;
const worth = (cost) => (cost === null ? "at a price that is not known" : `about ${dollars(cost)}`);

/** A cell's text, each piece that something was read from marked with its fields' names. */
const marked = (pieces, fields) => pieces.map(([text, over]) => (over.length
  ? h("mark", { class: `hue-${over[0] % COLOURS}`, title: over.map((place) => fields[place]?.column).join(", ") }, text)
  : text));

const texts = (row, fields, columns) => row.texts.map((one) => h("div", { class: "text", dir: "auto", key: one.column },
  columns.length > 1 ? h("span", { class: "faint" }, `${one.column}: `) : null, marked(one.pieces, fields)));

const beginning = ({ state, local, send, redraw, id }) => {
  const chosen = local.beginning || "sentence";
  const told = BEGINNINGS[chosen];
  const begin = (event) => {
    event.preventDefault();
    const input = event.target.querySelector("textarea");
    if (input.value.trim()) send("begin_from_text", { kind: chosen, text: input.value });
  };
  return h("form", { class: "llmkit-row begin", key: "begin", onsubmit: begin },
    field(`${id}-begin`, "Begin from", h("select", { value: chosen, onchange: (event) => { local.beginning = event.target.value; redraw(); } },
      Object.entries(BEGINNINGS).map(([name, one]) => h("option", { value: name, key: name }, one.label)))),
    field(`${id}-goal`, chosen === "sentence" ? "What the table is for" : "JSON", h("textarea", { rows: chosen === "sentence" ? 1 : 4, placeholder: told.hint, spellcheck: chosen === "sentence" ? "true" : "false",
      onkeydown: (event) => { if (event.key === "Enter" && chosen === "sentence") { event.preventDefault(); event.target.form.requestSubmit(); } } })),
    h("button", { key: "do", type: "submit", disabled: Boolean(state.work) }, state.work?.what === "proposal" ? "Proposing…" : told.button));
};

const line = (one, place, { state, send, id }) => {
  const say = (what, value) => send("typed", { number: one.number, what, value });
  const trouble = (what) => (one.wrong === what ? { "aria-invalid": "true", "aria-describedby": `${id}-problem-${one.number}` } : {});
  const input = (what, label, more) => h("input", { type: "text", value: one[what], "aria-label": `${label} of ${one.column}`, spellcheck: "false", autocomplete: "off",
    onchange: (event) => say(what, event.target.value), ...more });
  return [
    h("tr", { key: `field ${one.number}` },
      h("td", { class: "swatch" }, h("span", { class: `hue hue-${place % COLOURS}`, "aria-hidden": "true" })),
      h("td", {}, input("name", "Name", { id: `${id}-name-${one.number}`, ...trouble("name") })),
      h("td", {}, h("select", { value: one.type, "aria-label": `Type of ${one.column}`, title: one.given, onchange: (event) => say("type", event.target.value) },
        [...(one.given ? ["as given"] : []), ...state.kinds].map((kind) => h("option", { value: kind, key: kind }, kind)))),
      h("td", {}, input("description", "Description", { spellcheck: "true" })),
      h("td", { class: "middle" }, h("input", { type: "checkbox", checked: one.optional, "aria-label": `${one.column} may be missing`, onchange: (event) => say("optional", event.target.checked) })),
      h("td", {}, one.chooses
        ? input("choices", "Choices", { key: "choices", placeholder: "a, b, c", ...trouble("choices") })
        : h("span", { class: "faint text", key: "none" }, one.type === "as given" ? one.given : "")),
      h("td", { class: "middle" }, h("button", { class: "quiet", onclick: () => send("drop", { number: one.number }), "aria-label": `Remove ${one.column}`, title: "Remove" }, "✕"))),
    one.problem ? h("tr", { key: `problem ${one.number}` }, h("td", {}), h("td", { colspan: 6, class: "bad", id: `${id}-problem-${one.number}`, role: "alert" }, one.problem)) : null,
  ];
};

const grid = (all) => {
  const { state, local, send, id } = all;
  const fields = state.fields || [];
  // The field that a person has just added is theirs to name.
  if (local.added !== undefined && fields.length > local.added) {
    delete local.added;
    const input = `${id}-name-${fields[fields.length - 1].number}`;
    queueMicrotask(() => { document.getElementById(input)?.focus(); document.getElementById(input)?.select(); });
  }
  return [
    h("div", { class: "llmkit-row record", key: "record" },
      field(`${id}-class`, "Class", h("input", { type: "text", value: state.name, size: 14, spellcheck: "false", onchange: (event) => send("describe", { name: event.target.value }) })),
      field(`${id}-about`, "What one row tells (the model reads it)", h("input", { type: "text", value: state.about, onchange: (event) => send("describe", { about: event.target.value }) }))),
    h("div", { class: "llmkit-scroll fields", key: "fields" },
      h("table", { "aria-label": "Fields" },
        h("thead", {}, h("tr", {}, h("th", { class: "swatch" }), ["Name", "Type", "Description", "Optional", "Choices"].map((name) => h("th", { scope: "col", key: name }, name)), h("th", {}))),
        h("tbody", {}, fields.map((one, place) => line(one, place, all)),
          fields.length ? null : h("tr", { key: "none" }, h("td", { colspan: 7, class: "faint" }, "No fields yet: add one, or begin from a sentence, an example or a schema."))))),
    h("div", { class: "llmkit-row", key: "add" },
      h("button", { onclick: () => { local.added = fields.length; send("add_field"); } }, "+ Add field")),
  ];
};

const sampling = ({ state, local, send, redraw, id }) => {
  const told = state.sample || {};
  const how = local.how || told.how;
  const choose = (changes) => {
    const wanted = { how, n: told.n, seed: told.seed, rows: told.rows, ...changes };
    if (wanted.how !== "chosen") delete wanted.rows;
    else if (!wanted.rows) return;
    send("sample", wanted);
  };
  const busy = Boolean(state.work);
  return h("div", { class: "llmkit-row controls", key: "controls" },
    field(`${id}-how`, "Sample", h("select", { value: how, onchange: (event) => { local.how = event.target.value; redraw(); choose({ how: event.target.value }); } },
      h("option", { value: "head" }, "first rows"), h("option", { value: "random" }, "random rows"), h("option", { value: "chosen" }, "rows by index"))),
    how === "chosen"
      ? field(`${id}-rows`, "Labels", h("input", { type: "text", value: told.rows, size: 14, placeholder: "3, 17, 40", onchange: (event) => choose({ rows: event.target.value }) }))
      : field(`${id}-n`, "Rows", h("input", { type: "number", min: 1, max: 200, value: told.n, onchange: (event) => choose({ n: event.target.value }) })),
    how === "random" ? field(`${id}-seed`, "Seed", h("input", { type: "number", min: 0, value: told.seed, onchange: (event) => choose({ seed: event.target.value }) })) : null,
    field(`${id}-model`, "Model", h("input", { type: "text", class: "model", value: state.model, list: `${id}-models`, spellcheck: "false", placeholder: state.outlook?.model || "llmkit's default", onchange: (event) => send("choose_model", { model: event.target.value }) })),
    h("datalist", { id: `${id}-models`, key: "models" }, (state.models || []).map((name) => h("option", { value: name, key: name }))),
    h("label", { class: "check", key: "evidence" }, h("input", { type: "checkbox", checked: state.evidence, onchange: (event) => send("set_evidence", { evidence: event.target.checked }) }), "Show evidence"),
    h("span", { class: "push", key: "push" }),
    busy
      // A second click of a double click on Run is no Stop.
      ? h("button", { key: "run", class: "main", onclick: () => { if (performance.now() - (local.ran || 0) > 400) send("stop"); } }, "Stop")
      : h("button", { key: "run", class: "main", onclick: () => { local.ran = performance.now(); send("run"); }, disabled: !(state.fields || []).length }, `Run on ${many(told.size || 0, "row")}`));
};

const DOING = { sample: "Extracting the sample", all: "Extracting all rows", proposal: "Asking for a proposal" };

const standing = ({ state }) => {
  const work = state.work;
  const outlook = state.outlook || {};
  const ahead = outlook.requests === undefined ? outlook.why || ""
    : outlook.requests ? `A run would send ${many(outlook.requests, "request")}${outlook.stored ? `, ${count(outlook.stored)} known already` : ""}, ${worth(outlook.cost)}.`
      : "A run would send nothing: all of it is known already.";
  return h("div", { class: "standing", key: "standing" },
    work ? h("progress", { key: "bar", max: Math.max(1, work.rows), value: work.done + work.errors, "aria-label": DOING[work.what] }) : null,
    // The panel's own place for words is at its end, and far from here: this is for the eye alone.
    state.error || (!work && state.note) ? h("p", { class: state.error ? "bad" : "", key: "said", "aria-hidden": "true" }, state.error || state.note) : null,
    h("p", { class: "faint", key: "words" }, work
      ? `${DOING[work.what]}: ${count(work.done)} of ${many(work.rows, "row")}${work.errors ? `, ${count(work.errors)} failed` : ""}${work.stored ? `, ${count(work.stored)} known already` : ""}, ${work.cost === null ? "cost unknown" : dollars(work.cost)}`
      : ahead));
};

const column = (one, place) => h("th", { scope: "col", key: one.number, class: "value" },
  h("span", { class: `hue hue-${place % COLOURS}`, "aria-hidden": "true" }), h("span", { class: "label" }, one.column),
  one.answered ? h("div", { class: "fill" },
    h("progress", { max: one.answered, value: one.filled, "aria-hidden": "true" }), h("span", { class: "faint" }, `${one.filled} of ${one.answered} filled`)) : null);

const whole = (row, fields, columns, span) => h("tr", { key: `whole ${row.row}`, class: "whole" }, h("td", { colspan: span },
  row.whole.error ? h("p", { class: "bad text", key: "error" }, row.whole.error) : null,
  h("div", { class: "halves", key: "halves" },
    h("div", { key: "texts" }, texts(row.whole, fields, columns)),
    h("dl", { key: "values" }, row.whole.values.map((one, place) => [h("dt", {}, h("span", { class: `hue hue-${place % COLOURS}`, "aria-hidden": "true" }), one.field), h("dd", { class: "text", dir: "auto" }, one.value || h("span", { class: "faint" }, one.value === "" ? "missing" : "not asked"))]))),
  row.whole.how?.model ? h("p", { class: "faint", key: "how" }, [row.whole.how.model, row.whole.how.source === "cache" ? "known already" : "", row.whole.how.attempts ? many(row.whole.how.attempts, "attempt") : "",
    row.whole.how.seconds ? lasting(row.whole.how.seconds) : "", `${count(row.whole.how.input_tokens || 0)} + ${count(row.whole.how.output_tokens || 0)} tokens`, row.whole.how.cost === null ? "" : dollars(row.whole.how.cost)].filter(Boolean).join(" · ")) : null));

const record = (row, { state, send }) => {
  const fields = state.fields;
  const [sign, tone, word] = SIGNS[row.status] || ["", "faint", "not asked yet"];
  const open = Boolean(row.whole);
  return [
    h("tr", { key: `row ${row.row}` },
      h("th", { scope: "row", class: "row" },
        h("button", { class: "quiet", onclick: () => send("unfold", { row: open ? null : row.row }), "aria-expanded": String(open), "aria-label": `Row ${row.label}, ${word}: show all of it` },
          h("span", { "aria-hidden": "true" }, open ? "▾ " : "▸ "), row.label, sign ? h("span", { class: tone, title: word }, ` ${sign}`) : null)),
      h("td", { class: "source" }, texts(row, fields, state.columns)),
      row.error
        ? h("td", { class: "bad text", key: "error", colspan: Math.max(1, fields.length) }, h("strong", {}, row.error.kind), `: ${row.error.message}`)
        : fields.map((one) => h("td", { class: "text value", dir: "auto", key: one.number }, row.values[one.column] || (row.values[one.column] === "" ? h("span", { class: "faint" }, "missing") : "")))),
    open ? whole(row, fields, state.columns, fields.length + 2) : null,
  ];
};

const table = (all) => {
  const { state, send } = all;
  const fields = state.fields || [];
  const told = state.sample || {};
  return [
    h("div", { class: "llmkit-scroll rows", key: "rows" },
      h("table", { "aria-label": "Sample rows", "aria-busy": String(state.work?.what === "sample") },
        h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "row" }, "Row"), h("th", { scope: "col", class: "source" }, (state.columns || []).join(", ")), fields.map(column))),
        h("tbody", {}, (state.rows || []).map((row) => record(row, all)),
          (state.rows || []).length ? null : h("tr", { key: "none" }, h("td", { colspan: fields.length + 2, class: "faint" }, state.failed_only ? "No row failed." : "The frame has no rows to try on."))))),
    h("div", { class: "llmkit-row pager", key: "pager" },
      state.pages > 1 ? [
        h("button", { key: "back", onclick: () => send("turn_to", { page: state.page - 1 }), disabled: state.page === 0, "aria-label": "Page before" }, "‹"),
        h("span", { key: "page", class: "faint" }, `Page ${state.page + 1} of ${state.pages}`),
        h("button", { key: "on", onclick: () => send("turn_to", { page: state.page + 1 }), disabled: state.page + 1 >= state.pages, "aria-label": "Next page" }, "›")] : null,
      told.failed || state.failed_only ? h("label", { class: "check", key: "failed" }, h("input", { type: "checkbox", checked: state.failed_only, onchange: (event) => send("turn_to", { page: 0, failed_only: event.target.checked }) }), `Only the ${many(told.failed, "failed row")}`) : null,
      state.stale ? h("span", { key: "stale", class: "stale" }, "Something was changed since this run; run again to see it.") : null),
  ];
};

const promoting = ({ state, local, send, id }) => {
  const outlook = state.outlook || {};
  const cost = outlook.all_requests === undefined ? "" : !outlook.all_requests ? "nothing left to send, all of it is known already"
    : `${many(outlook.all_requests, "request")} to send, ${worth(outlook.all_cost)}${outlook.all_cost === null ? "" : outlook.measured ? ", going by this sample" : ", as estimated"}`;
  const copy = (event) => {
    const button = event.target;
    navigator.clipboard?.writeText(state.code).then(() => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); });
  };
  return h("div", { class: "promote", key: "promote" },
    h("div", { class: "llmkit-row", key: "costs" },
      h("p", { class: "costs", key: "costs" }, h("span", {}, "Spent here ", h("strong", {}, state.spent === null ? "not known: there is no price" : dollars(state.spent))),
        h("span", {}, `All ${many(state.total || 0, "row")}: `, h("strong", {}, cost || ((state.fields || []).length ? "—" : "add fields first")))),
      h("span", { class: "push", key: "push" }),
      field(`${id}-most`, "Spend at most $", h("input", { type: "text", inputmode: "decimal", size: 7, oninput: (event) => { local.most = event.target.value; } })),
      h("button", { key: "promote", onclick: () => send("promote", { max_cost: local.most || null }), disabled: Boolean(state.work) || !(state.fields || []).length }, `Promote to all ${many(state.total || 0, "row")}`)),
    state.promoted !== null && state.promoted !== undefined ? h("p", { class: state.promoted ? "good" : "bad", key: "promoted" }, state.promoted ? `${many(state.promoted, "row")} answered in panel.result` : "No row was answered; panel.result says nothing.") : null,
    state.code ? h("details", { key: "code", open: state.promoted !== null && state.promoted !== undefined },
      h("summary", {}, "The class and the call as code"),
      h("div", { class: "codebox" }, h("pre", { class: "llmkit-code", tabindex: 0, "aria-label": "Code" }, state.code), h("button", { key: "copy", onclick: copy }, "Copy"))) : null);
};

const view = (all) => h("div", { class: "llmkit-explorer" },
  h("h3", { key: "title" }, "Explore an extraction"),
  beginning(all), grid(all), sampling(all), standing(all), table(all), promoting(all));

export default panel(view);
