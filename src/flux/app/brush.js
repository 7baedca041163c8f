// Gradio's editor reads the room for its canvas before it has one: opened in between, it stays without a size,
// and nothing can be painted. It takes its size anew when the room changes.
const looking = setInterval(() => {
  if (!element.isConnected) return clearInterval(looking);
  const room = document.querySelector(`#${props.value} canvas`)?.parentElement;
  if (!room?.clientWidth || room.querySelector("canvas").clientWidth) return;
  room.style.width = `${room.clientWidth - 1}px`;
  requestAnimationFrame(() => requestAnimationFrame(() => room.style.removeProperty("width")));
}, 250);
