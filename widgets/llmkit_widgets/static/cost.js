// CostPanel: what was spent, by day, model and run; what was saved; a budget.
/** An amount, and that it is at least so much where a price is unknown. */
const amount = (dollar, unknown) => (unknown && !dollar ? "unknown" : `${unknown ? "at least " : ""}${dollars(dollar)}`);

const tile = (key, label, value, more, bad) => h("div", { class: "tile", key },
  h("div", { class: "faint" }, label), h("div", { class: bad ? "big bad" : "big" }, value), h("div", { class: "faint" }, more));

/** A share of the longest, as a bar. */
const bar = (part, most) => h("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
  h("rect", { x: "0", y: "0", width: String(part > 0 ? Math.max(0.5, (100 * part) / most) : 0), height: "8", rx: "1" }));

const by_day = (days) => {
  const most = Math.max(...days.map((one) => one.cost));
  const top = days.find((one) => one.cost === most);
  const said = most > 0 ? `The dearest day was ${top.day} with ${dollars(most)}` : "Nothing was spent";
  return h("figure", { key: "days" },
    h("figcaption", { class: "faint" }, h("span", { key: "of" }, "Dollars by day (UTC)"), h("span", { key: "most" }, said)),
    h("svg", { class: "days", viewBox: `0 0 ${days.length * 10} 60`, preserveAspectRatio: "none", role: "img", "aria-label": said },
      h("line", { x1: "0", y1: "59.5", x2: String(days.length * 10), y2: "59.5", class: "base" }),
      days.map((one, place) => {
        const height = most > 0 && one.cost > 0 ? Math.max(1, (58 * one.cost) / most) : 0;
        return h("rect", { key: one.day, x: String(place * 10 + 1), y: String(59 - height), width: "8", height: String(height) });
      })),
    h("div", { class: "ends faint" }, h("span", { key: "first" }, days[0].day), h("span", { key: "last" }, days[days.length - 1].day)));
};

const table = (label, first, lines, name) => {
  const most = Math.max(...lines.map((one) => one.cost_at_least), 0);
  return h("div", { class: "llmkit-scroll", key: label },
    h("table", { "aria-label": label },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, first), h("th", { scope: "col", class: "bars", "aria-label": "Share" }),
        ...["Cost", "Answers", "Stored", "Errors", "Tokens in", "Tokens out"].map((one) => h("th", { scope: "col", class: "number" }, one)))),
      h("tbody", {}, lines.map((one) => h("tr", { key: name(one) },
        h("td", { class: "text" }, name(one)), h("td", { class: "bars" }, bar(one.cost_at_least, most)),
        h("td", { class: "number" }, amount(one.cost_at_least, one.unknown)), h("td", { class: "number" }, count(one.answers)), h("td", { class: "number" }, count(one.stored)),
        h("td", { class: one.errors ? "number bad" : "number" }, count(one.errors)), h("td", { class: "number" }, count(one.input_tokens)), h("td", { class: "number" }, count(one.output_tokens)))))));
};

const budget = (state, local, send, redraw, id) => {
  const set = (event) => {
    event.preventDefault();
    send("set_budget", { amount: event.target.querySelector("input").value, per: local.per || state.per });
  };
  return h("form", { class: "llmkit-row", key: "budget", onsubmit: set, autocomplete: "off" },
    field(`${id}-days`, "Show", h("select", { value: String(state.days), onchange: (event) => send("look", { days: Number(event.target.value) }) },
      (state.choices || []).map((days) => h("option", { value: String(days), key: days }, `${days} days`)))),
    field(`${id}-budget`, "Budget, $ (it warns, and stops nothing)", h("input", { type: "text", inputmode: "decimal", size: "12", placeholder: "none", value: state.budget === null || state.budget === undefined ? "" : String(state.budget) })),
    field(`${id}-per`, "each", h("select", { value: local.per || state.per, onchange: (event) => { local.per = event.target.value; redraw(); } },
      h("option", { value: "day", key: "day" }, "day"), h("option", { value: "month", key: "month" }, "month"))),
    h("button", { type: "submit", key: "set" }, "Set budget"),
    h("button", { type: "button", key: "refresh", onclick: () => send("refresh") }, "Refresh"));
};

const view = ({ state, local, send, redraw, id }) => {
  const total = state.total;
  const each = state.per === "day" ? "today" : "this month";
  return h("div", { class: "llmkit-cost" },
    h("h3", { key: "title" }, "Cost"),
    budget(state, local, send, redraw, id),
    state.over ? h("p", { class: "over", key: "over", role: "alert" }, `The budget of ${dollars(state.budget)} a ${state.per} is passed: ${amount(state.spent, state.spent_unknown)} ${each}.`) : null,
    total ? h("div", { class: "tiles", key: "tiles" },
      tile("spent", `Spent in ${state.days} days`, amount(total.cost_at_least, total.unknown), `${count(total.answers)} answers paid`),
      tile("now", `Spent ${each}`, amount(state.spent, state.spent_unknown),
        state.budget ? `${count(Math.round((100 * state.spent) / state.budget))} % of ${dollars(state.budget)}` : "no budget", state.over),
      tile("stored", "Stored answers used again", count(total.stored), total.worth ? `about ${dollars(total.worth)} not paid twice` : ""),
      tile("prompt", "Saved by prompt caches", dollars(total.saved), "the vendors' own")) : null,
    total && !state.by_model.length ? h("p", { class: "faint", key: "nothing" }, `Nothing was asked in these ${state.days} days. What calls cost is shown here when they end.`)
      : total ? by_day(state.by_day) : h("p", { class: "faint", key: "reading" }, "Reading the journal…"),
    total && state.by_model.length ? [h("h4", { key: "models-title" }, "By model"), table("Cost by model", "Model", state.by_model, (one) => one.model)] : null,
    total && state.by_run.length ? [h("h4", { key: "runs-title" }, "Dearest runs"), table("Cost by run", "Run", state.by_run, (one) => `${one.operation} ${one.run}`)] : null);
};

export default panel(view);
