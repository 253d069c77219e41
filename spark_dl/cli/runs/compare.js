// The legend hides and shows runs; pointing at one dims the others. The page is complete without this.
const curves = (run) => [...document.querySelectorAll(".curve")].filter((c) => c.dataset.run === run);
for (const button of document.querySelectorAll("nav button")) {
  const run = button.dataset.run;
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    curves(run).forEach((curve) => curve.classList.toggle("off", !shown));
  });
  const dim = (on) => document.querySelectorAll(".curve").forEach(
    (curve) => curve.classList.toggle("dim", on && curve.dataset.run !== run));
  button.addEventListener("pointerenter", () => dim(true));
  button.addEventListener("pointerleave", () => dim(false));
}
