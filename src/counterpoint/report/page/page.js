"use strict";
// Without this script the page can still be read: it adds switches and hover values.
{
  const root = document.documentElement;
  const remembered = (set) => {
    try { return set === undefined ? localStorage.getItem("theme") : localStorage.setItem("theme", set); }
    catch { return null; }  // some mail programs allow no storage
  };

  // Theme: automatic, light, dark
  const themes = ["automatic", "light", "dark"];
  const button = document.getElementById("theme");
  const useTheme = (name) => {
    if (name === "automatic") delete root.dataset.theme; else root.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  const kept = remembered();
  let theme = themes.includes(kept) ? kept : "automatic";
  useTheme(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    useTheme(theme);
    remembered(theme);
  });

  // Legends: a button shows or hides its series in every figure of the page
  const use = (series, shown) => {
    for (const mark of document.querySelectorAll(`[data-series="${CSS.escape(series)}"]`))
      mark.toggleAttribute("hidden", !shown);
    for (const twin of document.querySelectorAll(`[data-toggle="${CSS.escape(series)}"]`))
      twin.setAttribute("aria-pressed", String(shown));
  };
  for (const entry of document.querySelectorAll("[data-toggle]")) {
    if (entry.getAttribute("aria-pressed") === "false") use(entry.dataset.toggle, false);
    entry.addEventListener("click", () =>
      use(entry.dataset.toggle, entry.getAttribute("aria-pressed") !== "true"));
  }

  // Hover values, by pointer and by arrow keys
  const tip = document.getElementById("tip");
  let at = null;
  const hide = () => { tip.hidden = true; at?.classList.remove("at"); at = null; };
  const show = (mark) => {
    hide();
    at = mark;
    mark.classList.add("at");
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, box.x + box.width / 2 - size.width / 2), innerWidth - size.width - 4);
    const above = box.y - size.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  for (const title of document.querySelectorAll(".figure .tip > title")) {
    const mark = title.parentElement;
    mark.dataset.tip = title.textContent;  // the browser's own hint would come as well
    title.remove();
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", hide);
  }
  for (const figure of document.querySelectorAll(".figure")) {
    const marks = () => [...figure.querySelectorAll("[data-tip]")].filter((m) => !m.closest("[hidden]"));
    if (!marks().length) continue;
    figure.setAttribute("tabindex", "0");
    figure.setAttribute("aria-description", "Arrow keys go through the values");
    figure.addEventListener("blur", hide);
    figure.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key === "Escape") return hide();
      if (!(event.key in steps)) return;
      event.preventDefault();
      const all = marks(), now = all.indexOf(at);
      if (all.length) show(all[now < 0 ? 0 : (now + steps[event.key] + all.length) % all.length]);
    });
  }
  addEventListener("scroll", () => { if (!document.activeElement?.closest(".figure")) hide(); }, { passive: true });
}
