"use strict";
(() => {
  const form = document.getElementById("filters");
  if (form) {
    const selects = [...form.querySelectorAll("select")];
    const cards = [...document.querySelectorAll(".case")];
    const count = document.getElementById("shown");
    const wanted = () => Object.fromEntries(selects.map((select) => [select.name, select.value]));
    const fits = (element, want, names) => names.every((name) => !want[name] || element.dataset[name] === want[name]);
    const apply = () => {
      const want = wanted();
      let shown = 0;
      for (const card of cards) {
        for (const row of card.querySelectorAll(".maps")) {
          let any = false;
          for (const cell of row.querySelectorAll("[data-method]")) {
            cell.hidden = !fits(cell, want, ["method", "model"]);
            any = any || !cell.hidden;
          }
          row.hidden = !any;
        }
        card.hidden = !fits(card, want, ["finding"]) || !card.querySelector(".maps:not([hidden])");
        shown += card.hidden ? 0 : 1;
      }
      for (const group of document.querySelectorAll(".group")) {
        group.hidden = !group.querySelector(".case:not([hidden])");
      }
      count.textContent = `${shown} of ${cards.length} cases`;
    };
    const read = () => {
      const asked = new URLSearchParams(location.hash.slice(1));
      for (const select of selects) {
        const value = asked.get(select.name) || "";
        if ([...select.options].some((option) => option.value === value)) select.value = value;
      }
      apply();
    };
    const write = () => {
      const chosen = Object.entries(wanted()).filter(([, value]) => value);
      const hash = new URLSearchParams(chosen).toString();
      if (hash || location.hash.includes("=")) location.replace(`#${hash || "cases"}`);
      apply();
    };
    form.addEventListener("change", write);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(write));
    addEventListener("hashchange", () => { if (location.hash.includes("=")) read(); });
    form.hidden = false;
    read();
  }
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      part.dataset.closed = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const part of document.querySelectorAll("details[data-closed]")) {
      part.open = false;
      delete part.dataset.closed;
    }
  });
})();
