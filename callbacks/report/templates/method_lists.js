// One method's list of an example: the first entries open, the others and the far end folded.

const FIRST = 10;
const LAST = 5;

const worthOf = (method) => h("p", { class: "muted worth" },
  method.worth.length ? `Measured: ${method.worth.join("; ")}.` : method.control ? "A control: others are compared with it." : "Its worth was not measured in this run.");

const aboutOf = (method, list) => {
  const said = [];
  const target = list === undefined ? "" : method.target(list);
  if (target) said.push(h("span", {}, "towards ", h("b", { dir: "auto" }, target)));
  if (method.measure) said.push(`in ${method.measure}`);
  if (method.seed) said.push(method.seed);
  return h("p", { class: "about" }, h("b", { class: "printed" }, `${method.name}: `), said.map((part, i) => [i ? " · " : "", part]), method.sign ? h("span", { class: "muted sign" }, method.sign) : "");
};

const scoreCell = (score, largest) => h("span", { class: `score${score < 0 ? " neg" : ""}` },
  h("span", { class: "num" }, shownScore(score)), h("span", { class: `bar${score < 0 ? " neg" : ""}`, "--w": String(largest > 0 ? Math.abs(score) / largest : 0), "aria-hidden": "true" }));

const others = (found) => (found.length ? h("span", { class: "also" }, `also ${found.map(([name, rank]) => `${name} #${rank}`).join(", ")}`) : "");

const largestOf = (shown) => Math.max(0, ...shown.map((entry) => Math.abs(entry.score)));

const marksOf = (text) => text.split(", ").filter(Boolean).map((name) => badge(name, "mark"));

const instanceLine = (data, method, example, entry, largest, ranks, shared, state) => {
  const twin = isTwin(data, example, entry.at);
  const marks = data.train.marks(entry.at).split(", ").filter((name) => name && !(twin && name === "twin"));
  return h("li", { "data-index": data.train.index[entry.at] },
    h("span", { class: "rank" }, String(entry.rank)),
    h("div", {}, h("span", { class: "quote", dir: "auto" }, marked(data.train.brief(entry.at) || "(empty)", shared)),
      h("span", { class: "about" }, trainLink(data, entry.at, { from: data.tests.index[example], instances: state.instances }), h("span", {}, data.train.label(entry.at)),
        twin ? badge("twin of this example", "right") : "", marks.map((name) => badge(name, "mark")), others(alsoIn(ranks, method.name, entry.at)))),
    scoreCell(entry.score, largest));
};

// A list of train instances, of the example or of one of its units.
const instanceList = (data, method, list, example, ranks, shared, state) => {
  const [top, bottom] = [entries(method, list), entries(method, list, "bottom")];
  if (!top.length && !bottom.length) return h("p", { class: "muted" }, `No training instance is listed${list !== undefined && method.target(list).includes(" against ") ? ": nothing sets apart what is the same" : ""}.`);
  const line = (end) => (entry) => instanceLine(data, method, example, entry, largestOf(end), ranks, shared, state);
  const away = h("details", { class: "more", ontoggle: (event) => { if (event.target.open && event.target.children.length === 1) event.target.append(h("ol", { class: "list" }, bottom.slice(0, LAST).map(line(bottom)))); } },
    h("summary", {}, `lowest ${Math.min(LAST, bottom.length)}${method.target(list) ? ", most away from the target" : ""}`));
  const all = [...top.map((entry) => ({ ...entry, end: "highest" })), ...bottom.map((entry) => ({ ...entry, end: "lowest" }))];
  return [h("ol", { class: "list" }, top.slice(0, FIRST).map(line(top))), bottom.length ? away : "",
    later(`all ${all.length} kept entries, as a table`, () => virtualTable(`Instances of ${method.name} for ${data.tests.split} ${data.tests.index[example]}`, [
      { name: "Instance", width: 7, cell: (i) => trainLink(data, all[i].at, { from: data.tests.index[example] }), value: (i) => data.train.index[all[i].at], csv: (i) => data.train.index[all[i].at] },
      { name: "End", width: 5, cell: (i) => all[i].end, value: (i) => all[i].end },
      { name: "Rank", width: 5, numeric: true, cell: (i) => String(all[i].rank), value: (i) => all[i].rank },
      { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(all[i].score), value: (i) => all[i].score },
      { name: "Label", width: 9, cell: (i) => data.train.label(all[i].at), value: (i) => data.train.label(all[i].at) },
      { name: "Text", width: 24, cell: (i) => h("span", { dir: "auto" }, data.train.brief(all[i].at)), csv: (i) => data.train.brief(all[i].at, Infinity) },
    ], { rows: all.map((_, i) => i) }))];
};

// Folded content that is made when it is opened.
const later = (name, make) => h("details", { class: "more", ontoggle: (event) => {
  if (!event.target.open || event.target.children.length > 1) return;
  const made = make();
  event.target.append(made.element ?? made);
  made.ready?.();
} }, h("summary", {}, name));

// Instances of `behind` whose own lists name the unit: who stands behind a neuron.
const behindUnit = (data, method, example, unit) => (method && acting(data).length ? entries(method, listOf(method, example)).slice(0, COMPARED).filter((entry) => ownUnits(data, entry.at).some((own) => own.at === unit)) : []);

const passageLine = (data, [index, activation, before, token, after]) => h("p", { class: "passage", dir: "auto" }, before, h("mark", {}, token), after, " ",
  h("span", { class: "muted" }, data.train.place.has(index) ? trainLink(data, data.train.place.get(index)) : `train ${index}`, `, activation ${shownScore(activation)}`));

const unitList = (data, method, list, example, ranks, state, behind, token = null) => {
  const found = entriesAt(method, list, token);
  if (!found.length) return h("p", { class: "muted" }, `No neuron is listed${list !== undefined && method.target(list).includes(" against ") ? ": nothing sets apart what is the same" : ""}.`);
  const largest = largestOf(found);
  const where = (entry) => (entry.position >= 0 ? h("span", { class: "muted" }, ` position ${entry.position}`) : "");
  const line = (entry) => {
    const instances = behindUnit(data, behind, example, entry.at);
    const passages = data.units.passages[entry.at];
    return h("li", { class: `neuron${entry.score < 0 ? " neg" : ""}`, "data-unit": data.units.key[entry.at] },
      h("span", { class: "rank" }, String(entry.rank)),
      h("div", {}, unitLink(data, entry.at, { method: method.name, from: data.tests.index[example] }), where(entry), " ", others(alsoIn(ranks, method.name, entry.at)),
        data.units.words[entry.at] ? h("span", {}, " ", wordChips(data.units.words[entry.at].slice(0, 5))) : "",
        instancesBehind(data, method, example, entry).map(([said, found]) => h("span", { class: "behind" }, `${said} `, found.map((at, i) => [i ? ", " : "", trainLink(data, at, { from: data.tests.index[example] })]))),
        instances.length ? h("span", { class: "behind" }, "also listed for ", instances.slice(0, 3).map((one, i) => [i ? ", " : "", trainLink(data, one.at, { from: data.tests.index[example] })])) : "",
        passages ? h("details", { class: "more" }, h("summary", {}, "training texts that activate it most"), passages.map((passage) => passageLine(data, passage))) : ""),
      scoreCell(entry.score, largest));
  };
  const told = [];
  if (token !== null && !method.token) told.push(`${method.name} has no shares by token: this list is of the whole completion`);
  if (method.listed[list] > FIRST) told.push(`first ${Math.min(FIRST, found.length)} of ${method.listed[list]} listed`);
  if (method.residual.layer[list] >= 0) told.push(`completeness residual at most ${shownScore(method.residual.size[list])} (layer ${method.residual.layer[list]})`);
  return [h("ol", { class: "list" }, found.slice(0, FIRST).map(line)), h("p", { class: "muted" }, told.join(" · ")),
    later(`all ${found.length} kept entries, as a table`, () => virtualTable(`Neurons of ${method.name} for ${data.tests.split} ${data.tests.index[example]}`, [
      { name: "Neuron", width: 9, cell: (i) => unitLink(data, found[i].at, { method: method.name }), value: (i) => data.units.name[found[i].at] },
      { name: "Rank", width: 5, numeric: true, cell: (i) => String(found[i].rank), value: (i) => found[i].rank },
      { name: "Layer", width: 4, numeric: true, cell: (i) => String(data.units.layer[found[i].at]), value: (i) => data.units.layer[found[i].at] },
      { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(found[i].score), value: (i) => found[i].score },
      ...(method.position ? [{ name: "Position", width: 5, numeric: true, cell: (i) => String(found[i].position), value: (i) => found[i].position }] : []),
    ], { rows: found.map((_, i) => i) }))];
};
