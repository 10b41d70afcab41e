// Words that two texts share, marked in both.

const WORD = /[\p{L}\p{N}]+/gu;
const SHORTEST_SHARED = 4; // "the" and "was" are shared by all texts and say nothing
const MOST_MARKED = 300; // marks of one text that the page holds at a time

const SAMPLE = 200; // instances among which a word is found to be common
const COMMON = 0.25; // share of them in which it then stands

// Words of many train instances: what two texts share of these says nothing either.
const commonWords = (examples) => (examples.common ??= (() => {
  const step = Math.max(1, Math.floor(examples.size / SAMPLE));
  const counts = new Map();
  let sampled = 0;
  for (let i = 0; i < examples.size; i += step) {
    for (const word of wordsOfExample(examples, i)) counts.set(word, (counts.get(word) ?? 0) + 1);
    sampled += 1;
  }
  return new Set([...counts].filter(([, count]) => count > COMMON * sampled).map(([word]) => word));
})());

const sharedWords = (data, a, b) => new Set([...a].filter((word) => b.has(word) && !commonWords(data.train).has(word)));

const wordsOf = (text) => new Set((text.toLowerCase().match(WORD) ?? []).filter((word) => word.length >= SHORTEST_SHARED));

const wordsOfExample = (examples, i) => {
  const found = new Set();
  examples.columns.forEach((_, column) => wordsOf(examples.text(i, column)).forEach((word) => found.add(word)));
  return found;
};

// The text as nodes, words of `shared` in <mark>.
const marked = (text, shared) => {
  if (!shared || shared.size === 0) return [text];
  const parts = [];
  let [from, count] = [0, 0];
  for (const match of text.matchAll(WORD)) {
    if (count >= MOST_MARKED) break;
    if (!shared.has(match[0].toLowerCase())) continue;
    parts.push(text.slice(from, match.index), h("mark", { class: "shared" }, match[0]));
    from = match.index + match[0].length;
    count += 1;
  }
  return [...parts, text.slice(from)];
};

const HEAD = 420; // characters of a field shown before "more"

// All fields of an example; a long one is folded, and its rest is made when it is opened.
const fields = (examples, i, shared = null) => h("dl", { class: "fields" }, examples.columns.map((name, column) => {
  const text = examples.text(i, column);
  if (text.length <= HEAD * 1.25) return [h("dt", {}, name), h("dd", { dir: "auto" }, text ? marked(text, shared) : empty(""))];
  const rest = h("span");
  const details = h("details", { ontoggle: () => { if (!rest.hasChildNodes()) rest.append(...marked(text.slice(HEAD), shared)); } },
    h("summary", {}, marked(text.slice(0, HEAD), shared)), rest);
  return [h("dt", {}, name), h("dd", { dir: "auto" }, details)];
}));
