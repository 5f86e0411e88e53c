// Light or dark before the first paint, words that say how long ago, and Enter in the question.
(() => {
  const KEY = "skillmesh-theme";
  const root = document.documentElement;
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const say = () => {
    const dark = (root.dataset.theme || system()) === "dark";
    document.querySelectorAll("[data-theme-toggle]").forEach((one) => one.setAttribute("aria-pressed", String(dark)));
  };
  const saved = localStorage.getItem(KEY);
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;

  const ago = (at) => {
    const past = (Date.now() - at) / 1000;
    if (past < 60) return "just now";
    if (past < 3600) return `${Math.floor(past / 60)} min ago`;
    if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
    if (past < 7 * 86400) return `${Math.floor(past / 86400)} d ago`;
    return new Date(at).toISOString().slice(0, 10);
  };
  setInterval(() => {
    document.querySelectorAll("time[data-at]").forEach((one) => {
      // The text node stays: whoever made it will change it again.
      if (one.firstChild) one.firstChild.nodeValue = ago(Number(one.dataset.at));
    });
  }, 15000);

  document.addEventListener("keydown", (event) => {
    const box = event.target;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && box.matches?.("textarea[data-enter]")) {
      event.preventDefault();
      box.form.requestSubmit();
    }
  });
  window.skillmesh = {
    toggleTheme() {
      const next = (root.dataset.theme || system()) === "dark" ? "light" : "dark";
      if (next === system()) {
        delete root.dataset.theme;
        localStorage.removeItem(KEY);
      } else {
        root.dataset.theme = next;
        localStorage.setItem(KEY, next);
      }
      say();
    },
    say,
  };
})();
