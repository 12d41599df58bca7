// CompareModels: models in columns over rows, as the answers are written. The page that is shown comes in the state, what is new of it as
// news; what a model wrote is put in as text nodes, also where words are marked.
const ANSWER = { waiting: "waiting…", none: "", missing: "nothing to ask", stopped: "stopped", failed: "no answer" };
const WORDS_AT_MOST = 500;

/** The cells and facts as the state has them, unless news has already gone beyond it. */
const fresh = (state, local) => {
  if (local.from === state) return;
  local.from = state;
  local.number = state.number;
  local.cells = { ...state.cells };
  local.facts = Object.fromEntries((state.columns || []).map((one) => [one.id, one.facts]));
  local.asked = false;
};

const hear = (news, local, { state, send }) => {
  fresh(state, local);
  if (!news.number || news.number <= local.number) return;
  if (news.number !== local.number + 1) {
    // Something was missed, before this view was there: all of it is asked for, once.
    if (!local.asked) send("again");
    local.asked = true;
    return;
  }
  local.number = news.number;
  for (const [key, cell] of Object.entries(news.cells)) {
    const old = local.cells[key];
    local.cells[key] = cell.more === undefined ? cell : { ...old, text: old.text + cell.more };
  }
  Object.assign(local.facts, news.facts);
};

const short = (seconds) => (seconds === null || seconds === undefined ? "" : seconds < 1 ? `${Math.round(seconds * 1000)} ms` : lasting(seconds));
const share = (value) => (value === null || value === undefined ? "" : `${Math.round(value * 100)} %`);
const money = (value) => (value === null || value === undefined ? "" : value > 0 && value < 1 ? `$${value.toPrecision(2)}` : dollars(value));

// ------------------------------------------------------------------------------------------------------------------------- words

/** The words of `text`, each with whether `other` has it in the same order too: the longest common subsequence of both. */
const marked = (text, other) => {
  const cut = (whole) => whole.match(/\s*\S+/g) || [];
  const ours = cut(text), theirs = cut(other);
  if (ours.length > WORDS_AT_MOST || theirs.length > WORDS_AT_MOST) return null;
  const a = ours.map((word) => word.trim()), b = theirs.map((word) => word.trim());
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  const pieces = [];
  const put = (word, same) => {
    const last = pieces[pieces.length - 1];
    if (last && last.same === same) last.text += word;
    else pieces.push({ text: word, same });
  };
  for (let i = 0, j = 0; i < a.length;) {
    if (j < b.length && a[i] === b[j]) { put(ours[i], true); i++; j++; }
    else if (j < b.length && best[i * width + j + 1] > best[(i + 1) * width + j]) j++;
    else { put(ours[i], false); i++; }
  }
  return pieces;
};

const said = (cell, base) => {
  const pieces = base && base !== cell && cell.state === "done" && base.state === "done" ? marked(cell.text, base.text) : null;
  if (!pieces) return cell.text;
  return pieces.map((piece) => {
    const words = piece.text.trimStart();
    return piece.same ? piece.text : [piece.text.slice(0, piece.text.length - words.length), h("mark", { class: "differs" }, words)];
  });
};

// ------------------------------------------------------------------------------------------------------------------------ models

const option = (one, name, label, send, id, attributes) => h("td", { key: name, class: "option" },
  one.offered.includes(name)
    ? h("input", {
      id: `${id}-${one.id}-${name}`, type: "text", "aria-label": `${label} of ${one.label}`, spellcheck: "false", placeholder: "default", ...attributes,
      value: one.options[name] === undefined ? "" : String(one.options[name]),
      onchange: (event) => send("set_option", { column: one.id, name, value: event.target.value }),
    }) : h("span", { class: "faint" }, "–"));

const standing = (one, facts) => {
  if (facts.status === "starting") return [h("progress", { key: "bar", "aria-label": `${one.label} begins` }), h("span", { key: "how", class: "faint" }, "begins…")];
  const done = facts.done + facts.failed;
  const failed = facts.failed ? h("span", { key: "failed", class: "bad" }, ` · ${count(facts.failed)} failed`) : null;
  if (facts.status === "running") return [
    h("progress", { key: "bar", max: Math.max(1, facts.rows), value: done, "aria-label": `${one.label}: ${done} of ${facts.rows} answers` }),
    h("span", { key: "how", class: "faint" }, `${count(done)} of ${count(facts.rows)}`), failed];
  if (one.why) return h("span", { key: "why", class: "bad text why", title: one.why }, one.why);
  if (one.stale) return h("span", { key: "how", class: "faint" }, "changed: run again");
  if (facts.status === "stopped") return [h("span", { key: "how", class: "bad" }, `stopped at ${count(done)} of ${count(facts.rows)}`), failed];
  if (facts.status === "done") return [h("span", { key: "how", class: facts.failed ? "faint" : "good" }, facts.failed ? `${count(facts.done)} answered` : `✓ ${count(facts.done)} answered`), failed];
  const will = one.estimate;
  return h("span", { key: "how", class: "faint" }, will ? `${many(will.requests, "request")} · ${will.cost === null ? "cost unknown" : `≤ ${money(will.cost)}`}` : "not run yet");
};

