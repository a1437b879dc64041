// Filter, search and order over the samples that stand in the page. The filter lives in the address (#status=failed),
// so that a link keeps it. Nothing here makes markup from text.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const list = byId("list");
  const samples = [...list.querySelectorAll(":scope > details")];
  const fields = { q: byId("query"), status: byId("status"), tag: byId("tag"), change: byId("change"), order: byId("order") };
  const tags = new Map(samples.map((sample) => [sample, JSON.parse(sample.dataset.tags)]));
  const texts = new Map();
  const textOf = (sample) => {
    if (!texts.has(sample)) texts.set(sample, sample.textContent.toLowerCase());
    return texts.get(sample);
  };
  const valueOf = (name) => (fields[name] ? fields[name].value : "");
  const shown = () => samples.filter((sample) => !sample.hidden);

  const order = (by) => {
    const figure = (sample, missing) => (sample.dataset[by] === "" ? missing : Number(sample.dataset[by]));
    const sorted = [...samples];
    if (by === "grade") sorted.sort((a, b) => figure(a, Infinity) - figure(b, Infinity));
    if (by === "seconds") sorted.sort((a, b) => figure(b, 0) - figure(a, 0));
    list.append(...sorted);
  };

  let ordered = "";
  const apply = () => {
    const words = valueOf("q").toLowerCase().split(/\s+/).filter(Boolean);
    const status = valueOf("status");
    const tag = valueOf("tag");
    const change = valueOf("change");
    for (const sample of samples) {
      sample.hidden = !(
        (!status || sample.dataset.status === status) &&
        (!tag || tags.get(sample).includes(tag)) &&
        (!change || sample.dataset.change === change) &&
        words.every((word) => textOf(sample).includes(word))
      );
    }
    if (ordered !== valueOf("order")) {
      ordered = valueOf("order");
      order(ordered);
    }
    const visible = shown();
    const passed = visible.filter((sample) => sample.dataset.status === "passed").length;
    const all = visible.length === samples.length;
    byId("count").textContent = all
      ? `${passed} of ${samples.length} passed`
      : `${visible.length} of ${samples.length} shown, ${passed} of them passed`;
    byId("empty").hidden = visible.length > 0;
  };

  const remember = () => {
    const parts = new URLSearchParams();
    for (const name of Object.keys(fields)) if (valueOf(name)) parts.set(name, valueOf(name));
    try {
      history.replaceState(null, "", `#${parts}`);
    } catch {
      // A page in a sandboxed frame may not touch the address; the filter works all the same.
    }
  };

  const recall = () => {
    const hash = location.hash.slice(1);
    const target = /^s-\d+$/.test(hash) ? byId(hash) : null;
    if (target) {
      target.open = true;
      target.scrollIntoView();
      return;
    }
    if (!hash.includes("=")) return;
    const parts = new URLSearchParams(hash);
    for (const [name, field] of Object.entries(fields)) if (field) field.value = parts.get(name) || "";
    apply();
  };

  const toggle = byId("toggle");
  toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    for (const sample of shown()) sample.open = open;
    toggle.setAttribute("aria-pressed", String(open));
    toggle.textContent = open ? "Close all" : "Open all";
  });
  const changed = () => { apply(); remember(); };
  for (const field of Object.values(fields)) {
    // Assistive technology and drivers may set a choice with a change event alone.
    if (field) for (const event of ["input", "change"]) field.addEventListener(event, changed);
  }
  byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLElement && event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      fields.q.focus();
    }
  });
  addEventListener("beforeprint", () => { for (const sample of shown()) sample.open = true; });
  addEventListener("hashchange", recall);
  byId("toolbar").hidden = false;
  recall();
})();
