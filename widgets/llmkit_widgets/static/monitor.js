// RunMonitor: a card for each run that goes on, and a table of those that ended.
const percent = (part, whole) => (whole ? `${Math.floor((100 * part) / whole)} %` : "");

/** Requests a minute over time, as a line; its numbers are said in words beside it. */
const spark = (points) => {
  if (points.length < 2) return null;
  const [width, height] = [180, 36];
  const most = Math.max(...points, 1);
  const at = points.map((value, place) => `${((place * width) / (points.length - 1)).toFixed(1)},${(height - 2 - (value * (height - 4)) / most).toFixed(1)}`);
  return h("svg", { class: "spark", key: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Requests a minute, ${count(points[points.length - 1])} now and ${count(most)} at most` },
    h("polyline", { points: `0,${height} ${at.join(" ")} ${width},${height}`, class: "area" }), h("polyline", { points: at.join(" "), class: "line" }));
};

const facts = (run) => [
  `${count(run.done)} of ${count(run.rows)} rows`, percent(run.done + run.errors, run.rows),
  run.rate ? `${run.rate >= 10 ? count(Math.round(run.rate)) : run.rate.toFixed(1)} rows/s` : "",
  run.left !== null ? `about ${lasting(run.left)} left` : lasting(run.seconds),
  run.pace.length > 1 ? `${count(run.pace[run.pace.length - 1])} requests/min` : "", run.stored ? `${count(run.stored)} stored` : "", `${count(run.tokens)} tokens`, run.cost === null ? "cost unknown" : dollars(run.cost),
  run.retries ? `${count(run.retries)} ${run.retries === 1 ? "retry" : "retries"}` : "", run.lost ? `${count(run.lost)} possibly billed` : "",
].filter(Boolean).join(" · ");

const details = (run) => [
  run.reasons.length ? h("div", { class: "block", key: "reasons" },
    h("table", { "aria-label": "Errors" }, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "number errors" }, "Errors"), h("th", { scope: "col", class: "kind" }, "Kind"), h("th", { scope: "col" }, "The first of them"))),
      h("tbody", {}, run.reasons.map((one) => h("tr", { key: one.kind }, h("td", { class: "number bad" }, count(one.count)), h("td", {}, one.kind), h("td", { class: "text" }, one.example))))),
    run.more_reasons ? h("p", { class: "faint" }, `and ${run.more_reasons} kinds more`) : null) : null,
  run.limits.length ? h("div", { class: "block", key: "limits" },
    h("table", { "aria-label": "Pace and limits" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Model"),
      ...["Window", "In flight", "Waiting", "Requests/min", "Refused (429)"].map((name) => h("th", { scope: "col", class: "number" }, name)))),
    h("tbody", {}, run.limits.map((one) => h("tr", { key: one.model }, h("td", { class: "text" }, one.model),
      ...[one.window, one.in_flight, one.waiting, one.requests_per_minute, one.refused].map((value) => h("td", { class: "number" }, value === null ? "" : count(Math.round(value))))))))) : null,
];

const card = (run, send) => h("section", { class: "card", key: run.id, "aria-label": `Run ${run.id}` },
  h("div", { class: "head", key: "head" },
    h("div", { class: "what", key: "what" }, h("strong", {}, run.operation), ` ${run.models.join(" > ")}`),
    spark(run.pace),
    h("button", { key: "stop", onclick: () => send("cancel", { run: run.id }), disabled: run.state !== "running", "aria-label": `Stop ${run.operation} ${run.id}` }, "Stop")),
  h("progress", { key: "bar", max: Math.max(1, run.rows), value: run.done + run.errors, "aria-label": `${run.operation}: ${percent(run.done + run.errors, run.rows)}` }),
  h("p", { class: "facts", key: "facts" }, facts(run), run.errors ? h("span", { class: "bad" }, ` · ${count(run.errors)} errors`) : null),
  details(run));

const ending = (line) => (line.more ? (line.more.state === "stopped" ? "stopped" : "done") : line.stopped ? "stopped" : line.requests === null ? "not ended" : "done");

const past = (line, local, redraw) => {
  const open = local.open === line.id;
  const when = new Date(line.started * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  return [
    h("tr", { key: line.id },
      h("td", {}, line.more
        ? h("button", { class: "quiet", "aria-expanded": String(open), onclick: () => { local.open = open ? "" : line.id; redraw(); } }, `${open ? "▾" : "▸"} ${when}`)
        : when),
      h("td", { class: "text" }, h("strong", {}, line.operation), ` ${line.models}`),
      h("td", { class: "number" }, count(line.rows)), h("td", { class: "number" }, count(line.done)),
      h("td", { class: line.errors ? "number bad" : "number" }, count(line.errors)), h("td", { class: "number" }, count(line.stored)),
      h("td", { class: "number" }, line.cost === null ? "?" : dollars(line.cost)), h("td", { class: "number" }, lasting(line.seconds)),
      h("td", { class: ending(line) === "stopped" ? "bad" : "faint" }, ending(line))),
    open && line.more ? h("tr", { key: `${line.id} more` }, h("td", { colspan: "9", class: "more" },
      line.more.stopped ? h("p", { class: "bad text", key: "why" }, line.more.stopped) : null, h("p", { class: "facts", key: "facts" }, facts(line.more)), details(line.more))) : null,
  ];
};

const view = ({ state, local, send, redraw }) => h("div", { class: "llmkit-monitor" },
  h("div", { class: "title", key: "title" }, h("h3", {}, "Runs"), h("button", { onclick: () => send("refresh") }, "Refresh")),
  (state.live || []).length ? state.live.map((run) => card(run, send)) : h("p", { class: "faint", key: "none" }, (state.past || []).length ? "Nothing runs just now." : "Nothing runs just now, and nothing ran yet. A call such as df.llm.chat(...) shows here as it goes, and stays when it ends."),
  (state.past || []).length ? h("div", { class: "llmkit-scroll", key: "past", tabindex: "0", role: "region", "aria-label": "Past runs" },
    h("table", { "aria-label": "Past runs" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Began"), h("th", { scope: "col" }, "What"),
        ...["Rows", "Done", "Errors", "Stored", "Cost", "Took"].map((name) => h("th", { scope: "col", class: "number" }, name)), h("th", { scope: "col" }, "Ended"))),
      h("tbody", {}, state.past.map((line) => past(line, local, redraw))))) : null);

export default panel(view);