const models = (state, local, send, id) => {
  const add = (event) => {
    event.preventDefault();
    const input = event.target.querySelector("input");
    if (!input.value.trim()) return;
    send("add", { model: input.value });
    input.value = "";
  };
  return h("div", { key: "models", class: "models" },
    state.columns.length ? h("div", { key: "table", class: "wide" }, h("table", { "aria-label": "Models" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "name" }, "Model"), h("th", { scope: "col", class: "small" }, "Temperature"),
        h("th", { scope: "col", class: "small" }, "Max tokens"), h("th", { scope: "col" }, "System"), h("th", { scope: "col", class: "state" }, "State"),
        h("th", { scope: "col", class: "buttons", "aria-label": "Stop or remove" }))),
      h("tbody", {}, state.columns.map((one) => {
        const facts = local.facts[one.id] || one.facts;
        const runs = facts.status === "running" || facts.status === "starting";
        return h("tr", { key: one.id },
          h("td", { key: "name", class: "name" }, one.label),
          option(one, "temperature", "Temperature", send, id, { inputmode: "decimal" }), option(one, "max_tokens", "Max tokens", send, id, { inputmode: "numeric" }),
          option(one, "system", "System", send, id, {}),
          h("td", { key: "state", class: "state" }, standing(one, facts)),
          h("td", { key: "buttons" }, h("div", { class: "buttons" },
            h("button", { key: "go", disabled: !runs && !one.stale && facts.status === "done" && !facts.failed, "aria-label": `${runs ? "Stop" : "Run"} ${one.label}`,
              onclick: () => send(runs ? "stop" : "run", { column: one.id }) }, runs ? "Stop" : "Run"),
            h("button", { key: "remove", "aria-label": `Remove ${one.label}`, title: "Remove", onclick: () => send("remove", { column: one.id }) }, "✕"))));
      })))) : h("p", { key: "none", class: "faint" },
      `${state.prompt.trim() ? "Add" : "Write a prompt, add"} two models or more by name, and press Run. With no key at hand, echo/echo answers without one.`),
    h("div", { class: "llmkit-row", key: "add" },
      h("form", { class: "adding", key: "form", onsubmit: add, autocomplete: "off" },
        h("input", { type: "text", list: `${id}-models`, "aria-label": "Model to add, any name", placeholder: "provider/model", size: "34", spellcheck: "false" }),
        h("datalist", { id: `${id}-models`, key: "list" }, (state.suggested || []).map((one) => h("option", { key: one.model, value: one.model }, one.needs ? `needs ${one.needs}` : "ready"))),
        h("button", { type: "submit", key: "add" }, "Add model")),
      h("label", { class: "check", key: "sync" }, h("input", { type: "checkbox", checked: state.synced, onchange: (event) => send("sync", { on: event.target.checked }) }), " same parameters for all"),
      h("span", { class: "grow", key: "grow" }),
      state.estimate && !state.running ? h("span", { key: "estimate", class: "faint estimate" },
        state.estimate.requests ? `${many(state.estimate.requests, "request")}, ${state.estimate.cost === null ? "cost unknown" : `at most about ${money(state.estimate.cost)}`}` : "all of it is answered and stored: nothing to pay") : null,
      h("button", { key: "run", class: "main", disabled: !state.columns.length, onclick: () => send(state.running ? "stop" : "run") }, state.running ? "Stop all" : "Run")));
};

// ----------------------------------------------------------------------------------------------------------------------- results

const QUALITY = { accuracy: "Accuracy", votes: "Votes", agreement: "Agreement" };

