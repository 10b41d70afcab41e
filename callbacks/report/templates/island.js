// A run's examples, train instances, units and lists, from its unpacked block.

const VERDICTS = ["unlabelled", "right", "wrong"];

const readIsland = (block) => {
  const { header, column, words } = readBlock(block);

  const examples = (packed) => {
    const [index, source, twin, verdict] = ["index", "source", "twin", "verdict"].map((name) => column(packed[name]));
    const prob = column(packed.prob);
    const [label, prediction, counts, marks, names] = [packed.label, packed.prediction, packed.counted, packed.marks, packed.classes.name].map(words);
    const probs = column(packed.classes.prob);
    const place = new Map(Array.from(index, (value, i) => [value, i]));
    const lowered = [];
    return {
      split: packed.split, size: index.length, columns: packed.columns, cut: packed.cut, answered: packed.answered,
      completion: (i) => packed.completion?.[i] ?? [], // [text, number] of each token where completions are explained
      index, source, twin, label, prediction, marks, prob, place,
      verdict: (i) => VERDICTS[verdict[i]],
      counts, // the label that a prediction counts as where labels are folded, else empty
      text: (i, column) => packed.texts[column][i],
      brief: (i, length = 160) => { // the beginning of all texts, for lists
        const whole = packed.texts.map((texts) => texts[i]).filter(Boolean).join(" · ");
        return whole.length > length ? `${whole.slice(0, whole.lastIndexOf(" ", length) > length / 2 ? whole.lastIndexOf(" ", length) : length)} …` : whole;
      },
      classes: (i) => Array.from({ length: packed.classes.width }, (_, k) => ({ name: names(i * packed.classes.width + k), prob: probs[i * packed.classes.width + k] })).filter((one) => one.name),
      // What a search looks through: texts, label, prediction, number and marks.
      lowered: (i) => (lowered[i] ??= [...packed.texts.map((texts) => texts[i]), label(i), prediction(i), index[i], marks(i), VERDICTS[verdict[i]]].join("\n").toLowerCase()),
    };
  };

  const end = (packed) => ({ start: column(packed.start), at: column(packed.at), score: column(packed.score) });
  const method = (packed) => {
    const row = column(packed.row);
    const unit = packed.unit ? column(packed.unit) : null;
    const lists = new Map();
    row.forEach((example, list) => (lists.get(example) ?? lists.set(example, []).get(example)).push(list));
    return {
      ...packed,
      row, unit, lists, target: words(packed.target),
      ends: { top: end(packed.top), bottom: packed.bottom ? end(packed.bottom) : null },
      position: packed.position ? column(packed.position) : null,
      token: packed.token ? { width: packed.token.width, share: column(packed.token.share) } : null,
      explained: packed.explained ? column(packed.explained) : null, // of each entry the example whose unit was built
      listed: packed.listed ? column(packed.listed) : null,
      prob: packed.prob ? column(packed.prob) : null,
      residual: packed.residual ? { layer: column(packed.residual.layer), size: column(packed.residual.size) } : null,
      summary: packed.summary ? Object.fromEntries(Object.entries(packed.summary).map(([name, place]) => [name, column(place)])) : null,
    };
  };

  const methods = header.methods.map(method);
  return {
    explained: header.explained, length: header.length, charts: header.charts, prompts: header.prompts, certificates: header.certificates,
    tests: examples(header.tests), train: examples(header.train),
    methods, of: (kind) => methods.filter((one) => one.kind === kind),
    own: header.own.map(method),
    units: { ...header.units, layer: column(header.units.layer), place: new Map(header.units.key.map((key, i) => [key, i])) },
  };
};

// The entries of one list, best first; `end` is top or bottom.
const entries = (method, list, end = "top") => {
  const side = method.ends[end];
  if (!side || list === undefined) return [];
  return Array.from({ length: side.start[list + 1] - side.start[list] }, (_, rank) => {
    const i = side.start[list] + rank;
    return { rank: rank + 1, at: side.at[i], score: side.score[i], position: method.position ? method.position[i] : -1, place: i };
  });
};

const listOf = (method, example) => method.lists.get(example)?.[0];

// The entries of one list by their share at one token of a completion; without a token as they are.
const entriesAt = (method, list, token) => {
  const found = entries(method, list);
  if (token === null || !method.token) return found;
  const { width, share } = method.token;
  return found.map((entry) => ({ ...entry, score: share[entry.place * width + token] })).filter((entry) => !Number.isNaN(entry.score))
    .sort((a, b) => b.score - a.score).map((entry, i) => ({ ...entry, rank: i + 1 }));
};
