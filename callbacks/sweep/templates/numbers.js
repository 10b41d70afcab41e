// Numbers of jobs or runs: what each is of, and columns of values with their errors.

const OF_A_NUMBER = ["split", "group", "reference_group", "variant", "setting", "explain"]; // shown where they say something

const readNumbers = (packed, column, words) => {
  const about = Object.fromEntries(Object.entries(packed.about).map(([name, place]) => [name, words(place)]));
  const all = Array.from({ length: packed.size }, (_, i) => i);
  const names = new Map();
  const restNames = (among) => names.get(among) ?? names.set(among, OF_A_NUMBER.filter((name) => about[name] && new Set(among.map(about[name])).size > 1)).get(among);
  const lowered = [];
  return {
    size: packed.size, about, all, better: words(packed.better),
    // Cells of a column, [numbers × width].
    grid: (name, width) => {
      const cells = column(packed[name]);
      return (number, at) => (at < 0 ? NaN : cells[number * width + at]);
    },
    metric: (i) => [about.metric(i), about.k(i) && `@${about.k(i)}`].filter(Boolean).join(" "),
    // What else it is of, as far as others differ in it.
    rest: (i, among = all) => restNames(among).map((name) => about[name](i)).filter(Boolean).join(", "),
    // What a search looks through.
    lowered: (i) => (lowered[i] ??= Object.values(about).map((of) => of(i)).join("\n").toLowerCase()),
  };
};

const headWidth = (name, least) => Math.min(17, Math.max(least, name.length * 0.56 + 2));

// A column of [value, error].
const measuredColumn = (name, of) => ({ name, width: headWidth(name, 8), numeric: true, cell: (id) => shownWithError(...of(id)), value: (id) => of(id)[0] });
