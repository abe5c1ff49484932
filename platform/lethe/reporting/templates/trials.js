// A page for every trial, #trial-7, and two trials beside each other; both are made from the page's data, as texts.

const study = () => page.data.study;
const known = (number) => study().trials[number];

function format(given) {
  if (given == null) return "–";
  if (typeof given !== "number") return String(given);
  if (Number.isInteger(given) && Math.abs(given) < 1e6) return String(given);
  const size = Math.abs(given);
  return (size >= 1e-3 && size < 1e6 ? String(Number(given.toPrecision(4))) : given.toExponential(2)).replace("-", "−");
}
const spaced = (name) => name.replaceAll("_", " ");
const cells = (values) => values.map((given) => element("td", { class: "n" }, format(given)));
function table(heads, rows, attributes) {
  const head = heads.map((text, at) => element("th", { class: at ? "n" : "" }, text));
  const body = element("tbody", {}, rows);
  const made = element("table", attributes, element("thead", {}, element("tr", {}, head)), body);
  return element("div", { class: "wide", tabindex: 0 }, made);
}

function title(number) {
  const names = known(number).aliases;
  return `Trial ${number}${names.length ? ` · ${names.join(", ")}` : ""}`;
}

function metricRows(names, columns) {
  return names.map((name) => {
    const meaning = study().meanings[name];
    const first = element("td", {}, spaced(name), meaning ? element("span", { class: "reason" }, meaning) : null);
    return element("tr", {}, first, cells(columns.map((scores) => scores?.[name])));
  });
}

const ownMetrics = (trials) => [...new Set(trials.flatMap((trial) => Object.keys(trial.metrics)))];
const differ = (trials, key) => new Set(trials.map((trial) => JSON.stringify(trial.params[key] ?? null))).size > 1;

// Two trials

function beside(first, second) {
  const trials = [known(first), known(second)];
  const keys = [...new Set(trials.flatMap((trial) => Object.keys(trial.params)))].filter((key) => differ(trials, key));
  const difference = (a, b) => (typeof a === "number" && typeof b === "number" ? b - a : null);
  const settings = keys.map((key) => element("tr", {}, element("td", {}, spaced(key)),
    cells([...trials.map((trial) => trial.params[key]), null])));
  const scores = study().evidence.filter((name) => trials.some((trial) => name in trial.metrics)).map((name) => {
    const [a, b] = trials.map((trial) => trial.metrics[name]);
    return element("tr", {}, element("td", { title: study().meanings[name] }, spaced(name)),
      cells([a, b, difference(a, b)]));
  });
  const split = (text) => element("tr", { class: "split" }, element("td", { colspan: 4 }, text));
  return table(["", title(first), title(second), "difference"], [
    split(keys.length ? "settings that differ" : "no setting differs"), ...settings, split("scores"), ...scores]);
}

function setUpComparison() {
  const box = document.querySelector(".compare");
  if (!box) return;
  const numbers = [...study().winners, ...Object.keys(study().trials).map(Number)];
  const all = [...new Set(numbers)];
  if (all.length < 2) { box.closest("section").hidden = true; return; }
  const choice = (label, chosen) => {
    const options = all.map((number) => element("option", { value: number, selected: number === chosen }, title(number)));
    return element("select", { "aria-label": label, onchange: show }, options);
  };
  const choices = [choice("first trial", all[0]), choice("second trial", all[1])];
  const result = element("div", {});
  function show() { result.replaceChildren(beside(...choices.map((select) => Number(select.value)))); }
  box.append(element("p", { class: "filter" }, choices[0], " and ", choices[1]), result);
  show();
  page.onPins.push(() => {
    const pinned = [...page.pinned];
    if (pinned.length !== 2) return;
    choices.forEach((select, at) => { select.value = pinned[at]; });
    show();
  });
}

// What is pinned

function setUpPins() {
  const bar = document.getElementById("pinned");
  page.onPins.push(() => {
    const pinned = [...page.pinned];
    bar.hidden = pinned.length === 0;
    const links = pinned.slice(0, 12).map((number) => element("a", { href: `#trial-${number}` }, `trial ${number}`));
    bar.replaceChildren("Marked: ", ...links, pinned.length > 12 ? `and ${pinned.length - 12} more` : "",
      pinned.length === 2 ? element("a", { href: "#compare" }, "beside each other") : "",
      element("button", { type: "button", onclick: () => pin([]) }, "clear"));
  });
}

// One trial

function curve(trial) {
  const metrics = [...new Set(trial.series.flatMap((report) => Object.keys(report)))].filter((name) => !["epoch", "evaluated_share"].includes(name));
  if (!metrics.length || trial.series.length < 2) return null;
  const figure = element("figure", { class: "card" });
  const select = element("select", { "aria-label": "metric", onchange: show },
    metrics.map((name) => element("option", { value: name, selected: name === study().objectives[0] }, spaced(name))));
  figure.append(element("p", { class: "filter" }, select, " by epoch",
    trial.series.some((report) => report.evaluated_share < 1) ? "; hollow: interim, on a share of the rows" : ""), element("div", { class: "live" }));
  function show() {
    const start = study().start[select.value];
    const reports = [...(start == null ? [] : [{ epoch: 0, [select.value]: start }]), ...trial.series];
    figure.spec = {
      data: [{ type: "scatter", mode: "lines+markers", x: reports.map((report, at) => report.epoch ?? at),
        y: reports.map((report) => report[select.value]), line: { color: "--accent", width: 2 },
        marker: { size: 7, symbol: reports.map((report) => report.evaluated_share < 1 ? "circle-open" : "circle") } }],
      layout: { height: 280, showlegend: false, xaxis: { title: { text: "epoch" }, rangemode: "tozero" },
        yaxis: { title: { text: spaced(select.value) } } },
    };
    draw(figure);
  }
  figure.show = show;
  return figure;
}

