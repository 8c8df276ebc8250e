// Buttons that show the claims of one verdict; without this script all are shown.
(() => {
  const tables = [...document.querySelectorAll("table.claims")];
  const rows = tables.flatMap((table) => [...table.querySelectorAll("tbody tr")]);
  if (!rows.length) return;
  const verdictOf = (row) => [...row.classList].find((c) => c.startsWith("verdict-"));
  const listed = [...document.querySelectorAll("td.verdict")].map(verdictOf);
  const verdicts = ["", ...new Set(listed)].filter(
    (verdict) => !verdict || rows.some((row) => verdictOf(row) === verdict),
  );
  const bar = document.createElement("div");
  bar.className = "claims-filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Show the claims of one verdict");
  for (const verdict of verdicts) {
    const button = document.createElement("button");
    const count = rows.filter((row) => !verdict || verdictOf(row) === verdict).length;
    const name = verdict.replace("verdict-", "").replaceAll("-", " ") || "all";
    button.type = "button";
    button.textContent = `${name} (${count})`;
    if (verdict) button.className = verdict;
    button.setAttribute("aria-pressed", String(!verdict));
    button.addEventListener("click", () => {
      for (const other of bar.children) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      for (const row of rows) {
        row.hidden = Boolean(verdict) && verdictOf(row) !== verdict;
      }
    });
    bar.append(button);
  }
  const anchor = tables[0].closest("section")?.previousElementSibling ?? tables[0];
  anchor.after(bar);
})();
