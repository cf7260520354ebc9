"use strict";
// Hover, touch or arrow keys on a timeline show the face nearest in time; the chart stands without.
for (const chart of document.querySelectorAll(".chart")) {
  const tip = chart.querySelector(".tip");
  const image = tip.querySelector("img");
  const text = tip.querySelector("p");
  const svg = chart.querySelector("svg");
  const points = Array.from(chart.querySelectorAll(".point"));
  const faces = new Map();
  for (const face of document.getElementById(chart.dataset.strip).children) {
    faces.set(face.dataset.n, face);
  }
  const shown = points.filter((point) => faces.has(point.dataset.n));
  let current = -1;

  function show(index) {
    if (index < 0 || index >= shown.length) return;
    if (current >= 0) shown[current].classList.remove("current");
    current = index;
    const point = shown[index];
    point.classList.add("current");
    const face = faces.get(point.dataset.n);
    image.src = face.querySelector("img").src;
    text.textContent =
      face.querySelector(".how").textContent + " at " + face.querySelector(".when").textContent;
    tip.hidden = false;
    const box = chart.getBoundingClientRect();
    const place = point.getBoundingClientRect();
    const middle = place.left + place.width / 2 - box.left;
    const left = Math.min(Math.max(middle - tip.offsetWidth / 2, 0), box.width - tip.offsetWidth);
    // Setting a property of `style` from a script is not an inline style: the policy allows it.
    tip.style.left = left + "px";
    tip.style.top = place.top - box.top - tip.offsetHeight - 10 + "px";
  }

  function hide() {
    if (current >= 0) shown[current].classList.remove("current");
    current = -1;
    tip.hidden = true;
  }

  svg.addEventListener("pointermove", (event) => {
    let nearest = -1;
    let least = Infinity;
    shown.forEach((point, index) => {
      const place = point.getBoundingClientRect();
      const distance = Math.abs(place.left + place.width / 2 - event.clientX);
      if (distance < least) [nearest, least] = [index, distance];
    });
    show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: shown.length - 1 };
    if (event.key in moves) {
      show(Math.min(Math.max(moves[event.key], 0), shown.length - 1));
      event.preventDefault();
    } else if (event.key === "Escape") {
      hide();
    }
  });
}
