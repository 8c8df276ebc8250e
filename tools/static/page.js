// Figures open over the page, links show what they lead to, formulas that are wider than
// their place are set smaller, and nothing is folded in print.  A page reads the same
// without this file.

addEventListener("beforeprint", () => {
  document.querySelectorAll("article details").forEach((part) => (part.open = true));
});

addEventListener("DOMContentLoaded", async () => {
  await window.MathJax?.startup?.promise; // its script comes after this one
  const smallest = 0.55; // what is wider still scrolls
  const rooms = new WeakMap();
  const fit = (formula, place) => {
    const cell = formula.closest("td, th"); // a column is as wide as what it holds
    if (cell && getComputedStyle(cell).display === "table-cell") return;
    const room = formula.hasAttribute("display") ? formula.clientWidth : place.clientWidth;
    if (!room || rooms.get(formula) === room) return; // folded, or done
    rooms.set(formula, room);
    formula.dataset.size ??= parseFloat(formula.style.fontSize) || 100;
    formula.style.fontSize = `${formula.dataset.size}%`;
    const share = Math.max(smallest, (room - 1) / formula.scrollWidth);
    if (share < 1) formula.style.fontSize = `${formula.dataset.size * share}%`;
  };
  const within = (place) =>
    place.querySelectorAll("mjx-container").forEach((formula) => fit(formula, place));
  const watch = new ResizeObserver((seen) => seen.forEach(({ target }) => within(target)));
  document.querySelectorAll("article mjx-container").forEach((formula) => {
    watch.observe(formula.parentElement.closest("p, li, td, dd, div, figcaption"));
  });
});

document.querySelectorAll("a.enlarge").forEach((link) => {
  link.title = "Enlarge";
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const dialog = document.createElement("dialog");
    const image = link.querySelector("img").cloneNode();
    const close = document.createElement("button");
    close.textContent = "\u00d7";
    close.ariaLabel = "Close";
    dialog.className = "enlarged";
    dialog.ariaLabel = "Enlarged figure";
    dialog.append(close, image);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal(); // Escape closes it, and the link has the focus again
  });
});

(() => {
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const target = /#((equation-eq|thm|lem|ex|fig)-[\w-]+|id\d+)$/;
  let box, timer, known;

  const load = () =>
    (known ??= new Promise((resolve) => {
      const script = document.createElement("script"); // fetch reads no files
      script.src = new URL("_static/tips.js", root);
      script.onload = () => resolve(TIPS);
      document.head.append(script);
    }));

  const hide = () => {
    clearTimeout(timer);
    document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
    box?.remove();
    box = undefined;
  };

  const show = async (link) => {
    const text = (await load())[link.href.slice(root.href.length)];
    if (!text || !link.matches(":hover, :focus")) return;
    hide();
    const tip = document.createElement("div");
    tip.id = "tip";
    tip.role = "tooltip";
    tip.innerHTML = text;
    tip.querySelectorAll("[src]").forEach((image) => {
      image.src = new URL(image.getAttribute("src"), root);
    });
    tip.querySelectorAll("[href]").forEach((inner) => {
      inner.href = new URL(inner.getAttribute("href"), root);
    });
    tip.addEventListener("pointerenter", () => clearTimeout(timer));
    tip.addEventListener("pointerleave", later);
    box = tip;
    document.body.append(tip);
    link.setAttribute("aria-describedby", "tip");
    await window.MathJax?.typesetPromise?.([tip]);
    const at = link.getBoundingClientRect();
    const above = innerHeight - at.bottom < tip.offsetHeight + 8 && at.top > tip.offsetHeight;
    const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.top = `${scrollY + (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6)}px`;
    tip.style.left = `${scrollX + Math.max(8, Math.min(at.left, right))}px`;
    tip.style.visibility = "visible";
  };

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(hide, 250);
  };

  document.querySelectorAll("article a[href]").forEach((link) => {
    if (!target.test(link.href) || link.classList.contains("headerlink")) return;
    link.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "touch") return;
      clearTimeout(timer);
      timer = setTimeout(show, 200, link);
    });
    link.addEventListener("pointerleave", later);
    link.addEventListener("focus", () => link.matches(":focus-visible") && show(link));
    link.addEventListener("blur", later);
  });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