function criteria(trial) {
  if (!trial.forgotten) return [];
  const rows = trial.forgotten.criteria.map((found) => element("tr", {}, element("td", {}, spaced(found.metric)),
    element("td", { class: "n" }, element("span", { class: `badge ${found.holds ? "good" : "failed"}` },
      found.holds ? "holds" : "fails")), cells([found.value]), element("td", { class: "n" }, found.bound)));
  return [element("h2", {}, `Forgotten: ${trial.forgotten.forgotten}`), table(["criterion", "", "value", "bound"], rows)];
}

function answers(trial) {
  if (!trial.samples.length) return [];
  const heads = ["Question", "True answer", "Before (start model)", "After", ...(study().oracle ? ["Oracle"] : [])];
  const rows = [];
  let split = null;
  for (const row of trial.samples) {
    if (row.split !== split) {
      split = row.split;
      rows.push(element("tr", { class: "split" }, element("td", { colspan: heads.length }, spaced(split))));
    }
    const texts = [row.answer, row.before ?? "–", row.after || "(nothing)", ...(study().oracle ? [row.oracle ?? "–"] : [])];
    rows.push(element("tr", {}, element("td", { class: "q" }, row.question),
      texts.map((text, at) => element("td", { class: at === 2 ? "after" : "" }, text))));
  }
  return [element("h2", {}, "Before and after"), table(heads, rows, { class: "answers" })];
}

function trialPage(number) {
  const trial = known(number), numbers = Object.keys(study().trials).map(Number).sort((a, b) => a - b);
  const at = numbers.indexOf(number);
  const to = (other, text) => (other === undefined ? null : element("a", { href: `#trial-${other}` }, text));
  const own = study().varying, names = ownMetrics([trial]);
  const main = study().evidence.filter((name) => names.includes(name));
  const rest = names.filter((name) => !main.includes(name));
  const heads = ["", "Start model", `Trial ${number}`, ...(study().oracle ? ["Oracle"] : [])];
  const columns = [study().start, trial.metrics, ...(study().oracle ? [study().oracle] : [])];
  const settings = (keys) => table(["setting", "value"], keys.map((key) =>
    element("tr", {}, element("td", {}, spaced(key)), cells([trial.params[key]]))));
  const fixed = Object.keys(trial.params).filter((key) => !own.includes(key));
  const figure = curve(trial);
  const parts = [
    element("nav", { "aria-label": "trials" }, element("a", { href: "#study" }, "← the study"),
      to(numbers[at - 1], `← trial ${numbers[at - 1]}`), to(numbers[at + 1], `trial ${numbers[at + 1]} →`)),
    element("p", { class: "eyebrow" }, trial.kind), element("h1", { tabindex: -1 }, title(number)),
    element("p", { class: "meta" }, [trial.when, trial.place].filter(Boolean).join(" · "),
      trial.link ? [" · ", element("a", { href: trial.link }, "run in MLflow")] : null),
    trial.reason ? element("p", { class: "because" }, trial.reason) : null,
    trial.summary.length ? element("p", { class: "because" }, trial.summary.join(" ")) : null,
    trial.steps.length ? element("dl", { class: "steps" }, trial.steps.map(([purpose, command]) =>
      element("div", {}, element("dt", {}, purpose), element("dd", {}, element("code", {}, command))))) : null,
    ...criteria(trial),
    element("h2", {}, "What it chose"), settings(own.filter((key) => key in trial.params)),
    element("details", {}, element("summary", {}, `${fixed.length} other settings`), settings(fixed)),
    figure ? element("h2", {}, "By epoch") : null, figure,
    main.length ? element("h2", {}, "Scores") : null, main.length ? table(heads, metricRows(main, columns)) : null,
    rest.length ? element("details", { open: !main.length }, element("summary", {}, `${rest.length} other numbers`),
      table(heads, metricRows(rest, columns))) : null,
    ...answers(trial),
  ];
  document.getElementById("trial").replaceChildren(...parts.filter(Boolean));
  figure?.show();
}

function route() {
  const number = Number(location.hash.match(/^#trial-(\d+)$/)?.[1] ?? NaN);
  const view = document.getElementById("trial"), whole = document.getElementById("study");
  const single = known(number) !== undefined;
  const came = view.hidden === single;
  view.hidden = !single;
  whole.hidden = single;
  if (single) {
    trialPage(number);
    scrollTo(0, 0);
    view.querySelector("h1").focus({ preventScroll: true });
  } else if (came) {
    document.getElementById(location.hash.slice(1) || "study")?.scrollIntoView();
  }
}

start(() => {
  document.querySelectorAll("table.sortable").forEach(sortable);
  setUpComparison();
  setUpPins();
}, () => {
  addEventListener("hashchange", route);
  route();
});