/** Quality against dollars per 1,000 rows; each point is named beside it, and all of it is in the table too. */
const plot = (state, facts) => {
  const points = state.columns.map((one, place) => ({ place, x: facts(one).cost_per_1000, y: facts(one)[state.quality] }))
    .filter((one) => typeof one.x === "number" && typeof one.y === "number");
  // Free texts hardly ever agree: that says nothing of their quality.
  if (points.length < 2 || (state.quality === "agreement" && !points.some((one) => one.y))) return null;
  const [width, height, left, right, top, bottom] = [250, 160, 38, 14, 12, 30];
  const most = Math.max(...points.map((one) => one.x)) || 1;
  const x = (value) => left + (value / (most * 1.1)) * (width - left - right);
  const y = (value) => height - bottom - value * (height - top - bottom);
  return h("figure", { key: "plot", class: "plot" },
    h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${QUALITY[state.quality]} against dollars per 1,000 rows, as in the table` },
      [0, 0.5, 1].map((value) => h("g", { key: `y${value}` },
        h("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
        h("text", { class: "tick", x: left - 5, y: y(value) + 4, "text-anchor": "end" }, share(value)))),
      h("text", { class: "tick", key: "zero", x: left, y: height - bottom + 14, "text-anchor": "middle" }, "$0"),
      h("text", { class: "tick", key: "most", x: x(most), y: height - bottom + 14, "text-anchor": "middle" }, money(most)),
      h("text", { class: "tick", key: "axis", x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "per 1,000 rows"),
      points.map((one) => {
        // Those that lie on one another share a label.
        const near = points.filter((other) => Math.hypot(x(one.x) - x(other.x), y(one.y) - y(other.y)) < 9);
        return h("g", { key: `p${one.place}` },
          h("circle", { class: `point hue${one.place % 6}`, cx: x(one.x), cy: y(one.y), r: 5 }),
          near[0] === one ? h("text", { class: "mark", x: x(one.x) + (x(one.x) > width - 40 ? -9 : 9), y: y(one.y) + 4, "text-anchor": x(one.x) > width - 40 ? "end" : "start" }, near.map((each) => each.place + 1).join(", ")) : null);
      })),
    h("figcaption", {}, `${QUALITY[state.quality]} against cost`));
};

const results = (state, local) => {
  const facts = (one) => local.facts[one.id] || one.facts;
  if (!state.columns.some((one) => facts(one).answered !== undefined)) return null;
  const total = (name) => state.columns.reduce((sum, one) => (sum === null || facts(one)[name] === null ? null : sum + (facts(one)[name] || 0)), 0);
  const columns = [
    ["Answered", (one) => `${count(one.answered)}${one.stored ? ` (${count(one.stored)} stored)` : ""}`],
    ...(state.columns.some((one) => facts(one).accuracy !== undefined) ? [["Accuracy", (one) => share(one.accuracy)]] : []),
    ...(state.quality !== "accuracy" && state.columns.some((one) => facts(one).agreement) ? [["Agreement", (one) => share(one.agreement)]] : []),
    ...(state.repeats > 1 ? [["Steadiness", (one) => share(one.steadiness)]] : []),
    ...(state.voted && !state.hidden ? [["Votes", (one) => `${share(one.votes)} of ${count(state.voted)}`]] : []),
    ["First token", (one) => short(one.first_seconds)], ["Latency", (one) => short(one.p50_seconds)], ["Queue", (one) => short(one.queue_p50_seconds)],
    ["Tokens/s", (one) => (one.tokens_per_second === null ? "" : count(Math.round(one.tokens_per_second)))],
    ["Tokens", (one) => count((one.input_tokens || 0) + (one.output_tokens || 0))], ["Cost", (one) => (one.cost === null ? "?" : money(one.cost))],
  ];
  return h("div", { key: "results", class: "results" },
    h("table", { key: "table", "aria-label": "Results by model; times are medians" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", key: "model" }, "Model"), columns.map(([name]) => h("th", { scope: "col", class: "number", key: name }, name)))),
      h("tbody", {}, state.columns.map((one, place) => h("tr", { key: one.id },
        h("th", { scope: "row", key: "model", class: "name" }, h("span", { class: `dot hue${place % 6}`, "aria-hidden": "true" }, String(place + 1)), `\u00a0${one.label}`),
        columns.map(([name, tell]) => h("td", { class: "number", key: name }, facts(one).answered === undefined ? "" : tell(facts(one)))))),
      h("tr", { key: "total", class: "total" }, h("th", { scope: "row", colspan: String(columns.length - 1), key: "what" }, "Together"),
        h("td", { class: "number", key: "tokens" }, count(total("input_tokens") + total("output_tokens"))),
        h("td", { class: "number", key: "cost" }, total("cost") === null ? "?" : money(total("cost")))))),
    plot(state, facts));
};

// ----------------------------------------------------------------------------------------------------------------------- answers

const measures = (cell) => [
  cell.stored ? "stored" : "", cell.first ? `first ${short(cell.first)}` : "", cell.seconds ? short(cell.seconds) : "", cell.queue >= 0.05 ? `queue ${short(cell.queue)}` : "",
  cell.speed ? `${count(Math.round(cell.speed))} tok/s` : "", cell.tokens ? `${count(cell.tokens)} tok` : "", cell.cost ? money(cell.cost) : "", cell.cut ? "cut at the limit" : "",
].filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ");

const answer = (key, cell, base) => {
  const whole = cell.of ? h("span", { key: "of", class: "faint" }, ` … of ${count(cell.of)} characters`) : null;
  const told = cell.state === "done" || cell.state === "writing" || (cell.text && (cell.state === "stopped" || cell.state === "failed"));
  return h("td", { key, class: `answer ${cell.state}` },
    told ? h("div", { key: "text", class: "text" }, said(cell, base), cell.state === "writing" ? h("span", { key: "pen", class: "pen", "aria-hidden": "true" }, "▍") : null, whole) : null,
    cell.state === "done" ? h("div", { key: "facts", class: "facts" }, measures(cell)) : null,
    cell.state !== "done" && cell.state !== "writing" ? h("div", { key: "state", class: cell.state === "failed" ? "bad text facts" : "facts" }, cell.error || ANSWER[cell.state]) : null);
};

const ballot = (state, row, send) => {
  const open = state.hidden && state.votable.includes(row.row) && state.votes[row.row] === undefined;
  if (!state.hidden) return state.votes[row.row] ? h("div", { key: "vote", class: "voted" }, `voted: ${state.votes[row.row]}`) : null;
  if (state.votes[row.row] !== undefined) return h("div", { key: "vote", class: "voted" }, "✓ voted");
  const button = (choice, label) => h("button", { key: choice, disabled: !open, "aria-label": `Row ${row.name}: ${label}`, onclick: () => send("vote", { row: row.row, choice }) }, label);
  return h("div", { key: "vote", class: "vote", role: "group", "aria-label": `Vote on row ${row.name}` },
    state.letters.map((one) => button(one, one)), button("tie", "Tie"), button("both bad", state.letters.length > 2 ? "All bad" : "Both bad"));
};

//: Characters from which on a row is folded until it is opened.
const LONG_ASKED = 180, LONG_ANSWER = 700;

const answers = (state, local, send, redraw) => {
  const opened = local.opened || (local.opened = new Set());
  const toggle = (row) => { if (!opened.delete(row)) opened.add(row); redraw(); };
  const names = state.blind ? state.letters.map((one) => `Answer ${one}`) : state.columns.map((one) => one.label);
  const baseline = state.blind ? -1 : state.columns.findIndex((one) => one.id === state.baseline);
  return h("div", { class: "llmkit-scroll answers", key: "answers", tabindex: "0", role: "region", "aria-label": "Answers" },
    h("table", { "aria-label": "Answers side by side" },
      // A column is never narrower than can be read: with many models the table scrolls, and the rows' names stay.
      h("colgroup", { key: "widths" }, h("col", { width: "200", key: "asked" }), names.map((_, place) => h("col", { width: "185", key: place }))),
      h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "asked", key: "asked" }, state.single ? "Prompt" : "Row"),
        names.map((name, place) => h("th", { scope: "col", key: place, class: place === baseline ? "base" : "" },
          state.blind ? null : h("span", { class: `dot hue${place % 6}`, "aria-hidden": "true" }, String(place + 1)), ` ${name}`)))),
      h("tbody", {}, state.shown.map((row) => {
        const cells = names.map((_, place) => local.cells[`${row.row}:${place}`] || { state: "none", text: "" });
        const order = state.order[row.row];
        const long = row.asked.length > LONG_ASKED || (!state.single && cells.some((cell) => cell.text.length > LONG_ANSWER));
        const open = opened.has(row.row);
        return h("tr", { key: row.row, class: long && !open ? "folded" : "" },
          h("th", { scope: "row", class: "asked", key: "asked" },
            state.single && !long ? null : h("div", { class: "facts", key: "name" }, long
              ? h("button", { class: "quiet", key: "fold", "aria-expanded": String(open), "aria-label": `Row ${row.name}: show all of it`, onclick: () => toggle(row.row) }, `${open ? "▾" : "▸"} ${state.single ? "all of it" : row.name}`)
              : row.name),
            h("div", { class: "text asked-text", key: "text" }, row.asked),
            state.blind || state.votes[row.row] ? ballot(state, row, send) : null),
          cells.map((cell, place) => {
            const who = state.blind && order ? state.columns[order[place]].label : "";
            const made = answer(place, cell, baseline >= 0 && place !== baseline ? cells[baseline] : null);
            if (who) made.children.unshift(h("div", { key: "who", class: "who" }, who));
            return made;
          }));
      }),
      state.shown.length ? null : h("tr", { key: "none" }, h("td", { colspan: String(names.length + 1), class: "faint" }, state.only_different ? "Nowhere do the answers differ." : "The frame has no rows to ask about.")))));
};

const looking = (state, send, id) => h("div", { class: "llmkit-row looking", key: "looking" },
  h("label", { class: "check", key: "different" }, h("input", { type: "checkbox", checked: state.only_different, onchange: (event) => send("look", { only_different: event.target.checked }) }), " only different"),
  h("label", { class: "check", key: "diff", for: `${id}-diff` }, "mark what differs from"),
  h("select", { id: `${id}-diff`, key: "diff-of", value: state.baseline, disabled: state.blind, onchange: (event) => send("look", { baseline: event.target.value }) },
    h("option", { value: "", key: "none" }, "none"), state.columns.map((one) => h("option", { value: one.id, key: one.id }, one.label))),
  state.repeats > 1 ? [h("label", { class: "check", key: "sample", for: `${id}-sample` }, "answer"),
    h("select", { id: `${id}-sample`, key: "sample-of", value: String(state.sample), onchange: (event) => send("look", { sample: Number(event.target.value) }) },
      Array.from({ length: state.repeats }, (_, place) => h("option", { value: String(place), key: place }, `${place + 1} of ${state.repeats}`)))] : null,
  h("button", { key: "blind", "aria-pressed": String(state.blind), disabled: state.columns.length < 2, onclick: () => send("blind", { on: !state.blind }) }, state.blind ? "End the vote" : "Vote blind"),
  state.hidden ? h("button", { key: "reveal", onclick: () => send("reveal") }, "Show names") : null,
  state.blind ? h("span", { class: "faint", key: "voted", role: "status" }, `${count(state.voted)} voted`) : null,
  h("span", { class: "grow", key: "grow" }),
  state.pages > 1 ? [
    h("button", { key: "back", disabled: state.page === 0, "aria-label": "Page before", onclick: () => send("look", { page: state.page - 1 }) }, "‹"),
    h("span", { key: "where", class: "faint" }, `${state.page + 1} of ${state.pages}`),
    h("button", { key: "on", disabled: state.page + 1 >= state.pages, "aria-label": "Next page", onclick: () => send("look", { page: state.page + 1 }) }, "›")] : null,
  h("button", { key: "keep", onclick: () => send("take_snapshot") }, "Snapshot"));

// --------------------------------------------------------------------------------------------------------------------------- all

const question = (state, send, id) => h("div", { key: "question" },
  field(`${id}-prompt`, state.single ? "Prompt" : state.on.length ? `Prompt, beside ${state.on.join(", ")}` : "Prompt, with {column} for a cell", h("textarea", {
    rows: "2", spellcheck: "true", value: state.prompt, onchange: (event) => send("ask_for", { prompt: event.target.value }),
  })),
  h("div", { class: "llmkit-row numbers", key: "numbers" },
    state.single ? null : [
      field(`${id}-rows`, `Rows of ${count(state.of)}`, h("input", { type: "text", inputmode: "numeric", size: "6", value: String(state.rows), onchange: (event) => send("take", { rows: event.target.value, seed: state.seed }) })),
      field(`${id}-seed`, "Random, by seed", h("input", { type: "text", inputmode: "numeric", size: "8", placeholder: "the first", value: state.seed === null ? "" : String(state.seed), onchange: (event) => send("take", { rows: state.rows, seed: event.target.value }) }))],
    field(`${id}-repeats`, "Answers each", h("input", { type: "text", inputmode: "numeric", size: "4", value: String(state.repeats), onchange: (event) => send("repeat", { answers: event.target.value }) }))));

const view = ({ state, local, send, redraw, id }) => {
  if (!state.columns) return h("div", { class: "llmkit-compare" });
  fresh(state, local);
  return h("div", { class: "llmkit-compare" },
    h("h3", { key: "title" }, "Compare models"),
    question(state, send, id), models(state, local, send, id), results(state, local),
    state.columns.length ? [looking(state, send, id), answers(state, local, send, redraw)] : null,
    state.snapshots.length ? h("p", { key: "kept", class: "faint" }, `Kept: ${state.snapshots.map((one) => `${one.name} (${one.taken.slice(0, 16).replace("T", " ")})`).join(", ")}`) : null,
    h("details", { key: "code" }, h("summary", {}, "As code"), h("pre", { class: "llmkit-code", "aria-label": "The same as code" }, state.code)));
};

export default panel(view, { onpatch: hear });
