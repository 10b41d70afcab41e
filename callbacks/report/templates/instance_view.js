// One train instance: its text, its own neurons, the examples that it speaks for and against, the units it built.

const instanceView = (data, state, go) => {
  const { train, tests } = data;
  const place = train.place.get(Number(state.train));
  if (place === undefined) return missing(`This page has no train instance ${state.train}.`);
  const from = tests.place.get(Number(state.from ?? NaN));
  const shared = from === undefined ? null : sharedWords(data, wordsOfExample(tests, from), wordsOfExample(train, place));
  const methods = data.of("instance");
  const method = pick(methods, state.instances ?? state.method);
  const source = train.source[place];
  return h("article", { class: "example", "data-index": train.index[place] },
    h("header", {}, h("h2", { tabindex: "-1" }, `Train instance ${train.index[place]}`), train.label(place) ? badge(train.label(place)) : "", marksOf(train.marks(place)),
      source >= 0 && source !== train.index[place] ? h("span", { class: "muted" }, `row ${source} of the source`) : ""),
    from === undefined ? "" : h("p", {}, "From ", testLink(data, from, { method: state.method, instances: state.instances }), ". Words that both share are marked."),
    fields(train, place, shared),
    method ? speaksFor(data, place, methods, method, state, go) : "",
    ownNeurons(data, place), builtMost(data, place), builtUnits(data, place));
};

const speaksFor = (data, place, methods, method, state, go) => {
  const side = (end, title, noun) => {
    const found = namedIn(method, place, end);
    return h("section", {}, h("h3", {}, title), virtualTable(`${title} of train ${data.train.index[place]} by ${method.name}`, [
      { name: "Example", width: 7, cell: (i) => testLink(data, found[i].example, { instances: method.name }), value: (i) => data.tests.index[found[i].example] },
      { name: "Rank", width: 5, numeric: true, cell: (i) => String(found[i].rank), value: (i) => found[i].rank },
      { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(found[i].score), value: (i) => found[i].score },
      { name: "Towards", width: 9, cell: (i) => h("span", { dir: "auto" }, method.target(found[i].list)), value: (i) => method.target(found[i].list) },
      { name: "Text", width: 18, cell: (i) => h("span", { dir: "auto" }, data.tests.brief(found[i].example)), csv: (i) => data.tests.brief(found[i].example, Infinity) },
    ], { rows: found.map((_, i) => i), sorted: 1, falling: false, height: 8, empty: noun }).element);
  };
  const summary = method.summary ? Object.entries({ votes: "votes", mean: "mean score", max: "largest score", self_influence: "self-influence" }).map(([name, said]) => [said, method.summary[name][place]]).filter(([, value]) => !Number.isNaN(value)).map(([said, value]) => `${said} ${shownScore(value)}`).join(" · ") : "";
  return h("section", { "data-method": method.name }, h("h3", {}, "What it speaks for and against"),
    h("div", { class: "tools" }, chooser("Method", methods.map((one) => [one.name, one.control ? `${one.name} (control)` : one.name]), method.name, (name) => go({ ...state, instances: name }))),
    aboutOf(method, undefined), worthOf(method), summary ? h("p", { class: "muted" }, summary) : "",
    h("div", { class: "lenses" },
      side("top", "For", `It stands in no kept list of ${method.name}.`), side("bottom", "Against", `It stands at no kept lower end of ${method.name}.`)));
};

const ownNeurons = (data, place) => {
  const found = ownUnits(data, place);
  if (!acting(data).length) return "";
  return h("section", {}, h("h3", {}, "Its own neurons"), found.length ? h("ul", { class: "inline" }, found.map((entry) => h("li", {}, unitLink(data, entry.at, { method: entry.method }), ` ${shownScore(entry.score)} `, h("span", { class: "muted" }, `${entry.method} #${entry.rank}`)))) : h("p", { class: "muted" }, "None is listed."));
};

// The units whose contribution to some example this instance raised most.
const builtMost = (data, place) => building(data).map((method) => {
  const found = entries(method, listOf(method, place));
  return h("section", { "data-method": method.name }, h("h3", {}, `Neurons that it built most, by ${method.name}`), method.measure ? h("p", { class: "muted" }, `in ${method.measure}`) : "",
    found.length ? h("ul", { class: "inline" }, found.map((entry) => h("li", {}, unitLink(data, entry.at, {}), ` ${shownScore(entry.score)}`, method.explained && method.explained[entry.place] >= 0 ? [" for ", testLink(data, method.explained[entry.place])] : ""))) : h("p", { class: "muted" }, "None is listed."));
});

const builtUnits = (data, place) => data.of("unit").map((method) => {
  const found = namedIn(method, place).sort((a, b) => a.rank - b.rank).slice(0, 50);
  return h("section", {}, h("h3", {}, `Neurons that it built, by ${method.name}`), found.length ? h("ul", { class: "inline" }, found.map((one) => h("li", {}, unitLink(data, method.unit[one.list]), " of ", testLink(data, one.example), h("span", { class: "muted" }, ` rank ${one.rank}`)))) : h("p", { class: "muted" }, "None of the listed ones."));
});
