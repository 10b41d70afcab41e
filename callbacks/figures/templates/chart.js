"use strict";
// A chart is whole without this script; it says values under the pointer and switches series on and off.
(() => {
  for (const chart of document.querySelectorAll(".chart")) {
    const value = chart.querySelector(".value");
    const idle = "Point at a mark for its value; press a name to hide or show it.";
    value.textContent = idle;
    for (const mark of chart.querySelectorAll("[data-value]")) {
      mark.addEventListener("pointerenter", () => { value.textContent = mark.dataset.value; });
      mark.addEventListener("pointerleave", () => { value.textContent = idle; });
    }
    for (const key of chart.querySelectorAll(".key")) {
      key.addEventListener("click", () => {
        const shown = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(shown));
        for (const group of chart.querySelectorAll(`g[data-series="${CSS.escape(key.dataset.series)}"]`)) {
          group.style.display = shown ? "" : "none";
        }
      });
    }
  }
})();
