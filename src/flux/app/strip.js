const order = () => [...element.querySelectorAll("button[data-layer]")];
element.addEventListener("click", (event) => {
  const cell = event.target.closest("button[data-layer]");
  const all = event.target.closest("button[data-set]");
  if (cell) {
    const layer = Number(cell.dataset.layer);
    const chosen = new Set(props.value.chosen);
    chosen.has(layer) ? chosen.delete(layer) : chosen.add(layer);
    props.value = { ...props.value, chosen: [...chosen].sort((a, b) => a - b) };
    trigger("input");
    requestAnimationFrame(() => order()[layer]?.focus());
  } else if (all) {
    props.value = { ...props.value, chosen: JSON.parse(all.dataset.set) };
    trigger("input");
  }
});
element.addEventListener("keydown", (event) => {
  const cell = event.target.closest("button[data-layer]");
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!cell || !by) return;
  event.preventDefault();
  const cells = order();
  cells[(cells.indexOf(cell) + by + cells.length) % cells.length].focus();
});
