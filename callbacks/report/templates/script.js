"use strict";
// The page is whole without this script; it adds the filter and opens training instances in place.
(() => {
  const tools = document.querySelector(".tools");
  const examples = [...document.querySelectorAll(".example")];
  if (tools && examples.length > 1) {
    const [words, verdict, count] = ["words", "verdict", "count"].map((name) => document.getElementById(`filter-${name}`));
    const texts = new Map(examples.map((example) => [example, example.textContent.toLowerCase()]));
    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const example of examples) {
        const fits = wanted.every((word) => texts.get(example).includes(word))
          && (!verdict.value || example.dataset.verdict === verdict.value);
        example.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      count.textContent = `${shown} of ${examples.length} examples`;
    };
    words.addEventListener("input", filter);
    verdict.addEventListener("change", filter);
    tools.hidden = false;
    filter();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-train]");
    const entry = link && link.closest(".list > li");
    const source = link && document.querySelector(`#train-${CSS.escape(link.dataset.train)} .fields`);
    if (!entry || !source || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const cell = link.closest("div");
    const open = cell.querySelector(".full");
    if (open) {
      open.remove();
    } else {
      const copy = source.cloneNode(true);
      copy.classList.add("full");
      cell.append(copy);
    }
    link.setAttribute("aria-expanded", String(!open));
  });

  const reveal = () => {
    const target = location.hash.startsWith("#train-") && document.getElementById(location.hash.slice(1));
    if (target) target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
