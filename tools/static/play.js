// Figures to play with: draws each chart of the page in the place of its still.  Without
// this file, or on paper, the still is seen.

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("div.play").forEach(async (box) => {
    const spec = JSON.parse(box.querySelector("script").textContent);
    const stage = document.createElement("div");
    const controls = document.createElement("div");
    const said = document.createElement("p"); // for who hears the page
    stage.className = "play-stage";
    controls.className = "play-controls";
    said.className = "play-said";
    said.ariaLive = "polite";
    box.append(stage, controls, said);
    const view = new vega.View(vega.parse(vegaLite.compile(spec).spec), {
      renderer: "svg",
      container: stage,
      bind: controls,
      hover: true,
      logLevel: vega.Warn,
    });
    box.view = view;
    view.addSignalListener("says", (name, lines) => (said.textContent = lines.join(" ")));
    const alone = spec.params.map(({ name }) => name); // others follow the pointer
    controls.querySelectorAll("input[type=range]").forEach((slider) => {
      if (alone.includes(slider.name)) play(slider);
      else stage.classList.add("dragged");
    });
    stage.addEventListener("pointerdown", (event) => {
      event.target.releasePointerCapture(event.pointerId); // a finger finds the next one
    });
    box.classList.add("live"); // before the first run, which asks for the width
    await view.runAsync();
  });

  // A button that moves a slider from its first to its last value and stops there.
  function play(slider) {
    const button = document.createElement("button");
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const steps = (slider.max - slider.min) / slider.step;
    let timer;
    const stop = () => {
      clearInterval(timer);
      timer = undefined;
      button.textContent = "\u25b6";
      button.ariaLabel = "Play";
    };
    const step = () => {
      slider.value = +slider.value + +slider.step;
      slider.dispatchEvent(new Event("input"));
      if (+slider.value >= +slider.max) stop();
    };
    button.type = "button";
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (+slider.value >= +slider.max) slider.value = +slider.min - +slider.step;
      button.textContent = "\u275a\u275a";
      button.ariaLabel = "Stop";
      timer = setInterval(step, Math.max(60, 5000 / steps));
    });
    slider.addEventListener("pointerdown", stop);
    slider.addEventListener("keydown", stop);
    stop();
    if (!still) slider.before(button);
  }
});
