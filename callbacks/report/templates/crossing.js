// From a unit or a train instance back to the lists that name it.

// Every entry that names `at` at one end of a method's lists: the list, its example, and the entry's rank and score.
const namedIn = (method, at, end = "top") => {
  const side = method.ends[end];
  const found = [];
  if (!side) return found;
  for (let list = 0; list < method.row.length; list += 1) {
    for (let i = side.start[list]; i < side.start[list + 1]; i += 1) {
      if (side.at[i] !== at) continue;
      found.push({ list, example: method.row[list], rank: i - side.start[list] + 1, score: side.score[i], position: method.position ? method.position[i] : -1, place: i });
      break;
    }
  }
  return found;
};

// Ranks in a list by what they are of.
const ranksIn = (method, example, first = Infinity) => new Map(entries(method, listOf(method, example)).slice(0, first).map((entry) => [entry.at, entry.rank]));

// Other methods of the same lens whose list of this example names the same: [name, rank].
const alsoIn = (ranks, own, at) => [...ranks].filter(([name, found]) => name !== own && found.has(at)).map(([name, found]) => [name, found.get(at)]);

const COMPARED = 10; // the first of each list, by which methods are compared

// Pairs of methods with what both name among their first ten for this example.
const sharedPairs = (methods, example) => {
  const firsts = methods.map((method) => ranksIn(method, example, COMPARED));
  const pairs = [];
  for (let a = 0; a < methods.length; a += 1) {
    for (let b = a + 1; b < methods.length; b += 1) {
      if (firsts[a].size && firsts[b].size) pairs.push({ a: methods[a].name, b: methods[b].name, shared: [...firsts[a].keys()].filter((at) => firsts[b].has(at)) });
    }
  }
  return pairs;
};

const isTwin = (data, example, train) => data.tests.twin[example] >= 0 && data.train.twin[train] >= 0 && data.tests.twin[example] === data.train.source[train] && data.train.twin[train] === data.tests.source[example];

// Links within the page; to the report of a run where its data stand in another page (`home`).
const unitLink = (data, unit, state = {}, attributes = {}) => link({ neuron: data.units.key[unit], ...state }, data.units.name[unit], attributes, data.home);
const trainLink = (data, train, state = {}, attributes = {}) => link({ train: data.train.index[train], ...state }, `train ${data.train.index[train]}`, attributes, data.home);
const testLink = (data, example, state = {}, attributes = {}) => link({ test: data.tests.index[example], ...state }, `${data.tests.split} ${data.tests.index[example]}`, attributes, data.home);

// Lists of units that act in train instances, and of units that these built.
const acting = (data) => data.own.filter((method) => !method.built);
const building = (data) => data.own.filter((method) => method.built);

// Instances that a neuron's entry names: those that built it, or the one whose best neuron it is: [said, instances].
const instancesBehind = (data, method, example, entry) => {
  const built = data.of("unit").flatMap((one) => (one.lists.get(example) ?? []).filter((list) => one.unit[list] === entry.at)
    .map((list) => [`built by (${one.name})`, entries(one, list).slice(0, 3).map(({ at }) => at)])).filter(([, found]) => found.length);
  const source = method.source ? data.methods.find((one) => one.name === method.source.name) : null;
  const listed = source ? entries(source, listOf(source, example)) : [];
  const own = source ? (method.source.dedup ? listed.find(({ score }) => score === entry.score) : listed[entry.rank - 1]) : null;
  return own ? [[`best neuron of (${source.name})`, [own.at]], ...built] : built;
};

// Units that a train instance's own lists name first: [unit, rank, method].
const ownUnits = (data, train) => acting(data).flatMap((method) => entries(method, listOf(method, train)).map((entry) => ({ ...entry, method: method.name })));
